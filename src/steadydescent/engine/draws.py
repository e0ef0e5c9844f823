"""Minibatches and noise of the seeds of a stack, drawn ahead.

Axes: k updates, S seeds, B batch, M examples of a training set, N noise draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from steadydescent.engine.examples import Examples
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import Task
from steadydescent.minibatches import IndexStream


class Drawn(NamedTuple):
    """What k updates have of chance."""

    rows: Tensor
    """`[k, S, B]` rows of the pool."""
    labels: Tensor
    """`[k, S, B, …]`"""
    noise: Tensor
    """`[k, S, N]`, uniform on (−1, 1)."""


class Draws:
    """The minibatches and the noise of S seeds, drawn `ahead` updates at a time and handed out as
    they are asked for.

    Each seed has its stream of minibatches and its generator of `noise` numbers a seed and update;
    `rows` `[S, M]` and `labels` `[S, M, …]` are its training set. What comes does not depend on how
    many are taken at a time.
    """

    def __init__(
        self,
        streams: Sequence[IndexStream],
        generators: Sequence[torch.Generator],
        noise: int,
        rows: Tensor,
        labels: Tensor,
        ahead: int,
    ) -> None:
        self.streams, self.generators, self.noise, self.ahead = streams, generators, noise, ahead
        self.rows, self.labels = rows, labels
        self.held = self._draw(0)

    def take(self, updates: int) -> Drawn:
        """What the next updates have."""
        if (short := updates - len(self.held.rows)) > 0:
            more = self._draw(max(short, self.ahead))
            self.held = Drawn(*(torch.cat(parts) for parts in zip(self.held, more, strict=True)))
        now = Drawn(*(part[:updates] for part in self.held))
        self.held = Drawn(*(part[updates:] for part in self.held))
        return now

    def _draw(self, updates: int) -> Drawn:
        device = self.rows.device
        places = torch.stack([stream.take(updates) for stream in self.streams]).to(device)
        seat = torch.arange(len(self.streams), device=device)[:, None, None]
        # [S, M, …] at places [S, k, B] → [k, S, B, …]
        pick = lambda table: table[seat, places].transpose(0, 1)
        uniform = [torch.rand(updates, self.noise, generator=g) for g in self.generators]
        noise = 2 * torch.stack(uniform, 1) - 1
        return Drawn(pick(self.rows), pick(self.labels), noise.to(device))


def draws_of(
    task: Task, seeds: Sequence[int], examples: Examples, batch_size: int, noise: int, ahead: int
) -> Draws:
    """The draws of these S seeds, each from streams of its own."""
    stream = lambda seed, purpose: stream_seed(task.source, seed, purpose)
    count = examples.train_rows.shape[1]
    order = [
        IndexStream(count, batch_size, stream(seed, "order"), replacement=task.surface)
        for seed in seeds
    ]
    generators = [torch.Generator().manual_seed(stream(seed, "noise")) for seed in seeds]
    return Draws(order, generators, noise, examples.train_rows, examples.train_labels, ahead)
