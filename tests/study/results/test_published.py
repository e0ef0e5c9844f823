"""What is published is whole, was asked for, has its receipt, and is what is summed up."""

import json
from functools import cache

import pytest

from steadydescent.engine.tasks import find
from steadydescent.study.book import summary
from steadydescent.study.book.figures import INK
from steadydescent.study.book.findings import claims_of
from steadydescent.study.book.saved_results import results
from steadydescent.study.book.verdict_rows import cached_rows
from steadydescent.study.judging.choosing import BY_STEPS, by_candidate, choose, tuning_scores
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.verdicts import VERDICTS
from steadydescent.study.paths import PUBLISHED, RESULTS
from steadydescent.study.planning import (
    EXTENSIONS,
    FIRST_REPORT_SEED,
    FIRST_TUNING_SEED,
    Plan,
    load_study,
)
from steadydescent.study.results.roster import SETTINGS
from steadydescent.study.training.trial_tables import result_id

FOUND = list(results(PUBLISHED))
every_result = pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found[0]}-{found[1]}")
RECEIPT = {
    "command",
    "commit",
    "date",
    "device",
    "packages",
    "seconds",
    "stacks",
    "trained_on",
    "result",
    "profile",
    "networks",
    "updates",
    "seeds",
    "target",
    "design",
    "files",
}


def plan_of(found) -> Plan:
    return Plan(experiment=load_study()[found[0]], task=found[1], profile=found[-1]["profile"])


@cache
def judged() -> list[dict]:
    """All rows; what takes long is kept for as long as no source changes."""
    return cached_rows("published", None)


def test_every_folder_of_results_reads():
    assert FOUND
    folders = {path.parent for path in PUBLISHED.rglob("receipt.json")}
    assert folders == {home for _, _, home, *_ in FOUND}, "a folder that the manifest does not list"


@every_result
def test_receipt_says_what_was_run_where_and_how(found):
    _, task, _, result, receipt = found
    assert set(receipt) >= RECEIPT and json.loads(json.dumps(receipt)) == receipt
    assert receipt["profile"] in ("laptop", "desk", "full"), (
        "smoke supports no claim and is not published"
    )
    plan = plan_of(found)
    assert task in plan.experiment.profiles[receipt["profile"]]
    assert receipt["updates"] == plan.size.steps and receipt["target"] == plan.target
    assert receipt["seeds"] == {"tuning": plan.size.tuning, "report": plan.size.report}
    assert receipt["networks"] == len(result.runs) == result.runs.run.nunique()
    assert "+changes" not in receipt["commit"] and receipt["seconds"] > 0 and receipt["trained_on"]


@every_result
def test_result_is_what_its_id_says(found):
    name, task, _, result, receipt = found
    assert receipt["result"] == result_id(name, task, result)


@every_result
def test_runs_are_those_that_the_study_asks_for(found):
    """Settings, rates on the grid or its extensions, and the seeds of each purpose."""
    plan, runs = plan_of(found), found[3].runs
    columns = [*SETTINGS, "lr", "test"]
    row = lambda run: tuple(run.row[c] for c in columns)
    asked = {row(run) for length in plan.size.ramps for run in plan.range_tests(length)}
    for condition in plan.conditions:
        half = plan.half(condition) + EXTENSIONS
        for arm in plan.arms_in(condition):
            for index in range(-half, half + 1):
                asked |= {row(plan._run(condition, arm, index, report)) for report in (False, True)}
    assert not set(runs[columns].itertuples(index=False, name=None)) - asked
    assert not runs.duplicated([*columns, "seed"]).any()
    on_report_seeds = runs.test | runs.schedule.str.startswith("ramp")
    assert set(runs[on_report_seeds].seed) == set(
        range(FIRST_REPORT_SEED, FIRST_REPORT_SEED + plan.size.report)
    )
    assert set(runs[~on_report_seeds].seed) == set(
        range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + plan.size.tuning)
    )


@every_result
def test_every_arm_was_tuned_on_its_whole_grid_and_reported_on_every_seed(found):
    plan, evidence = plan_of(found), Evidence(*found[3:])
    for condition in plan.conditions:
        for arm in plan.arms_in(condition):
            mine, half = evidence.runs(condition, arm), plan.half(condition)
            tuning, report = mine[~mine.test], mine[mine.test]
            assert {plan.rate(condition, arm, i) for i in range(-half, half + 1)} <= set(tuning.lr)
            assert (tuning.groupby("lr").seed.nunique() == plan.size.tuning).all()
            assert len(report) and (report.groupby("lr").seed.nunique() == plan.size.report).all()
            assert set(report.lr) <= set(tuning.lr)


@every_result
def test_evidence_says_of_itself_what_the_plan_asked_for(found):
    """Conditions, arms, readouts and settings, in the study's order, with no plan at hand."""
    plan, evidence = plan_of(found), Evidence(*found[3:])
    assert evidence.design == plan.design and evidence.conditions == plan.conditions
    for condition in plan.conditions:
        assert evidence.arms_in(condition) == plan.arms_in(condition)
        for arm in plan.arms_in(condition):
            settings = plan.trajectory(condition, arm)
            assert evidence.settings(condition, arm) == settings
            mine = found[3].runs
            if plan.experiment.searched:  # options, each trial's own, belong to no setting
                mine = mine.assign(optimizer=mine.optimizer.str.partition("(")[0])
            for name, value in settings._asdict().items():
                mine = mine[mine[name] == value]
            assert list(evidence.runs(condition, arm).run) == list(mine.run)


@every_result
def test_choices_are_what_tuning_scores_choose_and_what_judging_chooses(found):
    """Among all rates that were tuned, and among those that report seeds ran, which for steps to
    target alone may be chosen.
    """
    result, evidence = found[3], Evidence(*found[3:])
    scores = tuning_scores(result.runs, result.finals, result.measures)
    arms = [(c, arm) for c in evidence.conditions for arm in evidence.arms_in(c)]
    places = [(*arm, by) for arm in arms for by in evidence.tune_by]
    kept = result.choices
    assert list(zip(kept.condition, kept.arm, kept.tuned_by, strict=True)) == places
    for (condition, arm, by), lr, readout in zip(places, kept.lr, kept.readout, strict=True):
        runs = evidence.runs(condition, arm)
        tuning = runs[~runs.test]
        if by == BY_STEPS:
            tuning = tuning[tuning.lr.isin(runs[runs.test].lr)]
        table = by_candidate(tuning, scores, evidence.readouts(arm), by)
        judged_by = evidence.candidates(condition, arm, evidence.main_measure, by).chosen
        place = Place(condition, arm)
        assert choose(table, place) == judged_by == (lr, readout, place)


@every_result
def test_tuning_and_report_runs_share_no_seed_and_tuning_never_saw_test_data(found):
    result = found[3]
    tuning, report = result.runs[~result.runs.test], result.runs[result.runs.test]
    tuning = tuning[
        ~tuning.schedule.str.startswith("ramp")
    ]  # range tests search, on report seeds, and see no test data
    assert (tuning.seed >= FIRST_TUNING_SEED).all() and (report.seed < FIRST_TUNING_SEED).all()
    unseen = result.runs[~result.runs.test].run
    assert set(result.finals[result.finals.run.isin(unseen)].split) == {"validation"}
    assert set(result.finals[result.finals.run.isin(report.run)].split) >= {"test", "train"}


@every_result
def test_every_run_has_every_readout_of_the_arms(found):
    plan, result, evidence = plan_of(found), found[3], Evidence(*found[3:])
    for condition in plan.conditions:
        for arm in plan.arms_in(condition):
            mine = evidence.runs(condition, arm)
            for split, runs in (("validation", mine[~mine.test]), ("test", mine[mine.test])):
                plain = result.finals[result.finals["shift"] == ""]
                part = plain[(plain.split == split) & plain.run.isin(runs.run)]
                for readout in plan.arms[arm].readouts:
                    assert (part.readout == readout).sum() == len(runs), (
                        condition,
                        arm,
                        split,
                        readout,
                    )


def test_rows_rest_on_results_that_are_published():
    known = {receipt["result"] for *_, receipt in FOUND}
    shown = [row for row in judged() if row["result"] is not None]
    assert shown and {row["result"] for row in shown} <= known
    for row in shown:
        assert (
            row["ci_low"] <= row["estimate"] <= row["ci_high"]
            and row["n_seeds"] >= 2
            and (row["networks"] or row["points"]) > 0
        )
        assert (row["networks"] is None) == (row["points"] is not None) == find(row["task"]).surface
        assert row["verdict"] in set(VERDICTS) - {"not run"}
        assert row["level"] == pytest.approx(0.99975 if row["primary"] else 0.95)


def test_an_open_row_says_what_would_decide_it():
    silent = [row for row in judged() if row["verdict"] == "open" and not row["seeds_needed"]]
    assert all(row["reason"] for row in silent)


def test_every_claim_has_a_row():
    assert {row["id"] for row in judged()} == set(load_claims())


def test_the_summary_is_of_what_is_published():
    """The table and the data as they would be written now; the pictures say what they show."""
    current = summary.texts(claims_of([Row(**row) for row in judged()]))
    for name, text in current.items():
        assert (RESULTS / name).read_text(encoding="utf-8") == text, "run `make publish`"
    assert all(f"| {claim.title} |" in current[summary.TABLE] for claim in load_claims().values())
    for mode in INK:
        drawn = (RESULTS / f"verdicts-{mode}.svg").read_text(encoding="utf-8")
        assert summary.digest(current[summary.DATA]) in drawn
