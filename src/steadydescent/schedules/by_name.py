"""Schedules by name, with options that are plain JSON numbers, as a study file states them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadydescent.checks import check_count, check_fraction, check_positive
from steadydescent.schedules import functions
from steadydescent.schedules.schedule import Schedule


def _updates(share: float, name: str, total: int) -> int:
    """A share of the run in updates, rounded; at least one update, and not all of them."""
    updates = round(check_fraction(share, name) * total)
    if not 1 <= updates < total:
        raise ValueError(
            f"{name} must be some but not all of the {total} updates, "
            f"got {share}: {updates} of them"
        )
    return updates


def _exp_drop(total: int, epoch: int, first_epoch: int, every_epoch: bool) -> Schedule:
    return functions.exp_drop(first_epoch, every_epoch, epoch)


def _warmup_linear(total: int, epoch: int | None, warmup_share: float) -> Schedule:
    return functions.warmup_linear(total, _updates(warmup_share, "warmup_share", total))


def _cooldown(total: int, epoch: int | None, cooldown_share: float, power: float = 1.0) -> Schedule:
    return functions.cooldown(total, _updates(cooldown_share, "cooldown_share", total), power)


def _steps(
    total: int, epoch: int | None, shares: Sequence[float], factors: Sequence[float]
) -> Schedule:
    for name, values in (("shares", shares), ("factors", factors)):
        if not isinstance(values, list | tuple):
            raise ValueError(f"{name} must be a list, one value a milestone, got {values!r}")
    return functions.steps([_updates(share, "shares", total) for share in shares], factors)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": lambda total, epoch: functions.constant(),
    "linear": lambda total, epoch, end=0.0: functions.linear(total, end),
    "inverse-time": lambda total, epoch, rate: functions.inverse_time(rate, epoch),
    "exponential": lambda total, epoch, base: functions.exponential(base, epoch),
    "inverse-sqrt-epoch": lambda total, epoch, k=1.0: functions.inverse_sqrt_epoch(epoch, k),
    "inverse-sqrt-step": lambda total, epoch, k=1.0: functions.inverse_sqrt_step(k),
    "steps": _steps,
    "exp-drop": _exp_drop,
    "noam": lambda total, epoch, d_model, warmup, scale=1.0: functions.noam(d_model, warmup, scale),
    "cosine": lambda total, epoch, end=0.0: functions.cosine(total, end),
    "warmup-linear": _warmup_linear,
    "cooldown": _cooldown,
    "ramp": lambda total, epoch, low, high: functions.ramp(low, high, total),
}
"""Name → builder, called with `total=T, epoch=E` and the schedule's options.

E is the number of updates in an epoch, or None where the schedule counts no epochs. Warm-up,
cooldown and milestones are shares of the run, so that they suit every profile's length; Noam's
`warmup` alone is in updates, because its formula is.
"""
REQUIRED = inspect.Parameter.empty
"""Stands for the default of an option that has none."""
WRAPPER = {
    name: parameter.default
    for name, parameter in inspect.signature(Schedule.wrapped).parameters.items()
    if name != "self"
}
"""Options of every schedule, with their defaults."""


def options_of(schedule: str) -> dict[str, Any]:
    """Options of a schedule and their defaults, or `REQUIRED`; with those of `Schedule.wrapped`.

    Raises:
        ValueError: for an unknown schedule.

    >>> options_of("linear")
    {'end': 0.0, 'step_start': 0, 'step_duration': 1, 'floor': 0.0}
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}, got {schedule!r}")
    parameters = inspect.signature(SCHEDULES[schedule]).parameters
    options = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("total", "epoch")
    }
    return options | WRAPPER


def named(schedule: str, total: int, epoch: int | None = None, **options: Any) -> Schedule:
    """The schedule of that name for a run of T updates.

    It is wrapped if options of `Schedule.wrapped` are among `options`. Three options are shares of
    the run, between 0 and 1, where the functions take lengths in updates: `warmup_share` for the
    `warmup` of `warmup_linear`, `cooldown_share` for the `length` of `cooldown`, and `shares` for
    the `milestones` of `steps`. The length is round(share·T), at least 1 and below T. All else is
    named and counted as in the functions: Noam's `warmup`, `step_start` and `step_duration` in
    updates, `first_epoch` in epochs.

    Raises:
        ValueError: for an unknown schedule, T < 1, an unknown, missing or impossible option, or no
            `epoch` where the schedule counts epochs.

    >>> named("cooldown", total=5, cooldown_share=0.4)(np.arange(1, 6)).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.5]
    """
    allowed = options_of(schedule)
    check_count(total, "total")
    if epoch is not None:
        check_count(epoch, "epoch")
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(
            f"schedule {schedule!r} has no option {unknown}; allowed are {list(allowed)}"
        )
    required = [name for name, default in allowed.items() if default is REQUIRED]
    if missing := [name for name in required if name not in options]:
        raise ValueError(
            f"schedule {schedule!r} needs the options {missing}; allowed are {list(allowed)}"
        )
    wrapper = {name: options.pop(name) for name in WRAPPER if name in options}
    bare = SCHEDULES[schedule](total=total, epoch=epoch, **options)
    return bare.wrapped(**wrapper) if wrapper else bare


def rates(
    schedule: str, peak: float, total: int, epoch: int | None = None, **options: Any
) -> NDArray[np.float64]:
    """Learning rates of a whole run, `[T]`: the peak rate times the factors of `named`.

    A `floor` among the options is a factor too: it scales with the peak rate. Noam's rates are
    absolute at peak 1.

    Raises:
        ValueError: for an unknown schedule, a peak that is not a positive finite number, T < 1, or
            bad options.

    >>> rates("inverse-time", 0.2, total=4, epoch=2, rate=1).round(4).tolist()
    [0.1, 0.1, 0.0667, 0.0667]
    """
    peak = check_positive(peak, "peak rate")
    return peak * named(schedule, total, epoch, **options)(np.arange(1.0, total + 1))
