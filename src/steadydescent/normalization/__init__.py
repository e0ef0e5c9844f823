"""Normalisation of inputs and activations. Imports `averages` and `checks`.

`batch` has batch norm in three forms; `statistics` has those of the training data, and batch
norms' estimated afresh. Layer and group norm are torch's own: `normalizer` makes any by its name.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from steadydescent.checks import check_count
from steadydescent.normalization.batch import (
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    noise_shapes,
)
from steadydescent.normalization.statistics import (
    moments,
    reestimate,
    standardise,
    statistics_momentum,
)

__all__ = [
    "ABSORBS_BIAS",
    "KINDS",
    "BatchNorm",
    "GhostBatchNorm",
    "NoisyBatchNorm",
    "draw_noise",
    "moments",
    "noise_shapes",
    "normalizer",
    "reestimate",
    "standardise",
    "statistics_momentum",
]

GHOST = 25
"""Examples in a ghost batch of the study's networks."""
GROUPS = 5
"""Groups of the study's group norm, or the nearest smaller number that divides the channels."""


def _groups(channels: int) -> int:
    """Groups of at least 2 channels, or one: of a single value nothing is left but β."""
    divisors = (n for n in range(GROUPS, 1, -1) if channels % n == 0 and channels // n >= 2)
    return next(divisors, 1)


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": BatchNorm,
    "ghost": lambda channels: GhostBatchNorm(channels, GHOST),
    "noisy-batch": NoisyBatchNorm,
    "mildly-noisy-batch": partial(NoisyBatchNorm, shift=0.2, scale=1.1, spread=0.04),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
}
"""Kind → normaliser of activations [B, C, …].

Layer and group norm are torch's own (ba2016layer, wu2018group); layer norm over all axes but the
first is group norm with one group, with γ and β by channel. Mildly noisy batch norm has 0.4 times
the noise.
"""
ABSORBS_BIAS = {"batch", "ghost", "noisy-batch", "mildly-noisy-batch"}
"""Kinds that take each channel's mean away, so that a bias before them does nothing."""


def normalizer(kind: str, channels: int) -> nn.Module:
    """A fresh normaliser of activations `[B, C]` or `[B, C, …]`.

    >>> normalizer("group", 100)
    GroupNorm(5, 100, eps=1e-05, affine=True...)

    Raises:
        ValueError: for an unknown kind, or fewer than 1 channel.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    return KINDS[kind](check_count(channels, "channels"))
