"""Measurements on a stack of networks while it trains: gradient noise, internal covariate shift,
predicted classes.

A probe reads a stack between two chunks and writes nothing to it. It goes replica by replica, on
any device, and its draws come from a generator for each (probe, run seed, step), so that neighbours
leave no trace. A measure is `[R]` in float64; it is nan for a replica that diverged, for those that
merely fill a stack up, and where it has no meaning.

Networks are looked at in training mode, as their updates see them: batch norm takes the statistics
of the batch, and layers that make noise make it, drawn as in training. Stilled, noisy batch norm
would be measured as plain batch norm.

Axes: R replicas, P parameters, Q buffer entries, D inputs, M minibatches, n examples of one, U
units of a layer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from steadydescent.engine.probes.noise import SIZES, gradient_noise
from steadydescent.engine.probes.predictions import LOST, churn, predicted_classes
from steadydescent.engine.probes.shift import internal_shift

if TYPE_CHECKING:
    from steadydescent.engine.stack import Stack

PROBES: dict[str, Callable[["Stack"], dict[str, Tensor]]] = {
    "gradient-noise": gradient_noise,
    "internal-shift": internal_shift,
}
"""Probe → its measures of a stack, by name."""

__all__ = [
    "LOST",
    "PROBES",
    "SIZES",
    "churn",
    "gradient_noise",
    "internal_shift",
    "predicted_classes",
]
