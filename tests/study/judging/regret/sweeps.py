"""Sweeps with and without noise, for tests of regrets."""

import math

import numpy as np

from rate_searches import rng
from steadydescent.study.judging.regret import Sweep

RATES = np.geomspace(1e-5, 1, 31)
DRAWS = 1_009


MIDDLE = math.sqrt(1e-5)


def parabola(rates, centre=MIDDLE):
    """Percent, 90 at the centre, by default the middle of [1e-5, 1]; 4 pp are lost at one decade
    from it.
    """
    return 90 - 4 * np.log10(np.asarray(rates) / centre) ** 2


def certain(rates, scores):
    """A sweep without noise."""
    return Sweep(rates, np.tile(scores, (2, 1)), np.tile(scores, (3, 1)))


def noisy(seed, truth, tuning=7, report=11, noise=1.0):
    generator = rng(seed)
    draw = lambda seeds: truth + noise * generator.normal(size=(seeds, len(truth)))
    return Sweep(RATES, draw(tuning), draw(report))
