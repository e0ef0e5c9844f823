"""One network as a probe looks at it, and measurements of every one that is still alive."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value, vmap

from steadydescent.engine.inference import layers_of
from steadydescent.engine.stepping import Flat, Recordings
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import Task
from steadydescent.engine.view import View

AT_A_TIME = 4_096
"""Examples whose gradients are taken in one product: measured to be fastest on one core."""


class Network:
    """One replica: its weights `[P]` and buffers `[Q]`, its training data, draws of its own."""

    def __init__(self, view: View, place: int, module: nn.Module, probe: str) -> None:
        self.view, self.place, self.module = view, place, module
        self.theta, self.buffers = view.theta[place], view.buffers[place]
        self.seat = int(view.examples.lane[place])
        self.train = view.examples.data.train[self.seat]
        seed = stream_seed(view.task.source, view.seeds[place], f"probe/{probe}/{view.done}")
        self.generator = torch.Generator().manual_seed(seed)

    def examples(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, and labels as trained on, at positions of any shape in the training set."""
        held, place, device = self.view.examples, self.place, self.view.device
        rows = self.train[positions].to(device)
        x = self.view.task.inputs(held.pool[rows], held.mean[place], held.std[place])
        return x, held.train_labels[self.seat][positions.to(device)]

    def noise(self, flat: Flat, *count: int) -> Tensor:
        """Uniform draws on (−1, 1) for the layers that take noise, `[*count, N]`."""
        uniform = torch.rand(*count, flat.draws, generator=self.generator)
        return (2 * uniform - 1).to(self.view.device)


def of_each(
    view: View, probe: str, count: int, measure: Callable[[Network], Sequence[float]]
) -> Tensor:
    """`count` numbers of every replica, `[count, R]` in float64; nan for those that have diverged
    and those that nobody asked for.
    """
    numbers = torch.full((len(view.seeds), count), math.nan, dtype=torch.float64)
    # hooks and modes are this copy's; the compiled step keeps its own
    module = deepcopy(view.flat.module)
    for place in range(view.wanted):
        if view.alive[place]:
            network = Network(view, place, module, probe)
            numbers[place] = torch.tensor(measure(network), dtype=torch.float64)
    return numbers.T


@cache
def slope(task: Task, examples: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Gradient `[P]` and value of the task's loss at weights, buffers, noise, inputs and labels of
    so many examples, in training mode.
    """
    return Recordings(grad_and_value(_loss(task, examples)))


@cache
def _gradients(task: Task, examples: int) -> Callable[..., Tensor]:
    """Gradients `[M, P]` of M minibatches of so many examples, likewise."""
    return Recordings(vmap(grad(_loss(task, examples)), in_dims=(None, 0, 0, 0, 0)))


def _loss(task: Task, examples: int) -> Callable[..., Tensor]:
    flat = Flat(layers_of(task), examples)

    def loss(theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return task.loss(flat.forward(theta, buffers, noise, x)[0], y)

    return loss


def gradients_at(network: Network, positions: Tensor) -> Tensor:
    """Gradients `[M, P]` of the minibatches at these positions `[M, n]`."""
    count, n = positions.shape
    x, y = network.examples(positions)
    noise, buffers = network.noise(Flat(network.module, n), count), network.buffers
    each = _gradients(network.view.task, n)
    parts = (
        part.split(max(1, AT_A_TIME // n)) for part in (buffers.expand(count, -1), noise, x, y)
    )
    return torch.cat([each(network.theta, *part) for part in zip(*parts, strict=True)])
