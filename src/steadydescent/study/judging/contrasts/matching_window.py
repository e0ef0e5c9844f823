"""Which of two windows an exponential average's loss is nearer to."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator

from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.places import Place, StatedArm
from steadydescent.study.judging.remarks import Remarks
from steadydescent.study.judging.statistics import Array, Estimate, paired


def _pair(stated: Any) -> Any:
    arms = list(stated) if isinstance(stated, list | tuple) else [stated]
    if len(arms) != 2:
        raise ValueError(f"a matching window needs two arms in against, got {arms}")
    return tuple(arms)


class MatchingWindow(Contrast, kind="matching window"):
    """How much nearer the arm's loss is to that of the first of `against` than of the second.

    At the rate that is tuned for the arm. The first is the mean of the last 1/(1−β) steps, the
    second that of (1+β)/(1−β).
    """

    unit: ClassVar[str] = "nats"
    against: Annotated[tuple[StatedArm, StatedArm], BeforeValidator(_pair)]

    def places(self, condition: str) -> list[Place]:
        """The arm's, and those of both windows."""
        return [stated.under(condition) for stated in (self.arm, *self.against)]

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """|arm − second| − |arm − first|, seed by seed."""
        arm, near, far = (evidence.candidates(*p, "loss") for p in self.places(condition))
        lr = arm.chosen.lr
        loss, near_loss, far_loss = (_at(side, lr) for side in (arm, near, far))
        return paired(np.abs(loss - far_loss) - np.abs(loss - near_loss), level)

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """Losses on one test set."""
        return Remarks(test_set_sampled=False)


def _at(side: Candidates, lr: float) -> Array:
    """Report scores at a rate, `[S']`."""
    return side.scores.report[:, [label.lr for label in side.labels].index(lr)]
