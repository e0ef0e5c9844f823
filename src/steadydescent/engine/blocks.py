"""Blocks of updates without a look outside; on a GPU recorded once and replayed as a CUDA graph.

Axes: k updates, R replicas of a stack, L of them together, S seeds, B batch, N noise draws, K
averaged readouts.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from steadydescent.engine.stepping import Carry, Feed, Minibatch, Recordings

_LOG = logging.getLogger(__name__)
RECORDED = 32
"""Updates in a recorded block: long enough that launching the graph costs nothing beside it."""
TOLERANCE = 1e-4
"""How far, relative to the largest weight, a replayed block may lie from the same updates made one
by one.
"""


class Batches(NamedTuple):
    """What k updates take from outside; the first axis is the update."""

    rows: Tensor  # [k, S, B] of the pool
    labels: Tensor  # [k, S, B, …]
    noise: Tensor  # [k, S, N]
    steps: Tensor  # [k], from 1
    lr: Tensor  # [k, R]
    weights: Tensor  # [k, K]


Block = Callable[[Batches], Tensor]
"""Makes k updates on a carry and returns the minibatch losses `[k, R]` before each."""
Record = Callable[[Callable[[], None]], Callable[[], None]]


class Lanes(NamedTuple):
    """L replicas that are updated together: their part of the carry, what they share, the data's
    examples, and their seeds' places in the batches `[L]`, one place for one replica alone.
    """

    carry: Carry
    feed: Feed
    pool: Tensor
    seats: Tensor
    replicas: slice

    def minibatches(self, batches: Batches) -> Iterator[Minibatch]:
        """What each of k updates of these replicas takes."""
        alone = self.seats.ndim == 0
        mine = lambda drawn: drawn[:, int(self.seats)] if alone else drawn[:, self.seats]
        lr = batches.lr[:, self.replicas.start] if alone else batches.lr[:, self.replicas]
        parts = (*map(mine, batches[:3]), batches.steps, lr, batches.weights)
        for rows, *rest in zip(*(part.unbind() for part in parts), strict=True):
            # whole rows are copied: a compiler would copy them number by number
            x = self.pool.index_select(0, rows.flatten()).unflatten(0, rows.shape)
            yield Minibatch(x, *rest)


def one_by_one(step: Recordings, groups: Sequence[Lanes]) -> Block:
    """The block that makes the updates of one group of replicas after those of another, so that
    their weights stay in the cache.
    """

    def block(batches: Batches) -> Tensor:
        return torch.cat([_updates(step, group, batches) for group in groups], dim=1)

    return block


def _updates(step: Recordings, group: Lanes, batches: Batches) -> Tensor:
    """k updates of a group; their losses `[k, L]`."""
    losses, update = [], None
    kept = tree_leaves((group.carry, group.feed))
    for taken in group.minibatches(batches):
        update = update or step.of(group.carry, group.feed, taken)
        losses.append(update(*kept, *taken))
    return torch.stack(losses).view(len(losses), -1)


def cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    """Record what a function does on the GPU; the result does it again, on the same memory."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    # the first call compiles and fills workspaces, none of which may happen while recording
    with torch.cuda.stream(aside):
        function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def recorded(
    plain: Block, carry: Carry, updates: int = RECORDED, record: Record = cuda_graph
) -> Block:
    """The same block, its stretches of `updates` replayed from a recording.

    What is left over is made one by one. The first stretch is made both ways. Where recording fails
    or its weights differ by more than `TOLERANCE`, a warning says so and all goes on one by one.
    """
    replay: _Replay | None = None
    broken = False

    def stretch(batches: Batches) -> Tensor:
        nonlocal replay, broken
        if broken or len(batches.steps) < updates:
            return plain(batches)
        if replay:
            return replay(batches)
        before = cloned(carry)
        wanted_losses, wanted = plain(batches), cloned(carry)
        try:
            replay = _Replay(plain, batches, record)
            restore(carry, before)
            replay(batches)
            why = (
                None
                if _agree(carry, wanted)
                else (
                    "A recorded CUDA graph gave other weights than its updates one by one; "
                    "they are made so."
                )
            )
        except RuntimeError as error:
            why = (
                "Updates could not be recorded as a CUDA graph and are made one by one, slower: "
                f"{error}"
            )
        if why:
            _LOG.warning(why)
            broken, replay = True, None
            restore(carry, wanted)
        return wanted_losses

    return lambda batches: torch.cat(
        [
            stretch(Batches(*parts))
            for parts in zip(*(part.split(updates) for part in batches), strict=True)
        ]
    )


class _Replay:
    """A block recorded on batches of its own, into which what goes in is cloned."""

    def __init__(self, plain: Block, batches: Batches, record: Record) -> None:
        self.batches = Batches(*(part.clone() for part in batches))
        self.losses = batches.lr.new_empty(batches.lr.shape)

        def updates() -> None:
            self.losses.copy_(plain(self.batches))

        self.replay = record(updates)

    def __call__(self, batches: Batches) -> Tensor:
        for mine, given in zip(self.batches, batches, strict=True):
            mine.copy_(given)
        self.replay()
        return self.losses.clone()


def cloned(carry: Carry) -> Carry:
    """A carry of its own with the same numbers."""
    return tree_map(torch.clone, carry)


def restore(carry: Carry, saved: Carry, replicas: Tensor | slice = slice(None)) -> None:
    """Write some replicas of a saved carry, all by default, back into a carry."""
    for piece, kept in zip(tree_leaves(carry), tree_leaves(saved), strict=True):
        piece[replicas] = kept[replicas]


def _agree(one: Carry, other: Carry) -> bool:
    near = lambda a, b: torch.allclose(
        a, b, rtol=TOLERANCE, atol=TOLERANCE * float(b.abs().max()), equal_nan=True
    )
    return all(map(near, one.parameters, other.parameters))
