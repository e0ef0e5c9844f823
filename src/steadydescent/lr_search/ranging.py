"""The range test: raise the rate at every mini-batch and watch the loss (smith2017cyclical)."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from steadydescent import schedules
from steadydescent.averages import debias, ewa
from steadydescent.checks import check_number, check_positive, check_share
from steadydescent.lr_search.random_search import Floats, check_draw
from steadydescent.lr_search.restoring import check_optimizer


def ramp(low: float, high: float, steps: int) -> Floats:
    """Rates that rise by the same factor at every step, low·(high/low)^(t/(T−1)), `[T]`.

    t is 0 … T−1. Two ramps are in use: (a) linear, low + (high − low)·t/(T−1) (smith2017cyclical);
    (b) exponential (fastai, Lightning). We use (b): it passes every decade in the same number of
    steps.

    >>> ramp(1e-4, 1, 5).round(4).tolist()
    [0.0001, 0.001, 0.01, 0.1, 1.0]

    Raises:
        ValueError: unless 0 < low < high < ∞ and steps ≥ 2.
    """
    check_draw(low, high, steps, "steps", least=2)
    return schedules.ramp(low, high, steps)(np.arange(1.0, steps + 1))


def smoothed(losses: Iterable[float], beta: float) -> Iterator[float]:
    """Bias-corrected exponential averages of a stream of losses, one for each, as they come.

    β = 0 leaves the losses alone.

    >>> [round(loss, 2) for loss in smoothed([4.0, 2.0, 2.0], 0.5)]
    [4.0, 2.67, 2.29]
    """
    average = torch.zeros((), dtype=torch.float64, device="cpu")
    for step, loss in enumerate(losses, start=1):
        average = ewa(average, torch.tensor(loss, dtype=torch.float64, device="cpu"), beta)
        yield debias(average, beta, step).item()


class RangeTest(NamedTuple):
    """The rates of a range test and the loss at each, `[t]` both; t < T if it stopped early."""

    rates: Floats
    losses: Floats


def range_test(
    step: Callable[[float], float | Tensor],
    low: float,
    high: float,
    steps: int,
    divergence: float = 4.0,
    beta: float = 0.9,
) -> RangeTest:
    """Train while the rate rises from `low` to `high` by the same factor at every mini-batch.

    The loss is recorded. `step(rate)` makes one update at that rate on the next mini-batch and
    returns the mini-batch's loss before it; `rate_step` makes such a function of an optimiser. The
    test stops early, with what it has, at a loss that is not finite, or when the smoothed loss is
    more than `divergence` times its lowest value (4: fastai and Lightning); `inf` switches the
    latter off. Below 0 "times" would mean nothing: there it stops (divergence − 1) times the lowest
    value's size above it, which is the same thing above 0.

    Smoothing: a bias-corrected average (`smoothed`). fastai and Lightning use β = 0.98, a window of
    50 steps, half of their ramp of 100, which moves every feature of the curve far towards larger
    rates. We use 0.9, 10 steps.

    The network is trained by it: put it inside `restored`. The test goes by viblo-lr;
    smith2017cyclical proposed it.

    >>> weight = torch.nn.Parameter(torch.tensor([5.0]))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> step = rate_step(optimizer, lambda: 3 * weight.square().sum() / 2)
    >>> test = range_test(step, 1e-3, 1e3, 61)

    From the first rate above 2/3 it diverges:

    >>> round(float(test.rates[test.losses.argmin()]), 2)
    0.79
    >>> len(test.losses)  # stopped early
    38

    Raises:
        ValueError: for bounds that are not 0 < low < high < ∞, fewer than 2 steps, a divergence of
            at most 1, or β outside [0, 1), all before the first step; and for a step that returns
            no loss.
        RuntimeError: if the caller's mini-batches run out.
    """
    rates = ramp(low, high, steps)
    if not check_number(divergence, "divergence") > 1:
        raise ValueError(f"divergence must be more than 1, got {divergence}")
    check_share(beta, "beta")
    losses: list[float] = []

    def run() -> Iterator[float]:
        for number, rate in enumerate(rates, start=1):
            try:
                loss = step(float(rate))
            except StopIteration as end:  # of it a generator would say only that it was raised
                raise RuntimeError(f"the mini-batches ran out at step {number} of {steps}") from end
            losses.append(_number(loss))
            yield losses[-1]

    lowest = math.inf
    for loss in smoothed(run(), beta):
        if not math.isfinite(loss) or loss > lowest + (divergence - 1) * abs(lowest):
            break
        lowest = min(lowest, loss)
    return RangeTest(rates[: len(losses)], np.array(losses))


def _number(loss: float | Tensor) -> float:
    """The loss that a step returned as a plain float, without its graph."""
    if isinstance(loss, Tensor | np.ndarray):
        if math.prod(loss.shape) != 1:
            raise ValueError(
                f"step must return the loss, one number, got shape {tuple(loss.shape)}"
            )
        loss = loss.item()
    if not isinstance(loss, Real) or isinstance(loss, bool):
        raise ValueError(f"step must return the loss, got {loss!r}")
    return float(loss)


def rate_step(
    optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]
) -> Callable[[float], float]:
    """A `step(rate)` for `range_test` from an optimiser and a function for the next loss.

    `loss()` returns that of the next mini-batch. The rate is that of the first parameter group; the
    other groups keep their ratio to it. So do they with `set_rate`, which is how to take a
    suggestion over: `optimizer.param_groups[0]["lr"] = …` would set one group and leave the others
    where they were.

    The optimiser must call the closure that it is given once it is asked to step, as torch's do and
    ours: the closure computes loss and gradients. For one that does not, write the step by hand:
    `set_rate(optimizer, rate)`, then `zero_grad`, loss, `backward`, `step`, and return the loss.

    >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
    >>> step = rate_step(torch.optim.SGD([weight], lr=1.0), lambda: weight.square().sum() / 2)
    >>> step(0.25), weight.item()  # the loss before the update, the weight after it
    (2.0, 1.5)

    Raises:
        ValueError: for what is no optimiser, or one whose `step` takes no closure; if the first
            group's rate is 0, for then there is no ratio to keep; for a rate that is a tensor of
            whole numbers; by the step, if the loss is not one number to differentiate, the
            optimiser did not call the closure, or has other groups than before.
    """
    check_optimizer(optimizer)
    ratios = _ratios(optimizer)
    try:
        inspect.signature(optimizer.step).bind(None)
    except TypeError as error:
        raise ValueError(_step_sentence(optimizer, "take a closure")) from error
    losses: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                raise ValueError(
                    f"loss must return one number to differentiate, as a tensor, got {got}"
                )
            value.backward()
        losses.append(value.item())
        return losses[-1]

    def step(rate: float) -> float:
        _set_rates(optimizer, ratios, rate)
        losses.clear()
        optimizer.zero_grad()  # one that ignores the closure must not step along old gradients
        optimizer.step(closure)
        if not losses:
            raise ValueError(_step_sentence(optimizer, "call its closure"))
        return losses[0]  # the first: line searches ask for more

    return step


def _step_sentence(optimizer: torch.optim.Optimizer, duty: str) -> str:
    return (
        f"{type(optimizer).__name__}.step must {duty}, which computes the gradients; "
        "write step(rate) with zero_grad, loss, backward and step by hand"
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give the first parameter group this rate and the others theirs in the same ratio.

    So does the range test.     A rate that is a tensor is changed in place. Set it before a
    scheduler is made: that remembers the rates it finds, or, on an optimiser that was loaded, the
    `initial_lr` that one before left in its groups. So `initial_lr`, where there is one, becomes
    the rate too, and the next scheduler starts from it.

    >>> first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    >>> optimizer = torch.optim.SGD([{"params": first, "lr": 0.1}, {"params": second, "lr": 1.0}])
    >>> set_rate(optimizer, 0.03)
    >>> [round(group["lr"], 6) for group in optimizer.param_groups]
    [0.03, 0.3]

    Raises:
        ValueError: for what is no optimiser, a rate that is not positive and finite, if the first
            group's rate is 0, or for a rate that is a tensor of whole numbers.
    """
    check_optimizer(optimizer)
    _set_rates(optimizer, _ratios(optimizer), check_positive(rate, "rate"))
    for group in optimizer.param_groups:
        if "initial_lr" in group:
            lr = group["lr"]
            group["initial_lr"] = lr.clone() if isinstance(lr, Tensor) else lr


def _ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rate of each group over the first one's."""
    for number, group in enumerate(optimizer.param_groups):
        if isinstance(group["lr"], Tensor) and not group["lr"].is_floating_point():
            raise ValueError(
                f"lr of parameter group {number} must be a number or a floating-point tensor, "
                f"which can hold any rate, got a tensor of {group['lr'].dtype}; "
                "make the optimiser with lr.float()"
            )
    base = float(optimizer.param_groups[0]["lr"])
    if base == 0:
        raise ValueError(
            "the first parameter group's lr must not be 0: the other groups keep their ratio to it"
        )
    return [float(group["lr"]) / base for group in optimizer.param_groups]


def _set_rates(optimizer: torch.optim.Optimizer, ratios: list[float], rate: float) -> None:
    if len(optimizer.param_groups) != len(ratios):
        raise ValueError(
            f"the optimiser must have the {len(ratios)} parameter groups that it had "
            f"when rate_step was called, got {len(optimizer.param_groups)}; "
            "call rate_step after the groups are added"
        )
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(ratio * rate)
        else:
            group["lr"] = ratio * rate
