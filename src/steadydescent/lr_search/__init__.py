"""Searching for a learning rate: at random, from coarse to fine, and by a range test (viblo-lr)."""

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
