"""Internal covariate shift, and how smooth the loss is along its gradient."""

import math
from collections.abc import Callable, Iterator
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from steadydescent.engine.probes.network import Network, gradients_at, of_each, slope
from steadydescent.engine.probes.probe import Measurement, Probe, ProbedRun, Quantity
from steadydescent.engine.settings import read
from steadydescent.engine.stepping import Flat
from steadydescent.engine.view import View
from steadydescent.optimizers import RULES

SHIFT_EXAMPLES = 1_000
"""Training examples that the internal shift is measured on: the first of each seed's, or all where
there are fewer.
"""
STEP_SIZES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Step sizes along the gradient, in units of the run's own."""
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)

Moments = list[tuple[Tensor, Tensor]]
"""Standard deviation and mean `[U]` of the units that enter each hidden layer."""


class InternalShift(Probe):
    """Internal covariate shift and the smoothness of the loss at the current weights, on 1 000
    training examples.

    A step here is θ ← θ − r·g, r the displacement that a gradient of one causes under the run's
    rule and rate α: α for SGD and averaged gradients, α/(1−μ), summed over the updates to come, for
    heavy-ball and Nesterov momentum. So conventions that give the same training give the same
    measures. Weight decay is left out.

    - `input-shift`: mean over units of ‖Δmean‖/std of what enters a hidden layer, mean over these
      layers, Δ by one step on a batch of the run's own size; `input-shift-drift`: the same Δ since
      this probe last saw the stack, or since the start. Units that never varied before have no
      scale and are left out. A hidden layer is every linear or convolutional one after the first;
      units are the channels of a convolution.
    - `gradient-shift`: ‖G_i − G'_i‖/‖G_i‖, G_i the gradient of layer i's weights and G'_i the same
      once all parameters below it have made their step (santurkar2018how, definition 2.1, there
      without the denominator), and `gradient-cosine` between the two; means over hidden layers.
    - `loss-variation`: the range of the loss at steps of 0.5 to 4 times r along the gradient, and
      `gradient-predictiveness`: the largest l2 change of the gradient there (santurkar2018how,
      figure 4).

    Noise that layers make is drawn afresh for each side of an input shift, as two updates would
    meet it. The other measures compare gradients of one function, so one draw serves all their
    points.
    """

    name = "internal-shift"
    quantities = (
        Quantity("input-shift", "shift of layer inputs", "×", higher=False, statistic="log mean"),
        Quantity("input-shift-drift"),
        Quantity("gradient-shift", "shift of gradients", "×", higher=False, statistic="log mean"),
        Quantity("gradient-cosine"),
        Quantity("loss-variation"),
        Quantity("gradient-predictiveness"),
    )
    when = "few points"

    def __init__(self) -> None:
        self.before: tuple[Tensor, Tensor] | None = None
        """Weights and buffers when it last looked."""

    @classmethod
    def check(cls, run: ProbedRun) -> None:
        """Raises ValueError for rules that scale a gradient weight by weight, such as Adam: none of
        their steps is r·g.
        """
        rule = read(run.optimizer).name
        if "eps" in RULES[rule].hyper:
            raise ValueError(
                f"the probe 'internal-shift' steps along the gradient, which {rule} does not; "
                "leave it out, or use sgd or a kind of momentum"
            )

    def look(self, view: View) -> Iterator[Measurement]:
        rates, before = _displacements(view), self.before or view.start
        self.before = view.theta.clone(), view.buffers.clone()
        measure = lambda network: _measures(network, rates[network.place], before)
        numbers = of_each(view, self.name, len(self.quantities), measure)
        for quantity, values in zip(self.quantities, numbers, strict=True):
            yield Measurement(quantity.name, values, step=view.done)


Slope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Weights `[P]` → gradient `[P]` and loss."""
_Line = Callable[[float], Tensor]
"""Steps along the gradient → weights `[P]`."""


def _displacements(view: View) -> list[float]:
    """r of each replica's latest update, `[R]`."""
    name, hyper = read(view.optimizer)
    memory = RULES[name].checked(**hyper).get("mu", 0.0)
    return (view.latest_rates / (1 - memory)).tolist()


def _measures(network: Network, rate: float, before: tuple[Tensor, Tensor]) -> list[float]:
    """All quantities of a network whose step is r = `rate`, `before` what the stack was then."""
    examples = min(SHIFT_EXAMPLES, len(network.train))
    flat, (x, y) = Flat(network.module, examples), network.examples(torch.arange(examples))

    def moments(theta: Tensor, buffers: Tensor) -> Moments:
        return _input_moments(flat, theta, buffers, network.noise(flat), x)

    stepped = network.theta - rate * _batch_gradient(network, network.view.batch_size)
    now = moments(network.theta, network.buffers)
    after = moments(stepped, network.buffers)
    then = moments(before[0][network.place], before[1][network.place])
    noise, function = network.noise(flat), slope(network.view.task, examples)
    here = lambda theta: function(theta, network.buffers, noise, x, y)
    gradient, _ = here(network.theta)
    line = lambda step: network.theta - step * rate * gradient
    shifts = [_shift(now, after), _shift(then, now)]
    changes = _gradient_shift(flat, line, gradient, here)
    return [*shifts, *changes, *_variation(line, gradient, here)]


def _batch_gradient(network: Network, n: int) -> Tensor:
    """Gradient `[P]` of a minibatch drawn without replacement, as an epoch's are."""
    return gradients_at(
        network, torch.randperm(len(network.train), generator=network.generator)[None, :n]
    )[0]


def _input_moments(flat: Flat, theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor) -> Moments:
    """The moments over inputs x of what enters each hidden layer, in the order of the pass."""
    seen: Moments = []

    def watch(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        units = inputs[0] if isinstance(layer, nn.Linear) else inputs[0].movedim(1, -1)  # [..., U]
        seen.append(torch.std_mean(units.flatten(0, -2).double(), 0, correction=0))

    layers = [layer for layer in flat.module.modules() if isinstance(layer, LAYERS)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        flat.forward(theta, buffers, noise, x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[1:]


def _shift(before: Moments, after: Moments) -> float:
    """Mean over layers of the mean over units of ‖Δmean‖/std; nan without hidden layers."""
    pairs = zip(before, after, strict=True)
    layers = [((mean - moved).abs() / std)[std > 0].mean() for (std, mean), (_, moved) in pairs]
    return _mean(layers)


def _gradient_shift(flat: Flat, line: _Line, gradient: Tensor, slope: Slope) -> tuple[float, float]:
    """Relative change and cosine of a layer's gradient when all below it moves, means over hidden
    layers.
    """
    theta, moved, changes, cosines = line(0), line(1), [], []
    for place in _weights(flat)[1:]:
        after = slope(torch.cat([moved[: place.start], theta[place.start :]]))[0][place].double()
        before = gradient[place].double()
        changes.append((before - after).norm() / before.norm())
        cosines.append(cosine_similarity(before, after, dim=0, eps=0))
    return _mean(changes), _mean(cosines)


def _weights(flat: Flat) -> list[slice]:
    """Where the weights of each layer stand in θ, in the order of definition; all that stands
    before is below.
    """
    stops = dict(
        zip(
            flat.parameters,
            accumulate(shape.numel() for shape in flat.parameters.values()),
            strict=True,
        )
    )
    layers = [name for name, layer in flat.module.named_modules() if isinstance(layer, LAYERS)]
    names = [f"{name}.weight".lstrip(".") for name in layers]
    return [slice(stops[name] - flat.parameters[name].numel(), stops[name]) for name in names]


def _variation(line: _Line, gradient: Tensor, slope: Slope) -> tuple[float, float]:
    """Range of the loss, and the gradient's largest change, along the line."""
    gradients, losses = (
        torch.stack(part) for part in zip(*(slope(line(step)) for step in STEP_SIZES), strict=True)
    )
    return (losses.max() - losses.min()).item(), (gradients - gradient).norm(dim=1).max().item()


def _mean(values: list[Tensor]) -> float:
    """The mean over layers; those that have no value are left out."""
    return torch.stack(values).nanmean().item() if values else math.nan
