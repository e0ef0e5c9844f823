"""The regimes of a range test: flat at small rates, falling, and rising at the largest."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.measures.range_tests import curves_of_length
from steadydescent.study.judging.statistics import Array, Estimate, paired

LARGEST_RISE = 1.0
"""A rise by more than the whole fall counts as one by as much: how far a loss explodes says no
more.
"""


class RangeTestRegimes(Contrast, kind="range test regimes"):
    """What part of a range test's whole fall a regime has, in percent, seed by seed.

    The whole fall is from the first smoothed loss to the lowest. `part: fall below` is how much of
    it happens below `rate`: near 0 where the curve is flat at small rates. `part: rise beyond` is
    how far the loss at the largest rate lies above the lowest, the whole fall at most; a test that
    ended before, its loss not finite, counts as that much. Tests whose loss never falls have no
    regimes and are left out.
    """

    unit: ClassVar[str] = "%"
    updates: Annotated[int, Field(ge=1)]
    part: Literal["fall below", "rise beyond"]
    rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "RangeTestRegimes":
        if (self.part == "fall below") != (self.rate is not None):
            raise ValueError(
                f"rate says below which rate the fall is taken, and belongs to part: fall below; "
                f"got {self.rate} with part: {self.part}"
            )
        return self

    @property
    def needs(self) -> Needs:
        """Range tests of that length."""
        return Needs(ramp=self.updates)

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where fewer than two curves fall."""
        curves = len(self._parts(evidence))
        few = f"the loss falls in {curves} range tests of {self.updates} updates, two are the least"
        return "" if curves > 1 else few

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The mean part over seeds; where every test has as much as is counted, from 0 to 1, the
        interval reaches down to the least mean of which that may come about (Clopper–Pearson).
        """
        parts = self._parts(evidence)
        estimate = paired(100 * parts, level)
        if (parts < LARGEST_RISE).any():
            return estimate
        return estimate._replace(low=100 * ((1 - level) / 2) ** (1 / len(parts)))

    def _parts(self, evidence: Evidence) -> Array:
        curves = curves_of_length(evidence.result, self.updates)
        whole = curves.rate.max()
        parts = [self._part(curve, whole) for _, curve in curves.groupby("run")]
        return np.array([part for part in parts if part is not None])

    def _part(self, curve: pd.DataFrame, largest: float) -> float | None:
        rates, losses = curve.rate.to_numpy(float), curve.loss.to_numpy(float)
        lowest = int(losses.argmin())
        if not (fall := losses[0] - losses[lowest]) > 0:
            return None
        if self.rate is None:
            return (
                LARGEST_RISE
                if rates[-1] < largest
                else min(LARGEST_RISE, (losses[-1] - losses[lowest]) / fall)
            )
        if self.rate >= rates[lowest]:
            return 1.0
        there = np.interp(np.log(self.rate), np.log(rates), losses)
        return float((losses[0] - there) / fall)
