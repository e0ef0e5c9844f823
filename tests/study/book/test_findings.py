"""What the book is given: rows that were judged, rows of arithmetic, rows that were not run, and
their numbers.
"""

from functools import cache
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from fabricated import LAPTOP, SMALL_EXPERIMENT, experiments_from, result, write_experiments
from fabricated import write_result as keep
from judged import (
    ARMS,
    NOTE,
    TASK,
    asked,
    row_by_hand,
    rows_of,
    score,
    steep,
    table_by_hand,
    toy_plan,
)
from steadydescent.study.book import findings, saved_results
from steadydescent.study.judging import judge as judging
from steadydescent.study.judging.claims import cells, contrasts, load_claims, planned
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.judge import all_rows, exact_rows, judge_all
from steadydescent.study.judging.statistics import overall
from steadydescent.study.planning import Plan, load_study

# ---- rows that arithmetic decides, or nothing yet ------------------------------------------------


@cache
def exact(claim: str) -> list[dict]:
    return exact_rows(load_claims()[claim])


def test_exact_rows_say_what_arithmetic_gives_and_which_tests_hold_it():
    for claim in EXACT:
        rows = exact(claim)
        assert rows and len({row["condition"] for row in rows}) == len(rows), claim
        for row in rows:
            assert row["id"] == claim and row["task"] == "arithmetic"
            assert row["verdict"] in ("supported", "refuted", "no difference") and np.isfinite(
                row["estimate"]
            )
            assert row["tests"], f"no test is marked with {claim}"
            assert row["n_seeds"] is row["ci_low"] is row["result"] is row["profile"] is None


def test_rows_that_were_not_run_never_vanish(monkeypatch):
    """With nothing judged, every contrast on every task and condition is there, and says so."""
    monkeypatch.setattr(judging, "EXACT", {})
    rows = all_rows([])
    wanted = [
        (c.claim.id, c.task, c.contrast.named(c.condition)) for e in load_study() for c in cells(e)
    ]
    assert sorted((row["id"], row["task"], row["condition"]) for row in rows) == sorted(wanted)
    assert {row["verdict"] for row in rows} == {"not run"}
    assert all(row["estimate"] is None and row["margin"] > 0 for row in rows)


def test_arm_that_the_result_was_made_without_is_not_judged(tmp_path):
    """The study asks for another readout than when the result was made: its rows wait, the others
    stand.
    """
    with asked(tmp_path, {"label": "a"}, {"arm": "checkpoints", "label": "b"}):
        made = result(toy_plan(), score)
        mine = set(ARMS["checkpoints"])
        old = made._replace(finals=made.finals[~made.finals.readout.isin(mine)])
        judged = [
            {row["condition"] for row in judge_all("toy", r, NOTE, TASK)} for r in (made, old)
        ]
    assert judged[0] - judged[1] == {"constant, b", "linear, b"} and judged[1] == {
        "constant, a",
        "linear, a",
    }


def test_judged_rows_stand_among_those_not_run_in_the_order_of_the_claims(tmp_path):
    told = [
        {"label": "a"},
        {"label": "b", "conditions": ["linear"]},
        {"label": "c", "measure": "churn"},
    ]
    with asked(tmp_path, *told, size={"conditions": ["linear"]}):
        judged = rows_of(score)
        rows = all_rows(judged[::-1])
    assert [row["condition"] for row in judged] == ["linear, a", "linear, b"]
    assert [row["condition"] for row in rows] == [
        "constant, a",
        "linear, a",
        "linear, b",
        "constant, c",
        "linear, c",
    ]
    assert [row["verdict"] == "not run" for row in rows] == [True, False, False, True, True]
    assert set(rows[0]) == set(rows[1])  # both have every column


def test_measure_that_an_older_result_has_not_is_not_judged(tmp_path):
    with asked(
        tmp_path, {"measure": "churn"}, {"label": "plain"}, size={"probes": ["predictions"]}
    ):
        rows = rows_of(score)
    assert [row["measure"] for row in rows] == ["accuracy", "accuracy"]


def test_level_is_shared_by_all_planned_contrasts_of_a_chapter(tmp_path):
    """Rows whose measure is missing count too: what is primary was fixed before."""
    with asked(
        tmp_path, {"measure": "churn"}, {"label": "plain"}, size={"probes": ["predictions"]}
    ):
        assert contrasts("toy", "laptop") == len(planned("toy", "laptop")) == 4
        assert {row["level"] for row in rows_of(score)} == {1 - 0.05 / 4}


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
    claim, rows = found["claims"]["ema-wins"], judge_all("toy", made, NOTE, TASK)
    assert claim["rows"] == rows and claim["source"] == "somewhere"
    assert claim["verdict"] == overall([row["verdict"] for row in rows])
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
    assert found["origin"]["networks"] == len(made.runs) and found["origin"]["date"] == "2026-02-03"
    for name in ("finals", "runs", "quantiles", "measures", "receipt"):
        assert (toy / found["files"][NOTE["result"]][name]).exists()


@pytest.mark.parametrize(
    ("needs", "gains", "verdict"),
    [
        ("all", (0.05, 0.05), "supported"),
        ("all", (0.05, -0.05), "refuted"),
        ("all", (0.05, 0.0), "refuted"),
        ("common verdict", (0.05, 0.05), "supported"),
        ("common verdict", (0.05, 0.0), "mixed"),
    ],
)
def test_claim_that_needs_all_rows_falls_with_any(tmp_path, needs, gains, verdict):
    gain = dict(zip(("constant", "linear"), gains, strict=True))
    how = lambda run, readout, split: steep({"ema-10": gain[run.schedule], "ema-30": -1.0})(
        run, readout, split
    )
    with asked(tmp_path, {}, needs=needs):
        assert findings._claims(all_rows(rows_of(how)))["ema-wins"]["verdict"] == verdict


def test_conjunction_is_undecided_only_where_nothing_refutes():
    words = ("supported", "no difference", "refuted", "inconclusive")
    for one in words:
        for other in words:
            refuting = {"refuted", "no difference"} & {one, other}
            expected = (
                "supported"
                if {one, other} == {"supported"}
                else "refuted"
                if refuting
                else "inconclusive"
            )
            assert (
                findings.conjunction([one, other]) == findings.conjunction([other, one]) == expected
            )


def test_claim_without_results_is_not_run(toy, published):
    claim = findings._claims(all_rows([]))["ema-wins"]
    assert (
        claim["verdict"] == "not run"
        and [row["verdict"] for row in claim["rows"]] == ["not run"] * 2
    )
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


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize(
    ("change", "asks"),
    [({"steps": 41}, "41 updates"), (None, "nothing of the kind")],
    ids=["other length", "no task"],
)
def test_result_of_a_plan_that_is_no_more_is_missed_by_name(toy, monkeypatch, public, change, asks):
    """Its rows would else be \"not run\", without a word."""
    for name in ("PUBLISHED", "REPRODUCED"):
        monkeypatch.setattr(saved_results, name, toy / name.lower())
    home = (toy / "published" if public else toy / "reproduced/laptop") / "toy" / "mnist1d-mlp"
    plan = Plan(experiment=load_study()["toy"], task="mnist1d-mlp", profile="laptop")
    keep(home, result(plan, lambda run, readout, split: 0.6), "laptop", "toy/mnist1d-mlp@1")
    profiles = {
        "laptop": {"mnist1d-mlp": LAPTOP | change} if change else {},
        "smoke": SMALL_EXPERIMENT["profiles"]["smoke"],
    }
    write_experiments(toy / "later", SMALL_EXPERIMENT | {"profiles": profiles})
    with (
        experiments_from(toy / "later"),
        pytest.raises(ValueError, match=f"with 40 updates, .* now asks for {asks}; take"),
    ):
        list(saved_results.results(home.parents[1]))


def test_published_result_that_no_experiment_owns_is_missed_by_name(toy, monkeypatch):
    monkeypatch.setattr(saved_results, "PUBLISHED", toy / "published")
    plan = Plan(experiment=load_study()["toy"], task="mnist1d-mlp", profile="laptop")
    made = result(plan, lambda run, readout, split: 0.6)
    keep(toy / "published/toy/saddle", made, "laptop", "toy/saddle@1")
    with pytest.raises(
        ValueError, match=r"toy/saddle is refused: experiments/study\.yml has no rates for it"
    ):
        list(saved_results.results(toy / "published"))


@pytest.mark.parametrize("profile", ["lapto", "../../evil", "", "huge"])
def test_profile_is_checked_where_it_makes_no_difference_too(profile):
    with pytest.raises(ValueError, match="profile"):
        saved_results.folder("published", profile)
