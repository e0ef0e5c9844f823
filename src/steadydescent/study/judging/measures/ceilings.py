"""How high a run on a surface may climb before it counts as thrown, and not as rolling."""

from functools import cache

import torch

from steadydescent.engine.tasks import base
from steadydescent.engine.tasks.surfaces import SURFACES, Surface, double_well, well_bottoms

FREE = ("noisy-quadratic",)
"""Surfaces whose noise alone lifts runs above their start."""
OVER_A_BARRIER = ("double-well",)
"""Surfaces that a run starts on at the bottom of a well."""
DEVIATIONS = 4.0
"""How far across the valley noise may carry a run that crosses the barrier: at a rate of 1 the
distance is white noise, with the deviation of a single draw.
"""
HEIGHT_ROUNDING = 1e-6


@cache
def ceiling(task: str) -> float | None:
    """The height that a run on a task may not exceed: that of its start; None where there is none.

    A run out of the double well's shallow one has to rise. Its ceiling is the barrier, and above it
    the height ½·(4s)² of four standard deviations s of the noise across.

    >>> round(ceiling("ravine"), 4), round(ceiling("double-well"), 4), ceiling("mnist1d-mlp")
    (5.0, 0.335, None)
    """
    name = base(task)
    if name not in SURFACES or name in FREE:
        return None
    surface = SURFACES[name]()
    if name in OVER_A_BARRIER:
        return _barrier() + (DEVIATIONS * surface.scale[1]) ** 2 / 2
    return _start(surface) + HEIGHT_ROUNDING


def _start(surface: Surface) -> float:
    with torch.no_grad():
        return float(surface.function(surface.point))


def _barrier() -> float:
    return float(double_well(torch.tensor([well_bottoms()[1], 0.0])))
