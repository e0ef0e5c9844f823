"""Searching for a learning rate (viblo-lr). Imports `averages`, `checks` and `schedules`.

`random_search` searches at random and from coarse to fine; `ranging` raises the rate and records
the loss, `suggestions` reads a rate off that curve; `restoring`, with `in_place`, leaves model and
optimiser as they were before a test.
"""

from steadydescent.lr_search.random_search import Search, coarse_to_fine, log_uniform, uniform
from steadydescent.lr_search.ranging import (
    RangeTest,
    ramp,
    range_test,
    rate_step,
    set_rate,
    smoothed,
)
from steadydescent.lr_search.restoring import restored
from steadydescent.lr_search.suggestions import SUGGESTIONS, middle, minimum_tenth, steepest, valley

__all__ = [
    "SUGGESTIONS",
    "RangeTest",
    "Search",
    "coarse_to_fine",
    "log_uniform",
    "middle",
    "minimum_tenth",
    "ramp",
    "range_test",
    "rate_step",
    "restored",
    "set_rate",
    "smoothed",
    "steepest",
    "uniform",
    "valley",
]
