"""Decades below a limit, against rates that were planted, and the set of rates that may be best."""

import numpy as np
import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, estimated, peak
from steadydescent.study.judging.contrasts.decades_below import maybe_best

HALF_STEP = np.log10(2) / 2
"""The best rate is within half a step of the grid."""
REPORTED = np.array([False, True, True, True, False])


@pytest.mark.parametrize("limit", [0.1, 1.0, 0.01])
def test_decades_below_are_the_logarithm_of_limit_over_the_tuned_rate(limit):
    """All seeds agree."""
    plan = arms_plan({"last": {}})
    made = estimated("decades below", evidence_of(result(plan, peak, half=2), plan), limit=limit)
    assert made.value == pytest.approx(np.log10(limit / 0.1)) and made.n == 5
    ends = made.value - HALF_STEP, made.value + HALF_STEP
    assert (made.low, made.high) == pytest.approx(ends)


def test_decades_below_have_an_interval_where_seeds_disagree():
    """Some seeds like 0.1, some 0.4: the interval holds both, and half a step more."""

    def torn(run, readout, split):
        return 0.7 - 0.02 * abs(np.log2(run.lr / (0.4 if run.seed % 3 == 1 else 0.1)))

    plan = arms_plan({"last": {}}, report="everything")
    made = estimated("decades below", evidence_of(result(plan, torn, half=2), plan), limit=0.1)
    assert made.value == 0.0 and made.low == pytest.approx(-np.log10(4) - HALF_STEP)
    assert made.high >= HALF_STEP


def drawn(generator, truth, tuning, report):
    """Tuning scores, and fresh ones of the best rate of them and its neighbours."""
    scores = truth + generator.normal(size=(tuning, len(truth)))
    best = int(np.clip(scores.mean(axis=0).argmax(), 1, len(truth) - 2))
    reported = np.abs(np.arange(len(truth)) - best) <= 1
    return scores, truth[reported] + generator.normal(size=(report, 3)), reported


@pytest.mark.parametrize("tuning", [3, 6, 20])
@pytest.mark.parametrize("level", [0.95, 0.9995])
def test_the_best_rate_is_held_at_any_number_of_tuning_seeds(tuning, level):
    """Also the hardest case, rates that are nearly alike, of which each must stay in."""
    generator, missed, trials = np.random.default_rng([tuning, int(1e4 * level)]), 0, 600
    for truth in (np.zeros(9), -0.3 * np.abs(np.arange(9) - 3.0)):
        for _ in range(trials // 2):
            made = maybe_best(*drawn(generator, truth, tuning, 2 * tuning + 2), level)
            missed += not made[3]
    assert missed <= stats.binom.ppf(0.999, trials, 1 - level)


def test_rates_far_below_the_best_are_out():
    truth = -3.0 * (np.arange(9) - 4.0) ** 2
    scores, again, reported = drawn(np.random.default_rng(1), truth, 6, 12)
    assert np.flatnonzero(maybe_best(scores, again, reported, 0.95)).tolist() == [4]


def test_without_fresh_scores_tuning_seeds_decide_with_all_of_the_level():
    scores = np.array([[0.0, 1.0], [0.1, 0.8], [0.0, 0.9]])
    gain = scores[:, 1] - scores[:, 0]
    p = float(stats.ttest_1samp(gain, 0, alternative="greater").pvalue)
    nothing = np.empty((0, 0)), np.zeros(2, bool)
    assert maybe_best(scores, *nothing, 1 - 1.01 * p).tolist() == [False, True]
    assert maybe_best(scores, *nothing, 1 - 0.99 * p).tolist() == [True, True]


def test_fresh_scores_turn_an_unlucky_choice():
    """Tuning liked the third of five; report seeds, which are many, the second."""
    generator = np.random.default_rng(3)
    scores = np.array([0.0, 2.0, 2.3, 0.0, 0.0]) + generator.normal(size=(3, 5))
    again = np.array([2.0, 0.0, 0.0]) + 0.1 * generator.normal(size=(20, 3))
    assert np.flatnonzero(maybe_best(scores, again, REPORTED, 0.95)).tolist()[:1] != [2]
    assert not maybe_best(scores, again, REPORTED, 0.95)[2:4].any()
