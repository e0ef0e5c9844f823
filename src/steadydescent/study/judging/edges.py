"""How often tuning, done afresh, would end at the edge of what was tried."""

from collections.abc import Sequence

import numpy as np

from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.statistics import Scores, shares
from steadydescent.weight_averaging import Readout

LOWEST, HIGHEST, LONGEST_READOUT = "lowest rate", "highest rate", "readout"


def edge_shares(scores: Scores, labels: Sequence[Candidate]) -> dict[str, float]:
    """Edge → share of the redraws of `tuned` whose choice lies on it, 0 to 1.

    `lowest rate` and `highest rate` are the outermost that report seeds ran, where there are
    several; `readout` is the longest window or tail, or the most checkpoints, where there are
    several of a kind. A shorter window has the last weights as its limit, and a snapshot has the
    run's end: no edge lies there. Of the candidates of several arms each arm has edges of its own.

    Args:
        scores: `[S, C]` and so on, of the candidates.
        labels: what the C candidates are.

    Raises:
        ValueError: for another number of labels than of candidates.
    """
    part = shares(scores)
    if len(part) != len(labels):
        raise ValueError(f"labels must be those of {len(part)} candidates, got {len(labels)}")
    on = {
        LOWEST: _outermost(labels, -1),
        HIGHEST: _outermost(labels, 1),
        LONGEST_READOUT: _longest(labels),
    }
    return {edge: float(part[mask].sum()) for edge, mask in on.items()}


def _outermost(labels: Sequence[Candidate], side: int) -> np.ndarray:
    """Which candidates lie on their arm's lowest (−1) or highest (1) rate."""
    rates: dict[object, set[float]] = {}
    for label in labels:
        rates.setdefault(label.place, set()).add(side * label.lr)
    return np.array(
        [
            len(rates[label.place]) > 1 and side * label.lr == max(rates[label.place])
            for label in labels
        ]
    )


def _longest(labels: Sequence[Candidate]) -> np.ndarray:
    """Which candidates have the largest number of their kind of average."""
    numbers: dict[object, set[float]] = {}
    kinds: list[tuple[object, float | None]] = []
    for label in labels:
        readout = Readout.parse(label.readout)
        number = None if readout.one_step else readout.number
        kinds.append(((label.place, readout.kind, readout.statistics), number))
        if number is not None:
            numbers.setdefault(kinds[-1][0], set()).add(number)
    return np.array(
        [
            number is not None and len(numbers[kind]) > 1 and number == max(numbers[kind])
            for kind, number in kinds
        ]
    )
