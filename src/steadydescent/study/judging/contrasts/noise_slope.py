"""How the noise of minibatch gradients falls with the size of minibatches."""

from typing import ClassVar

import numpy as np
import pandas as pd

from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Estimate, paired


class NoiseSlope(Contrast, kind="noise slope"):
    """−d log(noise) / d log(n), of the standard deviation of minibatch gradients, seed by seed."""

    unit: ClassVar[str] = ""

    @property
    def needs(self) -> Needs:
        """The probe of minibatch gradients."""
        return Needs(probe="gradient-noise")

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where the probe did not look at the arm's runs."""
        empty = noise_table(evidence, *self.arm.under(condition)).empty
        return "the noise of gradients was not measured" if empty else ""

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The mean of the seeds' slopes, each by least squares."""
        table = noise_table(evidence, *self.arm.under(condition))
        slopes = [
            -np.polyfit(np.log(part.batch_size), np.log(part.noise), 1)[0]
            for _, part in table.groupby("seed")
        ]
        return paired(np.array(slopes), level)


def noise_table(evidence: Evidence, condition: str, arm: str) -> pd.DataFrame:
    """Standard deviation of minibatch gradients: columns seed, batch_size, noise.

    The noise is the mean (of logarithms) over training.
    """
    runs = evidence.runs(condition, arm)
    table = evidence.result.measures.merge(runs[runs.test][["run", "seed"]], on="run")
    table = table[(table.measure == "gradient-noise") & (table.value > 0)]
    table = table.assign(batch_size=table.batch_size.astype(int), noise=np.log(table.value))
    means = table.groupby(["seed", "batch_size"], as_index=False).noise.mean()
    return means.assign(noise=np.exp(means.noise))
