"""How much less accuracy one search for a rate loses than another at equal trials."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from steadydescent.checks import check_choice
from steadydescent.study.judging import regret
from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.remarks import Remarks
from steadydescent.study.judging.statistics import Estimate


def _known(method: str) -> str:
    return check_choice(method, regret.METHODS, "a method of search")


Method = Annotated[str, AfterValidator(_known)]


class SearchRegret(Contrast, kind="search regret"):
    """What `method` regains of what `than` gives away, both replayed on the arm's dense sweep."""

    unit: ClassVar[str] = "pp"
    method: Method
    than: Method
    trials: Annotated[int, Field(ge=1)]

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """Regret of `than` minus regret of `method`, in percentage points of accuracy."""
        sweep = regret.dense_sweep(evidence, *self.arm.under(condition))
        return regret.search_gain(
            sweep, self.method, self.than, self.trials, level, self.draws_from
        )

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """Accuracies of one test set."""
        return Remarks(test_set_sampled=False)
