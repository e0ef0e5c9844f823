"""How good a search for a learning rate is, judged on a dense sweep.

Its regret is the accuracy that the rate it chooses gives away. Nothing is trained here. A search is
replayed on the networks of the sweep, as often as one likes. Axes: G rates of a sweep, S tuning
seeds, S' report seeds, N trials of a search, D searches, C candidates. Scores are in percent,
better when higher; regrets in percentage points (pp), better when lower.
"""

from steadydescent.study.judging.regret.evidence_sweep import dense_sweep
from steadydescent.study.judging.regret.expected import FIRST_ROUNDS
from steadydescent.study.judging.regret.range_test import range_test_estimates, range_test_regret
from steadydescent.study.judging.regret.searches import (
    METHODS,
    TRIALS,
    best_of_k,
    gain_and_parts,
    regrets,
    search_gain,
    searched,
)
from steadydescent.study.judging.regret.sweep import Sweep, interval_of_parts

__all__ = [
    "FIRST_ROUNDS",
    "METHODS",
    "TRIALS",
    "Sweep",
    "best_of_k",
    "dense_sweep",
    "gain_and_parts",
    "interval_of_parts",
    "range_test_estimates",
    "range_test_regret",
    "regrets",
    "search_gain",
    "searched",
]
