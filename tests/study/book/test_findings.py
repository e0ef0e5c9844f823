"""What the book is given: rows that were judged, rows of arithmetic, rows that were not run, and
their numbers.
"""

from dataclasses import replace
from functools import cache
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from fabricated import (
    LAPTOP,
    SMALL_CLAIM,
    SMALL_CONTRAST,
    SMALL_EXPERIMENT,
    experiments_from,
    result,
    write_experiments,
)
from fabricated import write_result as keep
from judged import (
    NOTE,
    TASK,
    asked,
    row_by_hand,
    rows_of,
    rows_on,
    score,
    table_by_hand,
    toy_evidence,
    toy_plan,
)
from steadydescent.study.book import findings, saved_results
from steadydescent.study.judging import judge as judging
from steadydescent.study.judging.claims import load_claims, questions
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.headlines import headline
from steadydescent.study.judging.judge import all_rows, exact_rows, judge_all
from steadydescent.study.planning import load_study

# ---- rows that arithmetic decides, or nothing yet ------------------------------------------------


@cache
def exact(claim: str) -> list[dict]:
    return [row.as_dict() for row in exact_rows(load_claims()[claim])]


def test_exact_rows_say_what_arithmetic_gives_and_which_tests_hold_it():
    for claim in EXACT:
        rows = exact(claim)
        assert rows and len({row["condition"] for row in rows}) == len(rows), claim
        for row in rows:
            assert row["id"] == claim and row["task"] == "arithmetic"
            assert row["verdict"] in ("supported", "refuted", "too small to matter")
            assert np.isfinite(row["estimate"])
            assert row["tests"], f"no test is marked with {claim}"
            assert row["n_seeds"] is row["ci_low"] is row["result"] is row["profile"] is None


def test_rows_that_were_not_run_never_vanish(monkeypatch):
    """With nothing judged, every contrast on every task and condition is there, and says so."""
    monkeypatch.setattr(judging, "EXACT", {})
    rows = [row.as_dict() for row in all_rows([])]
    wanted = [question.row.key for name in load_study() for question in questions(name)]
    assert sorted((row["id"], row["task"], row["condition"]) for row in rows) == sorted(wanted)
    assert {row["verdict"] for row in rows} == {"not run"}
    assert all(row["estimate"] is None and row["margin"] > 0 for row in rows)


def test_arm_that_the_result_was_made_without_is_not_judged(tmp_path):
    """The study asks for another arm than when the result was made: its rows wait, others stand."""
    with asked(tmp_path, {"label": "a"}, {"arm": "checkpoints", "label": "b"}):
        made = result(toy_plan(), score)
        old = made._replace(roster=made.roster[made.roster.arm != "checkpoints"])
        judged = [{row["condition"] for row in rows_on(toy_evidence(r))} for r in (made, old)]
    assert judged[0] - judged[1] == {"constant, b", "linear, b"}
    assert judged[1] == {"constant, a", "linear, a"}


def test_judged_rows_stand_among_those_not_run_in_the_order_of_the_claims(tmp_path):
    told = [
        {"label": "a"},
        {"label": "b", "conditions": ["linear"]},
        {"label": "c", "measure": "churn"},
    ]
    with asked(tmp_path, *told, size={"conditions": ["linear"]}):
        judged = judge_all(toy_evidence(result(toy_plan(), score)))
        rows = [row.as_dict() for row in all_rows(judged[::-1])]
    assert [row.condition for row in judged] == ["linear, a", "linear, b"]
    assert [row["condition"] for row in rows] == [
        "constant, a",
        "linear, a",
        "linear, b",
        "constant, c",
        "linear, c",
    ]
    assert [row["verdict"] == "not run" for row in rows] == [True, False, False, True, True]
    assert list(rows[0]) == list(rows[1])  # both have every column, in one order


def test_measure_that_an_older_result_has_not_leaves_a_row_that_says_so(tmp_path):
    with asked(
        tmp_path, {"measure": "churn"}, {"label": "plain"}, size={"probes": ["predictions"]}
    ):
        rows = rows_of(score)
    told = {(row["measure"], row["verdict"] == "not run", row["reason"]) for row in rows}
    assert told == {("accuracy", False, ""), ("churn", True, "no run has the measure 'churn'")}


# ---- what the book is given ----------------------------------------------------------------------


@pytest.fixture
def published(toy, monkeypatch):
    monkeypatch.setattr(saved_results, "PUBLISHED", toy / "published")
    monkeypatch.setattr(findings, "ROOT", toy)
    return toy / "published"


def test_findings_hold_the_claims_rows_and_the_numbers_they_rest_on(toy, published):
    made = result(toy_plan(), score)
    keep(published / "toy" / TASK, made, "laptop", NOTE["result"])
    found = findings.findings("published")
    claim, judged = found["claims"]["ema-wins"], judge_all(toy_evidence(made))
    said = headline(judged)
    rows = [replace(row, headline=said.sentence).as_dict() for row in judged]
    assert claim["rows"] == rows and claim["source"] == "somewhere"
    assert (claim["outcome"], claim["headline"]) == said
    prefix, numbers = f"toy/{TASK}/constant/ema", found["results"]
    chosen = row_by_hand(made, "constant", draws=1)["chosen"]["ema"]
    test = table_by_hand(made, "constant", "test", True)[chosen]
    number, interval = (
        numbers[f"{prefix}/accuracy"],
        stats.ttest_1samp(list(test.values()), 0).confidence_interval(),
    )
    assert (number["value"], number["low"], number["high"]) == pytest.approx(
        (fmean(test.values()), *interval)
    )
    assert numbers[f"{prefix}/rate"]["value"] == f"{chosen[0]:g}"
    for kind in ("tuned", "same-rate"):
        pair = numbers[f"{prefix}-last/{kind}"]
        assert pair["low"] <= pair["value"] <= pair["high"]
    assert numbers[f"claim/ema-wins/{TASK}/constant"]["value"] == rows[0]["estimate"]
    origin = found["origin"]
    assert (origin["networks"], origin["points"]) == (len(made.runs), 0)
    assert found["origin"]["date"] == "2026-02-03"
    for name in ("finals", "runs", "quantiles", "measures", "receipt"):
        assert (toy / found["files"][NOTE["result"]][name]).exists()


def test_claim_without_results_is_not_run(toy, published):
    claim = findings.claims_of(all_rows([]))["ema-wins"]
    assert (claim["outcome"], claim["headline"]) == ("not run", "Not run.") and [
        row["verdict"] for row in claim["rows"]
    ] == ["not run"] * 2
    with pytest.raises(FileNotFoundError, match=r"no results in .*make reproduce"):
        findings.findings("published")


@pytest.mark.parametrize(
    ("source", "profile", "sentence"),
    [
        ("mine", "desk", "source must be one of .*, got 'mine'"),
        ("reproduced", None, "profile must be one of .*None"),
    ],
)
def test_unknown_source_of_findings_is_refused(source, profile, sentence):
    with pytest.raises(ValueError, match=sentence):
        saved_results.folder(source, profile)


# ---- a study that has moved on -------------------------------------------------------------------


@pytest.fixture
def places(toy, monkeypatch):
    """Where published and own results lie."""
    for name in ("PUBLISHED", "REPRODUCED"):
        monkeypatch.setattr(saved_results, name, toy / name.lower())
    monkeypatch.setattr(findings, "ROOT", toy)
    return {"published": toy / "published", "reproduced": toy / "reproduced/laptop"}


@pytest.mark.parametrize("source", ["published", "reproduced"])
def test_result_of_an_older_study_reads_and_is_judged_as_far_as_claims_ask(toy, places, source):
    """Another length, a renamed arm, a condition less, no such task: all is as it was made."""
    keep(places[source] / "toy" / TASK, result(toy_plan(), score), "laptop", NOTE["result"])
    before = findings.findings(source, "laptop")
    arms = {"final": {"readouts": ["last"]}, "ema": {"readouts": ["ema-2"]}}
    later = {"arms": arms, "conditions": {"cosine": {"schedule": "cosine"}}, "secondary": []}
    later["rates"] = {"saddle": SMALL_EXPERIMENT["rates"][TASK]}
    later["profiles"] = {"laptop": {"saddle": LAPTOP | {"steps": 41}}}
    write_experiments(toy / "later", SMALL_EXPERIMENT | later)
    with experiments_from(toy / "later"):
        assert findings.findings(source, "laptop") == before
    assert {row["verdict"] for row in before["claims"]["ema-wins"]["rows"]} != {"not run"}


def test_claims_about_what_a_result_has_not_are_not_run_and_leave_others_as_they_were(toy, places):
    keep(places["published"] / "toy" / TASK, result(toy_plan(), score), "laptop", NOTE["result"])
    before = findings.findings("published")["claims"]["ema-wins"]["rows"]
    new = [
        {"arm": "swa"},
        {"against": {"arm": "last", "condition": "cosine"}},
        {"conditions": ["cosine"]},
    ]
    new = [SMALL_CONTRAST | {"label": f"new {n}"} | change for n, change in enumerate(new)]
    write_experiments(toy / "later", claims=[SMALL_CLAIM | {"secondary": new}])
    with experiments_from(toy / "later"):
        rows = findings.findings("published")["claims"]["ema-wins"]["rows"]
    assert rows[:2] == before
    assert [row["verdict"] for row in rows[2:]] == ["not run"] * 5


def test_published_result_that_the_study_no_longer_has_is_shown(toy, places):
    """What is there is what the manifest lists, whatever study.yml asks for today."""
    keep(places["published"] / "toy" / TASK, result(toy_plan(), score), "laptop", NOTE["result"])
    write_experiments(toy / "later", SMALL_EXPERIMENT | {"profiles": {"laptop": {}}})
    with experiments_from(toy / "later"):
        (found,) = saved_results.results(places["published"])
    assert found[:2] == ("toy", TASK)


def test_results_go_by_experiment_and_then_in_the_engines_order_of_tasks(tmp_path):
    for place in ("b/saddle", "b/mnist1d-cnn", "b/gone", "a/ravine", "b/mnist1d-mlp", "b/.x"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/c-names-transformer.made-from").touch()
    places = ["a/ravine", "b/mnist1d-mlp", "b/mnist1d-cnn", "b/saddle", "b/gone"]
    expected = [*places, "c/names-transformer"]
    assert ["/".join(place[:2]) for place in saved_results.homes(tmp_path)] == expected


@pytest.mark.parametrize("profile", ["lapto", "../../evil", "", "huge"])
def test_profile_is_checked_where_it_makes_no_difference_too(profile):
    with pytest.raises(ValueError, match="profile"):
        saved_results.folder("published", profile)


def test_results_of_several_commands_are_remade_by_one():
    """Each was made task by task; what makes them all is told, and of one alone its own."""
    made = [{"command": f"steady run --only {task}", "profile": "desk"} for task in ("a", "b")]
    assert findings._command(made[:1]) == "steady run --only a"
    assert findings._command(made) == "make reproduce PROFILE=desk"
