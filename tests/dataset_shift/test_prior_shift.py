"""Prior shift: the classes' shares move, nothing within a class does.

Counts and rows against fractions.
"""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shifted_sets import SHIFTS, moved, pictures, seeded, signals
from steadydescent.dataset_shift import (
    MOVES,
    largest_remainder,
    prior_proportions,
    prior_shift,
    shifted_prior,
)


@pytest.mark.parametrize("severity", SHIFTS)
def test_prior_shift_of_pictures_moves_the_classes_and_nothing_within_them(severity):
    before = pictures(1500)
    after = shifted_prior(before.x, before.y, severity, classes=3, count=500, generator=seeded())
    assert moved(before, after, slice(0, None, 3)) == MOVES["prior"]
    assert torch.equal(after.x, before.x[after.rows]) and torch.equal(after.y, before.y[after.rows])


@pytest.mark.parametrize("severity", SHIFTS)
def test_prior_shift_of_signals_moves_the_classes_and_nothing_within_them(severity):
    before = signals(count=6000)
    moves = moved(
        before,
        shifted_prior(before.x, before.y, severity, classes=10, count=1276, generator=seeded()),
    )
    assert moves | {"p(x)": True} == MOVES["prior"]
    assert moves["p(x)"] or severity == 1  # there it moves too, but less than 1 276 signals show


def test_classes_move_further_with_every_severity():
    """Half the total variation of the class shares, which are equal before."""
    before = signals(count=6000)
    shares = [
        shifted_prior(
            before.x, before.y, severity, classes=10, count=1270, generator=seeded()
        ).y.bincount(minlength=10)
        for severity in range(6)
    ]
    distances = [(part / 1270 - 0.1).abs().sum().item() for part in shares]
    assert distances[0] < 1e-6
    assert all(near < far for near, far in pairwise(distances))


def test_severity_0_keeps_unequal_classes_as_they_are():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=seeded())]
    x = torch.randn(100, 5, generator=seeded(1))
    half = shifted_prior(x, labels, 0, classes=3, count=50, generator=seeded())
    assert half.y.bincount().tolist() == [30, 15, 5]
    whole = shifted_prior(x, labels, 0, classes=3, count=100, generator=seeded())
    assert whole.x.numpy().tobytes() == x.numpy().tobytes() and torch.equal(whole.y, labels)
    assert whole.rows.equal(torch.arange(100))


@pytest.mark.parametrize(("severity", "ratio"), enumerate([1, 3, 10, 30, 100, 300]))
def test_proportions_fall_geometrically_to_one_over_the_ratio(severity, ratio):
    order = torch.tensor([2, 0, 3, 4, 1])
    shares = prior_proportions(torch.full((5,), 37), severity, order)[order]
    assert shares.sum().item() == pytest.approx(1)
    assert (shares[:-1] / shares[1:]).tolist() == pytest.approx([ratio**0.25] * 4)


def test_proportions_tilt_those_that_are_there():
    tilted = prior_proportions(torch.tensor([30, 10]), 2, torch.tensor([1, 0]))
    assert tilted.tolist() == pytest.approx([3 / 13, 10 / 13])  # 30·1/10 : 10


def test_which_classes_are_favoured_is_drawn_from_the_generator_and_the_same_at_every_severity():
    x, y = torch.zeros(2000, 1), torch.arange(2000) % 10
    favoured = [
        [
            shifted_prior(x, y, s, classes=10, count=400, generator=seeded(seed))
            .y.bincount()
            .argmax()
            .item()
            for s in SHIFTS
        ]
        for seed in range(20)
    ]
    assert all(len(set(over_severities)) == 1 for over_severities in favoured)
    assert len({over_severities[0] for over_severities in favoured}) > 4


def hamilton(weights, count):
    """Largest remainder in fractions, class by class."""
    quotas = [Fraction(weight, sum(weights)) * count for weight in weights]
    counts = [int(quota) for quota in quotas]
    for _ in range(count - sum(counts)):
        k = max(range(len(quotas)), key=lambda k: (quotas[k] - counts[k], -k))
        counts[k] += 1
    return counts


@example([29, 71], 100)  # 0.29·100 is 28.999… in floats
@example([1, 1, 7], 3)  # a third is left of each, but floats tell them apart
@given(st.lists(st.integers(0, 97), min_size=1, max_size=11).filter(any), st.integers(1, 100_003))
def test_counts_are_those_of_the_largest_remainder_in_fractions(weights, count):
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    assert largest_remainder(shares, count).tolist() == hamilton(weights, count)


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(any),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_rows_are_different_examples_of_the_classes_asked_for(weights, count, seed):
    labels = torch.arange(127) % 3
    rows = prior_shift(
        labels,
        torch.tensor(weights, dtype=torch.float64) / sum(weights),
        count,
        generator=seeded(seed),
    )
    assert labels[rows].bincount(minlength=3).tolist() == hamilton(weights, count)
    assert rows.dtype == torch.int64 and rows.equal(rows.unique()) and len(rows) == count


def test_every_example_of_a_class_is_as_likely_to_be_taken():
    """Class 1 has 10 examples, 3 are taken, 1 000 times: each 300 times give or take 14.5.

    4 standard errors.
    """
    labels, shares = torch.tensor([0] * 7 + [1] * 10), torch.tensor([0.4, 0.6])
    taken = torch.cat(
        [prior_shift(labels, shares, 5, generator=seeded(seed)) for seed in range(1000)]
    )
    assert (taken.bincount(minlength=17)[7:] - 300).abs().max() < 58


def test_rows_follow_from_the_generator_alone_and_fewer_are_some_of_the_same():
    labels = torch.arange(230) % 2
    state = torch.get_rng_state()
    few, again, many = (
        prior_shift(labels, torch.tensor([0.5, 0.5]), n, generator=seeded(4)) for n in (62, 62, 106)
    )
    assert torch.equal(few, again) and set(few.tolist()) < set(many.tolist())
    assert not torch.equal(
        few, prior_shift(labels, torch.tensor([0.5, 0.5]), 62, generator=seeded(5))
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_more_than_there_are_is_refused_by_class_and_the_generator_left_as_it_was():
    labels = torch.tensor([0] * 7 + [1] * 5 + [2] * 3)
    generator = seeded(3)
    with pytest.raises(
        ValueError, match="class 1 has 5 of the 6 asked for, class 2 has 3 of the 4 asked for"
    ):
        prior_shift(labels, torch.tensor([0.0, 0.6, 0.4]), 10, generator=generator)
    with pytest.raises(ValueError, match="prior shift to 15 examples needs more than there are"):
        shifted_prior(torch.zeros(15, 2), labels, 5, classes=3, count=15, generator=generator)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


def test_of_ten_equal_classes_the_promised_counts_can_be_had_and_at_the_last_severity_no_more():
    for each, most in ((1000, 2127), (2000, 4254)):
        shares = [
            prior_proportions(torch.full((10,), each), severity, torch.arange(10))
            for severity in range(6)
        ]
        assert all(largest_remainder(part, most).max() <= each for part in shares)
        assert largest_remainder(shares[5], most + 1).max() > each


@pytest.mark.parametrize(
    ("proportions", "count", "sentence"),
    [
        ([0.5, 0.6], 10, "add up to 1, got"),
        ([1.5, -0.5], 10, "at least 0 and add up to 1"),
        ([], 10, "add up to 1"),
        ([[1.0]], 10, r"must be \[K\]"),
        ([torch.nan, 1.0], 10, "at least 0"),
        ([0.5, 0.5], 0, "count must be a whole number of at least 1, got 0"),
        ([0.5, 0.5], -3, "got -3"),
        ([0.5, 0.5], 2.5, "got 2.5"),
        ([1.0], 2, "below the 1 classes of the proportions, got 1"),
    ],
)
def test_impossible_proportions_and_counts_are_refused(proportions, count, sentence):
    with pytest.raises(ValueError, match=sentence):
        prior_shift(torch.arange(20) % 2, torch.tensor(proportions), count, generator=seeded())


@pytest.mark.parametrize(
    "labels", [torch.arange(0), torch.tensor([-1, 0]), torch.rand(3), torch.zeros(2, 2).long()]
)
def test_labels_that_are_no_class_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be int64 class numbers from 0 on"):
        prior_shift(labels, torch.tensor([0.5, 0.5]), 1, generator=seeded())


@pytest.mark.parametrize(
    ("frequencies", "order", "sentence"),
    [
        ([5], [0], "K ≥ 2"),
        ([5, -1], [0, 1], "at least 0"),
        ([0, 0], [0, 1], "not all 0"),
        ([5, 5], [1, 1], "permutation"),
    ],
)
def test_frequencies_that_cannot_be_tilted_are_refused(frequencies, order, sentence):
    with pytest.raises(ValueError, match=sentence):
        prior_proportions(torch.tensor(frequencies), 1, torch.tensor(order))
