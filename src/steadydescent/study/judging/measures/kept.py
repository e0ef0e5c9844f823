"""What of its runs' measures a result keeps, so that it suffices without the store."""

import pandas as pd

from steadydescent.study.judging.measures.along import derived
from steadydescent.study.judging.measures.churn import churned
from steadydescent.study.judging.measures.equal_loss import beside_training_loss
from steadydescent.study.judging.measures.range_tests import range_test_curves
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.results.store import Tables


def kept(tables: Tables, roster: pd.DataFrame, target: float | None, by_loss: bool) -> pd.DataFrame:
    """What a result keeps: what probes measured on report runs, and what follows from curves,
    predictions and range tests. The loss before every update is left out.

    Args:
        tables: of the result's runs.
        roster: whom the runs serve.
        target: what "steps to target" count to, if anything.
        by_loss: whether the target is a height, as a surface has, and not an accuracy.
    """
    report = tables.runs[tables.runs.test].run
    probed = tables.measures[tables.measures.run.isin(report) & (tables.measures.measure != "loss")]
    made = (
        probed,
        derived(tables, target, by_loss),
        beside_training_loss(tables),
        churned(tables),
        range_test_curves(tables, roster),
    )
    parts = [part for part in made if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else table()
    return rows.drop_duplicates(["run", "readout", "measure", "batch_size", "step"])
