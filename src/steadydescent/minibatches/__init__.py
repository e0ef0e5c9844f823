"""Reproducible minibatches: which examples each update sees, from the seed alone; how many, and
their noise.
"""

from steadydescent.minibatches.memory import (
    OUT_OF_MEMORY,
    activation_bytes,
    largest_that_fits,
    memory_bound,
)
from steadydescent.minibatches.sizes import (
    POWERS_OF_TWO,
    SMALL_DATA,
    noise_factor,
    recommended_batch_sizes,
    regularised_cost,
    updates_per_epoch,
)
from steadydescent.minibatches.streams import EpochBatches, IndexStream

__all__ = [
    "OUT_OF_MEMORY",
    "POWERS_OF_TWO",
    "SMALL_DATA",
    "EpochBatches",
    "IndexStream",
    "activation_bytes",
    "largest_that_fits",
    "memory_bound",
    "noise_factor",
    "recommended_batch_sizes",
    "regularised_cost",
    "updates_per_epoch",
]
