"""Weight averaging: readouts of a trajectory for the engine, and averages of a module for anyone's own loop."""

from steadydescent.weight_averaging.readouts import (
    KINDS,
    Readout,
    checkpoint_weights,
    coefficients,
    ema_weights,
    mix,
    parse,
    ramped_weights,
    tail_weights,
)

__all__ = [
    "KINDS",
    "Readout",
    "checkpoint_weights",
    "coefficients",
    "ema_weights",
    "mix",
    "parse",
    "ramped_weights",
    "tail_weights",
]
