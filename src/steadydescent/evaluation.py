"""Accuracy, cross-entropy and calibration error of a stack of networks."""

import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

CALIBRATION_BINS = 15
CHUNK = 2_000
"""Examples at a time: large enough for full-speed products, small enough for the cache and 4 GiB."""


def measure(
    logits: Callable[[Tensor, Tensor, Tensor], Tensor],
    weights: tuple[Tensor, Tensor],
    inputs: Callable[[Tensor], Tensor],
    labels: Tensor,
    rows: Tensor,
    diverged: Tensor,
) -> pd.DataFrame:
    """One row a replica: accuracy, cross-entropy (nats), expected calibration error (15 equal bins; Guo et al. 2017).

    `logits` maps weights [R, P], buffers [R, Q] and inputs [R, N, D] to [R, N, K]; `inputs` maps rows
    [R, N] of the data to standardised inputs. A replica that diverged, or whose logits are not all
    finite, counts as guessing: accuracy 1/K, cross-entropy ln K, calibration error 0.
    """
    outputs = ((logits(*weights, inputs(part)), labels[part]) for part in rows.split(CHUNK, dim=1))
    parts = [(_sums(*pair), pair[0].shape[-1]) for pair in outputs]
    classes = parts[0][1]
    total = {name: torch.stack([sums[name] for sums, _ in parts]).sum(dim=0) for name in parts[0][0]}
    count = rows.shape[1]
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


def _sums(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Sums over N of a chunk's logits [R, N, K] against labels [R, N], per calibration bin where that matters."""
    replicas = logits.shape[0]
    log_probabilities = torch.log_softmax(logits, dim=-1)
    top, guess = log_probabilities.max(dim=-1)
    top = top.exp()
    bins = (top.nan_to_num() * CALIBRATION_BINS).long().clamp_(max=CALIBRATION_BINS - 1)
    bins += CALIBRATION_BINS * torch.arange(replicas, device=logits.device)[:, None]
    per_bin = lambda value: torch.bincount(
        bins.flatten(), value.double().flatten(), minlength=replicas * CALIBRATION_BINS
    ).view(replicas, CALIBRATION_BINS)
    return {
        "hits": per_bin(guess == labels),
        "confidence": per_bin(top),
        "nats": -log_probabilities.gather(-1, labels[..., None]).squeeze(-1).sum(dim=1, dtype=torch.float64),
        "bad": (~torch.isfinite(log_probabilities[..., 0])).sum(dim=1),
    }
