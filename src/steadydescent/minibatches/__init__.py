"""Reproducible minibatches: which examples each update sees, how many. Imports `checks` alone.

`streams` has endless minibatches for a stack, `epochs` those of one's own loop, from the seed
alone; `sizes` counts updates, noise and cost for a batch size; `memory` tells what fits.
"""

from steadydescent.minibatches.epochs import EpochBatches
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
from steadydescent.minibatches.streams import IndexStream

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
