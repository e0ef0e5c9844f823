"""One replica of a stack as a probe looks at it, and measurements of every replica that is still
alive.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from steadydescent.engine.runs import stream_seed
from steadydescent.engine.stepping import Flat

if TYPE_CHECKING:
    from steadydescent.engine.stack import Stack

AT_A_TIME = 4_096
"""Examples whose gradients are taken in one product: measured to be fastest on one core."""


class Network:
    """One replica of a stack: its weights `[P]` and buffers `[Q]`, its training data, draws of its
    own.
    """

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
        return x, stack.train_labels[self.seat][positions.to(stack.device)]

    def noise(self, flat: Flat, *count: int) -> Tensor:
        """Uniform draws on (−1, 1) for the layers that take noise, `[*count, N]`."""
        return (2 * torch.rand(*count, flat.draws, generator=self.generator) - 1).to(
            self.stack.device
        )

    def loss(self, flat: Flat) -> Callable[..., Tensor]:
        """The task's loss of (weights, buffers, noise, inputs, labels)."""
        return lambda theta, buffers, noise, x, y: self.stack.task.loss(
            flat.forward(theta, buffers, noise, x)[0], y
        )


def of_each(
    stack: "Stack", probe: str, names: Sequence[str], measure: Callable[[Network], Sequence[float]]
) -> dict[str, Tensor]:
    """A measurement of every replica that is still alive, by the names of its values, each `[R]`."""
    found = torch.full((len(stack.runs), len(names)), math.nan, dtype=torch.float64)
    module = deepcopy(
        stack.flat.module
    )  # hooks and modes are this copy's; the compiled step keeps its own
    for place in range(len(stack.wanted)):
        if stack.carry.survived[place] >= stack.done:
            found[place] = torch.tensor(
                measure(Network(stack, place, module, probe)), dtype=torch.float64
            )
    return dict(zip(names, found.T, strict=True))


def gradients_at(network: Network, positions: Tensor) -> Tensor:
    """Gradients `[M, P]` of the minibatches at these positions `[M, n]`."""
    count, n = positions.shape
    flat, (x, y) = Flat(network.module, n), network.examples(positions)
    each = vmap(
        grad(network.loss(flat)), in_dims=(None, 0, 0, 0, 0), chunk_size=max(1, AT_A_TIME // n)
    )
    return each(network.theta, network.buffers.expand(count, -1), network.noise(flat, count), x, y)
