"""How far an arm's tuned rate lies below a limit."""

import math
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import TUNING_DRAWS, Estimate


class DecadesBelow(Contrast, kind="decades below"):
    """How many decades the arm's tuned rate lies below `limit`; tuning seeds are resampled.

    The best rate lies anywhere within half a step of the grid from the point that is chosen; so
    far the ends are moved.
    """

    unit: ClassVar[str] = "decades"
    limit: Annotated[float, Field(gt=0)]

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """log₁₀(limit / tuned rate); the interval is the bootstrap's over S tuning seeds."""
        place = self.arm.under(condition)
        scores = evidence.tuning(*place, "accuracy").xs("last", axis=1, level="readout")
        table, rates = scores.to_numpy(), scores.columns.to_numpy(float)
        seeds = len(table)
        alike = np.full(seeds, 1 / seeds)
        counts = np.random.default_rng(0).multinomial(seeds, alike, size=TUNING_DRAWS)
        decades = -np.log10(rates / self.limit)
        drawn = decades[(counts @ table).argmax(axis=1)]
        value = float(decades[table.mean(axis=0).argmax()])
        low, high = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
        half = math.log10(rates[1] / rates[0]) / 2
        sd = float(drawn.std(ddof=1)) * math.sqrt(seeds)
        return Estimate(value, min(low, value) - half, max(high, value) + half, sd, seeds)
