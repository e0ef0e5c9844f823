"""Averages of weights. Imports `averages`, `checks` and `files`.

For anyone's own loop: `ema`, an average that is itself a module; `shadow`, one as tensors beside
the model; `checkpoints` and `checkpoint_averages`, files and their mean. `mixing` has the weights
with which an average takes new values in. For the engine: `readouts`, averages of a trajectory.

The rest serves these. `named_tensors` says what a module holds, `comparing` where two differ,
`snapshots`, `loading` and `copying` keep, load and copy it; `checkpoint_files`, `packing`,
`unpacking` and `named_slots` are the parts of a checkpoint.
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
