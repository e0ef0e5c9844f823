"""The ratio of the times that two tuned arms take to a target."""

import math
from typing import ClassVar

import pandas as pd

from steadydescent.study.judging.contrasts.contrast import Needs
from steadydescent.study.judging.contrasts.sides import SidedContrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Array, Estimate, tuned


class TimeToTarget(SidedContrast, kind="time to target"):
    """Examples to the target times the measured seconds an example, `against` over `arm` where the
    arm is claimed to be faster (`better`), else the other way round.

    Times were taken in rounds, all batch sizes in each; the logarithm of their ratio, round by
    round, has a variance of its own, which seeds know nothing of and the interval adds to theirs.
    """

    unit: ClassVar[str] = "×"

    @property
    def ratio(self) -> bool:
        """Estimates are logarithms of ratios."""
        return True

    @property
    def scored_in(self) -> str:
        """Examples."""
        return "examples to target"

    @property
    def needs(self) -> Needs:
        """Examples to the target, and times."""
        return Needs(measure=self.scored_in, timed=True)

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Also where a batch size was not timed at least twice, or a side has several sizes."""
        if reason := super().obstacle(evidence, condition):
            return reason
        try:
            rounds = len(self._log_times(evidence, condition))
        except KeyError as size:
            return f"a minibatch of {size} was not timed"
        return "" if rounds > 1 else f"times were taken in {rounds} rounds, two are the least"

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """log(time against / time of the arm), turned round where the arm is to be slower."""
        arm, against = self.sides(evidence, condition)
        estimate = tuned(arm.scores, against.scores, level, statistic="log mean")
        times = self._log_times(evidence, condition)
        moved = float(times.mean())
        estimate = estimate._replace(
            value=estimate.value + moved, low=estimate.low + moved, high=estimate.high + moved
        )
        estimate = estimate.widened(float(times.var(ddof=1)) / len(times), len(times) - 1, level)
        return estimate.turned() if self.better else estimate

    def _log_times(self, evidence: Evidence, condition: str) -> Array:
        """log(seconds an example at the arm's size / at the other's), round by round.

        Raises:
            KeyError: for a size that was not timed.
        """
        timings = evidence.result.timings
        table = timings.pivot(index="round", columns="batch_size", values="seconds_per_example")
        arm, against = (
            _log(table[self._size(evidence, condition, stated_first)])
            for stated_first in (True, False)
        )
        return (arm - against).dropna().to_numpy(float)

    def _size(self, evidence: Evidence, condition: str, of_arm: bool) -> int:
        """The batch size of a side, of whose arms all have the same."""
        arms = self.arms if of_arm else self.against
        sizes = {evidence.settings(*stated.under(condition)).batch_size for stated in arms}
        if len(sizes) > 1:
            raise ValueError(f"arms on one side must have one batch size, got {sorted(sizes)}")
        return sizes.pop()


def _log(times: pd.Series) -> pd.Series:
    return times.map(math.log)
