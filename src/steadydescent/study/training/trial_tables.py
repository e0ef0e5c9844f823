"""Tables that a trial makes of its runs: means for the notebook, quantiles for figures, an id."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.engine.settings import Setting
from steadydescent.study.judging.choosing import by_candidate
from steadydescent.study.results.store import Result, Tables

QUANTILES = [0.1, 0.5, 0.9]


def means(runs: pd.DataFrame, scores: pd.DataFrame, readouts: tuple[str, ...]) -> pd.DataFrame:
    """Mean accuracy and loss over seeds of every candidate: columns lr, readout, accuracy, loss."""
    means = {by: by_candidate(runs, scores, readouts, by).mean() for by in ("accuracy", "loss")}
    return pd.DataFrame({name: mean for name, mean in means.items() if len(mean)}).reset_index()


def quantiles(tables: Tables) -> pd.DataFrame:
    """10 %, 50 % and 90 % quantiles over seeds of validation accuracy, or of a surface's loss,
    along training.
    """
    report = tables.runs[tables.runs.test].rename(columns={"steps": "total"})
    keys = ["task", "optimizer", "schedule", "batch_size", "total", "lr"]
    merged = tables.curves.merge(report[["run", *keys]], on="run")
    by = (
        merged.assign(shown=merged.accuracy.fillna(merged.loss))
        .groupby([*keys, "readout", "step"])
        .shown
    )
    table = (
        by.quantile(QUANTILES)
        .unstack()
        .reindex(columns=QUANTILES)
        .set_axis(["low", "median", "high"], axis=1)
    )
    return table.assign(seeds=by.size()).reset_index().rename(columns={"total": "steps"})


def result_id(experiment: str, task: str, result: Result) -> str:
    """Experiment, task and content, such as `weight-averaging/mnist1d-mlp@3f9c2a7e`.

    The content is the final scores, each split written as one text, `test/scale(severity=3)`.
    """
    split, scores = ["run", "readout", "split"], ["accuracy", "loss", "calibration_error"]
    finals = result.finals.assign(split=split_texts(result.finals))[[*split, *scores]]
    finals = finals.sort_values(split).round({"accuracy": 9, "loss": 9})
    digest = hashlib.sha256(
        np.ascontiguousarray(pd.util.hash_pandas_object(finals, index=False).to_numpy()).tobytes()
    )
    return f"{experiment.replace('_', '-')}/{task}@{digest.hexdigest()[:8]}"


def split_texts(finals: pd.DataFrame) -> pd.Series:
    """The split of each row as one text, a shift with its options behind it."""
    columns = ["split", "shift", "severity", "statistics", "batch"]
    texts = {
        row: f"{row[0]}/{_shift_text(*row[1:])}" if row[1] else row[0]
        for row in finals[columns].drop_duplicates().itertuples(index=False, name=None)
    }
    rows = finals[columns].itertuples(index=False, name=None)
    return pd.Series([texts[row] for row in rows], finals.index, dtype=finals.split.dtype)


def _shift_text(shift: str, severity: Any, statistics: str, batch: Any) -> str:
    options: dict[str, Any] = {"severity": int(severity)}
    if statistics != "frozen":
        options["statistics"] = statistics
    if batch is not pd.NA:
        options["batch"] = int(batch)
    return Setting(shift, options).text()
