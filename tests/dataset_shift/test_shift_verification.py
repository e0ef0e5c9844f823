"""What `verify` says of data that nothing, or one thing, was done to; its tests against scipy's."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from shifted_sets import moved, pictures, seeded, signals
from steadydescent.dataset_shift import MOVES, Shifted, verification, verify


def test_an_unshifted_redraw_of_signals_moves_nothing():
    for count in (1000, 2000):
        again = signals(count=count, seed=6)
        assert moved(signals(count=count), Shifted(again.x, again.y)) == dict.fromkeys(
            MOVES["prior"], False
        )


def test_an_unshifted_redraw_of_pictures_moves_nothing():
    assert not any(
        moved(pictures(), Shifted(pictures(317, seed=2).x, pictures(317, seed=2).y)).values()
    )


def test_false_alarms_are_no_more_frequent_than_the_level():
    """200 pairs of sets from one distribution at level 0.1: at most 20 false alarms.

    Plus 3 standard errors (4.2).
    """
    alarms = dict.fromkeys(("p(x)", "p(y)", "p(x|y)"), 0)
    for seed in range(200):
        generator = seeded(seed)
        sets = [
            Shifted(
                torch.randn(n, 5, generator=generator).exp(),
                torch.randint(3, (n,), generator=generator),
            )
            for n in (83, 61)
        ]
        moves = verify(*sets, level=0.1).set_index("aspect")["moved"]
        for aspect in alarms:
            alarms[aspect] += moves[aspect]
    assert max(alarms.values()) <= 20 + 3 * 4.3
    assert sum(alarms.values()) > 0  # the level is not that of a test that never speaks


@pytest.mark.parametrize("change", ["mean", "spread", "dependence"])
def test_a_move_of_one_class_alone_is_found_and_the_class_named(change):
    x, y = torch.randn(1500, 7, generator=seeded()), torch.arange(1500) % 3
    other, of_class = torch.randn(1500, 7, generator=seeded(1)), (y == 2)
    if change == "mean":
        other[of_class, 3] += 0.8
    elif change == "spread":
        other[of_class, 3] *= 1.6
    else:
        other[of_class, 3] = other[of_class, 4]  # no feature moves by itself
    table = verify(Shifted(x, y), Shifted(other, y)).set_index("aspect")
    assert table.moved["p(x|y)"] and table.how["p(x|y)"].endswith("class 2")
    assert not table.moved["p(y)"] and table.moved.isna()["p(y|x)"]


def test_without_common_examples_a_move_of_the_rule_cannot_be_told():
    y = torch.arange(900) % 3
    x = torch.randn(900, 4, generator=seeded()) + y[:, None]
    other = torch.randn(900, 4, generator=seeded(1)) + (y[:, None] + 1) % 3
    table = verify(Shifted(x, y), Shifted(other, y)).set_index("aspect")
    assert table.moved["p(x|y)"] and not table.moved["p(x)"]
    assert table.moved["p(y|x)"] is pd.NA and "cannot be told" in table.how["p(y|x)"]


def test_with_no_class_in_common_p_x_given_y_cannot_be_told():
    x = torch.randn(90, 4, generator=seeded())
    table = verify(Shifted(x, torch.zeros(90).long()), Shifted(x, torch.ones(90).long())).set_index(
        "aspect"
    )
    assert table.moved["p(x|y)"] is pd.NA and table.moved["p(y)"]


@given(st.integers(1, 13), st.integers(1, 11), st.integers(1, 6), st.integers(0, 999))
def test_distances_of_all_columns_at_once_are_those_of_scipy_one_by_one_ties_too(
    n, m, levels, seed
):
    first, second = (
        torch.randint(levels, (3, size), generator=seeded(seed + size)).double() for size in (n, m)
    )
    expected = [
        scipy.stats.ks_2samp(a, b, method="exact").statistic
        for a, b in zip(first, second, strict=True)
    ]
    assert verification._ks_statistics(first, second).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(37, 211), (311, 211)])
def test_p_is_the_smallest_of_scipys_times_the_number_of_tests(n, m):
    x, other = torch.randn(n, 5, generator=seeded()), torch.randn(m, 5, generator=seeded(1)) + 0.3
    x, other = x.double(), other.double()
    table = verify(
        Shifted(x, torch.zeros(n).long()), Shifted(other, torch.zeros(m).long())
    ).set_index("aspect")
    both = np.concatenate([x, other])
    scores = (both - both.mean(0)) @ np.linalg.svd(both - both.mean(0))[2].T
    sizes = np.stack([np.linalg.norm(both, axis=1), both.min(1), both.max(1)], 1)
    columns = np.concatenate([both, scores, abs(scores), sizes], 1)
    method = "exact" if n < 100 else "asymp"
    tests = [scipy.stats.ks_2samp(column[:n], column[n:], method=method) for column in columns.T]
    assert table.p["p(x)"] == pytest.approx(18 * min(test.pvalue for test in tests), rel=1e-6)
    assert table.statistic["p(x)"] == pytest.approx(max(test.statistic for test in tests))
    assert table.p["p(x|y)"] == table.p["p(x)"]  # one class


def test_statistic_of_the_class_counts_is_pearsons():
    first, second = torch.tensor([0] * 31 + [2] * 17), torch.tensor([0] * 13 + [2] * 29)
    table = verify(
        Shifted(torch.zeros(48, 2), first), Shifted(torch.zeros(42, 2), second)
    ).set_index("aspect")
    counts = np.array([[31, 17], [13, 29]])
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert table.statistic["p(y)"] == pytest.approx(((counts - expected) ** 2 / expected).sum())


def test_looking_again_gives_the_same_table_and_changes_nothing():
    before, after = signals(count=200), signals("shear", 3, count=200)
    copies = [part.clone() for part in (before.x, before.y, after.x, after.y)]
    pd.testing.assert_frame_equal(verify(before, after), verify(before, after))
    assert all(map(torch.equal, copies, (before.x, before.y, after.x, after.y)))


@pytest.mark.parametrize(
    ("after", "level", "sentence"),
    [
        (Shifted(torch.zeros(3, 4), torch.arange(3)), 0.1, "same features, got 5 and 4"),
        (Shifted(torch.full((3, 5), torch.nan), torch.arange(3)), 0.1, "x must be finite"),
        (
            Shifted(torch.zeros(1, 5), torch.arange(1), torch.tensor([7])),
            0.1,
            "rows must point to the 7 .* got 7 to 7",
        ),
        (Shifted(torch.zeros(3, 5), torch.arange(3)), 0.0, r"level must be in \(0, 1\), got 0.0"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(after, level, sentence):
    with pytest.raises(ValueError, match=sentence):
        verify(Shifted(torch.zeros(7, 5), torch.arange(7)), after, level)
