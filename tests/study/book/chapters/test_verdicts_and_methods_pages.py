"""What the pages on verdicts and methods compute, against loops by hand."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy import stats

from fabricated import result
from judged import asked, score, toy_evidence, toy_plan
from steadydescent.study.book.chapters import methods, verdicts
from steadydescent.study.planning import PROFILES, load_study

# ---- verdicts ------------------------------------------------------------------------------------


def shown(task: str = "mnist1d-mlp", **seeds: int) -> SimpleNamespace:
    design = {"experiment": "toy", "arms": {"a": ["last"]}, "tuned_by": ["accuracy"]}
    design |= {"task": task, "centres": {}, "curve_points": 1}
    return SimpleNamespace(receipt={"seeds": seeds, "networks": 100, "design": design})


def test_the_table_of_rows_spans_the_seeds_of_a_chapters_tasks():
    surface = shown("ravine", tuning=6, report=8)
    results = {"decay_schedules": {"a": shown(tuning=3, report=8), "b": surface}}
    rows = [{"level": 0.9995, "primary": True}] * 2 + [{"level": 0.95, "primary": False}]
    rows.append({"level": None, "primary": True})
    (row,) = verdicts.table_of_levels(results | {"none": {}}, lambda name: rows).to_dict("records")
    assert row == {
        "chapter": "Decay schedules",
        "tasks": 2,
        "primary rows": 2,
        "secondary rows": 1,
        "tuning seeds": "3 to 6",
        "report seeds": "8",
        "networks": 100,
        "points": 100,
    }


def test_an_experiment_that_the_study_has_no_more_is_called_by_its_name():
    assert verdicts.title("decay_schedules") == load_study()["decay_schedules"].title
    assert verdicts.title("gone") == "gone"


def test_halves_share_no_report_seed_and_all_tuning_seeds(tmp_path):
    with asked(tmp_path):
        whole = toy_evidence(result(toy_plan(), score))
        runs = whole.result.runs
        parts = [whole.half(parity).result for parity in (0, 1)]
    for parity, part in enumerate(parts):
        assert set(part.runs[part.runs.test].seed % 2) == {parity}
        assert set(part.runs[~part.runs.test].run) == set(runs[~runs.test].run)
        assert set(part.finals.run) == set(part.runs.run)
    assert sum(len(part.runs[part.runs.test]) for part in parts) == len(runs[runs.test])


def test_same_rates_are_paired_differences_by_hand():
    columns = pd.MultiIndex.from_product([[0.1, 0.2], ["last"]], names=["lr", "readout"])
    flat = pd.DataFrame([[60.0, 50.0], [61.0, 52.0], [62.0, 51.0]], columns=columns)
    falling = flat + pd.DataFrame([[1.0, -1.0], [2.0, -1.5], [3.0, -1.25]], columns=columns)
    chosen = SimpleNamespace(chosen=SimpleNamespace(lr=0.2))
    own = SimpleNamespace(
        conditions=("usual", "usual, longer"),
        candidates=lambda condition, arm: chosen,
        report=lambda condition, arm, measure: flat if arm == "constant" else falling,
    )
    table = verdicts.table_of_same_rates({verdicts.TASK: SimpleNamespace(evidence=own)})
    gains = [1.0, 2.0, 3.0]
    half = stats.t.ppf(0.975, 2) * stdev(gains) / math.sqrt(3)
    text = f"{fmean(gains):+.2f} ({2 - half:+.2f} to {2 + half:+.2f})"
    assert table["linear minus constant, pp"][0] == text
    assert list(table.condition) == ["usual", "usual", "longer", "longer"]
    assert list(table["tuning chose it"]) == ["", "yes", "", "yes"]
    assert verdicts.table_of_same_rates({}).empty


def test_every_surprise_is_a_row_of_the_claims():
    for surprise in verdicts.SURPRISES:
        keys = [question.row.key for question in verdicts.questions(surprise.experiment)]
        assert (surprise.claim, verdicts.TASK, surprise.condition) in keys


def test_results_with_few_seeds_are_not_halved():
    few = {"receipt": {"seeds": {"report": 7}}, "evidence": None}
    results = {s.experiment: {verdicts.TASK: SimpleNamespace(**few)} for s in verdicts.SURPRISES}
    assert verdicts.table_of_attacks(results).empty and verdicts.table_of_attacks({}).empty


# ---- methods -------------------------------------------------------------------------------------

OURS = {"coverage": [0.95, 0.96], "bias": [0.01, -0.02], "error": [0.1, 0.1]}
PLAIN = {"coverage": [0.8, 0.94]}


def test_trials_that_the_prose_describes_are_accepted():
    methods.check_prose(pd.DataFrame(OURS), pd.DataFrame(PLAIN), 0.04)


@pytest.mark.parametrize(
    ("ours", "plain", "few", "point"),
    [
        ({"coverage": [0.95, 0.93]}, {}, 0.04, "ours nearly holds"),
        ({"coverage": [0.98, 0.99]}, {}, 0.04, "ours nearly holds"),
        ({}, {}, 0.06, "few chapters"),
        ({}, {"coverage": [0.8, 0.96]}, 0.04, "the plain interval"),
        ({"bias": [0.01, -0.06]}, {}, 0.04, "the estimate leans"),
        ({"error": [0.02, 0.05]}, {}, 0.04, "the estimate leans"),
    ],
)
def test_prose_that_the_trials_contradict_fails_the_page(ours, plain, few, point):
    with pytest.raises(ValueError, match=f"is not what the prose .*{point}"):
        methods.check_prose(pd.DataFrame(OURS | ours), pd.DataFrame(PLAIN | plain), few)


def test_coverage_is_a_column_an_interval():
    rows = [
        {"world": w, "tuning": 3, "report": 8, "contrasts": 1, "interval": i, "coverage": c}
        for w, worst in (("alike", 0.9), ("crashes", 0.8))
        for i, c in zip(methods.LABELS, (0.95, 0.97, worst), strict=True)
    ]
    table = methods.table_of_coverage(methods.with_seeds(pd.DataFrame(rows)))
    assert list(table.columns) == ["world", "seeds", *methods.LABELS.values()]
    assert table.iloc[1].tolist() == ["crashes", "3 + 8", 95.0, 97.0, 80.0]


def test_kinds_that_miss_are_named_with_their_shares():
    rows = [("tuned", "alike", 0.95, 0.01), ("search", "alike", 0.99, 0.02), ("a", "b", 0.93, 0.0)]
    trials = pd.DataFrame(rows, columns=["kind", "world", "coverage", "false"])
    assert methods.coverage_of_kinds(trials).text == (
        "Of 3 cells 1 have a coverage of 94 to 96 %, 1 more, 1 less. Less: a, b (93.0 %). "
        "More: search, alike (99.0 %). False verdicts at the level of one claim: at most 2.0 %."
    )


def test_profiles_are_listed_with_what_they_cost():
    table = methods.table_of_profiles()
    assert list(dict.fromkeys(table.profile)) == list(PROFILES)
    assert (table.networks > 0).all() and "minutes, one process" in table
