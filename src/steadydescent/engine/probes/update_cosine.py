"""How the last two updates of a run lie to one another."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.linalg import vecdot, vector_norm

from steadydescent.engine.probes.probe import Measurement, Probe, ProbedRun, Quantity
from steadydescent.engine.view import View

COSINE = "update-cosine"
WEIGHTS = 3
"""Weights between which there are two updates."""


class UpdateCosine(Probe):
    """Cosine of the last two updates, u_T·u_{T−1}/(|u_T|·|u_{T−1}|) with u_t = θ_t − θ_{t−1}.

    −1: the last update took back the direction of the one before, as where the rate is too large
    for a curvature; 1: it went on. Weights are float32, so that updates of less than about 1e-6 of
    the weights are mostly rounding. nan where an update is zero.
    """

    name = "update-cosine"
    quantities = (Quantity(COSINE, "cosine of successive updates", higher=False),)
    when = "end"

    def __init__(self) -> None:
        self._weights: list[Tensor] = []

    @classmethod
    def check(cls, run: ProbedRun) -> None:
        """Raises ValueError for a run that is over before three weights have been seen."""
        if run.steps < WEIGHTS:
            raise ValueError(
                f"the probe {cls.name!r} needs at least {WEIGHTS} steps, got {run.steps}"
            )

    @classmethod
    def looks_at(cls, points: Sequence[int]) -> Sequence[int]:
        """The last three updates, whether or not the curve has a point there."""
        return range(points[-1] - WEIGHTS + 1, points[-1] + 1)

    def look(self, view: View) -> Iterator[Measurement]:
        self._weights.append(view.theta.double().cpu())
        if len(self._weights) == WEIGHTS:
            before, between, last = self._weights
            cosine = cosines(between - before, last - between)
            yield Measurement(COSINE, cosine.masked_fill(~view.alive.cpu(), math.nan))


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of every two rows, `[R, P]` and `[R, P]` to `[R]`; nan where one is zero.

    >>> cosines(Tensor([[1.0, 0.0], [0.0, 0.0]]), Tensor([[-3.0, 0.0], [1.0, 0.0]]))
    tensor([-1., nan])
    """
    lengths = vector_norm(one, dim=1) * vector_norm(other, dim=1)
    return vecdot(one, other) / lengths
