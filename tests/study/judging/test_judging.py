"""A claim's rows are what a slow computation by hand gives, or bear no verdict."""

from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from fabricated import (
    SMALL_CLAIM,
    SMALL_CONTRAST,
    experiments_from,
    result,
    write_experiments,
)
from judged import (
    ARMS,
    TASK,
    asked,
    planted,
    row_by_hand,
    rows_of,
    rows_on,
    score,
    steep,
    table_by_hand,
    toy_evidence,
    toy_plan,
)
from steadydescent.study.book.plots import rate_table, sweep_table

# ---- rows ----------------------------------------------------------------------------------------


def test_rows_are_what_a_slow_computation_by_hand_gives(toy):
    made = result(toy_plan(), score)
    rows = rows_on(toy_evidence(made))
    assert [row["condition"] for row in rows] == ["constant", "linear"]
    for row in rows:
        expected = row_by_hand(made, row["condition"])
        # the level of one of 200 places, of which two are taken
        half = stats.t.ppf(1 - 0.05 / 200 / 2, expected["n"] - 1) * expected["error"]
        assert row["estimate"] == pytest.approx(expected["estimate"], abs=0.05 * half)
        assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(half, rel=0.05)
        for arm in ("ema", "last"):
            assert (row["rates"][arm], row["readouts"][arm]) == expected["chosen"][arm]
        plain = {
            "id": "ema-wins",
            "scope": "T",
            "task": TASK,
            "measure": "accuracy",
            "unit": "pp",
            "margin": 1.0,
            "rule": "superiority",
            "n_seeds": 5,
            "diverged": 0,
            "profile": "laptop",
            "level": 0.99975,
            "primary": True,
            "when": f"the rate is {row['condition']}",
            "registered": "2026-01-02",
            "first_seen": "2026-02-03",
            "null": 0.0,
            "result": "toy/mnist1d-mlp@12345678",
            "networks": 3 * (3 + 5),
        }
        assert {name: row[name] for name in plain} == pytest.approx(plain) and row["tests"] == []


def test_validation_scores_of_report_seeds_inform_the_choice(toy):
    """Without them the pool is the three tuning seeds alone, and the interval another."""
    made = result(toy_plan(), score)
    report = set(made.runs[made.runs.test].run)
    older = made._replace(
        finals=made.finals[~(made.finals.run.isin(report) & (made.finals.split == "validation"))]
    )
    (new, *_), (old, *_) = (rows_on(toy_evidence(one)) for one in (made, older))
    side = toy_evidence(older).candidates("constant", "ema")
    assert side.scores.validation.shape[0] == 0 and side.scores.tuning.shape == (3, 6)
    assert (old["ci_low"], old["ci_high"]) != (new["ci_low"], new["ci_high"])


# ---- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (0.05, 0.002, "supported"),
        (-0.05, 0.002, "refuted"),
        (0.0, 0.0005, "too small to matter"),
        (0.004, 0.0001, "too small to matter"),  # above 0, and real
        (0.012, 0.001, "supported, size open"),
        (0.009, 0.03, "open"),
    ],
)
def test_verdict_follows_the_planted_gain(toy, gain, spread, verdict):
    row = rows_of(planted(gain, spread))[0]
    assert row["verdict"] == verdict
    assert (row["seeds_needed"] is None) == (verdict != "open")
    assert row["seeds_needed"] is None or row["seeds_needed"] > row["n_seeds"]


@pytest.mark.parametrize(
    ("rule", "gain", "verdict"),
    [
        ("at least", 0.05, "supported"),
        ("at least", 0.0, "supported"),
        ("at least", -0.05, "refuted"),
        ("equivalence", 0.05, "refuted"),
        ("equivalence", 0.0, "supported"),
        ("equivalence", -0.05, "refuted"),
    ],
)
def test_rules_of_claims_that_arms_are_alike_or_no_worse(tmp_path, rule, gain, verdict):
    with asked(tmp_path, {"rule": rule}):
        assert {row["verdict"] for row in rows_of(planted(gain, 0.0005))} == {verdict}


def test_smoke_gives_no_verdict_however_clear_the_numbers(toy):
    clear = lambda run, readout, split: 0.9 if readout.startswith("ema") else 0.1
    for profile, word in (("smoke", "open"), ("laptop", "supported")):
        rows = rows_on(toy_evidence(result(toy_plan(profile), clear), profile))
        assert {row["verdict"] for row in rows} == {word}
        if profile == "smoke":
            assert {(row["direction"], row["size"]) for row in rows} == {("open", "open")}


def test_source_that_says_worse_has_its_signs_turned(tmp_path):
    """The same numbers with `better: false`: the estimate and its interval change sign, and the
    verdict turns.
    """
    gain = steep({"ema-10": 0.05})
    with asked(tmp_path, {"label": "better"}, {"label": "worse", "better": False}):
        better, worse = [row for row in rows_of(gain) if row["condition"].startswith("constant")]
    assert (better["estimate"], better["ci_low"], better["ci_high"]) == (
        -worse["estimate"],
        -worse["ci_high"],
        -worse["ci_low"],
    )
    assert (better["verdict"], worse["verdict"]) == ("supported", "refuted")


def test_measure_that_is_better_when_smaller_is_turned_round(tmp_path):
    """The EMA has 5 points more accuracy, so 0.1 nats less loss: both say that it is better,
    `better: false` not.
    """
    told = [
        {"measure": "loss", "label": "better"},
        {"measure": "loss", "label": "worse", "better": False},
    ]
    with asked(tmp_path, *told, {"measure": "training accuracy", "label": "training"}):
        loss, worse, training = [
            row for row in rows_of(steep({"ema-10": 0.05})) if row["condition"][:3] == "con"
        ]
    assert (loss["estimate"], worse["estimate"]) == pytest.approx((0.1, -0.1))
    assert (loss["unit"], training["unit"]) == ("nats", "pp") and training[
        "estimate"
    ] == pytest.approx(5)


def asked_as(folder, contrast: dict):
    """The small study with one claim of one contrast, of whatever kind."""
    write_experiments(folder, claims=[SMALL_CLAIM | {"primary": [contrast]}])
    return experiments_from(folder)


WINDOWS = {"kind": "matching window", "arm": "ema", "against": ["last", "tail"]}


@pytest.mark.parametrize(
    ("lr", "kind", "reason"),
    [
        (0.1, {}, "no ratio or difference in 'accuracy': report scores must be finite numbers"),
        (0.1, WINDOWS, "runs that diverged leave no finite estimate"),
        (0.2, {}, ""),  # a rate that no redraw chooses
    ],
)
def test_a_run_without_a_score_leaves_a_row_that_says_so(tmp_path, lr, kind, reason):
    """One report run has no numbers in the end, as one that diverged has none of some measures."""

    def how(run, readout, split):
        lost = split == "test" and run.seed == 1_001 and run.lr == lr
        return np.nan if lost else steep({"ema-10": 0.05})(run, readout, split)

    usual = SMALL_CONTRAST | {"conditions": ["constant"]}
    if kind:
        usual = {name: usual[name] for name in usual if name not in ("better", "rate")}
    with asked_as(tmp_path, usual | kind):
        (row,) = rows_of(how)
    assert row["reason"].startswith(reason) and bool(row["reason"]) == bool(reason)
    assert (row["verdict"] == "not run") == bool(reason)
    assert (row["estimate"] is None) == bool(reason)


# ---- what a row says besides ---------------------------------------------------------------------


def test_diverged_report_runs_at_the_chosen_rates_are_counted_once_each(toy):
    """Report seeds 1 000 and 1 003 diverge at every rate; tuning runs that diverge, or other rates,
    are not counted.
    """
    lost = lambda run: run.seed in (1_000, 1_003, 11_000)
    apart = lambda run, readout, split: (
        0.6 - 0.02 * (np.log2(run.lr / 0.1) - readout.startswith("ema-")) ** 2
    )
    for how, counted in ((score, 4), (apart, 4)):  # the arms choose one rate, or two
        rows = rows_of(how, diverged=lost)
        assert [row["diverged"] for row in rows] == [counted, counted]


def test_choice_on_the_edge_of_what_was_tried_is_marked(toy):
    rising = lambda run, readout, split: 0.5 + 0.05 * np.log2(run.lr / 0.1)
    assert all(row["on_edge"] for row in rows_of(rising))
    assert not any(row["on_edge"] for row in rows_of(score))


def test_better_test_scores_of_another_candidate_change_no_choice(toy):
    """Choosing looks at validation data of tuning seeds; the test score of a rate not chosen may be
    anything.
    """
    tempting = lambda run, readout, split: (
        0.99 if split == "test" and run.lr > 0.1 else score(run, readout, split)
    )
    for how in (score, tempting):
        row = rows_of(how)[0]
        assert row["rates"] == {"ema": 0.1, "last": 0.1}


def test_result_without_report_runs_is_refused(toy):
    made = result(toy_plan(), score)
    tuning = made._replace(runs=made.runs[~made.runs.test])
    with pytest.raises(ValueError, match="no report runs of 'last' under 'linear'"):
        toy_evidence(tuning).candidates("linear", "last")


def test_ties_go_to_the_lower_rate(toy):
    flat = lambda run, readout, split: 0.5
    assert toy_evidence(result(toy_plan(), flat)).candidates("constant", "last").chosen.lr == 0.05


BY_STEPS = {"tune_by": ["accuracy", "steps to target"], "targets": {TASK: 0.99}}


@pytest.mark.parametrize(("best", "chosen"), [(0.1, 0.1), (0.2, 0.2)])
def test_accuracy_decides_where_no_rate_arrives_at_the_target(tmp_path, best, chosen):
    with asked(tmp_path, {}, **BY_STEPS):
        evidence = toy_evidence(result(toy_plan(), steep({}, best)))
        side = evidence.candidates("constant", "last", "steps to target")
    assert (side.scores.report == 40).all() and side.chosen.lr == chosen


def test_a_tie_at_the_target_never_outweighs_an_update(tmp_path):
    """The rate that arrives one update sooner is chosen, however bad its accuracy in the end."""
    soon = lambda run: [("last", "steps to target", None, 30 - (run.lr == 0.05))]
    with asked(tmp_path, {}, **BY_STEPS):
        made = result(toy_plan(), steep({}, 0.2), probed=soon)
        made = made._replace(measures=made.measures.drop_duplicates(["run", "readout", "measure"]))
        assert (
            toy_evidence(made).candidates("constant", "last", "steps to target").chosen.lr == 0.05
        )


def test_a_run_that_diverged_is_the_worst_of_equals(tmp_path):
    with asked(tmp_path, {}, **BY_STEPS):
        made = result(
            toy_plan(), lambda run, readout, split: 0.1, diverged=lambda run: run.lr == 0.05
        )
        assert toy_evidence(made).candidates("constant", "last", "steps to target").chosen.lr == 0.1


def test_arm_without_scores_in_a_measure_is_refused(toy):
    evidence = toy_evidence(result(toy_plan(), score))
    with pytest.raises(
        ValueError, match="'last' has no scores in 'validation accuracy at 50 %' under 'constant'"
    ):
        evidence.candidates("constant", "last", "validation accuracy at 50 %")


def test_arm_that_the_study_asked_for_after_the_result_was_made_is_not_judged(tmp_path):
    arms = {"momentum": {}, "adam": {"optimizer": "adam"}, "sgd": {"optimizer": "sgd"}}
    told = [{"arm": arm, "against": "momentum", "label": arm} for arm in ("adam", "sgd")]
    with asked(tmp_path, *told, arms=arms, secondary=[]):
        made = result(toy_plan(), steep({}))
        without_sgd = {name: table for name, table in made._asdict().items() if "arm" in table}
        older = made._replace(
            **{name: table[table.arm != "sgd"] for name, table in without_sgd.items()}
        )
        rows = rows_on(toy_evidence(older))
    assert [row["condition"] for row in rows] == ["constant, adam", "linear, adam"]


def test_candidates_are_an_arms_own_readouts_at_rates_that_report_seeds_ran(toy):
    made = result(toy_plan(), score, half=2)
    lost = made.runs.test & (made.runs.lr > 0.2)
    evidence = toy_evidence(made._replace(runs=made.runs[~lost]))
    found = evidence.candidates("constant", "ema")
    assert {(c.lr, c.readout) for c in found.labels} == {
        (lr, name) for lr in (0.025, 0.05, 0.1, 0.2) for name in ARMS["ema"]
    }
    assert found.scores.report.shape == (5, 8) and found.scores.tuning.shape == (3, 8)


def test_rate_table_takes_each_arms_best_readout_per_rate_on_validation(toy):
    made = result(toy_plan(), score)
    table = rate_table(toy_evidence(made), ["linear"])
    tuning, test = (
        table_by_hand(made, "linear", *how) for how in (("validation", False), ("test", True))
    )
    for lr in (0.05, 0.1, 0.2):
        best = max(("ema-10", "ema-30"), key=lambda name: fmean(tuning[lr, name].values()))
        part = table[(table.condition == "linear") & (table.lr == lr) & (table.arm == "ema")]
        assert set(part.readout) == {best}
        assert dict(zip(part.seed, part.accuracy, strict=True)) == pytest.approx(test[lr, best])


def test_sweep_table_holds_the_mean_of_every_candidate_over_tuning_seeds(toy):
    made = result(toy_plan(), score)
    table = sweep_table(toy_evidence(made)).set_index(["condition", "arm", "lr", "readout"]).score
    for schedule in ("constant", "linear"):
        for (lr, readout), seeds in table_by_hand(made, schedule, "validation", False).items():
            (arm,) = [name for name, readouts in ARMS.items() if readout in readouts]
            assert table[schedule, arm, lr, readout] == pytest.approx(
                fmean(seeds.values()), abs=0.006
            )
