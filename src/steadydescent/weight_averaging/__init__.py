"""Weight averaging: readouts of a trajectory for the engine, and averages of a module for anyone's
own loop.
"""

from steadydescent.weight_averaging.checkpoint_averages import average_checkpoints, last_checkpoints
from steadydescent.weight_averaging.checkpoint_files import DamagedCheckpoint
from steadydescent.weight_averaging.checkpoints import Stateful, load_checkpoint, save_checkpoint
from steadydescent.weight_averaging.ema import EMA
from steadydescent.weight_averaging.mixing import Debiased, Mixing, Ramped, Started, TailMean
from steadydescent.weight_averaging.readouts import (
    KINDS,
    Readout,
    checkpoint_weights,
    coefficients,
    ema_weights,
    mix,
    parse,
    ramped_weights,
    snapshot_weights,
    tail_weights,
)
from steadydescent.weight_averaging.shadow import Shadow

__all__ = [
    "EMA",
    "KINDS",
    "DamagedCheckpoint",
    "Debiased",
    "Mixing",
    "Ramped",
    "Readout",
    "Shadow",
    "Started",
    "Stateful",
    "TailMean",
    "average_checkpoints",
    "checkpoint_weights",
    "coefficients",
    "ema_weights",
    "last_checkpoints",
    "load_checkpoint",
    "mix",
    "parse",
    "ramped_weights",
    "save_checkpoint",
    "snapshot_weights",
    "tail_weights",
]
