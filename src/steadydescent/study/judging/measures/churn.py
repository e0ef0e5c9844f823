"""How far networks of other seeds disagree."""

import numpy as np
import pandas as pd

from steadydescent.engine.probes import churn
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.results.store import Tables


def churned(tables: Tables) -> pd.DataFrame:
    """Churn of report runs of the same settings, as each seed's share in it: 2·mean_j d(i, j) −
    mean over all pairs.

    d(i, j) is the share of test examples on which two seeds disagree. Pairs share seeds and are not
    independent; these pseudo-values of the mean over pairs are nearly so, and their mean is that
    mean.
    """
    rows = []
    settings = ["task", "optimizer", "schedule", "batch_size", "steps", "lr"]
    runs = tables.runs[tables.runs.test]
    merged = tables.predictions.merge(runs[["run", "seed", *settings]], on="run")
    for (readout, *_), part in merged.sort_values("seed").groupby(
        ["readout", *settings], sort=False
    ):
        if (count := len(part)) < 2:
            continue
        apart = np.array(
            [[churn(a, b) if a is not b else 0.0 for b in part.classes] for a in part.classes]
        )
        shares = 2 * apart.sum(1) / (count - 1) - apart.sum() / (count * (count - 1))
        rows += [
            (run, readout, "churn", share) for run, share in zip(part.run, shares, strict=True)
        ]
    return table(rows)
