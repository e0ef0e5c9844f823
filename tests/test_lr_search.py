"""Learning-rate search: draws against their distribution, the range test against a quadratic's closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from steadydescent.lr_search import (
    SUGGESTIONS,
    coarse_to_fine,
    log_uniform,
    middle,
    minimum_tenth,
    ramp,
    range_test,
    rate_step,
    restored,
    smoothed,
    steepest,
    uniform,
    valley,
)

bounds = st.tuples(st.floats(1e-9, 1e3), st.floats(1.001, 1e9)).map(lambda pair: (pair[0], pair[0] * pair[1]))


def rng(seed=0):
    return np.random.default_rng(seed)


# draws


@pytest.mark.worked("viblo-lr")
def test_uniform_search_spends_nine_tenths_above_a_tenth():
    """P(rate < 0.1) on [0, 1] is 10 %, above 90 %: the CDF is the rate itself; 4 binomial standard errors."""
    count = 100_003
    below = (uniform(0, 1, count, rng()) < 0.1).mean()
    assert stats.uniform(0, 1).cdf(0.1) == pytest.approx(0.1)
    assert abs(below - 0.1) < 4 * math.sqrt(0.1 * 0.9 / count)


@pytest.mark.worked("viblo-lr")
def test_log_uniform_search_spends_a_fifth_in_each_decade():
    """log₁₀ rate uniform on [−5, 0]: P(decade) = 1/5 by the CDF, and in a sample within 4 standard errors."""
    count, edges = 100_003, 10.0 ** np.arange(-5, 1)
    shares = np.histogram(log_uniform(1e-5, 1, count, rng()), edges)[0] / count
    assert np.diff(stats.loguniform(1e-5, 1).cdf(edges)) == pytest.approx([0.2] * 5)
    assert np.abs(shares - 0.2).max() < 4 * math.sqrt(0.2 * 0.8 / count)


@pytest.mark.parametrize(
    ("draw", "law"), [(uniform, stats.uniform(0.003, 0.7 - 0.003)), (log_uniform, stats.loguniform(0.003, 0.7))]
)
def test_draws_follow_their_distribution(draw, law):
    """Kolmogorov and Smirnov's distance of 10 007 draws stays below its 99.9 % point, 1.95/√n."""
    rates = draw(0.003, 0.7, 10_007, rng(1))
    assert rates.dtype == np.float64 and rates.shape == (10_007,)
    assert stats.kstest(rates, law.cdf).statistic < 1.95 / math.sqrt(10_007)


@given(bounds, st.integers(1, 23), st.integers(0, 99))
def test_draws_stay_within_their_bounds_and_repeat_by_seed(limits, count, seed):
    for draw in (uniform, log_uniform):
        rates = draw(*limits, count, rng(seed))
        assert ((limits[0] <= rates) & (rates <= limits[1])).all()
        assert np.array_equal(rates, draw(*limits, count, rng(seed)))


# coarse to fine


def bowl(rates):
    """Lowest at 0.003, a parabola in the logarithm."""
    return np.log10(rates / 0.003) ** 2


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 13), st.integers(0, 999))
def test_intervals_only_shrink_hold_the_best_and_respect_the_budget(rounds, per_round, seed):
    asked = []

    def evaluate(rates):
        asked.append(rates)
        return bowl(rates)

    search = coarse_to_fine(evaluate, 1e-5, 1, rounds, per_round, rng(seed))
    assert [len(rates) for rates in asked] == [per_round] * rounds
    assert np.array_equal(np.concatenate(asked), search.rate) and np.array_equal(bowl(search.rate), search.loss)
    assert np.array_equal(search.round, np.repeat(np.arange(1, rounds + 1), per_round))
    assert ((search.low <= search.rate) & (search.rate <= search.high)).all()
    assert (np.diff(search.low) >= 0).all() and (np.diff(search.high) <= 0).all()
    for number in range(2, rounds + 1):
        before, now = search.round < number, np.argmax(search.round == number)
        best = search.rate[before][np.argmin(search.loss[before])]
        assert search.low[now] <= best <= search.high[now]
    assert search.best == search.rate[np.argmin(search.loss)]


def test_interval_reaches_from_the_trial_below_the_best_quarter_to_the_one_above():
    """Eight trials, the best two chosen by loss; in a bowl they are neighbours, so the fourth-best bracket them."""
    for seed in range(20):
        search = coarse_to_fine(bowl, 1e-5, 1, 2, 8, rng(seed))
        order = np.argsort(bowl(search.rate[:8]))
        known = np.sort(np.concatenate([[1e-5], search.rate[:8], [1.0]]))
        inner = np.flatnonzero(np.isin(known, search.rate[:8][order[:2]]))
        assert inner[1] == inner[0] + 1
        assert search.low[8] == known[inner[0] - 1] and search.high[8] == known[inner[1] + 1]


@given(st.floats(1e-5, 1), st.floats(0.1, 10), st.integers(1, 6), st.integers(0, 999))
def test_interval_holds_the_minimum_of_every_single_valley(centre, lean, per_round, seed):
    def lopsided(rates):
        return np.maximum(np.log(rates / centre) * lean, -np.log(rates / centre))

    search = coarse_to_fine(lopsided, 1e-5, 1, 4, per_round, rng(seed))
    assert ((search.low <= centre) & (centre <= search.high)).all()


@given(st.integers(0, 999))
def test_one_round_from_coarse_to_fine_is_log_uniform_search(seed):
    search = coarse_to_fine(bowl, 1e-5, 1, 1, 11, rng(seed))
    assert np.array_equal(search.rate, log_uniform(1e-5, 1, 11, rng(seed)))


def test_every_round_closes_in_on_a_bowl():
    for seed in range(20):
        search = coarse_to_fine(bowl, 1e-5, 1, 5, 8, rng(seed))
        widths = np.log(search.high / search.low)[::8]
        assert (np.diff(widths) < 0).all() and widths[-1] < 0.2 * widths[0]
        assert search.low[-1] <= 0.003 <= search.high[-1]


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_counts_as_the_worst(worst):
    def evaluate(rates):
        return np.where(rates > 1e-3, worst, -rates)  # better towards the edge beyond which it diverges

    search = coarse_to_fine(evaluate, 1e-5, 1, 4, 9, rng(5))
    finite = search.rate[search.rate <= 1e-3]
    assert 0 < len(finite) < 36 and search.best == finite.max()
    assert (search.high[-1] < 0.1) and not np.isfinite(search.loss[search.rate > 1e-3]).any()


def test_search_in_which_all_diverge_stays_where_it_is_and_has_no_best():
    search = coarse_to_fine(lambda rates: np.full(len(rates), np.nan), 1e-5, 1, 3, 4, rng())
    assert (search.low == 1e-5).all() and (search.high == 1).all()
    with pytest.raises(ValueError, match="none of the 12 trials has a finite loss"):
        _ = search.best


def test_losses_may_come_as_a_tensor():
    as_arrays = coarse_to_fine(bowl, 1e-5, 1, 3, 5, rng())
    as_tensors = coarse_to_fine(lambda rates: torch.from_numpy(bowl(rates)), 1e-5, 1, 3, 5, rng())
    assert np.array_equal(as_arrays.rate, as_tensors.rate)


# range test


@given(bounds, st.integers(2, 40))
def test_ramp_rises_by_the_same_factor_from_end_to_end(limits, steps):
    rates, (low, high) = ramp(*limits, steps), limits
    assert rates[0] == low and rates[-1] == high and rates.shape == (steps,)
    np.testing.assert_allclose(rates, low * (high / low) ** (np.arange(steps) / (steps - 1)), rtol=1e-9)


def quadratic(curvature=3.0, start=5.0):
    """A step(rate) on h·θ²/2: θ ← (1 − rate·h)·θ; the loss before the step."""
    theta = start

    def step(rate):
        nonlocal theta
        loss = curvature * theta**2 / 2
        theta -= rate * curvature * theta
        return loss

    return step


@pytest.mark.parametrize("curvature", [0.3, 3.0, 70.0])
def test_quadratic_diverges_from_the_rate_two_over_its_curvature(curvature):
    """|1 − αh| < 1 below α = 2/h: the loss falls at every step until then, and rises at every step after it."""
    test = range_test(quadratic(curvature), 1e-4, 1e3, 71, divergence=math.inf)
    turn = int(np.argmin(test.losses))
    assert test.rates[turn - 1] < 2 / curvature <= test.rates[turn] and len(test.losses) == 71
    assert (np.diff(test.losses[: turn + 1]) < 0).all() and (np.diff(test.losses[turn:]) > 0).all()


@pytest.mark.parametrize("divergence", [1.5, 4.0])
def test_test_stops_at_the_first_smoothed_loss_above_its_multiple_of_the_lowest(divergence):
    whole = range_test(quadratic(), 1e-4, 1e3, 71, divergence=math.inf)
    early = range_test(quadratic(), 1e-4, 1e3, 71, divergence=divergence)
    smooth = np.array(list(smoothed(whole.losses, 0.9)))
    above = smooth > divergence * np.minimum.accumulate(smooth)
    assert len(early.losses) == np.argmax(above) + 1 < 71 and np.array_equal(
        early.losses, whole.losses[: len(early.losses)]
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_test_stops_at_a_loss_that_is_not_finite_and_keeps_it(bad):
    losses = iter([3.0, 2.0, bad, 1.0])
    test = range_test(lambda rate: next(losses), 1e-3, 1, 4, divergence=math.inf)
    assert test.losses[:2].tolist() == [3.0, 2.0] and not math.isfinite(test.losses[2]) and len(test.rates) == 3


def test_falling_loss_below_zero_is_no_divergence():
    """A log-likelihood may be negative, where four times the lowest lies below it."""
    losses = iter([1.0, -1.0, -2.0, -3.0, -2.0, 7.0, 8.0])
    assert range_test(lambda rate: next(losses), 1e-3, 1, 7, beta=0.0).losses[-1] == 7.0


def test_smoothing_is_the_weighted_mean_of_the_losses_so_far():
    losses = rng(2).normal(size=23)
    for beta in (0.0, 0.5, 0.98):
        weights = [beta ** np.arange(t, -1, -1.0) for t in range(23)]
        expected = [np.average(losses[: t + 1], weights=weights[t]) for t in range(23)]
        np.testing.assert_allclose(list(smoothed(losses, beta)), expected, rtol=1e-12)


# suggestions


def logistic_fall(rates, centre, width=0.4):
    """Falls from 2 to 1 with its steepest slope per logarithm at `centre`, point-symmetric about it."""
    return 1 + 1 / (1 + np.exp(np.log(rates / centre) / width))


def test_steepest_finds_the_turning_point_of_a_logistic_fall():
    rates = ramp(1e-6, 1, 301)
    assert steepest(rates, logistic_fall(rates, rates[173]), beta=0.0) == rates[173]


def test_slope_is_taken_per_logarithm_of_the_rate():
    """loss = −√rate falls fastest per logarithm at the last rate, per rate at the first."""
    rates = ramp(1e-4, 1, 41)
    assert steepest(rates, -np.sqrt(rates), beta=0.0) == rates[-1]


def test_minimum_tenth_is_a_tenth_of_the_rate_of_the_lowest_loss():
    rates = ramp(1e-6, 1, 301)
    assert minimum_tenth(rates, np.log(rates / rates[120]) ** 2, beta=0.0) == rates[120] / 10


def test_middle_lies_half_way_between_start_and_end_of_a_straight_descent():
    """Flat to index 100, straight down to 200, then up: a tenth of the fall ends at 110, so the middle is at 155."""
    rates = ramp(1e-6, 1, 301)
    losses = np.interp(np.arange(301), [0, 100, 200, 300], [2.0, 2.0, 1.0, 4.0])
    assert middle(rates, losses, beta=0.0) == pytest.approx(rates[155], rel=1e-9)


def longest_fall(losses):
    """Slow reference: length of the longest falling subsequence that ends at each index, and the first longest."""
    lengths = []
    for i, loss in enumerate(losses):
        lengths.append(1 + max((lengths[j] for j in range(i) if losses[j] > loss), default=0))
    return lengths.index(max(lengths)), max(lengths)


@given(st.lists(st.floats(0, 9), min_size=3, max_size=30))
def test_valley_lies_half_way_along_the_longest_fall(losses):
    rates, (end, length) = ramp(1e-6, 1, len(losses)), longest_fall(losses)
    if length < 3:
        with pytest.raises(ValueError, match=f"must fall at least twice in the range test, it fell {length - 1} times"):
            valley(rates, np.array(losses), beta=0.0)
    else:
        sections = length / 3  # as fastai counts
        index = end - length + int(sections) + int(sections / 2)
        assert valley(rates, np.array(losses), beta=0.0) == rates[index]


def test_valley_of_one_straight_fall_is_its_middle():
    rates = ramp(1e-6, 1, 121)
    assert valley(rates, -np.arange(121.0), beta=0.0) == rates[59]


def test_smoothing_moves_the_steepest_point_by_its_lag():
    """An exponential average lags β/(1−β) steps behind: 9 at β = 0.9, 49 at 0.98; on a long ramp the slope with it."""
    rates = ramp(1e-6, 1, 3001)
    losses = logistic_fall(rates, rates[1700], width=1.6)  # far wider than the lag
    for beta, lag in [(0.9, 9), (0.98, 49)]:
        assert abs(int(np.flatnonzero(rates == steepest(rates, losses, beta))[0]) - (1700 + lag)) <= 1


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_suggestions_stop_at_the_first_loss_that_is_not_finite(name):
    rates = ramp(1e-6, 1, 61)
    losses = logistic_fall(rates, rates[30])
    broken = losses.copy()
    broken[45], broken[50] = math.nan, -100.0
    assert SUGGESTIONS[name](rates, broken) == SUGGESTIONS[name](rates[:45], losses[:45])


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_suggestions_scale_with_the_rates_and_ignore_the_losses_scale(name):
    rates, noise = ramp(1e-6, 1, 61), rng(7).normal(scale=0.05, size=61)
    losses = logistic_fall(rates, rates[30]) + noise
    assert SUGGESTIONS[name](rates * 8, losses * 4 + 16) == pytest.approx(8 * SUGGESTIONS[name](rates, losses))


def test_middle_of_the_descent_moves_with_the_length_of_the_ramp():
    """Doubt about `lr-range-test`: on a quadratic the suggestion falls like T^(−1/2) while the best rate, 1/h, stays.

    A ramp four times as long spends four times as many updates at each rate, so the descent starts at a quarter of
    the rate; it ends at 2/h for all. So the geometric middle halves.
    """
    suggested = [
        middle(*range_test(quadratic(), 1e-5, 10, steps, divergence=math.inf), beta=0.0) for steps in (97, 388, 1552)
    ]
    assert suggested[0] / suggested[1] == pytest.approx(2, rel=0.1)
    assert suggested[1] / suggested[2] == pytest.approx(2, rel=0.1)


# torch's users


class Small(nn.Module):
    """Whatever a range test may disturb: batch-norm statistics, dropout, a buffer outside the state dict."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 3))
        self.layers[3].eval()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += len(x)
        return self.layers(x)


def trained(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model, data = Small(), torch.randn(11, 5)
        optimizer = torch.optim.Adam(
            [{"params": model.layers[0].parameters()}, {"params": model.layers[3].parameters(), "lr": 0.02}], lr=0.01
        )
        for _ in range(3):
            rate_step(optimizer, lambda: model(data).square().mean())(0.01)
    return model, optimizer, data


def everything(model, optimizer):
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
    slots = [(key, value) for state in optimizer.state.values() for key, value in sorted(state.items())]
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    copies = [None if t is None else t.detach().clone() for t in tensors]
    return copies, [(key, value.clone()) for key, value in slots], groups, [m.training for m in model.modules()]


def same(left, right):
    """Bitwise equality through lists, tuples and tensors."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.parametrize("interrupt", [False, True])
def test_model_and_optimizer_leave_the_test_as_they_came(interrupt):
    model, optimizer, data = trained()
    before, calls = everything(model, optimizer), 0

    def loss():
        nonlocal calls
        calls += 1
        if interrupt and calls == 9:
            raise KeyboardInterrupt
        return model(data).square().mean()

    try:
        with restored(model, optimizer):
            model.eval().train()
            range_test(rate_step(optimizer, loss), 1e-4, 10, 31, divergence=math.inf)
            assert not same(before, everything(model, optimizer))
    except KeyboardInterrupt:
        assert interrupt
    assert calls == (9 if interrupt else 31)
    assert same(before, everything(model, optimizer))


def test_training_goes_on_as_if_there_had_been_no_test():
    (one, first, data), (other, second, _) = trained(), trained()
    with restored(one, first):
        range_test(rate_step(first, lambda: one(data).square().mean()), 1e-4, 10, 13)
    for model, optimizer in ((one, first), (other, second)):
        with torch.random.fork_rng([]):
            torch.manual_seed(8)
            for _ in range(5):
                optimizer.zero_grad()
                model(data).square().mean().backward()
                optimizer.step()
    assert same(everything(one, first), everything(other, second))


def test_optimizer_without_slots_yet_has_none_after_the_test():
    model = nn.Linear(5, 3)
    optimizer = torch.optim.Adam(model.parameters())
    with restored(model, optimizer):
        rate_step(optimizer, lambda: model(torch.ones(2, 5)).square().mean())(0.1)
        assert optimizer.state
    assert not optimizer.state and model.weight.grad is None


def test_rate_step_is_a_plain_update_at_that_rate_and_keeps_the_groups_ratio():
    model, optimizer, data = trained()
    other, plain, _ = trained()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        told = rate_step(optimizer, lambda: model(data).square().mean())(0.5)
        torch.manual_seed(1)
        plain.param_groups[0]["lr"], plain.param_groups[1]["lr"] = 0.5, 1.0
        plain.zero_grad()
        loss = other(data).square().mean()
        loss.backward()
        plain.step()
    assert told == loss.item()
    assert same([*model.parameters()], [*other.parameters()])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.0]


def test_rate_may_be_a_tensor_of_the_optimizer():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1))
    rate_step(optimizer, lambda: weight.sum())(0.5)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) and torch.equal(weight, torch.full((3,), 0.5))


# refusals


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (0.0, 1.0, "low must be positive, got 0.0"),
        (-1.0, 1.0, "low must be positive, got -1.0"),
        (math.nan, 1.0, "low must be positive, got nan"),
        (0.1, 0.1, "high must be finite and above low = 0.1, got 0.1"),
        (0.1, math.inf, "high must be finite and above low = 0.1, got inf"),
        (0.1, math.nan, "high must be finite and above low = 0.1, got nan"),
    ],
)
def test_bounds_that_are_none_are_refused_before_anything_is_evaluated(low, high, reason):
    never = lambda *_: pytest.fail("evaluated before the bounds were checked")
    for call in (
        lambda: log_uniform(low, high, 3, rng()),
        lambda: ramp(low, high, 5),
        lambda: coarse_to_fine(never, low, high, 2, 3, rng()),
        lambda: range_test(never, low, high, 5),
    ):
        with pytest.raises(ValueError, match=reason):
            call()


def test_other_bad_arguments_are_refused_by_name():
    never = lambda *_: pytest.fail("evaluated before the arguments were checked")
    for call, reason in [
        (lambda: uniform(-0.1, 1, 3, rng()), "low must be at least 0, got -0.1"),
        (lambda: uniform(0, 1, 0, rng()), "count must be at least 1, got 0"),
        (lambda: coarse_to_fine(never, 0.1, 1, 0, 3, rng()), "rounds must be at least 1, got 0"),
        (lambda: coarse_to_fine(never, 0.1, 1, 2, 0, rng()), "per_round must be at least 1, got 0"),
        (lambda: coarse_to_fine(lambda rates: rates[:2], 0.1, 1, 2, 3, rng()), r"shape \(3,\), got \(2,\)"),
        (lambda: ramp(0.1, 1, 1), "steps must be at least 2, got 1"),
        (lambda: range_test(never, 0.1, 1, 5, divergence=1.0), "divergence must be more than 1, got 1.0"),
        (lambda: range_test(never, 0.1, 1, 5, beta=1.0), r"beta must be in \[0, 1\), got 1.0"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_curve_that_is_no_range_test_is_refused(name):
    rates, suggest = ramp(1e-3, 1, 5), SUGGESTIONS[name]
    for call, reason in [
        (lambda: suggest(rates, np.ones(4)), "of one length"),
        (lambda: suggest(rates[::-1], -np.arange(5.0)), "positive, finite and rising"),
        (lambda: suggest(rates - 1e-3, -np.arange(5.0)), "positive, finite and rising"),
        (lambda: suggest(rates, np.array([2.0, 1.0, math.nan, 1.0, 0.0])), "3 finite losses to start with, got 2"),
        (lambda: suggest(rates, -np.arange(5.0), beta=1.0), r"beta must be in \[0, 1\)"),
        (lambda: suggest(rates, np.arange(5.0)), "the smoothed loss must fall"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()


def test_parameters_that_would_not_be_restored_are_refused():
    model, stray = nn.Linear(5, 3), nn.Parameter(torch.ones(2))
    with (
        pytest.raises(ValueError, match="model's parameters alone, got 1 that are not"),
        restored(model, torch.optim.SGD([*model.parameters(), stray], lr=0.1)),
    ):
        pytest.fail("let in")


def test_optimizer_without_a_rate_gives_no_ratio():
    with pytest.raises(ValueError, match="lr must not be 0"):
        rate_step(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.0), lambda: torch.ones(()))
