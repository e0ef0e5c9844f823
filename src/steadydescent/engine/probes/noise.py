"""How minibatch gradients scatter."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from steadydescent.engine.probes.network import AT_A_TIME, Network, gradients_at, of_each
from steadydescent.engine.probes.probe import Measurement, Probe, Quantity
from steadydescent.engine.view import View
from steadydescent.normalization import BatchNorm, GhostBatchNorm

SIZES = (1, 8, 32, 64, 128, 256, 512, 1024)
"""Minibatch sizes at which gradient noise is measured."""
MINIBATCHES = 16
"""Minibatches of each size; of the largest only as many as `AT_A_TIME` examples fill, and never
fewer than 4.
"""
SCALE_SIZES = (32, 1024)
"""The two sizes that the noise scale is estimated from."""


class GradientNoise(Probe):
    """How minibatch gradients scatter at the current weights: by size n, and on the whole.

    - `gradient-noise` of a size n: √tr cov(g_n), the root of the total variance of the gradient of
      n examples drawn with replacement, estimated from 16 minibatches (8 of 512, 4 of 1 024
      examples, which would cost more than all others together). Without batch norm it is √(tr Σ/n),
      Σ that of a single example.
    - `noise-trace`, `gradient-square`: tr Σ and ‖G‖² by the unbiased estimators from two batch
      sizes b < B (mccandlish2018empirical, appendix A.1), here 32 and 1 024, each ‖g‖² a mean over
      the minibatches: ‖G‖² = (B·‖g_B‖² − b·‖g_b‖²)/(B − b), tr Σ = (‖g_b‖² − ‖g_B‖²)/(1/b − 1/B).
    - `noise-scale`: tr Σ/‖G‖², their simple noise scale, in examples. Where noise drowns the
      gradient the estimate of ‖G‖² may come out near zero or below: average the two parts over
      seeds before dividing.

    A size that a network's batch norm does not take is nan: n = 1, and for ghosts what they do not
    divide. With batch norm a gradient's expectation depends on n, so there the last three describe
    the two sizes, not one Σ.
    """

    name = "gradient-noise"
    quantities = (
        Quantity("gradient-noise"),
        Quantity("noise-trace"),
        Quantity("gradient-square"),
        Quantity("noise-scale"),
    )
    when = "few points"

    def look(self, view: View) -> Iterator[Measurement]:
        by_size, *rest = self.quantities
        numbers = of_each(view, self.name, len(SIZES) + len(rest), _scatter)
        for n, values in zip(SIZES, numbers, strict=False):
            yield Measurement(by_size.name, values, batch_size=n, step=view.done)
        for quantity, values in zip(rest, numbers[len(SIZES) :], strict=True):
            yield Measurement(quantity.name, values, step=view.done)


def _scatter(network: Network) -> list[float]:
    """The gradient noise of every size, then tr Σ, ‖G‖² and their ratio."""
    spread, square = dict.fromkeys(SIZES, math.nan), dict.fromkeys(SIZES, math.nan)
    count = len(network.train)
    draw = lambda n: torch.randint(count, (_minibatches(n), n), generator=network.generator)
    batches = {n: draw(n) for n in SIZES}  # all drawn at first: the same for every kind of network
    for n in (n for n in SIZES if _takes(network.module, n)):
        gradients = gradients_at(network, batches[n])
        variance = (gradients - gradients.mean(0)).square().sum() / (len(gradients) - 1)
        spread[n] = variance.sqrt().item()
        square[n] = gradients.square().sum(1).mean().item()
    small, large = SCALE_SIZES
    signal = (large * square[large] - small * square[small]) / (large - small)
    trace = (square[small] - square[large]) / (1 / small - 1 / large)
    return [*spread.values(), trace, signal, trace / signal if signal else math.nan]


def _minibatches(n: int) -> int:
    return max(4, min(MINIBATCHES, AT_A_TIME // n))


def _takes(module: nn.Module, n: int) -> bool:
    """Whether a module's batch norms take minibatches of n examples."""
    ghosts = [layer.ghost or 1 for layer in module.modules() if isinstance(layer, GhostBatchNorm)]
    normed = any(isinstance(layer, BatchNorm) for layer in module.modules())
    return not (normed and n == 1) and all(n % ghost == 0 for ghost in ghosts)
