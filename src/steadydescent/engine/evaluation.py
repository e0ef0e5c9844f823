"""Accuracy, cross-entropy and calibration error of a stack of networks."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

CALIBRATION_BINS = 15
"""Bins of equal width that a calibration error sums over."""
IGNORED = -100
"""The label that pads; torch's cross-entropy leaves it out too."""
CHUNK = 2_000
"""Examples at a time: large enough for full-speed products, small enough for the cache and 4 GiB.
"""


class Look(NamedTuple):
    """Examples to evaluate on: `pool` `[N, D]`, and `rows` and `targets` `[R, M]` of R replicas."""

    pool: Tensor
    rows: Tensor
    targets: Tensor


def measure(
    logits: Callable[[Tensor], Tensor], rows: Tensor, targets: Tensor, diverged: Tensor
) -> pd.DataFrame:
    """One row a replica: accuracy, cross-entropy in nats, expected calibration error.

    The calibration error has 15 equal bins (Guo et al. 2017). `logits` maps rows `[R, N]` of the
    data to `[R, N, K]`, or to `[R, N, T, K]` where an example has T labels; `targets` `[R, N]` or
    `[R, N, T]` are those labels, of which −100 do not count. A replica that diverged, or whose
    logits are not all finite, counts as guessing: accuracy 1/K, cross-entropy ln K, calibration
    error 0.
    """
    outputs = (
        (logits(x), y)
        for x, y in zip(rows.split(CHUNK, dim=1), targets.split(CHUNK, dim=1), strict=True)
    )
    parts = [
        (_sums(scores.flatten(1, -2), labels.flatten(1)), scores.shape[-1])
        for scores, labels in outputs
    ]
    classes = parts[0][1]
    total = {
        name: torch.stack([sums[name] for sums, _ in parts]).sum(dim=0) for name in parts[0][0]
    }
    count = total["count"]
    lost = diverged | (total["bad"] > 0)
    guess = lambda value, chance: torch.where(lost, torch.full_like(value, chance), value).tolist()
    gap = (total["confidence"] - total["hits"]).abs().sum(dim=1) / count
    return pd.DataFrame(
        {
            "accuracy": guess(total["hits"].sum(dim=1) / count, 1 / classes),
            "loss": guess(total["nats"] / count, math.log(classes)),
            "calibration_error": guess(gap, 0.0),
        }
    )


def measure_surface(height: Tensor, start: Tensor, diverged: Tensor) -> pd.DataFrame:
    """One row a replica: f(θ) without noise as its loss; a surface has no accuracy. Shapes `[R]`.

    A replica that diverged counts as one that has not moved from the start.
    """
    lost = diverged | ~torch.isfinite(height)
    loss = torch.where(lost, start, height).double().tolist()
    return pd.DataFrame({"accuracy": math.nan, "loss": loss, "calibration_error": math.nan})


def _sums(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Sums over N of a chunk's logits [R, N, K] against labels [R, N].

    `hits` and `confidence` are sums in each calibration bin.
    """
    replicas, counted = logits.shape[0], labels != IGNORED
    log_probabilities = torch.log_softmax(logits, dim=-1)
    top, guess = log_probabilities.max(dim=-1)
    top = top.exp()
    bins = (top.nan_to_num() * CALIBRATION_BINS).long().clamp_(max=CALIBRATION_BINS - 1)
    bins += CALIBRATION_BINS * torch.arange(replicas, device=logits.device)[:, None]
    per_bin = lambda value: torch.bincount(
        bins.flatten(), (value * counted).double().flatten(), minlength=replicas * CALIBRATION_BINS
    ).view(replicas, CALIBRATION_BINS)
    nats = -log_probabilities.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1) * counted
    return {
        "hits": per_bin(guess == labels),
        "confidence": per_bin(top),
        "nats": nats.sum(dim=1, dtype=torch.float64),
        "bad": (~torch.isfinite(log_probabilities[..., 0])).sum(dim=1),
        "count": counted.sum(dim=1),
    }
