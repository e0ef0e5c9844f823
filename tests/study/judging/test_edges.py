"""How often tuning ends at an edge: against plain loops over the same redraws."""

import numpy as np
import pytest

from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.edges import edge_shares
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import Scores, shares

HERE, THERE = Place("constant", "ema"), Place("constant", "tail")


def certain(best: int, count: int) -> Scores:
    """Scores of which one candidate is always the best."""
    tuning = np.zeros((3, count))
    tuning[:, best] = 1.0
    return Scores(tuning, np.zeros((4, count)))


def test_shares_are_those_of_tunings_done_afresh():
    """Two candidates tie on two seeds with 1 and −1: the first loses when the second seed comes
    twice (a quarter of the draws); of equals the first is taken.
    """
    scores = Scores(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros((2, 2)))
    assert shares(scores) == pytest.approx([0.75, 0.25], abs=0.02)
    pooled = scores._replace(validation=np.array([[-9.0, 0.0], [-9.0, 0.0]]))
    # of 16 draws of two seeds, the first candidate is ahead, or level, in three
    assert shares(pooled) == pytest.approx([3 / 16, 13 / 16], abs=0.02)


GRID = [(lr, readout) for lr in (0.1, 0.2, 0.4) for readout in ("ema-2", "ema-10", "ema-30")]


@pytest.mark.parametrize(
    ("best", "edges"),
    [
        ((0.1, "ema-2"), {"lowest rate"}),
        ((0.2, "ema-2"), set()),
        ((0.2, "ema-30"), {"readout"}),
        ((0.4, "ema-30"), {"highest rate", "readout"}),
    ],
)
def test_edges_are_the_outermost_rates_and_the_longest_window(best, edges):
    labels = [Candidate(*one, HERE) for one in GRID]
    found = edge_shares(certain(GRID.index(best), len(GRID)), labels)
    assert found == {e: float(e in edges) for e in ("lowest rate", "highest rate", "readout")}


def test_what_has_no_choice_has_no_edge():
    """One rate, one window of a kind, and snapshots, which end with the run."""
    labels = [Candidate(0.1, name, HERE) for name in ("ema-10", "tail-25", "at-85", "at-95")]
    for best in range(4):
        assert set(edge_shares(certain(best, 4), labels).values()) == {0.0}


def test_each_of_several_arms_has_its_own_edges():
    """0.2 is the highest of one grid and the middle of the other."""
    labels = [Candidate(lr, "last", HERE) for lr in (0.1, 0.2)]
    labels += [Candidate(lr, "last", THERE) for lr in (0.1, 0.2, 0.4)]
    assert edge_shares(certain(1, 5), labels)["highest rate"] == 1.0
    assert edge_shares(certain(3, 5), labels)["highest rate"] == 0.0


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="of 2 candidates, got 1"):
        edge_shares(certain(0, 2), [Candidate(0.1, "last", HERE)])
