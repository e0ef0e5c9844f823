"""Measured against expected loss on the noisy quadratic."""

from typing import ClassVar

import numpy as np

from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.tasks.noisy_quadratic import expected_loss
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.optimizers import RULES
from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Array, Estimate, paired
from steadydescent.weight_averaging import parse


class ClosedForm(Contrast, kind="closed form"):
    """Measured minus expected loss at the arm's tuned rate, as a share of the expected one."""

    unit: ClassVar[str] = "%"

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The mean excess over report seeds, in percent."""
        place = self.arm.under(condition)
        side = evidence.candidates(*place, "height")
        expected = expected_height(evidence, *place, side.chosen.lr, side.chosen.readout)
        heights = side.scores.report[:, side.scores.chosen()]
        return paired(100 * (heights / expected - 1), level)


def expected_height(evidence: Evidence, condition: str, arm: str, lr: float, readout: str) -> float:
    """The noisy quadratic's expected loss at the end of an arm's runs at this rate."""
    return float(expected_curve(evidence, condition, arm, lr, readout)[-1])


def expected_curve(evidence: Evidence, condition: str, arm: str, lr: float, readout: str) -> Array:
    """The noisy quadratic's expected loss after every update of an arm's runs, `[T]`."""
    settings, eigenvalues = evidence.settings(condition, arm), np.array(EIGENVALUES)
    run = Run(**settings._asdict(), lr=lr, seed=0, readouts=(readout,))
    rule, options = read(run.optimizer)
    hyper, rates = RULES[rule].checked(**options), run.rates()
    beta, weights = hyper.get("mu", hyper.get("beta", 0.0)), parse(readout, run.steps)[1]
    return expected_loss(rule, rates, weights, eigenvalues, eigenvalues, 1.0, run.batch_size, beta)
