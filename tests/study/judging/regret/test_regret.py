"""Regret of learning-rate searches: closed forms without noise, exact best-of-N with it, intervals,
refusals.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sweeps import DRAWS, RATES, certain, noisy, parabola

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
from steadydescent.study.judging.regret.sweep import interval_of_parts, of_tuning
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


def test_the_jackknife_of_a_mean_over_tuning_seeds_is_its_variance():
    scores = rng(22).normal(size=7)
    without = np.array([np.delete(scores, i).mean() for i in range(7)])
    assert of_tuning(without) == (pytest.approx(scores.var(ddof=1) / 7), 7)


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
    found = interval_of_parts(1.0, [(0.3, 5), (0.1, 20)], 0.95)
    assert found.n == 5 and found.sd == pytest.approx(math.sqrt(0.4 * 5))


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
    sweep = noisy(8, parabola(RATES), tuning=13, report=13, noise=4.0)
    found = search_gain(sweep, "log-uniform", "uniform", 1, 0.95)
    ends = np.concatenate([[1e-5], np.sqrt(RATES[1:] * RATES[:-1]), [1]])
    weights = np.diff(stats.loguniform(1e-5, 1).cdf(ends)) - np.diff(ends) / (1 - 1e-5)
    expected = paired(sweep.report @ weights, 0.95)
    assert found[:3] == pytest.approx(expected[:3]) and found.n == 13


@pytest.mark.parametrize("trials", [2, 5, 23])
@pytest.mark.parametrize("method", METHODS)
def test_gains_are_what_plain_replays_give(method, trials):
    """Coarse-to-fine by 40 009 replays, with exact second rounds there; ties among scores, too."""
    sweep = noisy(3, np.where(RATES > 0.1, 10.0, parabola(RATES, 0.003)), noise=3.0)
    sweep = Sweep(RATES, sweep.tuning.round(), sweep.report)
    against = "uniform" if method == "log-uniform" else "log-uniform"
    lost = [
        sweep.regret(searched(sweep, one, trials, 40_009, rng(5), bounds=(1e-4, 0.5)))
        for one in (method, against)
    ]
    found = search_gain(sweep, method, against, trials, 0.95, bounds=(1e-4, 0.5), draws=2**13)
    error = math.sqrt((lost[0].var() + lost[1].var()) / 40_009 + 0.01**2)
    assert abs(found.value - (lost[1].mean() - lost[0].mean())) < 4 * error


def test_planted_difference_is_found_in_its_direction():
    """A cliff at 0.1 and a top at 0.003: nine in ten uniform trials fail; with the cliff away,
    uniform wins near 1.
    """
    low_top, high_top = np.where(RATES > 0.1, 10.0, parabola(RATES, 0.003)), parabola(RATES, 0.7)
    for truth, sign in [(low_top, 1), (high_top, -1)]:
        found = search_gain(noisy(9, truth), "log-uniform", "uniform", 5, 0.99)
        assert min(sign * found.low, sign * found.high) > 0
    exact = [
        best_of_independent(noisy(9, low_top), law, 5)
        for law in (stats.uniform(1e-5, 1 - 1e-5), stats.loguniform(1e-5, 1))
    ]
    found = search_gain(noisy(9, low_top), "log-uniform", "uniform", 5, 0.99)
    assert found.value == pytest.approx(exact[0] - exact[1])


def test_coarse_to_fine_is_better_on_a_parabola_without_noise():
    sweep = certain(RATES, parabola(RATES))
    found = search_gain(sweep, "coarse-to-fine", "log-uniform", 9, 0.95, draws=2**10)
    assert found.low > 0 and found.high == pytest.approx(found.low)


def test_null_is_rarely_called_a_difference():
    """All rates truly equal: no search is better, whatever the noise of trials; nominal 5 %."""
    wrong = 0
    for seed in range(200):
        sweep = noisy(seed, np.full(31, 80.0), 5, 7)
        found = search_gain(sweep, "log-uniform", "uniform", 5, 0.95)
        wrong += not found.low <= 0 <= found.high
    assert wrong <= stats.binom.ppf(0.995, 200, 0.05)


def test_interval_feels_tuning_seeds_and_report_seeds():
    """Without one kind of noise the other still widens; without either nothing is uncertain."""
    truth = parabola(RATES)
    loud, still = noisy(10, truth, noise=6.0), np.tile(truth, (7, 1))
    width = lambda *tables: np.ptp(
        search_gain(Sweep(RATES, *tables), "log-uniform", "uniform", 5, 0.95)[1:3]
    )
    assert width(still, still) == pytest.approx(0, abs=1e-9)
    assert min(width(loud.tuning, still), width(still, loud.report)) > 0.1


def test_monte_carlo_error_of_first_rounds_is_a_small_part_of_the_interval():
    sweep = noisy(12, np.where(RATES > 0.1, 10.0, parabola(RATES, 0.003)))
    ask = ("coarse-to-fine", "log-uniform", 9, 0.95)
    made = np.array([search_gain(sweep, *ask, seed)[:3] for seed in range(4)])
    half = (made[:, 2] - made[:, 1]).mean() / 2
    assert (made.std(axis=0, ddof=1) < 0.1 * half).all() and made.std() > 0


@settings(max_examples=15, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 10), st.integers(1, 9), st.integers(0, 99))
def test_contrast_is_antisymmetric_and_follows_shift_and_scale_of_scores(
    shift, scale, trials, seed
):
    sweep = noisy(seed, parabola(RATES))
    changed = Sweep(RATES, shift + scale * sweep.tuning, shift + scale * sweep.report)
    ask = lambda sweep, one, other: search_gain(sweep, one, other, trials, 0.9, seed, draws=2**6)
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
