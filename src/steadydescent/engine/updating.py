"""A stack in training: its updates, one block after another.

Axes: k updates, R replicas, T updates of the run, K averages.
"""

import math

import numpy as np
import torch
from torch import Tensor

from steadydescent.engine.averaging import Averages
from steadydescent.engine.blocks import Batches, Block, cloned, restore
from steadydescent.engine.draws import Draws
from steadydescent.engine.stack_rates import Rates
from steadydescent.engine.stepping import Carry


class Training:
    """R replicas on their way: the `carry` that updates change, how many are `done`, and the
    minibatch losses before each, `[k, R]` a block.

    `survived` `[R]` counts a replica's updates before its loss went non-finite. From then on it
    stays where it last was, and its losses are nan.
    """

    def __init__(
        self, carry: Carry, block: Block, draws: Draws, rates: Rates, averages: Averages
    ) -> None:
        self.carry, self.block = carry, block
        self.draws, self.rates, self.averages = draws, rates, averages
        self.done = 0
        self.blocks: list[Tensor] = []
        first = carry.parameters[0]
        self.survived = torch.zeros(len(first), dtype=torch.int64, device=first.device)

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
        before, batches = cloned(self.carry), self.batches(stop)
        losses = self.block(batches)
        ends = self._ends(losses)
        # replicas diverge rarely: nothing is kept back at an update, and the block is made again
        if not bool((self.survived + ends == stop).all()):
            self._go_back(before, batches, ends)
            gone = torch.arange(len(losses), device=ends.device)[:, None] > ends
            losses = losses.masked_fill(gone, math.nan)
        self.survived += ends
        self.blocks.append(losses)
        self.averages.take_in(self.carry, stop)
        self.done = stop

    def _ends(self, losses: Tensor) -> Tensor:
        """How many updates `[R]` of a block with these losses `[k, R]` each replica survived."""
        finite = torch.isfinite(losses).long().cumprod(0).sum(0)
        return torch.where(self.survived == self.done, finite, 0)

    def _go_back(self, before: Carry, batches: Batches, ends: Tensor) -> None:
        """Put replicas that diverged in a block where they were when they did."""
        after = cloned(self.carry)
        restore(self.carry, before)
        made = 0
        for end in ends.unique().tolist():
            if end < len(batches.steps):
                if end > made:
                    self.block(Batches(*(part[made:end] for part in batches)))
                made = end
                restore(after, self.carry, ends == end)
        restore(self.carry, after)

    def batches(self, stop: int) -> Batches:
        """What the updates up to number `stop` take from outside."""
        device = self.survived.device
        to = lambda array: torch.as_tensor(array, dtype=torch.float32, device=device)
        steps = torch.arange(self.done + 1, stop + 1, device=device)
        rates, weights = self.rates.of(self.done, stop), self.averages.mixing(self.done, stop)
        return Batches(*self.draws.take(stop - self.done), steps, to(rates), to(weights))
