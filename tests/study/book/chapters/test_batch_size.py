"""What the chapter on batch sizes computes, against closed forms and loops over rows by hand."""

from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from published_results import published_result

from steadydescent.study.book.chapters.batch_size import (
    budgets,
    critical,
    noise,
    quadratic,
    rates,
    sizes,
    times,
)
from steadydescent.study.judging.evidence import Evidence

TASK = sizes.TASK


@pytest.fixture(scope="module")
def results() -> dict:
    return {task: published_result("batch_size", task) for task in (TASK, sizes.QUADRATIC)}


@pytest.fixture(scope="module")
def evidence(results) -> Evidence:
    return results[TASK].evidence


def rows_of(evidence: Evidence, batch_size: int) -> list:
    """Runs of plain SGD on all examples with this batch size, straight from the table."""
    return [
        run
        for run in evidence.result.runs.itertuples()
        if (run.task, run.optimizer, run.schedule) == (TASK, "sgd", "constant")
        and run.batch_size == batch_size
    ]


def values(evidence: Evidence, measure: str, runs: list, step: int | None = None) -> dict:
    """Seed → value of a measure in these runs."""
    seeds = {run.run: run.seed for run in runs}
    return {
        seeds[row.run]: row.value
        for row in evidence.result.measures.itertuples()
        if row.run in seeds and row.measure == measure and step in (None, row.step)
    }


def targets(n_and_updates: dict[int, list[float]], late: tuple[int, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"n": n, "seed": seed, "updates": float(updates), "arrived": n not in late}
            for n, each in n_and_updates.items()
            for seed, updates in enumerate(each)
        ]
    )


def scaled(least: float, size: float, ns: tuple[int, ...], seeds: int = 5) -> dict:
    return {n: [least * (1 + size / n)] * seeds for n in ns}


# ---- sizes ---------------------------------------------------------------------------------------


def test_sizes_are_the_conditions_that_differ_in_nothing_but_the_size(evidence, results):
    expected = {"n = m": 4000} | {f"n = {2**k}": 2**k for k in (0, 3, 5, 6, 7, 8, 9, 10)}
    assert sizes.sizes(evidence) == expected
    quadratic_sizes = sizes.sizes(results[sizes.QUADRATIC].evidence)
    assert list(quadratic_sizes.values()) == [1, 8, 32]


def test_an_epoch_is_counted_as_the_slides_count_it():
    table = sizes.table_of_epochs().set_index("m")
    assert table.loc[5_000_000, "updates an epoch, n = 1000"] == 5_000
    assert table.loc[4_000, "updates an epoch, n = 32"] == 125
    assert np.isnan(table.loc[200, "updates an epoch, n = 1000"])


def test_table_of_choices_has_every_arm_that_saw_all_examples(results):
    table = sizes.table_of_choices(results)
    mine = table[table.task == TASK]
    assert len(mine) == 12 and set(mine.arm) == {"sgd", "momentum"}
    assert "linear" in set(mine.schedule) and 200 not in set(mine.n)


# ---- critical size -------------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "size"), [(100.0, 50.0), (7.0, 900.0)])
def test_fit_recovers_the_law_that_made_the_updates(least, size):
    estimate = critical.critical(targets(scaled(least, size, (8, 32, 128, 512))))
    assert estimate.sizes == (8, 32, 128, 512)
    assert (estimate.least, estimate.size) == pytest.approx((least, size), rel=1e-5)
    assert (estimate.low, estimate.high) == pytest.approx((size, size), rel=1e-5)


def test_at_the_critical_size_a_run_needs_twice_the_fewest_updates_and_examples():
    estimate = critical.Critical((1, 2, 4), least=10.0, size=64.0, low=1.0, high=2.0)
    assert estimate.updates(np.array([64.0])) == pytest.approx(2 * 10)
    fewest_examples = 1e-6 * estimate.updates(np.array([1e-6]))
    assert 64 * estimate.updates(np.array([64.0])) == pytest.approx(2 * fewest_examples)


def test_sizes_that_miss_bear_no_part_in_the_fit_and_three_must_arrive():
    made = scaled(100.0, 50.0, (8, 32, 128)) | {512: [9e9] * 5}
    estimate = critical.critical(targets(made, late=(512,)))
    assert estimate.sizes == (8, 32, 128)
    assert estimate.size == pytest.approx(50.0, rel=1e-5)
    assert critical.critical(targets(made, late=(128, 512))) is None


def test_bootstrap_resamples_seeds_of_all_sizes_together():
    """A seed slow by one factor at every size moves s alone: B's interval has no width."""
    factors = np.array([1.0, 1.3, 0.7, 1.1, 2.0])
    made = {n: list(factors * 10 * (1 + 50 / n)) for n in (8, 32, 128, 512)}
    estimate = critical.critical(targets(made))
    assert (estimate.low, estimate.high) == pytest.approx((50, 50), rel=1e-4)
    apart = made | {8: made[8][::-1]}
    assert np.ptp(critical.critical(targets(apart))[3:]) > 1


def test_words_say_what_was_missed_and_what_was_fitted():
    table = targets(scaled(100.0, 50.0, (8, 32, 128)) | {512: [3.0] * 5}, late=(512,))
    words = critical.in_words("t", table, critical.critical(table))
    assert words.startswith("t: critical batch size 50 (95 % 50 to 50), never fewer than 100")
    assert words.endswith("from n = 8, 32, 128 (n = 512 missed with 5 seeds)")
    assert critical.in_words("t", table, None).startswith("t: too few sizes arrived for a fit (n =")


def test_updates_to_the_target_are_those_of_the_rate_best_for_them(evidence, results):
    """By hand: the rate with the best tuning scores in updates, among those that reports ran."""
    table = critical.table_of_updates({TASK: results[TASK]})
    for n in (64, 512):
        runs = rows_of(evidence, n)
        reported = {run.lr for run in runs if run.test}
        cost = {
            lr: fmean(
                values(
                    evidence,
                    "steps to target",
                    [run for run in runs if run.lr == lr and not run.test],
                ).values()
            )
            for lr in reported
        }
        best = min(cost, key=cost.get)
        mine = table[table.n == n]
        assert set(mine.rate) == {best}
        chosen = [run for run in runs if run.lr == best and run.test]
        expected = values(evidence, "steps to target", chosen)
        assert dict(zip(mine.seed, mine.updates, strict=True)) == expected
        assert list(mine.examples) == [n * updates for updates in mine.updates]
        assert list(mine.arrived) == [updates < chosen[0].steps for updates in mine.updates]


# ---- noise ---------------------------------------------------------------------------------------


def test_noise_scale_is_the_ratio_of_means_not_the_mean_of_ratios():
    trace = pd.DataFrame({10: [2.0, 4.0, 6.0], 20: [2.0, 2.0, 2.0]})
    square = pd.DataFrame({10: [1.0, 1.0, 4.0], 20: [0.5, 0.5, 0.5]})
    table = noise.noise_scale(trace, square)
    assert list(table.step) == [10, 20] and list(table.scale) == [2.0, 4.0]
    assert list(table.low[1:]) == list(table.high[1:]) == [4.0]
    assert table.low[0] < 2 < table.high[0] <= 4


@pytest.mark.parametrize("power", [-0.5, -1.0])
def test_slope_of_a_power_law_is_its_power(power):
    n = np.array([8, 32, 128])
    parts = [
        pd.DataFrame({"seed": seed, "batch_size": n, "noise": (seed + 1) * n**power})
        for seed in range(3)
    ]
    assert noise.slope(pd.concat(parts)) == pytest.approx(power)


def test_noise_scales_are_those_of_report_runs_at_the_tuned_rate(evidence):
    table = noise.table_of_noise_scales(evidence)
    first = table[table.condition == "n = 32"].iloc[0]
    lr = evidence.candidates("n = 32", "sgd").chosen.lr
    runs = [run for run in rows_of(evidence, 32) if run.test and run.lr == lr]
    trace, square = (
        fmean(values(evidence, name, runs, int(first.step)).values())
        for name in ("noise-trace", "gradient-square")
    )
    assert first.scale == pytest.approx(trace / square)


# ---- budgets -------------------------------------------------------------------------------------


def test_equal_reads_curves_where_all_have_come_equally_far():
    line = {"condition": ["a"] * 3, "step": [0, 10, 20], "accuracy": [0.0, 10.0, 20.0]}
    flat = {"condition": ["b"] * 2, "step": [0, 40], "accuracy": [8.0, 8.0]}
    table = pd.concat([pd.DataFrame(line), pd.DataFrame(flat)], ignore_index=True)
    early, late = budgets.equal(table, "step", 5), budgets.equal(table, "step", 15)
    assert early.accuracy.to_dict() == {"a": 5.0, "b": 8.0}
    assert (early.best, early.worst, late.best) == ("b", "a", "a")


def test_equal_reads_falling_losses_as_well():
    rows = {"condition": "a", "loss": [3.0, 2.0, 1.0], "accuracy": [10.0, 20.0, 30.0]}
    assert budgets.equal(pd.DataFrame(rows), "loss", 1.5).accuracy["a"] == pytest.approx(25)


def test_budget_of_every_point_is_that_of_its_best_rate(evidence):
    table = budgets.table_of_budgets(evidence)
    point = table[table.n == 128].iloc[3]
    quantiles = evidence.result.quantiles
    medians = [
        row.median
        for row in quantiles[quantiles.step == point.step].itertuples()
        if (row.task, row.optimizer, row.schedule, row.batch_size) == (TASK, "sgd", "constant", 128)
    ]
    assert point.accuracy == pytest.approx(100 * max(medians))
    assert point.epochs == pytest.approx(point.step * 128 / 4_000)


def test_losses_are_means_over_report_seeds_beside_their_accuracy(evidence):
    table = budgets.table_of_losses(evidence)
    point = table[table.condition == "n = 128"].iloc[-1]
    lr = evidence.candidates("n = 128", "sgd").chosen.lr
    runs = [run for run in rows_of(evidence, 128) if run.test and run.lr == lr]
    losses = values(evidence, "training-loss", runs, int(point.step))
    assert point["training loss"] == pytest.approx(fmean(losses.values()))


# ---- rates, the quadratic, times -----------------------------------------------------------------


def test_best_rates_leave_out_speed_where_most_seeds_miss(evidence, results):
    table = rates.table_of_best_rates(results, TASK).set_index("n")
    updates = critical.table_of_updates({TASK: results[TASK]})
    share = updates.groupby("n").arrived.mean()
    assert list(table.index[table.speed.isna()]) == list(share.index[share < critical.ARRIVED])
    assert table.accuracy[128] == evidence.candidates("n = 128", "sgd").chosen.lr


def test_floor_is_the_stationary_height_of_gradient_descent():
    """Along curvature h: x ← (1 − αh)x − αξ with variance h/n settles at αh/n/(h(2 − αh))."""
    alpha, n = 0.3, 8
    h = np.array(quadratic.EIGENVALUES)
    assert quadratic.floor(alpha, n) == pytest.approx(
        (h / 2 * alpha**2 * h / n / (1 - (1 - alpha * h) ** 2)).sum()
    )


def test_descents_are_the_closed_form_beside_mean_heights(results):
    evidence = results[sizes.QUADRATIC].evidence
    runs = quadratic.descents(evidence)
    table = quadratic.table_of_ends(runs)
    assert "way" not in table and len(table) == len(runs)
    for run in runs:
        assert run.low < run.measured < run.high and run.way.expected.iloc[-1] == run.expected
    mine = next(run for run in runs if run.condition == "n = 8")
    last = evidence.report("n = 8", "sgd", "height")[mine.rate, "last"]
    assert mine.measured == pytest.approx(fmean(last))


def test_gains_are_means_over_rounds_of_each_power_of_two(evidence):
    gains, spent = times.table_of_gains(evidence), times.table_of_times(evidence)
    assert list(gains.index) == [32, 64, 128, 256] and spent.n.nunique() == 16
    assert ((gains.low < gains.value) & (gains.value < gains.high)).all()
    by_hand = []
    for _, part in spent[spent.n.isin([127, 128, 129])].groupby("step"):
        logs = np.log(part.set_index("n").microseconds)
        by_hand.append(100 * (fmean([logs[127], logs[129]]) - logs[128]))
    assert gains.value[128] == pytest.approx(fmean(by_hand))
