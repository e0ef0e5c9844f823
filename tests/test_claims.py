"""A claim's rows are what a slow computation by hand gives; what cannot bear a verdict bears none."""

import copy
import re
import zlib
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy import stats

from fabricated import SMALL_CLAIM, SMALL_EXPERIMENT, experiments_from, receipt, result, write_experiments, write_result
from steadydescent import findings
from steadydescent.claims import Arms, Claim, best_candidate, contrasts, judge_all, load_claims
from steadydescent.plots import rate_table
from steadydescent.study import Plan, load_study, plans

TASK = "mnist1d-mlp"


@pytest.fixture
def toy(tmp_path):
    write_experiments(tmp_path / "experiments")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path


def toy_plan(profile: str = "laptop") -> Plan:
    return Plan(experiment=load_study()["toy"], task=TASK, profile=profile)


def noise(*what: object) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(what).encode())).normal())


def score(run, readout: str, split: str) -> float:
    """Best at the centre of the grid, EMA 3 points above the last weights, a point of noise a seed and candidate."""
    bonus = {"ema-10": 0.03, "ema-30": 0.02}.get(readout, 0.0)
    place = np.log2(run.lr / 0.1)
    return 0.6 + bonus - 0.02 * place**2 + 0.01 * noise(run.seed, run.lr, readout, split, run.schedule)


def table_by_hand(made, schedule: str, split: str, report: bool) -> dict:
    """(rate, readout) → {seed: percent}, row by row."""
    runs = {row.run: row for row in made.runs.itertuples() if row.schedule == schedule and row.test == report}
    found = {}
    for row in made.finals.itertuples():
        if row.run in runs and row.split == split:
            found.setdefault((runs[row.run].lr, row.readout), {})[runs[row.run].seed] = 100 * row.accuracy
    return found


def row_by_hand(made, schedule: str, arms: dict, draws: int = 4_000) -> dict:
    """Estimate, standard error and choices of ema − last with plain loops and lists."""
    tuning, report = (table_by_hand(made, schedule, *how) for how in (("validation", False), ("test", True)))
    candidates = {arm: [c for c in sorted(tuning) if c[1] in arms[arm]] for arm in ("ema", "last")}
    best = lambda arm, seeds: max(candidates[arm], key=lambda c: sum(tuning[c][s] for s in seeds))
    tuning_seeds, report_seeds = sorted(next(iter(tuning.values()))), sorted(next(iter(report.values())))
    chosen = {arm: best(arm, tuning_seeds) for arm in candidates}
    rng, drawn = np.random.default_rng(99), []
    for _ in range(draws):
        seeds = rng.choice(tuning_seeds, len(tuning_seeds)).tolist()
        shown = rng.choice(report_seeds, len(report_seeds)).tolist()
        picks = {arm: best(arm, seeds) for arm in candidates}
        drawn.append(fmean(report[picks["ema"]][s] - report[picks["last"]][s] for s in shown))
    n = len(report_seeds)
    estimate = fmean(report[chosen["ema"]][s] - report[chosen["last"]][s] for s in report_seeds)
    return {"estimate": estimate, "error": stdev(drawn) * (n / (n - 1)) ** 0.5, "chosen": chosen, "n": n}


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_rows_are_what_a_slow_computation_by_hand_gives(toy):
    made = result(toy_plan(), score)
    rows = judge_all("toy", made, receipt("laptop", "toy/mnist1d-mlp@12345678"), TASK)
    assert [row["condition"] for row in rows] == ["constant", "linear"]
    for row in rows:
        expected = row_by_hand(made, row["condition"], SMALL_EXPERIMENT["arms"])
        assert row["estimate"] == pytest.approx(expected["estimate"], rel=1e-9)
        # one claim × one task × two schedules share 5 %
        half = stats.t.ppf(1 - 0.05 / 2 / 2, expected["n"] - 1) * expected["error"]
        assert row["ci_low"] == pytest.approx(row["estimate"] - half, abs=0.06 * half)
        assert row["ci_high"] == pytest.approx(row["estimate"] + half, abs=0.06 * half)
        for arm in ("ema", "last"):
            assert (row["rates"][arm], row["readouts"][arm]) == expected["chosen"][arm]
        plain = {"id": "ema-wins", "scope": "T", "task": TASK, "measure": "test accuracy", "unit": "pp", "margin": 1.0,
                 "n_seeds": 5, "diverged": 0, "profile": "laptop", "result": "toy/mnist1d-mlp@12345678",
                 "level": 0.975}  # fmt: skip
        assert {name: row[name] for name in plain} == pytest.approx(plain)


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (0.05, 0.002, "supported"),
        (-0.05, 0.002, "refuted"),
        (0.0, 0.002, "no difference"),
        (0.009, 0.03, "inconclusive"),
    ],
)
def test_verdict_follows_the_planted_gain(toy, gain, spread, verdict):
    """The EMA is the last weights plus a gain; each has a noise of this spread; the margin is 1 point."""

    def planted(run, readout, split):
        averaged = readout.startswith("ema-")
        lost = 0.0 if run.lr == 0.1 else 0.1
        return 0.6 - lost + gain * averaged + spread * noise(run.seed, run.lr, averaged, split)

    row = judge_all("toy", result(toy_plan(), planted), receipt("laptop", "x"), TASK)[0]
    assert row["verdict"] == verdict
    assert (row["seeds_needed"] is None) == (verdict != "inconclusive")
    assert row["seeds_needed"] is None or row["seeds_needed"] > row["n_seeds"]


def test_smoke_gives_no_verdict_however_clear_the_numbers(toy):
    clear = lambda run, readout, split: 0.9 if readout.startswith("ema") else 0.1
    for profile, word in (("smoke", "inconclusive"), ("laptop", "supported")):
        rows = judge_all("toy", result(toy_plan(profile), clear), receipt(profile, "x"), TASK)
        assert {row["verdict"] for row in rows} == {word}


def test_diverged_report_runs_at_the_chosen_rates_are_counted_once_each(toy):
    """Seeds 0 and 3 diverge at every rate; tuning runs that diverge, or other rates, are not counted."""
    lost = lambda run: run.seed in (0, 3) or run.seed == 10_000
    apart = lambda run, readout, split: 0.6 - 0.02 * (np.log2(run.lr / 0.1) - readout.startswith("ema-")) ** 2
    for how, counted in ((score, 2), (apart, 4)):  # both arms at one rate; at two
        rows = judge_all("toy", result(toy_plan(), how, diverged=lost), receipt("laptop", "x"), TASK)
        assert [row["diverged"] for row in rows] == [counted, counted]


def test_choice_on_the_edge_of_what_was_tried_is_marked(toy):
    rising = lambda run, readout, split: 0.5 + 0.05 * np.log2(run.lr / 0.1)
    assert all(row["on_edge"] for row in judge_all("toy", result(toy_plan(), rising), receipt("laptop", "x"), TASK))
    assert not any(row["on_edge"] for row in judge_all("toy", result(toy_plan(), score), receipt("laptop", "x"), TASK))


def test_better_test_scores_of_another_candidate_change_no_choice(toy):
    """Choosing looks at validation data of tuning seeds; the test score of a rate not chosen may be anything."""
    tempting = lambda run, readout, split: 0.99 if split == "test" and run.lr > 0.1 else score(run, readout, split)
    for how in (score, tempting):
        row = judge_all("toy", result(toy_plan(), how), receipt("laptop", "x"), TASK)[0]
        assert row["rates"] == {"ema": 0.1, "last": 0.1} and row["estimate"] < 10


def test_result_without_report_runs_is_refused(toy):
    made = result(toy_plan(), score)
    tuning = made._replace(runs=made.runs[~made.runs.test])
    with pytest.raises(ValueError, match="no report runs at schedule 'linear'"):
        Arms(tuning, load_study()["toy"], "linear")


def test_ties_go_to_the_lower_rate():
    finals = pd.DataFrame(
        {"split": "validation", "readout": "last", "lr": [0.4, 0.1, 0.2, 0.8], "accuracy": [0.7, 0.7, 0.7, 0.6]}
    )
    assert best_candidate(finals, ("last",)) == (0.1, "last")


def test_candidates_are_chosen_among_the_arms_own_readouts_and_validation_rows():
    finals = pd.DataFrame(
        [("validation", "last", 0.1, 0.5), ("validation", "ema-10", 0.1, 0.9),
         ("test", "last", 0.2, 0.99), ("validation", "last", 0.4, 0.6)],
        columns=["split", "readout", "lr", "accuracy"],
    )  # fmt: skip
    assert best_candidate(finals, ("last",)) == (0.4, "last")


# ---- the file of claims --------------------------------------------------------------------------------------------


def test_every_claim_names_sources_arms_and_margins_that_exist():
    study = load_study()
    assert load_claims()
    for name, claim in load_claims().items():
        assert name == claim.id and claim.source and claim.arm != claim.against
        assert set(claim.margins) == set(study[claim.experiment].rates)
        for task, margin in claim.margins.items():
            assert margin == (1.0 if task.startswith("mnist1d") else 0.3), (
                "the design's margins; state others there first"
            )
        assert claim.measure == "test accuracy", "rows are computed from accuracy alone"


@pytest.mark.parametrize("profile", ["laptop", "desk", "full"])
def test_contrasts_are_claims_times_tasks_times_schedules(profile):
    for name, experiment in load_study().items():
        claims = [claim for claim in load_claims().values() if claim.experiment == name]
        assert contrasts(name, profile) == len(claims) * len(plans(profile, name)) * len(experiment.schedules)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"experiment": "none"}, r"claim 'ema-wins': experiment must be one of \['toy'\], got 'none'"),
        ({"arm": "swa"}, r"claim 'ema-wins': arm must be one of \[.*'ema'.*\], got 'swa'"),
        ({"against": "swa"}, "claim 'ema-wins': arm must be one of .*, got 'swa'"),
        ({"margins": {}}, r"claim 'ema-wins' must state a margin for each of \['mnist1d-mlp'\], got {}"),
        ({"margins": {TASK: 0}}, "margins.*greater than 0.*0"),
        ({"margins": {TASK: -1.0}}, "margins.*greater than 0.*-1"),
        ({"scope": "X"}, "scope.*'E', 'S' or 'T'.*'X'"),
        ({"verdict": "supported"}, "verdict.*Extra inputs are not permitted"),
    ],
)
def test_bad_value_in_a_claim_is_refused_by_name_with_what_is_allowed(toy, change, sentence):
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Claim(**(copy.deepcopy(SMALL_CLAIM) | change))


# ---- what the book is given ----------------------------------------------------------------------------------------


@pytest.fixture
def published(toy, monkeypatch):
    monkeypatch.setattr(findings, "PUBLISHED", toy / "published")
    monkeypatch.setattr(findings, "ROOT", toy)
    return toy / "published"


def test_findings_hold_the_claims_rows_and_the_numbers_they_rest_on(toy, published):
    made = result(toy_plan(), score)
    write_result(published / "toy" / TASK, made, "laptop", "toy/mnist1d-mlp@12345678")
    found = findings.findings("published")
    claim, rows = (
        found["claims"]["ema-wins"],
        judge_all("toy", made, receipt("laptop", "toy/mnist1d-mlp@12345678"), TASK),
    )
    assert claim["rows"] == rows and claim["source"] == "somewhere"
    assert claim["verdict"] == (rows[0]["verdict"] if rows[0]["verdict"] == rows[1]["verdict"] else "mixed")
    chosen = row_by_hand(made, "constant", SMALL_EXPERIMENT["arms"])["chosen"]["ema"]
    test = table_by_hand(made, "constant", "test", True)[chosen]
    number = found["results"][f"{TASK}/constant/ema/accuracy"]
    interval = stats.ttest_1samp(list(test.values()), 0).confidence_interval(0.95)
    assert (number["value"], number["low"], number["high"]) == pytest.approx((fmean(test.values()), *interval))
    assert found["results"][f"{TASK}/constant/ema/rate"]["value"] == f"{chosen[0]:g}"
    same = found["results"][f"{TASK}/constant/ema-last/same-rate"]
    assert same["low"] <= same["value"] <= same["high"]
    assert found["origin"]["networks"] == 1234 and found["origin"]["date"] == "2026-02-03"
    for name in ("finals", "runs", "quantiles", "receipt"):
        assert (toy / found["files"]["toy/mnist1d-mlp@12345678"][name]).exists()


def test_claim_without_results_is_not_run(toy, published):
    assert findings._claims([])["ema-wins"]["verdict"] == "not run"
    with pytest.raises(FileNotFoundError, match=r"no results in .*make reproduce"):
        findings.findings("published")


@pytest.mark.parametrize(
    ("source", "profile", "sentence"),
    [
        ("mine", "desk", "source must be published or reproduced, got 'mine'"),
        ("reproduced", None, "profile must be one of .*None"),
    ],
)
def test_unknown_source_of_findings_is_refused(source, profile, sentence):
    with pytest.raises(ValueError, match=sentence):
        findings.folder(source, profile)


def test_rate_table_takes_each_arms_best_readout_per_rate_on_validation(toy):
    made = result(toy_plan(), score)
    table = rate_table(made, "toy")
    tuning, test = (table_by_hand(made, "linear", *how) for how in (("validation", False), ("test", True)))
    for lr in (0.05, 0.1, 0.2):
        best = max(("ema-10", "ema-30"), key=lambda name: fmean(tuning[lr, name].values()))
        part = table[(table.schedule == "linear") & (table.lr == lr) & (table.arm == "ema")]
        assert set(part.readout) == {best}
        assert dict(zip(part.seed, part.accuracy, strict=True)) == pytest.approx(test[lr, best])
