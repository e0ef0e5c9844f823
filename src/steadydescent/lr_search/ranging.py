"""The range test: raise the rate at every mini-batch and watch the loss (smith2017cyclical; viblo-lr)."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from steadydescent import schedules
from steadydescent.averages import debias, ewa
from steadydescent.checks import check_number, check_share
from steadydescent.lr_search.random_search import Floats, check_draw


def ramp(low: float, high: float, steps: int) -> Floats:
    """Rates that rise by the same factor at every step, low·(high/low)^(t/(T−1)) at t = 0 … T−1, `[T]`.

    Two ramps are in use: (a) linear, low + (high − low)·t/(T−1) (smith2017cyclical); (b) exponential (fastai,
    Lightning). We use (b): it passes every decade in the same number of steps.

    >>> ramp(1e-4, 1, 5).round(4).tolist()
    [0.0001, 0.001, 0.01, 0.1, 1.0]

    Raises:
        ValueError: unless 0 < low < high < ∞ and steps ≥ 2.
    """
    check_draw(low, high, steps, "steps", least=2)
    return schedules.ramp(low, high, steps)(np.arange(1.0, steps + 1))


def smoothed(losses: Iterable[float], beta: float) -> Iterator[float]:
    """Bias-corrected exponential averages of a stream of losses, one for each, as they come; β = 0 leaves them alone.

    >>> [round(loss, 2) for loss in smoothed([4.0, 2.0, 2.0], 0.5)]
    [4.0, 2.67, 2.29]
    """
    average = torch.zeros((), dtype=torch.float64)
    for step, loss in enumerate(losses, start=1):
        average = ewa(average, torch.tensor(loss, dtype=torch.float64), beta)
        yield debias(average, beta, step).item()


class RangeTest(NamedTuple):
    """What a range test saw: the rates it used and the loss at each, `[t]` both, t ≤ T if it stopped early."""

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
    """Train while the rate rises from `low` to `high` by the same factor at every mini-batch, and record the loss.

    `step(rate)` makes one update at that rate on the next mini-batch and returns the mini-batch's loss before it;
    `rate_step` makes such a function of an optimiser. The test stops early, with what it has, at a loss that is not
    finite, or when the smoothed loss is more than `divergence` times its lowest value (4: fastai and Lightning); `inf`
    switches the latter off. Below 0 "times" would mean nothing: there it stops (divergence − 1) times the
    lowest value's size above it, which is the same thing above 0.

    Smoothing: a bias-corrected average (`smoothed`). fastai and Lightning use β = 0.98, a window of 50 steps, half of
    their ramp of 100, which moves every feature of the curve far towards larger rates. We use 0.9, 10 steps.

    The network is trained by it: put it inside `restored`. The test goes by viblo-lr; smith2017cyclical proposed it.

    >>> weight = torch.nn.Parameter(torch.tensor([5.0]))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> test = range_test(rate_step(optimizer, lambda: 3 * weight.square().sum() / 2), 1e-3, 1e3, 61)
    >>> round(float(test.rates[test.losses.argmin()]), 2)  # the first above 2/3: from there it diverges
    0.79
    >>> len(test.losses)  # stopped early
    38

    Raises:
        ValueError: for bounds that are not 0 < low < high < ∞, fewer than 2 steps, a divergence of at most 1, or β
            outside [0, 1), all before the first step; and for a step that returns no loss.
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
            except StopIteration as end:  # inside a generator Python would say only that it was raised
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
            raise ValueError(f"step must return the loss, one number, got shape {tuple(loss.shape)}")
        loss = loss.item()
    if not isinstance(loss, Real) or isinstance(loss, bool):
        raise ValueError(f"step must return the loss, got {loss!r}")
    return float(loss)


def rate_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Callable[[float], float]:
    """A `step(rate)` for `range_test` from an optimiser and a function that returns the next mini-batch's loss.

    The rate is that of the first parameter group; the other groups keep their ratio to it.

    >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
    >>> step = rate_step(torch.optim.SGD([weight], lr=1.0), lambda: weight.square().sum() / 2)
    >>> step(0.25), weight.item()  # the loss before the update, the weight after it
    (2.0, 1.5)

    Raises:
        ValueError: for what is no optimiser; if the first group's rate is 0, for then there is no ratio to keep; by the
            step, if the loss is not one number to differentiate.
    """
    _check_optimizer(optimizer)
    base = float(optimizer.param_groups[0]["lr"])
    if base == 0:
        raise ValueError("the first parameter group's lr must not be 0: the other groups keep their ratio to it")
    ratios = [float(group["lr"]) / base for group in optimizer.param_groups]

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                raise ValueError(f"loss must return one number to differentiate, as a tensor, got {got}")
            value.backward()
        return value.item()

    def step(rate: float) -> float:
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(ratio * rate)
            else:
                group["lr"] = ratio * rate
        return optimizer.step(closure)

    return step


@contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Whatever is trained inside, model and optimiser leave as they came in, after an exception too.

    Restored are all that each `state_dict` holds, buffers that the model's leaves out, gradients, train or eval mode
    of each module, and torch's random generators of the CPU and of the model's CUDA devices. Mini-batches that were
    taken stay taken. It costs a second copy of weights and optimiser slots.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), model.weight.clone()
    >>> with restored(model, optimizer):
    ...     _ = range_test(rate_step(optimizer, lambda: model(torch.ones(3, 2)).square().mean()), 1e-3, 1, 10)
    >>> torch.equal(model.weight, before), optimizer.param_groups[0]["lr"]
    (True, 0.1)

    Raises:
        ValueError: for what is no module or no optimiser, or if the optimiser trains parameters that are not the
            model's, which would not be restored.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be an nn.Module, got {model!r}")
    _check_optimizer(optimizer)
    foreign = {p for group in optimizer.param_groups for p in group["params"]} - set(model.parameters())
    if foreign:
        raise ValueError(f"the optimiser must train the model's parameters alone, got {len(foreign)} that are not")
    weights, slots = deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients = [(p, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng({p.device for p in model.parameters() if p.is_cuda}):
        try:
            yield
        finally:
            model.load_state_dict(weights)
            optimizer.load_state_dict(slots)
            for name, buffer in buffers.items():
                model.get_buffer(name).copy_(buffer)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode


def _check_optimizer(optimizer: object) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
