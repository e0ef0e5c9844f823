"""A stack in training: its updates, one block after another.

Axes: k updates, R replicas, T updates of the run, K averages.
"""

import numpy as np
import torch
from torch import Tensor

from steadydescent.engine.averaging import Averages
from steadydescent.engine.blocks import Batches, Block
from steadydescent.engine.draws import Draws
from steadydescent.engine.stack_rates import Rates
from steadydescent.engine.stepping import Carry


class Training:
    """R replicas on their way: the `carry` that updates change, how many are `done`, and the
    minibatch losses before each, `[k, R]` a block.
    """

    def __init__(
        self, carry: Carry, block: Block, draws: Draws, rates: Rates, averages: Averages
    ) -> None:
        self.carry, self.block = carry, block
        self.draws, self.rates, self.averages = draws, rates, averages
        self.done = 0
        self.blocks: list[Tensor] = []

    @property
    def losses(self) -> Tensor:
        """Minibatch losses before each update so far, `[T, R]`."""
        return torch.cat(self.blocks)

    @property
    def latest_rates(self) -> np.ndarray:
        """Rates `[R]` of the last update, before the first those of the first."""
        last = max(self.done - 1, 0)
        return self.rates.of(last, last + 1)[0]

    def advance(self, stop: int) -> None:
        """Make the updates up to number `stop`."""
        self.carry, losses = self.block(self.carry, self.batches(stop))
        self.blocks.append(losses)
        self.averages.take_in(self.carry, stop)
        self.done = stop

    def batches(self, stop: int) -> Batches:
        """What the updates up to number `stop` take from outside."""
        device = self.carry.theta.device
        to = lambda array: torch.as_tensor(array, dtype=torch.float32, device=device)
        steps = torch.arange(self.done + 1, stop + 1, device=device)
        rates = to(self.rates.of(self.done, stop))[:, :, None]
        weights = to(self.averages.mixing(self.done, stop))[:, :, None, None]
        return Batches(*self.draws.take(stop - self.done), steps, rates, weights)
