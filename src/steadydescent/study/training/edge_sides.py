"""On which sides of an arm's reported rates the redraws of its tuning crowd."""

from contextlib import suppress

from steadydescent.study.judging.choosing import BY_STEPS
from steadydescent.study.judging.edges import HIGHEST, LOWEST, edge_shares
from steadydescent.study.judging.evidence import Evidence

MOST_ON_EDGE = 0.1
"""With a larger share of redraws on the outermost reported rate the optimum may lie beyond."""


def crowded_sides(evidence: Evidence, condition: str, arm: str) -> set[int]:
    """−1 and 1 for the sides on which more than `MOST_ON_EDGE` of an arm's redraws, by one of the
    ways of tuning, choose the outermost rate that report seeds ran.

    Where that rate is no candidate, as one that loses runs, further rates would be none either.
    """
    runs = evidence.runs(condition, arm)
    reported = runs[runs.test].lr
    ends = {-1: (LOWEST, reported.min()), 1: (HIGHEST, reported.max())}
    found: set[int] = set()
    for by in evidence.tune_by:
        measure = BY_STEPS if by == BY_STEPS else evidence.main_measure
        with suppress(ValueError):  # an average has no steps to a target
            candidates = evidence.candidates(condition, arm, measure, by)
            part = edge_shares(candidates.scores, candidates.labels)
            rates = {label.lr for label in candidates.labels}
            found |= {
                side
                for side, (edge, rate) in ends.items()
                if part[edge] > MOST_ON_EDGE and rate in rates
            }
    return found
