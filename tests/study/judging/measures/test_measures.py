"""Measures: each is what its name says of runs whose tables are written down by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fabricated import a_run, tables
from steadydescent.engine.probes import LOST
from steadydescent.study.judging import measures
from steadydescent.study.judging.measures import (
    MEASURES,
    churned,
    derived,
    held_from,
    measure_named,
    measured,
    values,
)

SHIFTS = (
    "scale(severity=3)",
    "correlated-noise(severity=3)",
    "scale(severity=3, statistics=reestimated)",
    "prior(severity=3)",
    "concept(severity=3)",
)
SHOWN = (
    "scale(severity=5)",
    "prior(severity=1)",
    "scale(severity=3, statistics=reestimated, batch=10)",
)


def of(made, name: str) -> dict:
    """(seed, readout) → value of a measure."""
    table = values(made, name)
    seeds = made.runs.set_index("run").seed
    assert not table.duplicated(["run", "readout"]).any()
    return {(seeds[row.run], row.readout): row.value for row in table.itertuples()}


def splits(run, readout, split) -> float:
    """An accuracy that tells splits, seeds and readouts apart."""
    place = ["validation", "test", "train", *(f"test/{shift}" for shift in run.shifts)].index(split)
    return 0.3 + 0.05 * place + 0.01 * run.seed + 0.001 * len(readout)


def runs(**changes) -> list:
    return [a_run(seed=seed, **changes) for seed in range(3)]


# ---- final scores --------------------------------------------------------------------------------


def test_final_measures_are_percent_of_the_split_that_they_name():
    made = tables(runs(), splits)
    for seed in range(3):
        for readout in ("last", "ema-10"):
            own = 0.01 * seed + 0.001 * len(readout)
            assert of(made, "accuracy")[seed, readout] == pytest.approx(100 * (0.35 + own))
            assert of(made, "seed spread")[seed, readout] == pytest.approx(100 * (0.35 + own))
            assert of(made, "training accuracy")[seed, readout] == pytest.approx(100 * (0.40 + own))
            assert of(made, "calibration error")[seed, readout] == pytest.approx(
                100 * (0.35 + own) / 7
            )
            assert of(made, "loss")[seed, readout] == pytest.approx(2.3 - 2 * (0.35 + own))
            assert of(made, "training loss")[seed, readout] == pytest.approx(2.3 - 2 * (0.40 + own))


def test_height_is_a_surfaces_loss():
    made = tables(runs(task="saddle", batch_size=1), lambda run, readout, split: -0.1 * run.seed)
    assert of(made, "height") == {
        (s, r): pytest.approx(-0.1 * s) for s in range(3) for r in ("last", "ema-10")
    }


def test_measures_of_shifts_are_means_over_the_shifts_of_a_kind():
    """Two covariate shifts, one of them also with statistics taken anew; a prior and a concept
    shift.

    Other severities, and statistics of a few inputs at a time, are no part of what claims are
    about.
    """
    made = tables(runs(shifts=(*SHIFTS, *SHOWN)), splits)
    clean, seed, readout = 0.35, 2, "ema-10"
    own = 0.01 * seed + 0.001 * len(readout)
    for kind, expected in {
        "covariate shift": 0.5 * (0.45 + 0.50),
        "covariate shift, re-estimated": 0.55,
        "prior shift": 0.60,
        "concept shift": 0.65,
    }.items():
        assert of(made, f"accuracy under {kind}")[seed, readout] == pytest.approx(
            100 * (expected + own)
        )
        assert of(made, f"drop under {kind}")[seed, readout] == pytest.approx(
            100 * (clean - expected)
        )


def test_drop_is_better_when_smaller_and_accuracy_under_shift_when_larger():
    assert (
        measure_named("accuracy under prior shift").higher
        and not measure_named("drop under prior shift").higher
    )
    assert measure_named("drop under concept shift, re-estimated").unit == "pp"


# ---- probes --------------------------------------------------------------------------------------


def test_probes_along_training_are_averaged_without_their_first_point():
    """At the start nothing has been learnt; the steps after it count alike."""

    def probed(run):
        for step, value in ((10, 99.0), (20, 1.0 + run.seed), (40, 3.0 + run.seed)):
            yield "", "gradient-shift", step, value

    made = tables(runs(), probed=probed)
    assert of(made, "shift of gradients") == {(seed, "last"): 2.0 + seed for seed in range(3)}


def test_probe_at_the_end_is_taken_as_it_is():
    made = tables(runs(), probed=lambda run: [("", "tail-loss-sd", None, 0.1 * (run.seed + 1))])
    assert of(made, "spread of the loss") == {
        (seed, "last"): pytest.approx(0.1 * (seed + 1)) for seed in range(3)
    }


def test_distances_keep_their_readouts():
    made = tables(
        runs(),
        probed=lambda run: [
            (name, "distance to the tail mean", None, 2.0) for name in ("last", "at-80")
        ],
    )
    assert of(made, "distance to the tail mean") == {
        (s, r): 2.0 for s in range(3) for r in ("last", "at-80")
    }


def test_a_diverged_run_counts_as_one_that_takes_its_update_back():
    """What it left was nan; where a network that has not diverged has none, it stays."""
    asked = runs()
    made = tables(
        asked,
        diverged=[asked[1].key],
        probed=lambda run: [("", "update-cosine", None, 0.5 if run.seed == 0 else np.nan)],
    )
    found = of(made, "cosine of successive updates")
    assert (found[0, "last"], found[1, "last"]) == (0.5, -1.0) and np.isnan(found[2, "last"])


def test_arrivals_are_percent_and_rates_are_tuned_for_speed():
    made = tables(
        runs(), probed=lambda run: [("last", "arrival at the target", None, float(run.seed > 0))]
    )
    assert of(made, "arrival at the target") == {
        (0, "last"): 0.0,
        (1, "last"): 100.0,
        (2, "last"): 100.0,
    }
    assert measure_named("arrival at the target").tuned_by == "steps to target"


# ---- what follows from curves --------------------------------------------------------------------


def straight(run, **columns) -> pd.DataFrame:
    """A curve at 4 points of 40 steps with these columns, of the last weights."""
    defaults = {
        "run": run.key,
        "readout": "last",
        "step": [10, 20, 30, 40],
        "accuracy": np.nan,
        "loss": np.nan,
    }
    return pd.DataFrame(defaults | {"calibration_error": 0.0} | columns)


@pytest.mark.parametrize(
    ("target", "needed"), [(0.25, 15.0), (0.3, 20.0), (0.1, 10.0), (0.95, 40.0), (0.55, 35.0)]
)
def test_steps_to_target_are_interpolated_and_count_the_whole_run_where_it_never_arrives(
    target, needed
):
    run = a_run(batch_size=50, curve_points=4)
    made = tables([run])._replace(curves=straight(run, accuracy=[0.2, 0.3, 0.4, 0.7]))
    found = derived(made, target, by_loss=False).set_index("measure").value
    assert found["steps to target"] == pytest.approx(needed)
    assert found["examples to target"] == pytest.approx(50 * needed)


def test_steps_to_a_height_are_those_to_fall_to_it():
    run = a_run(task="saddle", batch_size=1, curve_points=4)
    made = tables([run])._replace(curves=straight(run, loss=[0.5, 0.3, -0.1, -0.2]))
    found = derived(made, -0.05, by_loss=True).set_index("measure").value
    assert found["steps to target"] == pytest.approx(20 + 10 * 0.35 / 0.4)


def test_last_weights_alone_are_asked_when_a_target_is_reached_and_averages_on_the_way():
    run = a_run(curve_points=20, readouts=("last", "ema-10", "tail-25"))
    made = tables([run], lambda run, readout, split: 0.4)
    found = derived(made, 0.3, by_loss=False)
    assert set(found[found.measure == "steps to target"].readout) == {"last"}
    early = found[found.measure.str.startswith("validation accuracy")]
    assert sorted(early.measure) == sorted(
        f"validation accuracy at {share} %" for share in (5, 10, 20, 50)
    )
    assert set(early.readout) == {"ema-10"} and set(early.value) == {0.4}
    made = made._replace(measures=found.assign(run=run.key))
    assert of(made, "validation accuracy at 10 %") == {(0, "ema-10"): pytest.approx(40.0)}


def test_without_a_target_there_are_no_steps_to_it():
    assert (
        set(
            derived(
                tables([a_run(curve_points=4, readouts=("last",))]), None, by_loss=False
            ).measure
        )
        == set()
    )


EIGHTHS = st.integers(-8, 8).map(lambda count: count / 8)


@given(st.lists(EIGHTHS, min_size=2, max_size=7), EIGHTHS, st.booleans())
def test_held_from_is_where_the_line_through_the_points_last_crosses_the_target(
    points, target, below
):
    """Slow reference: from there to the end the target is held, and just before it is not."""
    steps = np.arange(1, len(points) + 1) * 10
    found = held_from(steps, np.array(points), target, below)
    beyond = (lambda value: value <= target) if below else (lambda value: value >= target)
    if not beyond(points[-1]):
        assert found is None
        return
    assert found is not None and steps[0] <= found <= steps[-1]
    later = [value for step, value in zip(steps, points, strict=True) if step >= found + 1e-9]
    assert all(beyond(value) for value in later)
    if found > steps[0]:
        assert np.interp(found, steps, points) == pytest.approx(target, abs=1e-9)
        earlier = [step for step in steps if step < found - 1e-9]
        assert earlier and not beyond(points[len(earlier) - 1])


# ---- churn ---------------------------------------------------------------------------------------


def test_churn_is_the_share_on_which_two_seeds_disagree():
    """A seed's part in the mean over all pairs; each settings and readout for itself."""
    classes = {0: [1, 2, 3, 4], 1: [1, 2, 3, 5], 2: [9, 9, 9, 5]}
    wanted = [a_run(seed=seed, lr=lr) for lr in (0.1, 0.2) for seed in (2, 0, 1)]
    made = tables(
        wanted,
        predicted=lambda run, readout: bytes(classes[run.seed] if run.lr == 0.1 else [7] * 4),
    )
    found = churned(made).merge(made.runs[["run", "seed", "lr"]], on="run")
    assert len(found) == 2 * 2 * 3
    for row in found.itertuples():
        by_hand = {0: 1.25 - 2 / 3, 1: 1.0 - 2 / 3, 2: 1.75 - 2 / 3}[
            row.seed
        ]  # d01, d12, d02 = 1/4, 3/4, 1
        assert row.value == pytest.approx(by_hand if row.lr == 0.1 else 0.0)
    assert found[found.lr == 0.1].value.mean() == pytest.approx((0.25 + 0.75 + 1.0) / 3)
    made = made._replace(measures=churned(made))
    assert values(made, "churn").value.max() == pytest.approx(100 * (1.75 - 2 / 3))


def test_the_interval_of_churn_covers_its_mean_though_pairs_share_seeds():
    """Seeds of differing rates of error; pairs alone would give too narrow an interval."""
    generator, inside, trials, n = np.random.default_rng(0), 0, 200, 24
    wanted = [a_run(seed=seed) for seed in range(n)]
    rates = lambda count: generator.choice([0.1, 0.3], count)
    wrong = lambda count: generator.random((count, 200)) < rates(count)[:, None]
    many = wrong(3_000)
    share = many.mean(1)  # two seeds disagree where one alone is wrong; 200 examples, independent
    truth = 2 * share.mean() * (1 - share.mean())
    for _ in range(trials):
        classes = wrong(n).astype(np.uint8)
        made = tables(wanted, predicted=lambda run, readout, c=classes: c[run.seed].tobytes())
        found = churned(made).groupby("readout").value.apply(list).iloc[0]
        low, high = stats.t.interval(0.95, n - 1, np.mean(found), stats.sem(found))
        inside += low <= truth <= high
    assert 0.89 < inside / trials < 0.985  # a ring of pairs taken as independent: 0.85


def test_diverged_networks_agree_with_none():
    made = tables(
        runs(), predicted=lambda run, readout: bytes([LOST] * 5 if run.seed == 1 else [3] * 5)
    )
    by_seed = churned(made).merge(made.runs[["run", "seed"]], on="run").groupby("seed").value.mean()
    assert by_seed.tolist() == pytest.approx(
        [1 / 3, 4 / 3, 1 / 3]
    )  # 1 and 1 of the pairs with it, 0 of the other


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["beauty", "accuracy under stress", "validation accuracy at ten %", ""]
)
def test_unknown_measure_is_refused_with_what_there_is(name):
    with pytest.raises(
        ValueError, match=r"a measure that is not under a shift, nor early, .*\['accuracy'"
    ):
        measure_named(name)


def test_ratios_have_a_factor_as_unit_and_differences_none():
    for name, measure in MEASURES.items():
        assert measure.name == name and measure.ratio == (measure.unit == "×")
        assert measure.ratio or measure.statistic == "mean"


def test_what_a_run_measures_follows_from_its_probes_and_shifts():
    has = lambda name, probes=(), shifts=(), points=10: measured(name, probes, shifts, points)
    assert has("accuracy") and has("steps to target")
    assert has("churn", ("predictions",)) and not has("churn", ("orbit",))
    assert has("drop under prior shift", (), SHIFTS) and not has(
        "drop under prior shift", (), SHIFTS[:3]
    )
    assert has("drop under covariate shift, re-estimated", (), SHIFTS)
    assert not has("drop under covariate shift, re-estimated", (), SHIFTS[:2])
    assert not any(has(f"drop under {kind} shift", (), SHOWN) for kind in ("covariate", "prior"))
    assert not has("drop under covariate shift, re-estimated", (), SHOWN)
    for points, early in (
        (5, {20}),
        (10, {10, 20, 50}),
        (20, {5, 10, 20, 50}),
        (2, {50}),
        (40, {5, 10, 20, 50}),
    ):
        assert {
            share
            for share in measures.EARLY
            if has(f"validation accuracy at {share} %", points=points)
        } == early


@pytest.mark.parametrize("points", [2, 5, 10, 20, 40])
def test_curve_has_the_early_measures_that_a_plan_says_it_has(points):
    run = a_run(curve_points=points, readouts=("last", "ema-10"))
    found = set(derived(tables([run]), None, by_loss=False).measure)
    names = {f"validation accuracy at {share} %" for share in measures.EARLY}
    assert found == {name for name in names if measured(name, (), (), points)}


def test_every_probed_measure_says_which_probe_it_needs():
    """Without any probe or shift, the rest needs nothing but final scores, curves and losses."""
    plain = {name for name in MEASURES if measured(name, (), (), 10)}
    assert plain == set(measures.FINALS) | {
        "generalisation gap",
        "arrival at the target",
        "steps to target",
        "examples to target",
        "spread of the loss",
    }


# ---- one checkpoint of several, and the gap ------------------------------------------------------

SINGLE = "accuracy of the best single checkpoint"
CHECKPOINTS = ("last", "at-85", "at-90", "at-95", "ema-10")


def checkpointed(run, readout, split) -> float:
    """Each seed's validation accuracy is best at another checkpoint; the test set disagrees."""
    place = CHECKPOINTS.index(readout)
    if split == "validation":
        return 0.5 + 0.1 * (place == run.seed) - 0.01 * place
    return 0.3 + 0.02 * place + 0.001 * run.seed


def test_the_best_single_checkpoint_is_chosen_by_each_run_on_validation_data():
    made = tables(runs(readouts=CHECKPOINTS), checkpointed)
    found = of(made, SINGLE)
    for seed in range(3):
        for readout in CHECKPOINTS[:4]:
            assert found[seed, readout] == pytest.approx(30 + 2 * seed + 0.1 * seed)
        assert found[seed, "ema-10"] == pytest.approx(38 + 0.1 * seed)  # an average as it is
    some = of(made, f"{SINGLE} (last, at-95)")
    assert some[0, "last"] == some[0, "at-95"] == pytest.approx(30)
    assert some[1, "last"] == pytest.approx(30.1)  # 0.5 against 0.47
    assert some[2, "at-90"] == pytest.approx(34.2)  # not among those named


def test_the_best_single_checkpoint_is_tuned_by_its_own_validation_accuracy():
    made = tables(runs(readouts=CHECKPOINTS), checkpointed)
    table = measures.best_single_by_validation(made.finals, CHECKPOINTS[:4])
    by = table.merge(made.runs[["run", "seed"]], on="run").set_index(["seed", "readout"]).value
    assert [by[seed, "last"] for seed in range(3)] == pytest.approx([0.6, 0.59, 0.58])
    assert by[0, "ema-10"] == pytest.approx(0.46)
    assert measure_named(SINGLE).tuned_by == SINGLE


def test_a_single_checkpoint_is_no_average():
    with pytest.raises(ValueError, match=r"a single checkpoint is last or at-PERCENT, got \['ema"):
        measure_named(f"{SINGLE} (last, ema-10)")


def test_the_gap_is_training_less_test_accuracy():
    made = tables(runs(), splits)
    assert of(made, "generalisation gap") == {
        (s, r): pytest.approx(5.0) for s in range(3) for r in ("last", "ema-10")
    }
    assert not measure_named("generalisation gap").higher


def test_measures_know_whether_a_test_set_has_a_part_in_them():
    on = {name for name in MEASURES if measures.on_test_set(name)}
    assert on == {
        "accuracy",
        "seed spread",
        "calibration error",
        "loss",
        "churn",
        "generalisation gap",
    }
    assert measures.on_test_set("drop under prior shift") and measures.on_test_set(SINGLE)
    assert not measures.on_test_set("validation accuracy at 10 %")
