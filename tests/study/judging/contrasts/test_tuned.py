"""Where the arms of a difference stand: conditions, rates, tunings, and ratios between them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import LAPTOP, evidence_of, result
from judged import (
    TASK,
    arms_plan,
    asked,
    contrast_of,
    noise,
    rows_of,
    rows_on,
    score,
    steep,
    table_by_hand,
    toy_evidence,
    toy_plan,
)
from steadydescent.study.judging.claims import questions

LINEAR = {"arm": "last", "condition": "linear"}

# ---- where an arm stands -------------------------------------------------------------------------


def test_arm_of_another_condition_is_taken_from_there(tmp_path):
    """Linear decay gains 7 points: last weights there against those at a constant rate."""
    how = lambda run, readout, split: (
        steep({})(run, readout, split) + 0.07 * (run.schedule == "linear")
    )
    with asked(tmp_path, {"arm": LINEAR, "conditions": ["constant"]}):
        (row,) = rows_of(how)
    assert row["estimate"] == pytest.approx(7) and row["verdict"] == "supported"
    assert row["networks"] == 2 * 3 * (3 + 5)


def test_arms_of_one_name_in_two_conditions_are_told_apart(tmp_path):
    """Rates differ, one diverges and one lies on the edge: the row says so of the right one."""

    def how(run, readout, split):
        return steep({}, best=0.2 if run.schedule == "linear" else 0.1)(run, readout, split)

    lost = lambda run: run.schedule == "linear" and run.lr == 0.2 and run.seed in (1_001, 1_002)
    with asked(tmp_path, {"arm": LINEAR, "conditions": ["constant"]}):
        (row,) = rows_of(how, diverged=lost)
    assert row["rates"] == {"last@linear": 0.2, "last": 0.1}
    assert row["diverged"] == 2 and row["on_edge"]


def test_several_arms_to_stand_against_are_the_best_of_them(tmp_path):
    """Tail and ramp are 2 and 4 points above the last weights, the EMA 5: 1 above the best."""
    gains = {"ema-10": 0.05, "tail-25": 0.02, "ema-ramp": 0.04}
    with asked(
        tmp_path,
        {"against": ["last", "tail", "ramp"]},
        {"against": ["last"], "label": "last alone"},
    ):
        rows = rows_of(steep(gains))
    assert [row["estimate"] for row in rows] == pytest.approx([1, 1, 5, 5])
    assert (
        rows[0]["rates"] == {"ema": 0.1, "ramp": 0.1} and rows[0]["readouts"]["ramp"] == "ema-ramp"
    )


def test_arm_against_itself_and_others_is_never_better_than_their_best(tmp_path):
    with asked(tmp_path, {"arm": "last", "against": ["last", "ema", "tail"], "rule": "at least"}):
        for how, word in ((steep({"ema-10": 0.05}), "refuted"), (steep({}), "supported")):
            rows = rows_of(how)
            assert all(row["estimate"] <= 1e-9 for row in rows) and {
                row["verdict"] for row in rows
            } == {word}


@pytest.mark.parametrize(
    ("factor", "lost"), [(1.0, 10), (0.5, 20), (2.0, 0), (1.2, 10), (0.85, 10)]
)
def test_rate_of_the_other_side_times_a_factor(tmp_path, factor, lost):
    """The EMA's best rate is 0.2 and the last weights' 0.1; at the latter's, times a factor, the
    EMA loses.

    Between grid points the nearest stands in, if it is near.
    """

    def how(run, readout, split):
        averaged = readout.startswith("ema")
        return 0.6 + 0.3 * averaged - 0.1 * abs(np.log2(run.lr / (0.2 if averaged else 0.1)))

    with asked(tmp_path, {"rate": "against", "factor": factor}, {"label": "tuned"}):
        rows = rows_of(how)
    assert rows[0]["estimate"] == pytest.approx(30 - lost) and rows[-1][
        "estimate"
    ] == pytest.approx(30)


@pytest.mark.parametrize(("off", "depends"), [(0.0, False), (0.5, True)])
def test_a_row_that_hangs_on_the_choice_says_so_in_place_of_seeds(tmp_path, off, depends):
    """Validation cannot tell 0.1 from 0.2, and the last weights lose half on test data at 0.2."""

    def how(run, readout, split):
        drawn = np.random.default_rng([run.seed, int(1e4 * run.lr), len(readout), len(split)])
        score = 0.6 - 0.1 * abs(np.log2(run.lr / 0.1414)) + 0.03 * drawn.normal()
        return score - off * (split == "test" and readout == "last" and run.lr == 0.2)

    with asked(tmp_path, {"arm": "ema", "against": "last"}):
        row = rows_of(how)[0]
    assert row["verdict"] == "open" and (row["seeds_needed"] is None) == depends
    assert ("further apart than the margin" in row["reason"]) == depends


def test_one_arm_at_two_rates_shows_both(tmp_path):
    """At half its best rate against the best; two runs diverged at the one, three at the other."""
    lost = lambda run: run.seed - 1_000 < {0.05: 2, 0.1: 3}.get(run.lr, 0)
    with asked(tmp_path, {"arm": "last", "rate": "against", "factor": 0.5}):
        row = rows_of(steep({}), diverged=lost)[0]
    assert row["rates"] == {"last": 0.05, "against last": 0.1}
    assert row["readouts"] == {"last": "last", "against last": "last"}
    assert row["diverged"] == 5 and row["on_edge"]


def test_contrast_at_a_rate_that_was_not_run_is_a_row_that_says_so(tmp_path):
    """A grid has factors of 2: at 1.4 times the other side's rate there is nothing to compare."""
    with asked(tmp_path, {"rate": "against", "factor": 1.4}, {"label": "tuned"}):
        rows = rows_of(lambda run, readout, split: 0.6 - 0.1 * abs(np.log2(run.lr / 0.1)))
    words = {row["condition"]: (row["verdict"] != "not run", row["reason"]) for row in rows}
    why = "the arm ran no rate near 0.14, the nearest is 0.1"
    nothing = dict.fromkeys(("constant", "linear"), (False, why))
    assert words == nothing | {"constant, tuned": (True, ""), "linear, tuned": (True, "")}
    assert {row["first_seen"] for row in rows if row["reason"]} == {None}


def test_an_arm_at_the_rate_of_the_other_is_chosen_as_the_other_is(tmp_path):
    """Whatever the arm's own tuning scores say, its candidates follow those it is compared with."""
    with asked(tmp_path, {"rate": "against"}):
        evidence = toy_evidence(result(toy_plan(), score))
        contrast = next(questions("toy")).contrast
        arm, against = contrast.sides(evidence, "constant")
    assert [label.lr for label in arm.labels] == [label.lr for label in against.labels]
    assert (arm.scores.tuning == against.scores.tuning).all()
    assert (arm.scores.validation == against.scores.validation).all()


def test_fixed_rate_is_neither_tuned_nor_chosen(tmp_path):
    with asked(tmp_path, {"rate": 0.05}):
        rows = rows_of(steep({"ema-10": 0.05}))
    assert rows[0]["rates"] == {"ema": 0.05, "last": 0.1} and rows[0]["estimate"] == pytest.approx(
        5 - 10
    )


def test_fixed_rate_that_no_run_had_gives_rows_that_name_those_that_were_run(tmp_path):
    with asked(tmp_path, {"rate": 0.003}):
        rows = rows_of(score)
    assert {row["verdict"] for row in rows} == {"not run"} and len(rows) == 2
    for row in rows:
        assert row["reason"].startswith("no run has the rate 0.003; what is known are 0.05 ema-10,")


def test_difference_of_differences_takes_the_same_contrast_elsewhere_away(tmp_path):
    """The EMA gains 8 points at a constant rate and 3 with decay."""
    gain = {"constant": 0.08, "linear": 0.03}
    how = lambda run, readout, split: steep({"ema-10": gain[run.schedule]})(run, readout, split)
    with asked(tmp_path, {"conditions": ["constant"], "minus": "linear"}):
        (row,) = rows_of(how)
        assert row["estimate"] == pytest.approx(5) and row["networks"] == 2 * 3 * (3 + 5)
        assert row["rates"] == dict.fromkeys(["ema", "last", "ema@linear", "last@linear"], 0.1)
        contrast = next(questions("toy")).contrast
        evidence = toy_evidence(result(toy_plan(), score))
        plain = contrast.model_copy(update={"minus": None})
        here, there = (plain.estimate(evidence, condition, 0.95) for condition in gain)
        both = contrast.estimate(evidence, "constant", 0.95)
    assert both.value == pytest.approx(here.value - there.value)


def test_difference_of_differences_is_taken_seed_by_seed(tmp_path):
    """One candidate a side: Student's interval of each seed's gain here minus its gain there, in
    which what helps a seed's arm under both conditions cancels.
    """

    def how(run, readout, split):
        return score(run, readout, split) + 0.05 * (run.seed % 3) * (readout == "tail-25")

    with asked(tmp_path, {"arm": "tail", "conditions": ["constant"], "minus": "linear"}):
        made = result(toy_plan(), how, half=0)
        contrast = next(questions("toy")).contrast
        found = contrast.estimate(toy_evidence(made), "constant", 0.95)
    tables = [table_by_hand(made, name, "test", True) for name in ("constant", "linear")]
    gains = [
        np.array(
            [each[0.1, "tail-25"][s] - each[0.1, "last"][s] for s in sorted(each[0.1, "last"])]
        )
        for each in tables
    ]
    expected = stats.ttest_1samp(gains[0] - gains[1], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


# ---- ratios and other tunings --------------------------------------------------------------------


def test_ratio_is_shown_as_a_factor_with_null_one(tmp_path):
    """EMA runs spread 2 points around their mean, last weights 4: a factor of 2."""

    def how(run, readout, split):
        lost = 0.1 * abs(np.log2(run.lr / 0.1))
        return (
            0.6 - lost + (0.02 if readout.startswith("ema-") else 0.04) * ((run.seed % 5) - 2) / 2
        )

    with asked(tmp_path, {"measure": "seed spread", "margins": {TASK: 1.15}}):
        rows = rows_of(how)
        assert (
            rows[0]["estimate"] == pytest.approx(2)
            and rows[0]["null"] == 1.0
            and rows[0]["unit"] == "×"
        )
        assert 0 < rows[0]["ci_low"] <= rows[0]["estimate"] <= rows[0]["ci_high"]
        made = result(toy_plan(), how)
        contrast = next(questions("toy")).contrast
        found = contrast.estimate(toy_evidence(made), "constant", rows[0]["level"])
    assert (np.log(rows[0]["ci_low"]), np.log(rows[0]["ci_high"])) == pytest.approx(
        (found.low, found.high)
    )


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.5, "supported"), (1 / 1.5, "refuted"), (1.05, "too small to matter")]
)
def test_margin_of_a_ratio_is_a_factor_both_ways(tmp_path, factor, verdict):
    """Mean distances stand in this ratio, with hardly any noise; margin 1.15 times."""

    def orbit(run):
        for readout in ("last", "tail-25"):
            value = (
                3.0 * (factor if readout == "last" else 1.0) * (1 + 1e-4 * noise(run.seed, readout))
            )
            yield readout, "distance to the tail mean", None, value

    told = {"arm": "tail", "measure": "distance to the tail mean", "margins": {TASK: 1.15}}
    with asked(tmp_path, told, size={"probes": ["orbit"]}):
        rows = rows_of(steep({}), probed=orbit)
    assert {row["verdict"] for row in rows} == {verdict}
    assert rows[0]["estimate"] == pytest.approx(factor, rel=1e-3)


def test_steps_to_a_target_are_tuned_by_themselves_and_compared_as_ratios(tmp_path):
    """Accuracy is best at the centre; the target is reached soonest at twice that rate, in half the
    updates there.
    """

    def at_target(run):
        for readout in ("last",):
            place = round(np.log2(run.lr / 0.1))
            yield (
                readout,
                "steps to target",
                None,
                (30 - 10 * place) / (2 if run.optimizer == "adam" else 1),
            )

    arms = {"momentum": {}, "adam": {"optimizer": "adam"}}
    told = {
        "arm": "adam",
        "against": "momentum",
        "measure": "steps to target",
        "margins": {TASK: 1.15},
    }
    fields = {
        "arms": arms,
        "tune_by": ["accuracy", "steps to target"],
        "targets": {TASK: 0.99},
        "secondary": [],
    }
    with asked(
        tmp_path,
        told,
        {**told, "measure": "accuracy", "label": "accuracy", "margins": {TASK: 1}},
        **fields,
    ):
        made = result(toy_plan(), steep({}), probed=at_target)
        ours = made.measures.drop_duplicates(
            ["run", "readout", "measure"]
        )  # the probe's, not the curve's
        rows = rows_on(toy_evidence(made._replace(measures=ours)))
    steps, accuracy = rows[0], rows[2]
    assert steps["rates"] == {"adam": 0.2, "momentum": 0.2} and steps["estimate"] == pytest.approx(
        2
    )
    assert accuracy["rates"] == {"adam": 0.1, "momentum": 0.1} and accuracy[
        "estimate"
    ] == pytest.approx(0)


def arriving(missing: dict[str, int]):
    """A probe that says which report runs arrive: all but the first few of an optimiser's seeds."""

    def at_target(run):
        late = run.test and run.seed - 1_000 < missing.get(run.optimizer, 0)
        yield "last", "arrival at the target", None, float(not late)
        yield "last", "steps to target", None, 30.0

    return at_target


@pytest.mark.parametrize("missing", [{}, {"momentum": 3}, {"momentum": 5, "adam": 1}])
def test_shares_that_arrive_have_the_interval_of_two_more_seeds(missing, tmp_path):
    """With one the arm alone arrives, with the other its rival: no interval is without width."""
    arms = {"momentum": {}, "adam": {"optimizer": "adam"}}
    told = {"arm": "adam", "against": "momentum", "measure": "arrival at the target"}
    fields = {
        "arms": arms,
        "tune_by": ["accuracy", "steps to target"],
        "targets": {TASK: 0.99},
        "secondary": [],
    }
    with asked(tmp_path, {**told, "margins": {TASK: 10}}, **fields):
        made = result(toy_plan(), steep({}), probed=arriving(missing))
        ours = made.measures.drop_duplicates(["run", "readout", "measure"])
        row = rows_on(toy_evidence(made._replace(measures=ours)))[0]
    n = row["n_seeds"]
    late = np.arange(n) < np.array([[missing.get("adam", 0)], [missing.get("momentum", 0)]])
    differences = 100.0 * (late[1].astype(float) - late[0])
    variance = differences.var(ddof=1) / n + 2 * 100**2 / ((n + 1) * (n + 2))
    assert row["estimate"] == pytest.approx(differences.mean())
    least = stats.t.ppf(0.5 + row["level"] / 2, 2 * n) * np.sqrt(variance)
    most = stats.t.ppf(0.5 + row["level"] / 2, n - 1) * np.sqrt(variance)
    assert (
        least <= (row["ci_high"] - row["ci_low"]) / 2 * 1.0001
        and (row["ci_high"] - row["ci_low"]) / 2 <= most * 1.0001
    )


# ---- measures that belong to readouts and norms alike --------------------------------------------


@pytest.mark.parametrize("anew", ["", ", re-estimated"])
def test_accuracy_under_shift_is_compared_between_readouts_and_between_arms(anew):
    """Under the shift the EMA gains 4 points, batch norm 6; re-estimated statistics double both."""
    text = "scale(severity=3)"
    shifts = [text, 'scale(severity=3, statistics="reestimated")']

    def how(run, readout, split):
        times = split.startswith("test/") * (1 + ("reestimated" in split))
        gain = 0.04 * readout.startswith("ema") + 0.06 * ("batch" in run.task)
        return 0.5 + times * gain - 0.1 * abs(np.log2(run.lr / 0.1))

    arms = {"last": {"readouts": ["last"]}, "ema": {"readouts": ["ema-10"]}}
    arms |= {"norm": {"readouts": ["last"], "task": {"norm": "batch"}}}
    sizes = {"profiles": {"laptop": {TASK: LAPTOP | {"shifts": shifts}}}}
    plan = arms_plan(arms, **sizes)
    evidence = evidence_of(result(plan, how), plan)
    for arm, gain in (("ema", 4), ("norm", 6)):
        contrast = contrast_of(
            "tuned", arm, against="last", measure=f"accuracy under covariate shift{anew}"
        )
        assert contrast.needs.met(evidence.design) and contrast.answerable(evidence, "constant")
        value = contrast.estimate(evidence, "constant", 0.95).value
        assert value == pytest.approx(gain * (1 + bool(anew)))


def test_the_interval_holds_the_sampling_of_the_test_set_where_predictions_are_known():
    """One candidate a side: by hand, Student's interval and wᵀΣw/N."""
    plan = arms_plan({"last": {"readouts": ["last"]}, "ema": {"readouts": ["ema-10"]}})
    made = result(plan, score, half=0)
    contrast = contrast_of("tuned", "ema", against="last")
    bare = evidence_of(made, plan)
    plain = contrast.estimate(bare, "constant", 0.95)
    assert contrast.remarks(bare, "constant").test_set_sampled is False and plain.fixed == 0
    run = made.runs[made.runs.test].iloc[0]
    rows = pd.DataFrame({"readout": ["ema-10", "last"]})
    matrix = np.array([[0.20, 0.15], [0.15, 0.18]], "<f4")
    told = {
        name: run[name] for name in ("task", "optimizer", "schedule", "batch_size", "steps", "lr")
    }
    told |= {"examples": 500, "predicted": 100}
    sampling = rows.assign(**told, covariance=[row.tobytes() for row in matrix])
    both = evidence_of(made._replace(sampling=sampling), plan)
    wider = contrast.estimate(both, "constant", 0.95)
    variance = (0.20 - 2 * 0.15 + 0.18) / 500 * 1e4
    assert wider.value == plain.value and wider.sd == plain.sd
    assert wider.fixed == pytest.approx(np.sqrt(variance))
    assert wider == plain.widened(variance, 99, 0.95)._replace(
        low=pytest.approx(wider.low), high=pytest.approx(wider.high), fixed=wider.fixed
    )
    assert contrast.remarks(both, "constant").test_set_sampled is True
    less = contrast_of("tuned", "ema", against="last", measure="training accuracy")
    assert less.remarks(both, "constant").test_set_sampled is None
