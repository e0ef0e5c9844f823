"""Regret of learning-rate searches: closed forms without noise, exact best-of-N with it, intervals, refusals."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rate_searches import rng
from steadydescent.lr_search import Search, coarse_to_fine
from steadydescent.regret import (
    METHODS,
    TRIALS,
    Sweep,
    best_of_k,
    contrast,
    range_test_estimates,
    range_test_regret,
    regrets,
    searched,
)
from steadydescent.statistics import paired

RATES = np.geomspace(1e-5, 1, 31)
DRAWS, RESAMPLES = 1_009, 251


MIDDLE = math.sqrt(1e-5)


def parabola(rates, centre=MIDDLE):
    """Percent, 90 at the centre, by default the middle of [1e-5, 1]; 4 pp are lost at one decade from it."""
    return 90 - 4 * np.log10(np.asarray(rates) / centre) ** 2


def certain(rates, scores):
    """A sweep without noise."""
    return Sweep(rates, np.tile(scores, (2, 1)), np.tile(scores, (3, 1)))


def noisy(seed, truth, tuning=7, report=11, noise=1.0):
    generator = rng(seed)
    draw = lambda seeds: truth + noise * generator.normal(size=(seeds, len(truth)))
    return Sweep(RATES, draw(tuning), draw(report))


# ---- the oracle ----------------------------------------------------------------------------------------------------


def test_oracle_rewards_no_noise_where_all_rates_are_equal():
    """Mean regret over sweeps is 0 for any rate; the plain maximum exceeds it by 2.06 sd of a mean (31 normals)."""
    sweeps = [noisy(seed, np.full(31, 80.0), tuning=3, report=20) for seed in range(400)]
    cross_fitted = np.array([sweep.oracle - sweep.means.mean() for sweep in sweeps])
    plain = np.array([sweep.means.max() - sweep.means.mean() for sweep in sweeps])
    assert abs(cross_fitted.mean()) < 4 * math.sqrt(1 / 20 / 400)
    assert plain.mean() == pytest.approx(2.06 / math.sqrt(20), abs=0.02)


def test_oracle_is_chosen_by_tuning_seeds_and_scored_by_report_seeds():
    sweep = Sweep([0.1, 1, 10], tuning=[[5, 7, 6], [5, 7, 9]], report=[[9, 4, 6]])
    assert (sweep.best, sweep.oracle) == (2, 6.0)
    assert sweep.regret(np.array([0.1, 0.9, 10])).tolist() == [-3, 2, 0]  # a lucky rate is below 0, and stays there
    assert certain([0.1, 1, 10], [5, 7, 7]).best == 1


def test_resampled_means_vary_as_much_as_the_bootstrap_says():
    """Both tables: the variance of a resampled mean is the plug-in variance of a seed over the number of seeds."""
    sweep, generator = noisy(22, parabola(RATES)), rng(0)
    again = [sweep.resampled(generator) for _ in range(2_003)]
    for name in ("tuning", "report"):
        table, means = getattr(sweep, name), [getattr(s, name).mean(axis=0) for s in again]
        assert np.var(means, axis=0).mean() == pytest.approx(table.var(axis=0).mean() / len(table), rel=0.1)


def test_nearest_rate_is_nearest_in_logarithm_and_the_end_beyond_the_ends():
    sweep = certain([0.01, 0.1, 1], [1, 2, 3])
    assert sweep.nearest(np.array([1e-9, 0.031, 0.032, 0.31, 0.32, 50])).tolist() == [0, 0, 1, 1, 2, 2]
    assert sweep.interpolated_regret(np.array([1e-9, 10**-1.5, 50])) == pytest.approx([2, 1.5, 0])


# ---- searches ------------------------------------------------------------------------------------------------------


@pytest.mark.worked("viblo-lr")
def test_one_trial_falls_into_decades_as_its_law_says():
    """Uniform: 90 % above 0.1, to the fifth digit; log-uniform: a fifth in each decade; 4 standard errors."""
    sweep, count, edges = certain(RATES, parabola(RATES)), 100_003, 10.0 ** np.arange(-5, 1)
    for method, law in [("uniform", stats.uniform(1e-5, 1 - 1e-5)), ("log-uniform", stats.loguniform(1e-5, 1))]:
        shares = np.histogram(searched(sweep, method, 1, count, rng()), edges)[0] / count
        expected = np.diff(law.cdf(edges))
        assert np.abs(shares - expected).max() < 4 * math.sqrt(0.25 / count)
        assert expected[-1] == pytest.approx({"uniform": 0.9, "log-uniform": 0.2}[method], abs=1e-5)


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 19])
def test_log_uniform_regret_on_a_parabola_has_a_closed_form(trials):
    """The nearest of N uniform points within ±L of the top: E d² = 2L²/((N + 1)(N + 2)); here L is 2.5 decades."""
    fine = np.geomspace(1e-5, 1, 2_001)
    sweep, draws = certain(fine, parabola(fine)), 40_009
    found = sweep.regret(searched(sweep, "log-uniform", trials, draws, rng(trials)))
    expected = 4 * 2 * 2.5**2 / ((trials + 1) * (trials + 2))
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(draws) + 1e-5


def best_of_independent(sweep, law, trials):
    """Exact expected regret: trials are independent draws of one of S·G networks, and the highest score wins."""
    edges = np.concatenate([[0], law.cdf(np.sqrt(sweep.rates[1:] * sweep.rates[:-1])), [1]])
    chances = np.tile(np.diff(edges) / len(sweep.tuning), (len(sweep.tuning), 1)).ravel()
    order = np.argsort(sweep.tuning.ravel())
    wins = np.diff(np.cumsum(chances[order]) ** trials, prepend=0.0)
    return float(wins @ (sweep.oracle - np.tile(sweep.means, len(sweep.tuning))[order]))


@pytest.mark.parametrize("trials", [1, 2, 5, 23])
@pytest.mark.parametrize(("method", "law"), [("uniform", stats.uniform), ("log-uniform", stats.loguniform)])
def test_random_search_with_noise_has_its_exact_expectation(method, law, trials):
    low, high = 3e-4, 0.5
    exact = law(low, high - low) if method == "uniform" else law(low, high)
    sweep, draws = noisy(1, parabola(RATES), noise=5.0), 40_009
    found = sweep.regret(searched(sweep, method, trials, draws, rng(2), bounds=(low, high)))
    assert abs(found.mean() - best_of_independent(sweep, exact, trials)) < 4 * found.std() / math.sqrt(draws)


@pytest.mark.parametrize("trials", [1, 2, 3, 8, 9, 25])
def test_coarse_to_fine_is_the_librarys_search_cut_to_the_budget(trials):
    """Two rounds of ⌈N/2⌉, of which an odd N leaves out the last trial."""
    sweep = noisy(3, parabola(RATES), noise=3.0)
    for seed in range(40):
        places, choices = rng(seed).spawn(2)
        seeds = iter([*choices.integers(len(sweep.tuning), size=trials), 0])
        evaluate = lambda rates, seeds=seeds: [-sweep.tuning[next(seeds), sweep.nearest(rate)] for rate in rates]
        search = coarse_to_fine(evaluate, 1e-4, 0.3, 2, math.ceil(trials / 2), places)
        expected = Search(*(column[:trials] for column in search)).best
        found = searched(sweep, "coarse-to-fine", trials, 1, rng(seed), bounds=(1e-4, 0.3))
        assert found == pytest.approx([expected], rel=1e-9)


def test_more_trials_are_never_worse_without_noise():
    sweep = certain(RATES, parabola(RATES, centre=0.02))
    table = regrets(sweep, draws=DRAWS).pivot(index="trials", columns="method", values="regret")
    assert list(table.index) == list(TRIALS) and set(table) == set(METHODS)
    assert (np.diff(table, axis=0) <= 1e-12).all()
    for method in (
        "uniform",
        "log-uniform",
    ):  # a search of more trials goes on where one of fewer was: no draw is worse
        chosen = [sweep.regret(searched(sweep, method, trials, DRAWS, rng(4))) for trials in TRIALS]
        assert (np.diff(chosen, axis=0) <= 0).all()


def test_noise_of_single_trials_makes_searches_worse():
    sweep, loud = (noisy(5, parabola(RATES), noise=noise) for noise in (0.1, 10.0))
    quiet_score, loud_score = (
        parabola(searched(s, "log-uniform", 9, DRAWS, rng(6))).mean()
        for s in (sweep, Sweep(RATES, loud.tuning, sweep.report))
    )
    assert quiet_score > loud_score + 1


def test_regrets_are_a_tidy_table_with_the_spread_of_searches():
    sweep = noisy(7, parabola(RATES))
    table = regrets(sweep, ["uniform"], [3], draws=DRAWS, seed=5)
    found = sweep.regret(searched(sweep, "uniform", 3, DRAWS, rng(5)))
    assert table.columns.tolist() == ["method", "trials", "regret", "q10", "median", "q90"]
    assert table.iloc[0].tolist() == ["uniform", 3, found.mean(), *np.quantile(found, [0.1, 0.5, 0.9])]
    flat = regrets(certain(RATES, np.full(31, 70.0)), draws=11)
    assert (flat[["regret", "q10", "median", "q90"]] == 0).all(axis=None)


# ---- contrasts of searches -----------------------------------------------------------------------------------------


def test_contrast_of_one_trial_is_the_paired_interval():
    """One trial chooses nothing: per report seed, the difference is that of two fixed weighted means over rates."""
    truth = parabola(RATES)
    sweep, draws = noisy(8, truth, tuning=13, report=13, noise=4.0), 20_011
    found = contrast(sweep, "log-uniform", "uniform", 1, 0.95, draws, resamples=2_003)
    weights = [np.bincount(sweep.nearest(searched(sweep, m, 1, draws, rng(0))), minlength=31) / draws
               for m in ("log-uniform", "uniform")]  # fmt: skip
    expected = paired(sweep.report @ (weights[0] - weights[1]), 0.95)
    assert found.value == pytest.approx(expected.value) and found.n == 13
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.08)  # 1/√4 006, Monte Carlo


def test_planted_difference_is_found_in_its_direction():
    """A cliff at 0.1 and a top at 0.003: nine in ten uniform trials fail; with the cliff away, uniform wins near 1."""
    low_top, high_top = np.where(RATES > 0.1, 10.0, parabola(RATES, 0.003)), parabola(RATES, 0.7)
    for truth, sign in [(low_top, 1), (high_top, -1)]:
        found = contrast(noisy(9, truth), "log-uniform", "uniform", 5, 0.99, DRAWS, resamples=RESAMPLES)
        assert min(sign * found.low, sign * found.high) > 0
    exact = [
        best_of_independent(noisy(9, low_top), law, 5) for law in (stats.uniform(1e-5, 1), stats.loguniform(1e-5, 1))
    ]
    found = contrast(noisy(9, low_top), "log-uniform", "uniform", 5, 0.99, DRAWS, resamples=RESAMPLES)
    assert found.low < exact[0] - exact[1] < found.high


def test_coarse_to_fine_is_better_on_a_parabola_without_noise():
    found = contrast(certain(RATES, parabola(RATES)), "coarse-to-fine", "log-uniform", 9, 0.95, 4_001, resamples=31)
    assert found.low > 0


def test_null_is_rarely_called_a_difference():
    """All rates truly equal: no search is better, whatever the noise of trials; nominal 5 %."""
    wrong = 0
    for seed in range(100):
        found = contrast(noisy(seed, np.full(31, 80.0), 5, 7), "log-uniform", "uniform", 5, 0.95, 101, seed, 101)
        wrong += not found.low <= 0 <= found.high
    assert wrong <= stats.binom.ppf(0.995, 100, 0.05)


def test_interval_feels_tuning_seeds_and_report_seeds():
    """Without one kind of noise the other still widens; without either only the Monte Carlo error is left."""
    truth = parabola(RATES)
    loud, still = noisy(10, truth, noise=6.0), certain(RATES, truth)
    width = lambda sweep: np.ptp(contrast(sweep, "log-uniform", "uniform", 5, 0.95, DRAWS, resamples=RESAMPLES)[1:3])
    neither = width(Sweep(RATES, np.tile(truth, (7, 1)), np.tile(truth, (7, 1))))
    assert width(Sweep(RATES, loud.tuning, np.tile(truth, (7, 1)))) > 1.2 * neither
    assert width(Sweep(RATES, np.tile(truth, (7, 1)), loud.report)) > 1.2 * neither
    assert width(still) > 0


@settings(max_examples=15, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 10), st.integers(1, 9), st.integers(0, 99))
def test_contrast_is_antisymmetric_and_follows_shift_and_scale_of_scores(shift, scale, trials, seed):
    sweep = noisy(seed, parabola(RATES))
    changed = Sweep(RATES, shift + scale * sweep.tuning, shift + scale * sweep.report)
    ask = lambda sweep, one, other: contrast(sweep, one, other, trials, 0.9, 53, seed, 17)
    found = ask(sweep, "coarse-to-fine", "uniform")
    other = ask(sweep, "uniform", "coarse-to-fine")
    assert (other.value, other.low, other.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert ask(changed, "coarse-to-fine", "uniform")[:4] == pytest.approx([scale * x for x in found[:4]], abs=1e-9)
    assert ask(sweep, "uniform", "uniform")[:4] == (0, 0, 0, 0)


def test_searches_do_not_care_about_the_unit_of_the_rate():
    """Powers of two scale without rounding, so every draw falls into the same cell."""
    sweep = noisy(11, parabola(RATES))
    scaled = Sweep(RATES * 8, sweep.tuning, sweep.report)
    for method in METHODS:
        chosen = [searched(s, method, 7, DRAWS, rng(1)) for s in (sweep, scaled)]
        assert chosen[1] == pytest.approx(8 * chosen[0], rel=1e-9)


# ---- best of k -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_best_of_k_is_the_mean_over_every_subset(single):
    tuning, report = rng(12).normal(size=(3, 7)), rng(13).normal(50, 10, size=(5, 7))
    table = best_of_k(tuning, report, range(1, 8), single).set_index("k")
    for k in range(1, 8):
        choosers = tuning if single else [tuning.mean(axis=0)]
        values = [report[:, max(s, key=lambda c: row[c])].mean() for row in choosers for s in combinations(range(7), k)]
        assert table.loc[k].tolist() == pytest.approx([np.mean(values), np.std(values)])


def test_best_of_all_is_the_choice_itself_and_best_of_one_the_mean():
    tuning, report = rng(14).normal(size=(5, 9)), rng(15).normal(size=(11, 9))
    table = best_of_k(tuning, report, [1, 9]).set_index("k")
    assert table.score[1] == pytest.approx(report.mean())
    assert table.loc[9].tolist() == pytest.approx([report[:, tuning.mean(axis=0).argmax()].mean(), 0])
    assert best_of_k([[1, 1, 0]], [[4, 8, 9]], [3]).score.tolist() == [4]  # a tie goes to the earlier


def test_best_of_more_is_never_worse_where_tuning_tells_the_truth():
    truth = rng(16).normal(size=(1, 9))
    assert (np.diff(best_of_k(truth, truth, range(1, 10)).score) > 0).all()


# ---- range test ----------------------------------------------------------------------------------------------------


def suggested(rates, rule="middle", length=100):
    return pd.DataFrame({"seed": range(len(rates)), "rule": rule, "length": length, "rate": rates})


def test_range_test_regret_is_interpolated_and_marks_what_lies_outside():
    sweep = certain([0.01, 0.1, 1], [80, 90, 60])
    table = range_test_regret(sweep, suggested([0.1, 10**-0.5, 0.01, 1e-4, 7.0]))
    assert table.regret.tolist() == pytest.approx([0, 15, 10, 10, 30])
    assert table.outside.tolist() == [False, False, False, True, True]
    assert table.columns.tolist() == ["seed", "rule", "length", "rate", "regret", "outside"]


def test_range_test_interval_is_students_when_one_kind_of_seed_alone_varies():
    """Suggestions vary on a certain sweep; then one suggestion on a noisy sweep whose choice is beyond doubt."""
    sweep = Sweep(RATES, np.tile(parabola(RATES), (29, 1)), np.tile(parabola(RATES), (29, 1)))
    rows = suggested(10 ** rng(17).uniform(-4, -1, size=5))
    found = range_test_estimates(sweep, rows, 0.95, resamples=4_001)["middle", 100]
    expected = paired(sweep.interpolated_regret(rows.rate.to_numpy()), 0.95)
    assert found.value == pytest.approx(expected.value) and found.n == 5
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.05)

    sweep = Sweep(RATES, sweep.tuning, parabola(RATES) + rng(18).normal(size=(5, 31)))
    found = range_test_estimates(sweep, suggested(np.full(29, RATES[20])), 0.95, resamples=4_001)["middle", 100]
    expected = paired(sweep.report[:, 15] - sweep.report[:, 20], 0.95)
    assert found.value == pytest.approx(expected.value) and found.n == 5
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.05)


def test_range_test_estimates_tell_a_good_rule_from_a_bad_one_at_every_length():
    good, bad = 10 ** rng(19).normal(-2.5, 0.1, 11), 10 ** rng(20).normal(-0.8, 0.1, 11)
    rows = pd.concat([suggested(r, rule, t) for rule, r in (("good", good), ("bad", bad)) for t in (50, 200)])
    found = range_test_estimates(noisy(21, parabola(RATES)), rows, 0.95, resamples=RESAMPLES)
    assert list(found) == [("bad", 50), ("bad", 200), ("good", 50), ("good", 200)]
    for length in (50, 200):
        assert found["good", length].low < 0.3 < found["bad", length].low
        assert found["bad", length].low < 4 * 1.7**2 < found["bad", length].high


# ---- refusals ------------------------------------------------------------------------------------------------------

GOOD = certain([0.1, 1], [1, 2])
LONE = Sweep([0.1, 1], [[1, 2]], [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Sweep([0.1], [[1]], [[1]]), r"rates must be at least 2, positive, finite and rising, got \[0.1\]"),
        (lambda: Sweep([1, 0.1], [[1, 2]], [[1, 2]]), "rising"),
        (lambda: Sweep([0, 0.1], [[1, 2]], [[1, 2]]), "positive"),
        (lambda: Sweep([0.1, math.nan], [[1, 2]], [[1, 2]]), "finite"),
        (lambda: Sweep([0.1, 1], [[1, 2, 3]], [[1, 2]]), r"tuning must be a table \[seeds, 2\], got shape \(1, 3\)"),
        (lambda: Sweep([0.1, 1], [[1, 2]], [1, 2]), r"report must be a table \[seeds, 2\], got shape \(2,\)"),
        (lambda: Sweep([0.1, 1], [[1, 2]], np.empty((0, 2))), r"got shape \(0, 2\)"),
        (lambda: Sweep([0.1, 1], [[1, math.nan]], [[1, 2]]), "tuning must be finite, got nan; a diverged run"),
        (lambda: searched(GOOD, "grid", 1, 1, rng()), "method must be one of .*'coarse-to-fine'.*, got 'grid'"),
        (lambda: searched(GOOD, "uniform", 0, 1, rng()), "trials must be a whole number of at least 1, got 0"),
        (lambda: searched(GOOD, "uniform", 1, 0, rng()), "draws must be a whole number of at least 1, got 0"),
        (lambda: searched(GOOD, "uniform", 1, 1, np.random), "generator must be a numpy.random.Generator"),
        (lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.0, 1)), "low must be positive"),
        (lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.5, 0.5)), "high must be above low"),
        (lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.1, 2)), r"within the sweep's rates \(0.1, 1.0\), got"),
        (lambda: contrast(LONE, "uniform", "uniform", 1, 0.9), "at least 2 tuning and 2 report seeds, got 1"),
        (lambda: contrast(GOOD, "uniform", "uniform", 1, 1.0, 3, 0, 2), r"level must be in \(0, 1\), got 1.0"),
        (
            lambda: contrast(GOOD, "uniform", "uniform", 1, 0.9, 3, 0, 1),
            "resamples must be a whole number of at least 2",
        ),
        (lambda: best_of_k([[1, 2]], [[1, 2]], [3]), "k must be at most the number of candidates, 2, got 3"),
        (lambda: best_of_k([[1, 2]], [[1, 2]], [0]), "k must be a whole number of at least 1, got 0"),
        (lambda: best_of_k([[1, 2]], [[1, 2, 3]], [1]), r"report must be a table \[seeds, 2\], got shape \(1, 3\)"),
        (lambda: range_test_regret(GOOD, pd.DataFrame({"seed": [0], "rate": [1.0]})), r"named \['rule', 'length'\]"),
        (lambda: range_test_regret(GOOD, suggested([])), "at least one row"),
        (lambda: range_test_regret(GOOD, pd.concat([suggested([0.1])] * 2)), "one rate for each seed, rule and length"),
        (lambda: range_test_regret(GOOD, suggested([0.1, math.nan])), "got nan .seed 1, rule 'middle', length 100.; c"),
        (lambda: range_test_regret(GOOD, suggested([0.0])), "rate must be positive and finite, got 0.0"),
        (lambda: range_test_estimates(GOOD, suggested([0.1]), 0.9), "at least 2 seeds, got 1 of rule 'middle'"),
        (lambda: range_test_estimates(LONE, suggested([0.1, 0.2]), 0.9), "at least 2 tuning and 2 report seeds"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
