"""Bring published results of before rosters over to today's tables: `python migrate.py [root]`.

Reads every old folder and today's plan, writes the new tables and the receipt with its design, and
lists them in the manifest. A folder that has a roster already is left as it is.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steadydescent import verified
from steadydescent.engine.settings import read
from steadydescent.files import sha256
from steadydescent.study.judging.choosing import by_candidate, choose, tuning_scores
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.planning import Plan, load_study
from steadydescent.study.results import published
from steadydescent.study.results.store import RECEIPT, Result, write_folder
from steadydescent.study.training.trial import result_id


def old_tables(home: Path) -> dict[str, pd.DataFrame]:
    tables = {}
    for kind in ("runs", "finals", "quantiles", "measures"):
        table = pq.ParquetFile(home / f"{kind}.parquet").read()
        table = table.to_pandas(
            types_mapper={pa.int64(): pd.Int64Dtype()}.get, ignore_metadata=True
        )
        whole = [c for c in table if table[c].dtype == "Int64" and not table[c].isna().any()]
        keep = {"runs": ["diverged_at"], "measures": ["step"]}.get(kind, [])
        tables[kind] = table.astype({c: "int64" for c in whole if c not in keep})
    return tables


def split(finals: pd.DataFrame) -> pd.DataFrame:
    """`test/scale(severity=3)` in columns."""
    parts = {}
    for text in finals.split.unique():
        place, _, shift = text.partition("/")
        if not shift:
            parts[text] = (place, "", pd.NA, "", pd.NA)
            continue
        name, options = read(shift)
        statistics = options.get("statistics", "frozen")
        parts[text] = (place, name, options["severity"], statistics, options.get("batch", pd.NA))
    columns = zip(*(parts[text] for text in finals.split), strict=True)
    names = ("split", "shift", "severity", "statistics", "batch")
    made = {name: list(values) for name, values in zip(names, columns, strict=True)}
    whole = {name: pd.array(made[name], "Int64") for name in ("severity", "batch")}
    return finals.assign(**(made | whole))


def of_runs(measures: pd.DataFrame) -> pd.DataFrame:
    """Measures of runs, with minibatch sizes in a column."""
    rows = measures[(measures.run != "") & ~measures.measure.str.startswith("suggestion/")]
    noise = rows.measure.str.startswith("gradient-noise/")
    sizes = pd.Series(pd.array([None] * len(rows), "Int64"), rows.index)
    sizes[noise] = rows.measure[noise].str.removeprefix("gradient-noise/").astype(int)
    plain = rows.measure.where(~noise, "gradient-noise")
    return rows.assign(batch_size=sizes, measure=plain).reset_index(drop=True)


def suggestions(measures: pd.DataFrame) -> pd.DataFrame:
    rows = measures[measures.measure.str.startswith("suggestion/")]
    rules = rows.measure.str.removeprefix("suggestion/")
    return rows.assign(rule=rules, rate=rows.value)[["run", "rule", "rate"]].reset_index(drop=True)


def timings(measures: pd.DataFrame) -> pd.DataFrame:
    rows = measures[measures.run == ""]
    rows = rows.assign(batch_size=rows.readout.replace("", "0").astype(int), round=rows.step)
    one = lambda name, column: rows[rows.measure == name].rename(columns={"value": column})[
        ["batch_size", "round", column]
    ]
    seconds = one("seconds per example", "seconds_per_example")
    made = seconds.merge(one("power-of-two gain", "gain"), "left", ["batch_size", "round"])
    assert made.gain.notna().sum() == (rows.measure == "power-of-two gain").sum()
    return made.astype({"batch_size": "int64", "round": "int64"})


def matching(plan: Plan, runs: pd.DataFrame, condition: str, arm: str) -> pd.DataFrame:
    wanted = plan.trajectory(condition, arm)
    same = [runs[name] == value for name, value in wanted._asdict().items()]
    return runs[np.logical_and.reduce(same)]


def roster(plan: Plan, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Runs by the columns that told them apart; arms without report runs of theirs are left out."""
    runs, finals, rows = tables["runs"], tables["finals"], []
    ramps = list(runs[runs.schedule.str.startswith("ramp")].run)
    for condition in plan.conditions:
        for arm in plan.arms_in(condition):
            mine = matching(plan, runs, condition, arm)
            reported = finals[finals.run.isin(mine[mine.test].run)].readout
            if not reported.isin(plan.arms[arm].readouts).any():
                print("  no report runs of", arm, "under", condition)
                continue
            for purpose, keys in (
                ("tuning", mine[~mine.test].run),
                ("report", mine[mine.test].run),
            ):
                rows += [(key, condition, arm, purpose) for key in keys]
            rows += [(key, condition, arm, "range test") for key in ramps]
            ramps = []
    return pd.DataFrame(rows, columns=["run", "condition", "arm", "purpose"])


def choices(plan: Plan, tables: dict[str, pd.DataFrame], served: pd.DataFrame) -> pd.DataFrame:
    scores = tuning_scores(tables["runs"], tables["finals"], tables["measures"])
    rows = []
    for (condition, arm), part in served[served.purpose == "tuning"].groupby(
        ["condition", "arm"], sort=False
    ):
        mine = tables["runs"][tables["runs"].run.isin(part.run)]
        for by in plan.tune_by:
            best = choose(by_candidate(mine, scores, plan.arms[arm].readouts, by), arm)
            rows.append((condition, arm, by, best.lr, best.readout))
    return pd.DataFrame(rows, columns=["condition", "arm", "tuned_by", "lr", "readout"])


def migrate(home: Path) -> None:
    note = verified.read_sealed(home / RECEIPT)
    for name, digest in note.pop("files").items():
        assert sha256((home / name).read_bytes()) == digest, name
    tables = old_tables(home)
    name, task = home.parent.name, home.name
    plan = Plan(experiment=load_study()[name], task=task, profile=note["profile"])
    served = roster(plan, tables)
    result = Result(
        runs=tables["runs"],
        roster=served,
        choices=choices(plan, tables, served),
        finals=split(tables["finals"]),
        quantiles=tables["quantiles"],
        measures=of_runs(tables["measures"]),
        suggestions=suggestions(tables["measures"]),
        timings=timings(tables["measures"]),
    )
    assert result_id(name, task, result) == note["result"], (result_id(name, task, result), note)
    lost = len(tables["measures"]) - len(result.measures) - len(result.suggestions)
    lost -= len(result.timings) + result.timings.gain.notna().sum()
    assert lost == 0, lost
    design = plan.design.model_dump()
    arms = list(dict.fromkeys(served.arm))
    design["arms"] = {arm: readouts for arm, readouts in design["arms"].items() if arm in arms}
    note |= {"primary_contrasts": plan.primary_contrasts, "design": design}
    write_folder(home, result, note, replace=True)
    published.record([f"{name}/{task}"], home.parents[1])


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PUBLISHED
    for receipt in sorted(root.glob("*/*/receipt.json")):
        if not (receipt.parent / "roster.parquet").exists():
            print(receipt.parent.relative_to(root))
            migrate(receipt.parent)
