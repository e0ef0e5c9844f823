"""How much time minibatches of a power of two save."""

from typing import ClassVar

import pandas as pd

from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Estimate, paired


class FasterSize(Contrast, kind="faster size"):
    """How much less time an example takes at powers of two than at their neighbours."""

    unit: ClassVar[str] = "%"

    @property
    def needs(self) -> Needs:
        """Times per example."""
        return Needs(timed=True)

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where fewer than two rounds timed a power of two beside its neighbours."""
        rounds = len(time_saved(evidence))
        few = (
            f"a power of two was timed beside its neighbours in {rounds} rounds, two are the least"
        )
        return "" if rounds > 1 else few

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The mean gain over sizes, round by round, in percent."""
        return paired(time_saved(evidence).to_numpy(), level)


def time_saved(evidence: Evidence) -> pd.Series:
    """Round → the mean gain of powers of two over their neighbours, in percent."""
    return evidence.result.timings.dropna(subset="gain").groupby("round").gain.mean()
