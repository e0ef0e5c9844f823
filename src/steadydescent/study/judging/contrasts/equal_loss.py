"""The difference in validation accuracy between two tuned arms at one training loss."""

import math
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd

from steadydescent.study.judging.contrasts.contrast import Needs
from steadydescent.study.judging.contrasts.sides import SidedContrast
from steadydescent.study.judging.evidence import Candidates, Evidence, NotAnswerable
from steadydescent.study.judging.measures.equal_loss import TRAINING_LOSS, at_loss, loss_curves
from steadydescent.study.judging.statistics import Array, Estimate, tuned

ARRIVING = 0.95
"""Share of report runs, weighted by redraws, that must fall to the level on both sides."""
FROM_THE_END = 5.0
"""Percentage points that a side's mean accuracy at the level may lie from that of its runs' ends.
"""


class Compared(NamedTuple):
    """Both sides scored where their training loss falls to `level` for good."""

    arm: Candidates
    against: Candidates
    level: float


class EqualLoss(SidedContrast, kind="equal loss"):
    """Validation accuracy where the training loss is the same: `arm`, or the best of several, minus
    the best of `against`, each tuned by its accuracy in the end.

    The loss is the lowest that 95 % of report runs on both sides fall to and stay below, so near
    where they end; those that never do count with their end. It is taken as given: the interval
    holds what seeds and tuning do at that loss. Not answerable where a side's accuracy there is
    more than 5 points from that of its ends, on average: another stage of training is no
    comparison of minima.
    """

    unit: ClassVar[str] = "pp"

    @property
    def scored_in(self) -> str:
        """What rates are tuned by."""
        return "accuracy"

    @property
    def needs(self) -> Needs:
        """The training loss along training."""
        return Needs(probe=TRAINING_LOSS)

    def sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
        """The last weights on both sides: of averages no training loss is known."""
        both = super().sides(evidence, condition)
        arm, against = (
            side.only((label.readout == "last" for label in side.labels), "last weights alone")
            for side in both
        )
        return arm, against

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Also where the two are never alike in training loss near their ends."""
        if reason := super().obstacle(evidence, condition):
            return reason
        try:
            self.compared(evidence, condition)
        except NotAnswerable as reason:
            return str(reason)
        return ""

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The interval between both sides, in percentage points of validation accuracy."""
        arm, against, _ = self.compared(evidence, condition)
        estimate = tuned(arm.scores, against.scores, level)
        return estimate if self.better else estimate.turned()

    def test_set_sampled(self, evidence: Evidence, condition: str) -> None:
        """No test set has a part in it."""

    def compared(self, evidence: Evidence, condition: str) -> Compared:
        """Both sides at the level.

        Raises:
            NotAnswerable: for runs without such losses, a level that 95 % of a side do not reach,
                or one that is far from the ends of its runs.
        """
        sides = self.sides(evidence, condition)
        tables = [_Curves(evidence, side) for side in sides]
        level = max(
            lowest_reached(table.last_losses, side.weights)
            for table, side in zip(tables, sides, strict=True)
        )
        if not math.isfinite(level):
            raise NotAnswerable("on one side fewer than 95 % of runs end with a finite loss")
        arm, against = (table.at(level, side) for table, side in zip(tables, sides, strict=True))
        return Compared(arm, against, level)


def lowest_reached(last_losses: Array, weights: Array) -> float:
    """The lowest level that 95 % of runs end at or below: losses `[S', C]`, candidates' weights
    `[C]`. Infinite where more than 5 % have no finite loss.

    >>> losses = np.arange(1.0, 21.0)[:, None]
    >>> lowest_reached(losses, np.ones(1))
    19.0
    """
    losses = np.where(np.isfinite(last_losses), last_losses, np.inf)
    shares = np.broadcast_to(weights / len(losses), losses.shape)
    order = np.argsort(losses, axis=None, kind="stable")
    reached = np.cumsum(shares.ravel()[order])
    place = np.searchsorted(reached, ARRIVING * reached[-1] - 1e-9)
    return float(losses.ravel()[order[place]])


class _Curves:
    """Training losses and validation accuracies of the report runs of a side."""

    def __init__(self, evidence: Evidence, side: Candidates) -> None:
        self.evidence, self.places = evidence, dict.fromkeys(label.place for label in side.labels)
        self.columns = [(label.place, label.lr, label.readout) for label in side.labels]
        keys = [run for place in self.places for run in evidence.runs(*place).run]
        self.curves = loss_curves(evidence.result, keys)
        if self.curves.empty:
            raise NotAnswerable("runs have no training loss beside their validation accuracy")

    @property
    def last_losses(self) -> Array:
        """Training losses at the runs' ends, `[S', C]`."""
        return self._table(self.curves.drop_duplicates("run", keep="last").set_index("run").loss)

    def at(self, level: float, side: Candidates) -> Candidates:
        """The side, scored by the accuracy where the loss falls to a level for good."""
        found = at_loss(self.curves, level).set_index("run")
        there, ends = self._table(found.value), self._table(found.end)
        apart = abs(float((ends - there).mean(axis=0) @ side.weights))
        if apart > FROM_THE_END:
            raise NotAnswerable(
                f"at a training loss of {level:.3g} a side's accuracy is {apart:.1f} points from "
                f"that of its runs' ends, more than {FROM_THE_END:g}"
            )
        return Candidates(side.labels, side.scores._replace(report=there))

    def _table(self, by_run: pd.Series) -> Array:
        """Report seeds × candidates of a number of each run."""
        values = by_run.rename("value").reset_index().assign(readout="last")
        tables = {place: self.evidence.scored(*place, values) for place in self.places}
        return np.column_stack(
            [tables[place][lr, readout].to_numpy(float) for place, lr, readout in self.columns]
        )
