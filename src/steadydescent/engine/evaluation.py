"""Accuracy, cross-entropy and calibration error of networks, from their outputs chunk by chunk.

Axes: N networks, n of them in a chunk, E examples of a chunk, K classes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadydescent.engine.tasks.task import IGNORED

CALIBRATION_BINS = 15
"""Bins of equal width that a calibration error sums over."""

CHUNK = 2_000
"""Examples at a time at most: large enough for full-speed products."""


class Look(NamedTuple):
    """Examples to evaluate on: `pool` `[N, D]`, and `rows` and `targets` `[R, M]` of R replicas.

    Replicas of one seed have the same rows.
    """

    pool: Tensor
    rows: Tensor
    targets: Tensor


class Outputs(NamedTuple):
    """What some networks say of a chunk of examples."""

    networks: Sequence[int]
    """Which of all N they are, `[n]`."""
    logits: Tensor
    """`[n, E, K]`, or `[n, E, T, K]` where an example has T labels."""
    labels: Tensor
    """`[E]` or `[E, T]`, the same for all, or with an axis `[n]` before; −100 does not count."""


class ReplicaScores(NamedTuple):
    """Accuracy, cross-entropy in nats and expected calibration error, one each a network."""

    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    calibration_error: NDArray[np.float64]

    def at(self, places: NDArray[np.intp] | slice) -> "ReplicaScores":
        """Those of the networks at these places."""
        return ReplicaScores(*(part[places] for part in self))


def measure(chunks: Iterable[Outputs], diverged: Tensor) -> ReplicaScores:
    """Scores of N networks over all chunks; `diverged` `[N]` are those that count as
    guessing.

    The calibration error has 15 equal bins (Guo et al. 2017): Σ_b |Σ_e∈b (confidence − hit)| / E.
    A network that diverged, or whose logits are not all finite, counts as guessing: accuracy 1/K,
    cross-entropy ln K, calibration error 0.
    """
    sums, classes = _Sums(len(diverged), diverged.device), 1
    for outputs in chunks:
        classes = outputs.logits.shape[-1]
        sums.add(outputs)
    lost = diverged | sums.bad
    guess = lambda value, chance: torch.where(lost, chance, value).cpu().numpy()
    return ReplicaScores(
        accuracy=guess(sums.hits / sums.count, 1 / classes),
        loss=guess(sums.nats / sums.count, math.log(classes)),
        calibration_error=guess(sums.gaps.abs().sum(dim=1) / sums.count, 0.0),
    )


def measure_surface(height: Tensor, start: Tensor, diverged: Tensor) -> ReplicaScores:
    """f(θ) without noise as the loss; a surface has no accuracy. Shapes `[R]`.

    A replica that diverged counts as one that has not moved from the start.
    """
    lost = diverged | ~torch.isfinite(height)
    loss = torch.where(lost, start, height).double().cpu().numpy()
    nothing = np.full(len(loss), math.nan)
    return ReplicaScores(accuracy=nothing, loss=loss, calibration_error=nothing)


class _Sums:
    """Sums over examples of N networks; `gaps` are confidence less hits in each bin."""

    def __init__(self, networks: int, device: torch.device) -> None:
        zeros = lambda *shape: torch.zeros(networks, *shape, dtype=torch.float64, device=device)
        self.gaps, self.nats, self.hits, self.count = (
            zeros(CALIBRATION_BINS),
            *(zeros() for _ in range(3)),
        )
        self.bad = torch.zeros(networks, dtype=torch.bool, device=device)

    def add(self, outputs: Outputs) -> None:
        """Take in the outputs of some networks, each once a call."""
        at = torch.as_tensor(outputs.networks, device=self.nats.device)
        logits = outputs.logits.flatten(1, -2)  # [n, E, K]
        labels = outputs.labels.reshape(-1, logits.shape[1]).expand(len(logits), -1)
        counted = labels != IGNORED
        top, guess = logits.max(dim=-1)
        normaliser = torch.logsumexp(logits, dim=-1)
        hit = (guess == labels) & counted
        nats = normaliser - logits.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
        confidence = (top - normaliser).exp_()
        bins = (confidence.nan_to_num() * CALIBRATION_BINS).long()
        gaps = (confidence - hit.float()).mul_(counted).double()
        self.gaps[at] += torch.zeros_like(self.gaps[at]).scatter_add_(
            1, bins.clamp_(max=CALIBRATION_BINS - 1), gaps
        )
        self.nats[at] += (nats * counted).sum(dim=1, dtype=torch.float64)
        self.hits[at] += hit.sum(dim=1)
        self.count[at] += counted.sum(dim=1)
        # any NaN or infinity is the highest or lowest of all, or makes it one
        ends = torch.stack([top.amax(dim=1), logits.flatten(1).amin(dim=1)])
        self.bad[at] |= ~torch.isfinite(ends).all(dim=0)
