"""Regret of learning-rate searches: closed forms without noise, exact best-of-N with it, intervals,
refusals.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sweeps import DRAWS, RATES, RESAMPLES, certain, noisy, parabola

from rate_searches import rng
from steadydescent.lr_search import Search, coarse_to_fine
from steadydescent.study.judging.regret import (
    METHODS,
    TRIALS,
    Sweep,
    regrets,
    search_gain,
    searched,
)
from steadydescent.study.judging.regret.sweep import interval_of_parts
from steadydescent.study.judging.statistics import paired

# ---- the oracle ----------------------------------------------------------------------------------


def test_oracle_rewards_no_noise_where_all_rates_are_equal():
    """Mean regret over sweeps is 0 for any rate; the plain maximum exceeds it by 2.06 sd of a mean
    (31 normals).
    """
    sweeps = [noisy(seed, np.full(31, 80.0), tuning=3, report=20) for seed in range(400)]
    cross_fitted = np.array([sweep.oracle - sweep.means.mean() for sweep in sweeps])
    plain = np.array([sweep.means.max() - sweep.means.mean() for sweep in sweeps])
    assert abs(cross_fitted.mean()) < 4 * math.sqrt(1 / 20 / 400)
    assert plain.mean() == pytest.approx(2.06 / math.sqrt(20), abs=0.02)


def test_oracle_is_chosen_by_tuning_seeds_and_scored_by_report_seeds():
    sweep = Sweep([0.1, 1, 10], tuning=[[5, 7, 6], [5, 7, 9]], report=[[9, 4, 6]])
    assert (sweep.best, sweep.oracle) == (2, 6.0)
    assert sweep.regret(np.array([0.1, 0.9, 10])).tolist() == [
        -3,
        2,
        0,
    ]  # a lucky rate is below 0, and stays there
    assert certain([0.1, 1, 10], [5, 7, 7]).best == 1


def test_retuned_means_vary_as_much_as_the_bootstrap_says():
    """The variance of a resampled mean is the plug-in variance of a seed over the number of seeds;
    reports stay.
    """
    sweep, generator = noisy(22, parabola(RATES)), rng(0)
    again = [sweep.retuned(generator) for _ in range(2_003)]
    means = [s.tuning.mean(axis=0) for s in again]
    expected = sweep.tuning.var(axis=0).mean() / len(sweep.tuning)
    assert np.var(means, axis=0).mean() == pytest.approx(expected, rel=0.1)
    assert all(s.report is sweep.report for s in again)


def test_shares_of_rates_give_their_mean_regret():
    sweep, rates = noisy(23, parabola(RATES)), 10 ** rng(24).uniform(-6, 1, 501)
    for shares, regret in (
        (sweep.shares, sweep.regret),
        (sweep.interpolated_shares, sweep.interpolated_regret),
    ):
        assert shares(rates).sum() == pytest.approx(1)
        assert sweep.oracle - sweep.means @ shares(rates) == pytest.approx(regret(rates).mean())


def test_an_interval_of_two_kinds_of_seeds_is_satterthwaites():
    """One kind alone: Student's. Two alike: the degrees of freedom add up. Far apart: those of the
    larger part.
    """
    half = lambda *parts: (
        (interval_of_parts(1.0, parts, 0.95).high - 1.0) / math.sqrt(sum(v for v, _ in parts))
    )
    quantile = lambda freedom: stats.t.ppf(0.975, freedom)
    assert half((0.3, 5), (0.0, 20)) == pytest.approx(quantile(4))
    assert half((0.3, 8), (0.3, 8)) == pytest.approx(quantile(14))
    assert quantile(19.2) < half((0.001, 4), (0.3, 20)) < quantile(19)
    found = interval_of_parts(1.0, [(0.3, 5), (0.1, 20)], 0.95, certain=0.05)
    assert found.n == 5 and found.sd == pytest.approx(math.sqrt(0.45 * 5))


def test_nearest_rate_is_nearest_in_logarithm_and_the_end_beyond_the_ends():
    sweep = certain([0.01, 0.1, 1], [1, 2, 3])
    assert sweep.nearest(np.array([1e-9, 0.031, 0.032, 0.31, 0.32, 50])).tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert sweep.interpolated_regret(np.array([1e-9, 10**-1.5, 50])) == pytest.approx([2, 1.5, 0])


# ---- searches ------------------------------------------------------------------------------------


@pytest.mark.worked("viblo-lr")
def test_one_trial_falls_into_decades_as_its_law_says():
    """Uniform: 90 % above 0.1, to the fifth digit; log-uniform: a fifth in each decade; 4 standard
    errors.
    """
    sweep, count, edges = certain(RATES, parabola(RATES)), 100_003, 10.0 ** np.arange(-5, 1)
    for method, law in [
        ("uniform", stats.uniform(1e-5, 1 - 1e-5)),
        ("log-uniform", stats.loguniform(1e-5, 1)),
    ]:
        shares = np.histogram(searched(sweep, method, 1, count, rng()), edges)[0] / count
        expected = np.diff(law.cdf(edges))
        assert np.abs(shares - expected).max() < 4 * math.sqrt(0.25 / count)
        assert expected[-1] == pytest.approx({"uniform": 0.9, "log-uniform": 0.2}[method], abs=1e-5)


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 19])
def test_log_uniform_regret_on_a_parabola_has_a_closed_form(trials):
    """The nearest of N uniform points within ±L of the top: E d² = 2L²/((N + 1)(N + 2)); here L is
    2.5 decades.
    """
    fine = np.geomspace(1e-5, 1, 2_001)
    sweep, draws = certain(fine, parabola(fine)), 40_009
    found = sweep.regret(searched(sweep, "log-uniform", trials, draws, rng(trials)))
    expected = 4 * 2 * 2.5**2 / ((trials + 1) * (trials + 2))
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(draws) + 1e-5


def best_of_independent(sweep, law, trials):
    """Exact expected regret: trials are independent draws of one of S·G networks, and the highest
    score wins.
    """
    edges = np.concatenate([[0], law.cdf(np.sqrt(sweep.rates[1:] * sweep.rates[:-1])), [1]])
    chances = np.tile(np.diff(edges) / len(sweep.tuning), (len(sweep.tuning), 1)).ravel()
    order = np.argsort(sweep.tuning.ravel())
    wins = np.diff(np.cumsum(chances[order]) ** trials, prepend=0.0)
    return float(wins @ (sweep.oracle - np.tile(sweep.means, len(sweep.tuning))[order]))


@pytest.mark.parametrize("trials", [1, 2, 5, 23])
@pytest.mark.parametrize(
    ("method", "law"), [("uniform", stats.uniform), ("log-uniform", stats.loguniform)]
)
def test_random_search_with_noise_has_its_exact_expectation(method, law, trials):
    low, high = 3e-4, 0.5
    exact = law(low, high - low) if method == "uniform" else law(low, high)
    sweep, draws = noisy(1, parabola(RATES), noise=5.0), 40_009
    found = sweep.regret(searched(sweep, method, trials, draws, rng(2), bounds=(low, high)))
    assert abs(
        found.mean() - best_of_independent(sweep, exact, trials)
    ) < 4 * found.std() / math.sqrt(draws)


@pytest.mark.parametrize("trials", [1, 2, 3, 8, 9, 25])
def test_coarse_to_fine_is_the_librarys_search_cut_to_the_budget(trials):
    """Two rounds of ⌈N/2⌉, of which an odd N leaves out the last trial."""
    sweep = noisy(3, parabola(RATES), noise=3.0)
    for seed in range(40):
        places, choices = rng(seed).spawn(2)
        seeds = iter([*choices.integers(len(sweep.tuning), size=trials), 0])
        evaluate = lambda rates, seeds=seeds: [
            -sweep.tuning[next(seeds), sweep.nearest(rate)] for rate in rates
        ]
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
    assert table.iloc[0].tolist() == [
        "uniform",
        3,
        found.mean(),
        *np.quantile(found, [0.1, 0.5, 0.9]),
    ]
    flat = regrets(certain(RATES, np.full(31, 70.0)), draws=11)
    assert (flat[["regret", "q10", "median", "q90"]] == 0).all(axis=None)


# ---- contrasts of searches -----------------------------------------------------------------------


def test_contrast_of_one_trial_is_the_paired_interval():
    """One trial chooses nothing: per report seed, the difference is that of two fixed weighted
    means over rates.
    """
    truth = parabola(RATES)
    sweep, draws = noisy(8, truth, tuning=13, report=13, noise=4.0), 20_011
    found = search_gain(sweep, "log-uniform", "uniform", 1, 0.95, draws, resamples=2_003)
    weights = [
        np.bincount(sweep.nearest(searched(sweep, m, 1, draws, rng(0))), minlength=31) / draws
        for m in ("log-uniform", "uniform")
    ]
    expected = paired(sweep.report @ (weights[0] - weights[1]), 0.95)
    assert found.value == pytest.approx(expected.value) and found.n == 13
    assert found.high - found.low == pytest.approx(
        expected.high - expected.low, rel=0.08
    )  # 1/√4 006, Monte Carlo


def test_planted_difference_is_found_in_its_direction():
    """A cliff at 0.1 and a top at 0.003: nine in ten uniform trials fail; with the cliff away,
    uniform wins near 1.
    """
    low_top, high_top = np.where(RATES > 0.1, 10.0, parabola(RATES, 0.003)), parabola(RATES, 0.7)
    for truth, sign in [(low_top, 1), (high_top, -1)]:
        found = search_gain(
            noisy(9, truth), "log-uniform", "uniform", 5, 0.99, DRAWS, resamples=RESAMPLES
        )
        assert min(sign * found.low, sign * found.high) > 0
    exact = [
        best_of_independent(noisy(9, low_top), law, 5)
        for law in (stats.uniform(1e-5, 1), stats.loguniform(1e-5, 1))
    ]
    found = search_gain(
        noisy(9, low_top), "log-uniform", "uniform", 5, 0.99, DRAWS, resamples=RESAMPLES
    )
    assert found.low < exact[0] - exact[1] < found.high


def test_coarse_to_fine_is_better_on_a_parabola_without_noise():
    found = search_gain(
        certain(RATES, parabola(RATES)),
        "coarse-to-fine",
        "log-uniform",
        9,
        0.95,
        4_001,
        resamples=31,
    )
    assert found.low > 0


def test_null_is_rarely_called_a_difference():
    """All rates truly equal: no search is better, whatever the noise of trials; nominal 5 %."""
    wrong = 0
    for seed in range(100):
        found = search_gain(
            noisy(seed, np.full(31, 80.0), 5, 7), "log-uniform", "uniform", 5, 0.95, 101, seed, 101
        )
        wrong += not found.low <= 0 <= found.high
    assert wrong <= stats.binom.ppf(0.995, 100, 0.05)


def test_interval_feels_tuning_seeds_and_report_seeds():
    """Without one kind of noise the other still widens; without either only the Monte Carlo error
    is left.
    """
    truth = parabola(RATES)
    loud, still = noisy(10, truth, noise=6.0), certain(RATES, truth)
    width = lambda sweep: np.ptp(
        search_gain(sweep, "log-uniform", "uniform", 5, 0.95, DRAWS, resamples=RESAMPLES)[1:3]
    )
    neither = width(Sweep(RATES, np.tile(truth, (7, 1)), np.tile(truth, (7, 1))))
    assert width(Sweep(RATES, loud.tuning, np.tile(truth, (7, 1)))) > 1.2 * neither
    assert width(Sweep(RATES, np.tile(truth, (7, 1)), loud.report)) > 1.2 * neither
    assert width(still) > 0


@settings(max_examples=15, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 10), st.integers(1, 9), st.integers(0, 99))
def test_contrast_is_antisymmetric_and_follows_shift_and_scale_of_scores(
    shift, scale, trials, seed
):
    sweep = noisy(seed, parabola(RATES))
    changed = Sweep(RATES, shift + scale * sweep.tuning, shift + scale * sweep.report)
    ask = lambda sweep, one, other: search_gain(sweep, one, other, trials, 0.9, 53, seed, 17)
    found = ask(sweep, "coarse-to-fine", "uniform")
    other = ask(sweep, "uniform", "coarse-to-fine")
    assert (other.value, other.low, other.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )
    assert ask(changed, "coarse-to-fine", "uniform")[:4] == pytest.approx(
        [scale * x for x in found[:4]], abs=1e-9
    )
    assert ask(sweep, "uniform", "uniform")[:4] == (0, 0, 0, 0)


def test_searches_do_not_care_about_the_unit_of_the_rate():
    """Powers of two scale without rounding, so every draw falls into the same cell."""
    sweep = noisy(11, parabola(RATES))
    scaled = Sweep(RATES * 8, sweep.tuning, sweep.report)
    for method in METHODS:
        chosen = [searched(s, method, 7, DRAWS, rng(1)) for s in (sweep, scaled)]
        assert chosen[1] == pytest.approx(8 * chosen[0], rel=1e-9)
