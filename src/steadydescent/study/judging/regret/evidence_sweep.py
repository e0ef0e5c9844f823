"""A dense sweep out of a result."""

import numpy as np

from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.regret.sweep import Sweep


def dense_sweep(evidence: Evidence, condition: str, arm: str) -> Sweep:
    """An arm's whole grid as tuning and report seeds saw it, accuracy in percent."""
    tuning, report = (
        scores(condition, arm, "accuracy").xs("last", axis=1, level="readout")
        for scores in (evidence.tuning, evidence.report)
    )
    both = [lr for lr in tuning.columns if lr in set(report.columns)]
    validation = evidence.tuning(condition, arm, "accuracy", True)
    validation = validation.xs("last", axis=1, level="readout").reindex(columns=both)
    # some results are from before report runs kept validation scores: use none
    known = validation[:0] if validation.isna().any(axis=None) else validation
    return Sweep(
        np.array(both),
        100 * tuning[both].to_numpy(),
        report[both].to_numpy(),
        100 * known.to_numpy(float),
        tuple(int(seed) for seed in report.index),
    )
