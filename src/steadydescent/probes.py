"""Measurements on a stack of networks while it trains: gradient noise, internal covariate shift, predicted classes.

A probe reads a stack between two chunks and writes nothing to it. It goes replica by replica, on any device, and its
draws come from a generator for each (probe, run seed, step), so that neighbours leave no trace. A measure is `[R]` in
float64; it is nan for a replica that diverged, for those that merely fill a stack up, and where it has no meaning.

Networks are looked at in training mode, as their updates see them: batch norm takes the statistics of the batch, and
layers that make noise make it, drawn as in training. Stilled, noisy batch norm would be measured as plain batch norm.

Axes: R replicas, P parameters, Q buffer entries, D inputs, M minibatches, n examples of one, U units of a layer.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import accumulate
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value, vmap
from torch.nn.functional import cosine_similarity

from steadydescent.checks import check_count
from steadydescent.evaluation import IGNORED
from steadydescent.normalization import BatchNorm, GhostBatchNorm
from steadydescent.optimizers import RULES
from steadydescent.runs import stream_seed
from steadydescent.settings import read
from steadydescent.stepping import Flat
from steadydescent.weight_averaging import Readout

if TYPE_CHECKING:
    from steadydescent.engine import Stack

SIZES = (1, 8, 32, 64, 128, 256, 512, 1024)
"""Minibatch sizes at which gradient noise is measured."""
MINIBATCHES = 16
"""Minibatches of each size; of the largest only as many as `AT_A_TIME` examples fill, and never fewer than 4."""
SCALE_SIZES = (32, 1024)
"""The two sizes that the noise scale is estimated from."""
AT_A_TIME = 4_096
"""Examples whose gradients are taken in one product: measured to be fastest on one core."""
EXAMPLES = 1_000
"""Training examples that the internal shift is measured on: the first of each seed's, or all where there are fewer."""
STEPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Step sizes along the gradient, in units of the run's own."""
SHIFTS = (
    *("input-shift", "input-shift-drift", "gradient-shift", "gradient-cosine"),
    *("loss-variation", "gradient-predictiveness"),
)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
LOST = 255
"""The class that a diverged network predicts."""

Moments = list[tuple[Tensor, Tensor]]
"""Standard deviation and mean `[U]` of the units that enter each hidden layer."""


class _Network:
    """One replica of a stack: its weights `[P]` and buffers `[Q]`, its training data, draws of its own."""

    def __init__(self, stack: "Stack", place: int, module: nn.Module, probe: str) -> None:
        self.stack, self.place, self.module = stack, place, module
        self.theta, self.buffers = stack.carry.theta[place], stack.carry.buffers[place]
        self.seat = int(stack.lane[place])
        self.train = stack.data.train[self.seat]
        seed = stream_seed(stack.task.source, stack.runs[place].seed, f"probe/{probe}/{stack.done}")
        self.generator = torch.Generator().manual_seed(seed)

    def examples(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels at positions of any shape in the training set, labelled as in training."""
        stack, rows = self.stack, self.train[positions].to(self.stack.device)
        x = stack.task.inputs(stack.pool[rows], stack.mean[self.place], stack.std[self.place])
        return x, stack.wrong[self.seat][positions.to(stack.device)] if stack.wrong else stack.labels[rows]

    def noise(self, flat: Flat, *count: int) -> Tensor:
        """Uniform draws on (−1, 1) for the layers that take noise, `[*count, N]`."""
        return (2 * torch.rand(*count, flat.draws, generator=self.generator) - 1).to(self.stack.device)

    def loss(self, flat: Flat) -> Callable[..., Tensor]:
        """The task's loss of (weights, buffers, noise, inputs, labels)."""
        return lambda theta, buffers, noise, x, y: self.stack.task.loss(flat.forward(theta, buffers, noise, x)[0], y)


def _of_each(
    stack: "Stack", probe: str, names: Sequence[str], measure: Callable[[_Network], Sequence[float]]
) -> dict[str, Tensor]:
    """A measurement of every replica that is still alive, by the names of its values, each `[R]`."""
    found = torch.full((len(stack.runs), len(names)), math.nan, dtype=torch.float64)
    module = deepcopy(stack.flat.module)  # hooks and modes are this copy's; the compiled step keeps its own
    for place in range(len(stack.wanted)):
        if stack.carry.survived[place] >= stack.done:
            found[place] = torch.tensor(measure(_Network(stack, place, module, probe)), dtype=torch.float64)
    return dict(zip(names, found.T, strict=True))


def gradient_noise(stack: "Stack") -> dict[str, Tensor]:
    """How minibatch gradients scatter at the current weights: by size n, and on the whole.

    - `gradient-noise/<n>`: √tr cov(g_n), the root of the total variance of the gradient of n examples drawn with
      replacement, estimated from 16 minibatches (8 of 512, 4 of 1 024 examples, which would cost more than all others
      together). Without batch norm it is √(tr Σ/n), Σ that of a single example.
    - `noise-trace`, `gradient-square`: tr Σ and ‖G‖² by the unbiased estimators from two batch sizes b < B
      (mccandlish2018empirical, appendix A.1), here 32 and 1 024, each ‖g‖² a mean over the minibatches:
      ‖G‖² = (B·‖g_B‖² − b·‖g_b‖²)/(B − b), tr Σ = (‖g_b‖² − ‖g_B‖²)/(1/b − 1/B).
    - `noise-scale`: tr Σ/‖G‖², their simple noise scale, in examples. Where noise drowns the gradient the estimate of
      ‖G‖² may come out near zero or below: average the two parts over seeds before dividing.

    A size that a network's batch norm does not take is nan: n = 1, and for ghosts what they do not divide. With batch
    norm a gradient's expectation depends on n, so there the last three describe the two sizes, not one Σ.
    """
    names = [*(f"gradient-noise/{n}" for n in SIZES), "noise-trace", "gradient-square", "noise-scale"]
    small, large = SCALE_SIZES

    def measure(network: _Network) -> list[float]:
        spread, square = dict.fromkeys(SIZES, math.nan), dict.fromkeys(SIZES, math.nan)
        draw = lambda n: torch.randint(len(network.train), (_minibatches(n), n), generator=network.generator)
        batches = {n: draw(n) for n in SIZES}  # all drawn at first: the same for every kind of network
        for n in (n for n in SIZES if _takes(network.module, n)):
            gradients = _gradients(network, batches[n])
            spread[n] = ((gradients - gradients.mean(0)).square().sum() / (len(gradients) - 1)).sqrt().item()
            square[n] = gradients.square().sum(1).mean().item()
        signal = (large * square[large] - small * square[small]) / (large - small)
        trace = (square[small] - square[large]) / (1 / small - 1 / large)
        return [*spread.values(), trace, signal, trace / signal if signal else math.nan]

    return _of_each(stack, "gradient-noise", names, measure)


def _minibatches(n: int) -> int:
    return max(4, min(MINIBATCHES, AT_A_TIME // n))


def _takes(module: nn.Module, n: int) -> bool:
    """Whether a module's batch norms take minibatches of n examples."""
    ghosts = [layer.ghost or 1 for layer in module.modules() if isinstance(layer, GhostBatchNorm)]
    normed = any(isinstance(layer, BatchNorm) for layer in module.modules())
    return not (normed and n == 1) and all(n % ghost == 0 for ghost in ghosts)


def _gradients(network: _Network, positions: Tensor) -> Tensor:
    """Gradients `[M, P]` of the minibatches at these positions `[M, n]`."""
    count, n = positions.shape
    flat, (x, y) = Flat(network.module, n), network.examples(positions)
    each = vmap(grad(network.loss(flat)), in_dims=(None, 0, 0, 0, 0), chunk_size=max(1, AT_A_TIME // n))
    return each(network.theta, network.buffers.expand(count, -1), network.noise(flat, count), x, y)


def internal_shift(stack: "Stack") -> dict[str, Tensor]:
    """Internal covariate shift and the smoothness of the loss at the current weights, on 1 000 training examples.

    A step here is θ ← θ − r·g, r the displacement that a gradient of one causes under the run's rule and rate α: α for
    SGD and averaged gradients, α/(1−μ), summed over the updates to come, for heavy-ball and Nesterov momentum. So
    conventions that give the same training give the same measures. Weight decay is left out.

    - `input-shift`: mean over units of ‖Δmean‖/std of what enters a hidden layer, mean over these layers, Δ by one
      step on a batch of the run's own size; `input-shift-drift`: the same Δ since this probe last saw the stack, or
      since the start. Units that never varied before have no scale and are left out. A hidden layer is every linear
      or convolutional one after the first; units are the channels of a convolution.
    - `gradient-shift`: ‖G_i − G'_i‖/‖G_i‖, G_i the gradient of layer i's weights and G'_i the same once all
      parameters below it have made their step (santurkar2018how, definition 2.1, there without the denominator), and
      `gradient-cosine` between the two; means over hidden layers.
    - `loss-variation`: the range of the loss at steps of 0.5 to 4 times r along the gradient, and
      `gradient-predictiveness`: the largest l2 change of the gradient there (santurkar2018how, figure 4).

    Noise that layers make is drawn afresh for each side of an input shift, as two updates would meet it. The other
    measures compare gradients of one function, so one draw serves all their points.

    Raises:
        ValueError: for rules that scale a gradient weight by weight, such as Adam: none of their steps is r·g.
    """
    rates, (theta, buffers) = _displacements(stack), _SEEN.get(stack, stack.start)
    _SEEN[stack] = stack.carry.theta, stack.carry.buffers

    def measure(network: _Network) -> list[float]:
        examples, rate = min(EXAMPLES, len(network.train)), rates[network.place]
        flat, (x, y) = Flat(network.module, examples), network.examples(torch.arange(examples))
        moments = lambda theta, buffers: _input_moments(flat, theta, buffers, network.noise(flat), x)
        stepped = network.theta - rate * _batch_gradient(network, stack.first.batch_size)
        now = moments(network.theta, network.buffers)
        after, before = moments(stepped, network.buffers), moments(theta[network.place], buffers[network.place])
        noise, function = network.noise(flat), grad_and_value(network.loss(flat))
        slope = lambda theta: function(theta, network.buffers, noise, x, y)
        gradient, _ = slope(network.theta)
        line = lambda step: network.theta - step * rate * gradient
        shifts = [_shift(now, after), _shift(before, now)]
        return [*shifts, *_gradient_shift(flat, line, gradient, slope), *_variation(line, gradient, slope)]

    return _of_each(stack, "internal-shift", SHIFTS, measure)


_SEEN: WeakKeyDictionary["Stack", tuple[Tensor, Tensor]] = WeakKeyDictionary()
"""Weights and buffers of a stack when `internal_shift` last looked; a step replaces these tensors, never writes."""
Slope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Weights `[P]` → gradient `[P]` and loss."""
Line = Callable[[float], Tensor]
"""Steps along the gradient → weights `[P]`."""


def _displacements(stack: "Stack") -> list[float]:
    """r of each replica's latest update, `[R]`."""
    name, hyper = read(stack.first.optimizer)
    hyper = RULES[name].checked(**hyper)
    if "eps" in hyper:
        raise ValueError(f"internal-shift steps along the gradient, {name} does not; use sgd or a kind of momentum")
    last = max(stack.done - 1, 0)
    return (stack._rates(last, last + 1)[0] / (1 - hyper.get("mu", 0.0))).tolist()


def _batch_gradient(network: _Network, n: int) -> Tensor:
    """Gradient `[P]` of a minibatch drawn without replacement, as an epoch's are."""
    return _gradients(network, torch.randperm(len(network.train), generator=network.generator)[None, :n])[0]


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


def _gradient_shift(flat: Flat, line: Line, gradient: Tensor, slope: Slope) -> tuple[float, float]:
    """Relative change and cosine of a layer's gradient when all below it moves, means over hidden layers."""
    theta, moved, changes, cosines = line(0), line(1), [], []
    for place in _weights(flat)[1:]:
        after = slope(torch.cat([moved[: place.start], theta[place.start :]]))[0][place].double()
        before = gradient[place].double()
        changes.append((before - after).norm() / before.norm())
        cosines.append(cosine_similarity(before, after, dim=0, eps=0))
    return _mean(changes), _mean(cosines)


def _weights(flat: Flat) -> list[slice]:
    """Where the weights of each layer stand in θ, in the order of definition; all that stands before is below."""
    stops = dict(zip(flat.parameters, accumulate(shape.numel() for shape in flat.parameters.values()), strict=True))
    layers = [name for name, layer in flat.module.named_modules() if isinstance(layer, LAYERS)]
    names = [f"{name}.weight".lstrip(".") for name in layers]
    return [slice(stops[name] - flat.parameters[name].numel(), stops[name]) for name in names]


def _variation(line: Line, gradient: Tensor, slope: Slope) -> tuple[float, float]:
    """Range of the loss, and the gradient's largest change, along the line."""
    gradients, losses = (torch.stack(part) for part in zip(*(slope(line(step)) for step in STEPS), strict=True))
    return (losses.max() - losses.min()).item(), (gradients - gradient).norm(dim=1).max().item()


def _mean(values: list[Tensor]) -> float:
    """The mean over layers; those that have no value are left out."""
    return torch.stack(values).nanmean().item() if values else math.nan


def predicted_classes(stack: "Stack", readout: Readout, examples: int = 1_000) -> list[bytes]:
    """Arg-max classes of the first test examples, a byte each, for every replica; 255 where one has diverged.

    A sequence gives a class at each of its labels; padding is left out.

    Raises:
        ValueError: for a surface, which has no classes; more examples than the test set has; more than 255 classes.
    """
    if stack.task.surface:
        raise ValueError(f"task {stack.first.task} is a surface, it predicts no classes")
    if check_count(examples, "examples") > len(stack.data.test):
        raise ValueError(f"examples must be at most the {len(stack.data.test)} of the test set, got {examples}")
    look = stack.look(stack.data.test[:examples].expand(len(stack.runs), -1))
    logits = stack._each(stack.flat.outputs, *stack.weights(readout), look.pool, look.rows)  # [R, examples, …, K]
    if logits.shape[-1] > LOST:
        raise ValueError(f"classes must be at most {LOST} to fit a byte each, got {logits.shape[-1]}")
    lost = (stack.carry.survived < stack.done) | ~logits.isfinite().flatten(1).all(1)
    classes = torch.where(lost.view(-1, *[1] * (logits.dim() - 2)), LOST, logits.argmax(-1)).to(torch.uint8)
    counted = look.targets[0] != IGNORED
    return [row[counted].cpu().numpy().tobytes() for row in classes]


def churn(a: bytes, b: bytes) -> float:
    """The share of examples on which two networks disagree; a diverged one agrees with none, not even another.

    Raises:
        ValueError: for predictions of different length, or none.

    >>> churn(bytes([3, 1, 4, 1]), bytes([3, 1, 4, 5]))
    0.25
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"predictions must be of the same examples, at least one; got {len(a)} and {len(b)}")
    one, other = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    return float(np.mean((one != other) | (one == LOST)))


PROBES: dict[str, Callable[["Stack"], dict[str, Tensor]]] = {
    "gradient-noise": gradient_noise,
    "internal-shift": internal_shift,
}
"""Probe → its measures of a stack, by name."""
