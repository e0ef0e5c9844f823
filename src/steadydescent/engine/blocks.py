"""Blocks of updates without a look outside; on a GPU recorded once and replayed as a CUDA graph.

Axes: k updates, R replicas, S seeds, B batch, N noise draws, K averaged readouts, P parameters, Q
buffer entries.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from steadydescent.engine.stepping import Carry, Step

_LOG = logging.getLogger(__name__)
RECORDED = 32
"""Updates in a recorded block: long enough that launching the graph costs nothing beside it."""
TOLERANCE = 1e-4
"""How far, relative to the largest weight, a replayed block may lie from the same updates made one
by one.
"""


class Feed(NamedTuple):
    """What all updates of a stack share."""

    pool: Tensor  # the data's examples
    lane: Tensor  # [R] → the seed's place in the batches
    mean: Tensor  # [R, 1, D or 1]
    std: Tensor


class Batches(NamedTuple):
    """What k updates take from outside; the first axis is the update."""

    rows: Tensor  # [k, S, B] of the pool
    labels: Tensor  # [k, S, B, …]
    noise: Tensor  # [k, S, N]
    steps: Tensor  # [k], from 1
    lr: Tensor  # [k, R, 1]
    weights: Tensor  # [k, K, 1, 1]


Block = Callable[[Carry, Batches], tuple[Carry, Tensor]]
Record = Callable[[Callable[[], None]], Callable[[], None]]


def one_by_one(step: Step, feed: Feed) -> Block:
    """The block that makes its updates in a loop.

    It returns the new carry, and the minibatch losses `[k, R]` before each update.
    """

    def block(carry: Carry, batches: Batches) -> tuple[Carry, Tensor]:
        losses = []
        for rows, labels, noise, t, lr, weights in zip(*batches, strict=True):
            x, y = feed.pool[rows[feed.lane]], labels[feed.lane]
            carry, loss = step(carry, noise[feed.lane], x, y, feed.mean, feed.std, t, lr, weights)
            losses.append(loss)
        return carry, torch.stack(losses)

    return block


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


def recorded(plain: Block, updates: int = RECORDED, record: Record = cuda_graph) -> Block:
    """The same block, its stretches of `updates` replayed from a recording.

    What is left over is made one by one. The first stretch is made both ways. Where recording fails
    or its weights differ by more than `TOLERANCE`, a warning says so and all goes on one by one.
    """
    replay: _Replay | None = None
    broken = False

    def stretch(carry: Carry, batches: Batches) -> tuple[Carry, Tensor]:
        nonlocal replay, broken
        if broken or len(batches.steps) < updates:
            return plain(carry, batches)
        if replay:
            return replay(carry, batches)
        wanted = plain(carry, batches)
        try:
            replay = _Replay(plain, carry, batches, record)
            replayed = replay(carry, batches)
        except RuntimeError as error:
            broken, replay = True, None
            _LOG.warning(
                "Updates could not be recorded as a CUDA graph and are made one by one, slower: %s",
                error,
            )
            return wanted
        if not _agree(replayed[0].theta, wanted[0].theta):
            broken, replay = True, None
            _LOG.warning(
                "A recorded CUDA graph gave other weights than its updates one by one; "
                "they are made so."
            )
            return wanted
        return replayed

    def block(carry: Carry, batches: Batches) -> tuple[Carry, Tensor]:
        losses = []
        for parts in zip(*(part.split(updates) for part in batches), strict=True):
            carry, loss = stretch(carry, Batches(*parts))
            losses.append(loss)
        return carry, torch.cat(losses)

    return block


class _Replay:
    """A block recorded on memory of its own, where what goes in is copied and the carry stays."""

    def __init__(self, plain: Block, carry: Carry, batches: Batches, record: Record) -> None:
        self.carry, self.batches = tree_map(torch.clone, carry), tree_map(torch.clone, batches)
        self.losses = batches.lr.new_empty(batches.lr.shape[:2])

        def updates() -> None:
            carry, losses = plain(self.carry, self.batches)
            _copy(carry, self.carry)
            self.losses.copy_(losses)

        self.replay = record(updates)

    def __call__(self, carry: Carry, batches: Batches) -> tuple[Carry, Tensor]:
        _copy(carry, self.carry)
        _copy(batches, self.batches)
        self.replay()
        return self.carry, self.losses.clone()


def _copy(source: NamedTuple, target: NamedTuple) -> None:
    for new, old in zip(tree_leaves(source), tree_leaves(target), strict=True):
        if new is not old:
            old.copy_(new)


def _agree(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(
        one, other, rtol=TOLERANCE, atol=TOLERANCE * float(other.abs().max()), equal_nan=True
    )
