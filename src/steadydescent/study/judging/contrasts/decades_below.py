"""How far an arm's tuned rate lies below a limit."""

import math
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.remarks import Remarks
from steadydescent.study.judging.statistics import TUNING_DRAWS, Array, Estimate


class DecadesBelow(Contrast, kind="decades below"):
    """How many decades the arm's tuned rate lies below `limit`; tuning seeds are resampled.

    The best rate lies anywhere within half a step of the grid from the point that is chosen; so
    far the ends are moved.
    """

    unit: ClassVar[str] = "decades"
    limit: Annotated[float, Field(gt=0)]

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """log₁₀(limit / tuned rate); the interval is the bootstrap's over S tuning seeds."""
        table, rates = self._tuning(evidence, condition)
        decades = -np.log10(rates / self.limit)
        drawn = decades[_redrawn(table)]
        value = float(decades[table.mean(axis=0).argmax()])
        low, high = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
        half = math.log10(rates[1] / rates[0]) / 2
        seeds = len(table)
        sd = float(drawn.std(ddof=1)) * math.sqrt(seeds)
        return Estimate(value, min(low, value) - half, max(high, value) + half, sd, seeds)

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """How often tuning ends on the lowest or highest rate that it tried."""
        table, _ = self._tuning(evidence, condition)
        drawn = _redrawn(table)
        ends = (0, table.shape[1] - 1)
        return Remarks(edge_share=max(float((drawn == end).mean()) for end in ends))

    def _tuning(self, evidence: Evidence, condition: str) -> tuple[Array, Array]:
        """Validation accuracies `[S, G]` of the last weights, and the rates `[G]`."""
        scores = evidence.tuning(*self.arm.under(condition), "accuracy")
        scores = scores.xs("last", axis=1, level="readout")
        return scores.to_numpy(float), scores.columns.to_numpy(float)


def _redrawn(table: Array) -> NDArray[np.int64]:
    """The rate that tuning chooses on tuning seeds drawn anew, `[D]`."""
    seeds = len(table)
    alike = np.full(seeds, 1 / seeds)
    counts = np.random.default_rng(0).multinomial(seeds, alike, size=TUNING_DRAWS)
    return (counts @ table).argmax(axis=1)
