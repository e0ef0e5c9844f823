"""The sources' schedules and reference points beside them, each one formula of the update t.

Lengths are in updates; `epoch` is the number of updates in an epoch, and the epoch number of update
t, counted from 1 as the sources do, is 1 + (t − 1)//epoch. All raise a ValueError that names the
parameter.
"""

from collections.abc import Sequence

import numpy as np

from steadydescent.checks import check_count, check_fraction, check_positive, check_share
from steadydescent.schedules.schedule import Array, Formula, Schedule


def constant() -> Schedule:
    """The peak rate throughout.

    >>> constant()(np.array([1, 2])).tolist()
    [1.0, 1.0]
    """
    return Schedule(np.ones_like, "constant")


def linear(total: int, end: float = 0.0) -> Schedule:
    """Linear to `end`, 1 − (1 − end)·(t−1)/T: torch's `LinearLR(optimizer, 1, end, T)`.

    With `end` 0 the last update still moves, by 1/T of the peak rate; the rate would be 0 at update
    T + 1, and stays there. viblo-lr gives this name to `inverse_time`, and torch's `LinearLR` by
    default ramps up, from 1/3 to 1 in 5 steps.

    >>> linear(4)(np.arange(1, 5)).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    check_count(total, "total")
    check_share(end, "end")
    return Schedule(Formula(_linear, total, end), "linear")


def cosine(total: int, end: float = 0.0) -> Schedule:
    """Half a cosine, end + (1 − end)·(1 + cos(π·(t−1)/T))/2 (loshchilov2017sgdr, without restarts).

    torch's `CosineAnnealingLR(optimizer, T)` for the T updates of the run. After them two
    conventions are in use: (a) the rate stays at its end; (b) it rises again (torch). We use (a),
    as a run ends at its end.

    >>> cosine(4)(np.array([1, 3])).round(12).tolist()
    [1.0, 0.5]
    """
    check_count(total, "total")
    check_share(end, "end")
    return Schedule(Formula(_cosine, total, end), "cosine")


def inverse_time(rate: float, epoch: int) -> Schedule:
    """Inverse-time decay, 1/(1 + rate·epoch number) (uit-slides; viblo-lr calls it linear).

    Two countings are in use: (a) epochs from 1 (uit-slides), so that α₀ itself is never used; (b)
    from 0, as Keras's `InverseTimeDecay` does. We use (a), the sources'.

    >>> (0.2 * inverse_time(1, epoch=1)(np.arange(1, 5))).round(4).tolist()
    [0.1, 0.0667, 0.05, 0.04]
    """
    check_positive(rate, "rate")
    check_epoch(epoch)
    return Schedule(Formula(_inverse_time, rate, epoch), f"inverse time, rate {rate:g}")


def exponential(base: float, epoch: int) -> Schedule:
    """Exponential decay, base^(epoch number); base 0.95 (uit-slides) or 0.99 (viblo-lr).

    Epochs count from 1, so every factor is `base` times that of torch's `ExponentialLR`, which
    counts from 0.

    >>> exponential(0.95, epoch=2)(np.array([1, 2, 3])).tolist()
    [0.95, 0.95, 0.9025]
    """
    check_fraction(base, "base")
    check_epoch(epoch)
    return Schedule(Formula(_exponential, base, epoch), f"exponential, {base:g}")


def inverse_sqrt_epoch(epoch: int, k: float = 1.0) -> Schedule:
    """k/√(epoch number) (uit-slides, viblo-lr).

    >>> inverse_sqrt_epoch(epoch=3)(np.array([1, 10])).tolist()
    [1.0, 0.5]
    """
    check_epoch(epoch)
    check_positive(k, "k")
    return Schedule(Formula(_inverse_sqrt_epoch, epoch, k), f"{k:g}/√epoch")


def inverse_sqrt_step(k: float = 1.0) -> Schedule:
    """k/√t, t the number of the mini-batch (uit-slides, viblo-lr).

    >>> inverse_sqrt_step(k=2)(np.array([1, 16])).tolist()
    [2.0, 0.5]
    """
    check_positive(k, "k")
    return Schedule(Formula(_inverse_sqrt_step, k), f"{k:g}/√step")


def steps(milestones: Sequence[int], factors: Sequence[float]) -> Schedule:
    """By hand (uit-slides): after `milestones[i]` updates the rate is multiplied by `factors[i]`.

    torch's `MultiStepLR(optimizer, milestones, gamma)` when all factors are gamma and it is stepped
    every update.

    >>> steps([2, 3], [0.5, 0.1])(np.arange(1, 5)).tolist()
    [1.0, 1.0, 0.5, 0.05]
    """
    for name, values in (("milestones", milestones), ("factors", factors)):
        if np.ndim(values) != 1:
            raise ValueError(f"{name} must be a list, one value a milestone, got {values!r}")
    milestones, factors = list(milestones), list(factors)
    if not milestones or len(milestones) != len(factors):
        raise ValueError(
            f"factors must be one for each milestone, got {len(factors)} for {len(milestones)}"
        )
    for milestone, factor in zip(milestones, factors, strict=True):
        check_count(milestone, "milestones")
        check_positive(factor, "factors")
    if not (np.diff(milestones) > 0).all():
        raise ValueError(f"milestones must increase, got {milestones}")
    levels = np.cumprod(np.array([1.0, *factors])).tolist()
    return Schedule(Formula(_steps, tuple(milestones), tuple(levels)), f"by hand at {milestones}")


def exp_drop(first_epoch: int, every_epoch: bool, epoch: int) -> Schedule:
    """Times e⁻¹ from epoch `first_epoch` on (viblo-lr), whose sentence can be read in two ways.

    (a) once: the rate falls to e⁻¹ and stays; (b) `every_epoch`: it falls by e⁻¹ in each epoch from
    that one on. The source does not say which, so neither is the default.

    >>> exp_drop(2, every_epoch=False, epoch=1)(np.arange(1, 4)).round(3).tolist()
    [1.0, 0.368, 0.368]
    >>> exp_drop(2, every_epoch=True, epoch=1)(np.arange(1, 4)).round(3).tolist()
    [1.0, 0.368, 0.135]
    """
    check_count(first_epoch, "first_epoch")
    if not isinstance(every_epoch, bool):
        raise ValueError(f"every_epoch must be true or false, got {every_epoch!r}")
    check_epoch(epoch)
    most = np.inf if every_epoch else 1.0
    formula = Formula(_exp_drop, first_epoch, most, epoch)
    often = "every epoch" if every_epoch else "once"
    return Schedule(formula, f"e⁻¹ {often} from epoch {first_epoch}")


def noam(d_model: int, warmup: int, scale: float = 1.0) -> Schedule:
    """Noam, scale·d^(−½)·min(t^(−½), t·warmup^(−3/2)) (vaswani2017attention, eq. 3; opennmt-tf).

    Absolute rates, to be used with a peak rate of 1. They rise linearly to scale/√(d·warmup) at t =
    `warmup` and then fall as 1/√t. `scale` is OpenNMT-tf's `learning_rate`; the paper has 1, and a
    warm-up of 4000 updates.

    >>> noam(d_model=768, warmup=8000, scale=2)(8000)
    0.000806...
    """
    check_count(d_model, "d_model")
    check_count(warmup, "warmup")
    check_positive(scale, "scale")
    return Schedule(Formula(_noam, d_model, warmup, scale), f"Noam, warm-up {warmup}")


def warm_up(warmup: int) -> Schedule:
    """Linear warm-up, min(t/warmup, 1) (goyal2017accurate).

    It is followed by another schedule, or multiplied with one. Two countings are in use: (a) the
    first update has 1/warmup and update `warmup` the peak (Noam); (b) the first update has 0, and
    so moves nothing. We use (a).

    >>> warm_up(2)(np.arange(1, 4)).tolist()
    [0.5, 1.0, 1.0]
    """
    check_count(warmup, "warmup")
    return Schedule(Formula(_warm_up, warmup), f"warm-up {warmup}")


def warmup_linear(total: int, warmup: int) -> Schedule:
    """Linear warm-up for `warmup` updates, then linear to zero over the rest of the T updates.

    >>> warmup_linear(total=6, warmup=2)(np.arange(1, 7)).tolist()
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    check_part(warmup, "warmup", total)
    return warm_up(warmup).then(warmup, linear(total - warmup))


def cooldown(total: int, length: int, power: float = 1.0) -> Schedule:
    """The peak rate for t₀ = T − length updates, then 1 − u^power to zero, u = (t − t₀ − 1)/length.

    With `power` 1 the fall is linear, with 0.5 it is 1 − √u; both are from hagele2024scaling.

    >>> cooldown(total=5, length=2)(np.arange(1, 6)).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.5]
    >>> cooldown(total=6, length=4, power=0.5)(np.arange(1, 7)).round(3).tolist()
    [1.0, 1.0, 1.0, 0.5, 0.293, 0.134]
    """
    check_part(length, "length", total)
    check_positive(power, "power")
    fall = linear(length) if power == 1 else Schedule(Formula(_fall, length, power), "cooldown")
    return constant().then(total - length, fall)


def ramp(low: float, high: float, total: int) -> Schedule:
    """Exponential ramp for the range test (viblo-lr), low·(high/low)^((t−1)/(T−1)), then `high`.

    smith2017cyclical, where the test comes from, ramps linearly; in equal factors every decade gets
    equal updates.

    >>> ramp(1e-3, 1e-1, total=3)(np.arange(1, 4)).round(12).tolist()
    [0.001, 0.01, 0.1]
    """
    check_positive(low, "low")
    if not low < check_positive(high, "high"):
        raise ValueError(f"high must be above low = {low}, got {high}")
    check_count(total, "total", least=2)
    return Schedule(Formula(_ramp, low, high, total), f"ramp from {low:g} to {high:g}")


def check_epoch(epoch: int | None) -> int:
    """Return `epoch` if it is the length of an epoch in updates, else raise a ValueError."""
    if epoch is None:
        raise ValueError(
            "epoch, the number of updates in an epoch, must be given: this schedule counts epochs"
        )
    return check_count(epoch, "epoch")


def check_part(length: int, name: str, total: int) -> int:
    """Return `length` if it leaves some of the T updates to the other part, else raise."""
    if check_count(length, name) >= check_count(total, "total"):
        raise ValueError(f"{name} must be less than the {total} updates of the run, got {length}")
    return length


def _epoch_number(step: Array, epoch: int) -> Array:
    """The epoch of update t, counted from 1."""
    return 1 + (step - 1) // epoch


def _linear(step: Array, total: int, end: float) -> Array:
    return 1 - (1 - end) * np.minimum(step - 1, total) / total


def _fall(step: Array, length: int, power: float) -> Array:
    return 1 - (np.minimum(step - 1, length) / length) ** power


def _cosine(step: Array, total: int, end: float) -> Array:
    return end + (1 - end) * (1 + np.cos(np.pi * np.minimum(step - 1, total) / total)) / 2


def _inverse_time(step: Array, rate: float, epoch: int) -> Array:
    return 1 / (1 + rate * _epoch_number(step, epoch))


def _exponential(step: Array, base: float, epoch: int) -> Array:
    return base ** _epoch_number(step, epoch)


def _inverse_sqrt_epoch(step: Array, epoch: int, k: float) -> Array:
    return k * _epoch_number(step, epoch) ** -0.5


def _inverse_sqrt_step(step: Array, k: float) -> Array:
    return k * np.power(step, -0.5)


def _steps(step: Array, milestones: tuple[int, ...], levels: tuple[float, ...]) -> Array:
    return np.asarray(levels)[np.searchsorted(milestones, step)]


def _exp_drop(step: Array, first_epoch: int, most: float, epoch: int) -> Array:
    return np.exp(-np.clip(_epoch_number(step, epoch) - first_epoch + 1, 0, most))


def _noam(step: Array, d_model: int, warmup: int, scale: float) -> Array:
    return scale * d_model**-0.5 * np.minimum(step**-0.5, step * warmup**-1.5)


def _warm_up(step: Array, warmup: int) -> Array:
    return np.minimum(step / warmup, 1)


def _ramp(step: Array, low: float, high: float, total: int) -> Array:
    return low * (high / low) ** (np.minimum(step - 1, total - 1) / (total - 1))
