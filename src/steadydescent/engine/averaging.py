"""Running averages of a stack's weights for its readouts.

Axes: k updates, T of the run, R replicas, P parameters, Q buffer entries, K averages.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steadydescent.engine.stepping import Carry
from steadydescent.weight_averaging import Readout, mix

Pair = tuple[Tensor, Tensor]
"""Weights `[R, P]` and buffers `[R, Q]`."""


def accumulators(readouts: Sequence[Readout], steps: int) -> dict[Readout, NDArray[np.float64]]:
    """The running averages that readouts of a run are read from, with their mixing weights."""
    weights = {readout.accumulator: readout.weights(steps) for readout in readouts}
    return {name: array for name, array in weights.items() if array is not None}


class Averages:
    """The accumulators that the readouts of a run of T updates are read from.

    Those that move at every update ride in the compiled step, those of a few updates' weights are
    moved between blocks.
    """

    def __init__(self, readouts: Sequence[Readout], steps: int, start: Pair) -> None:
        self.steps, self.start = steps, start
        weights = accumulators(readouts, steps)
        self.sparse = {name: array for name, array in weights.items() if name.sparse}
        self.dense = {name: array for name, array in weights.items() if not name.sparse}
        zeros = lambda tensor: tensor.new_zeros(tensor.shape)
        self.checkpoints = {name: (zeros(start[0]), zeros(start[1])) for name in self.sparse}

    @property
    def marks(self) -> set[int]:
        """The updates after which `take_in` has something to do."""
        return {int(i) + 1 for array in self.sparse.values() for i in np.flatnonzero(array)}

    def mixing(self, start: int, stop: int) -> NDArray[np.float64]:
        """Mixing weights `[k, K]` of the updates start + 1 … stop.

        The array is filled, not transposed: a compiled step is compiled again for other strides.
        """
        mixing = np.zeros((stop - start, len(self.dense)))
        for k, array in enumerate(self.dense.values()):
            mixing[:, k] = array[start:stop]
        return mixing

    def take_in(self, carry: Carry, step: int) -> None:
        """Move the averages of a few updates' weights after one of these."""
        for name, array in self.sparse.items():
            if weight := float(array[step - 1]):
                pairs = zip(self.checkpoints[name], carry.weights, strict=True)
                theta, buffers = (mix(average, now, weight) for average, now in pairs)
                self.checkpoints[name] = theta, buffers

    def read(self, readout: Readout, carry: Carry, done: int) -> Pair:
        """Weights and averaged buffers of a readout after `done` updates."""
        name = readout.accumulator
        if name in self.checkpoints:
            return self.checkpoints[name]
        if name not in self.dense:
            return carry.weights
        theta, buffers = carry.average(list(self.dense).index(name))
        if not (whole := readout.start_share(self.steps)):
            return theta, buffers
        share = whole ** (done / self.steps)  # β^T → β^t
        return mix(theta, self.start[0], share), mix(buffers, self.start[1], share)
