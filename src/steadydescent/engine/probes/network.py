"""One network as a probe looks at it, and measurements of every one that is still alive."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from steadydescent.engine.stepping import Flat
from steadydescent.engine.streams import stream_seed
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

    def loss(self, flat: Flat) -> Callable[..., Tensor]:
        """The task's loss of (weights, buffers, noise, inputs, labels)."""

        def loss(theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.view.task.loss(flat.forward(theta, buffers, noise, x)[0], y)

        return loss


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


def gradients_at(network: Network, positions: Tensor) -> Tensor:
    """Gradients `[M, P]` of the minibatches at these positions `[M, n]`."""
    count, n = positions.shape
    flat, (x, y) = Flat(network.module, n), network.examples(positions)
    each = vmap(
        grad(network.loss(flat)), in_dims=(None, 0, 0, 0, 0), chunk_size=max(1, AT_A_TIME // n)
    )
    return each(network.theta, network.buffers.expand(count, -1), network.noise(flat, count), x, y)
