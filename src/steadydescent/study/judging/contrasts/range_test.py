"""What is lost by training at the rate that range tests suggest."""

from dataclasses import replace
from typing import Annotated, ClassVar

import pandas as pd
from pydantic import AfterValidator, Field

from steadydescent.checks import check_choice
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.judging import regret
from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.remarks import Remarks
from steadydescent.study.judging.statistics import Estimate


def _known(suggestion: str) -> str:
    return check_choice(suggestion, SUGGESTIONS, "suggestion")


class RangeTestLoss(Contrast, kind="range test"):
    """Minus the accuracy lost at the rates that one rule reads off ramps of so many updates.

    With the rule `at least`, a good rate loses less than the margin.
    """

    unit: ClassVar[str] = "pp"
    suggestion: Annotated[str, AfterValidator(_known)]
    updates: Annotated[int, Field(ge=1)]

    @property
    def needs(self) -> Needs:
        """Range tests of that length."""
        return Needs(ramp=self.updates)

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where fewer than two range tests of that length suggest a rate."""
        tests = len(self._suggested(evidence))
        few = f"{tests} range tests of {self.updates} updates suggest a rate, two are the least"
        return "" if tests > 1 else few

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """Minus the mean loss at the suggested rates against the tuned one, in pp of accuracy."""
        sweep = regret.dense_sweep(evidence, *self.arm.under(condition))
        suggested = self._suggested(evidence)
        (lost,) = regret.range_test_estimates(sweep, suggested, level, self.draws_from).values()
        return lost.turned()

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """Accuracies of one test set, or why there is no answer."""
        return replace(super().remarks(evidence, condition), test_set_sampled=False)

    def _suggested(self, evidence: Evidence) -> pd.DataFrame:
        table = suggestions(evidence)
        return table[(table.rule == self.suggestion) & (table.length == self.updates)]


def suggestions(evidence: Evidence) -> pd.DataFrame:
    """What every range test suggests: columns seed, rule, length (updates) and rate."""
    runs = evidence.result.runs[["run", "seed", "steps"]].rename(columns={"steps": "length"})
    table = evidence.result.suggestions.merge(runs, on="run")
    return table[["seed", "rule", "length", "rate"]]
