"""Concept shift: labels change places in one circle, not a byte of x moves."""

from itertools import pairwise

import pytest
import torch

from shifted_sets import SHIFTS, moved, seeded, signals
from steadydescent.dataset_shift import MOVES, Shifted, label_permutation, shifted_concept, verify


@pytest.mark.parametrize("severity", SHIFTS)
def test_concept_shift_moves_the_rule_and_not_a_byte_of_x(severity):
    before = signals(count=2000)
    content = before.x.numpy().tobytes()
    after = shifted_concept(before.x, before.y, severity, classes=10, generator=seeded())
    table = verify(before, after).set_index("aspect")
    assert table.moved.to_dict() == MOVES["concept"]
    assert table.statistic["p(y|x)"] == pytest.approx(severity / 5)  # of equally frequent classes
    assert table.statistic["p(x)"] == table.statistic["p(y)"] == 0
    assert (
        after.x is before.x
        and after.x.numpy().tobytes() == content
        and after.rows.equal(torch.arange(2000))
    )


@pytest.mark.parametrize("severity", range(6))
@pytest.mark.parametrize("classes", [10, 15])
def test_labels_of_the_taken_classes_pass_on_in_one_circle(severity, classes):
    new = label_permutation(classes, severity, generator=seeded(7)).tolist()
    assert sorted(new) == list(range(classes))
    taken = [k for k in range(classes) if new[k] != k]
    assert len(taken) == severity * classes // 5
    if taken:
        circle, k = [taken[0]], new[taken[0]]
        while k != taken[0]:
            circle.append(k)
            k = new[k]
        assert sorted(circle) == taken


def test_labels_are_exchanged_class_by_class_and_back():
    y = torch.randint(10, (173,), generator=seeded())
    new = label_permutation(10, 3, generator=seeded(2))
    after = shifted_concept(torch.zeros(173, 3), y, 3, classes=10, generator=seeded(2))
    assert after.y.tolist() == [new[label].item() for label in y]
    assert torch.equal(new.argsort()[after.y], y)


def test_a_class_that_is_taken_stays_taken_and_seeds_take_others():
    taken = [
        set(
            (label_permutation(10, s, generator=seeded(5)) != torch.arange(10))
            .nonzero()
            .flatten()
            .tolist()
        )
        for s in range(6)
    ]
    assert all(fewer < more for fewer, more in pairwise(taken)) and taken[0] == set()
    state = torch.get_rng_state()
    assert (
        len(
            {tuple(label_permutation(10, 1, generator=seeded(seed)).tolist()) for seed in range(30)}
        )
        > 10
    )
    assert torch.equal(
        label_permutation(10, 4, generator=seeded(1)), label_permutation(10, 4, generator=seeded(1))
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_unequal_classes_that_change_labels_move_p_y_too_and_are_seen_to():
    y = torch.tensor([0] * 500 + [1] * 100)
    before = Shifted(torch.randn(600, 3, generator=seeded()), y)
    after = shifted_concept(before.x, y, 5, classes=2, generator=seeded())
    assert after.y.bincount().tolist() == [100, 500]
    assert moved(before, after)["p(y)"]


def test_severity_0_keeps_every_label():
    same = shifted_concept(signals().x, signals().y, 0, classes=10, generator=seeded())
    assert torch.equal(same.y, signals().y) and not any(moved(signals(), same).values())


def test_too_few_classes_to_exchange_are_refused():
    with pytest.raises(
        ValueError, match="severity 1 would exchange 1 of 4 labels; it takes at least 2"
    ):
        label_permutation(4, 1, generator=seeded())
    with pytest.raises(ValueError, match="labels must be below classes = 10, got 10"):
        shifted_concept(torch.zeros(11, 2), torch.arange(11), 1, classes=10, generator=seeded())
