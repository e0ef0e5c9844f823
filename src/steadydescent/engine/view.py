"""The networks of a stack as evaluation and probes look at them: everything to read, nothing to
change.

Axes: R replicas, P parameters, Q buffer entries, N examples, D inputs, K classes, T updates.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import vmap

from steadydescent.engine.averaging import Averages, Pair
from steadydescent.engine.evaluation import Look, measure, measure_surface
from steadydescent.engine.examples import Examples
from steadydescent.engine.memory import replicas_at_once, room_on
from steadydescent.engine.stepping import Flat, traced
from steadydescent.engine.tasks import Task
from steadydescent.engine.updating import Training
from steadydescent.normalization import statistics_momentum
from steadydescent.weight_averaging import Readout

STATISTICS_BATCH = 1_000
"""Examples a batch when batch-norm statistics are re-estimated."""
LAST_WEIGHTS = Readout("last")


class View:
    """R replicas of one shape as they stand now; the first `wanted` of them are asked for, others
    fill the stack up.

    `seeds` `[R]` are those of the runs, `optimizer` and `batch_size` what all have in common.
    """

    def __init__(
        self,
        task: Task,
        flat: Flat,
        examples: Examples,
        training: Training,
        readouts: Sequence[Readout],
        seeds: Sequence[int],
        wanted: int,
        optimizer: str,
        batch_size: int,
    ) -> None:
        self.task, self.flat, self.examples, self._training = task, flat, examples, training
        self.readouts, self.seeds, self.wanted = tuple(readouts), tuple(seeds), wanted
        self.optimizer, self.batch_size = optimizer, batch_size
        self.device = examples.pool.device
        self._height = traced(_heights(flat, examples.pool[:1].expand(len(self.seeds), 1, -1)))
        self._start_height = self._height(*self.start) if task.surface else None

    @property
    def done(self) -> int:
        """Updates that have been made."""
        return self._training.done

    @property
    def theta(self) -> Tensor:
        """The weights `[R, P]`; on a GPU an update may write into these, so clone what is kept."""
        return self._training.carry.theta

    @property
    def buffers(self) -> Tensor:
        """The buffers `[R, Q]`, likewise."""
        return self._training.carry.buffers

    @property
    def alive(self) -> Tensor:
        """Which replicas `[R]` have not diverged."""
        return self._training.carry.survived >= self.done

    @property
    def start(self) -> Pair:
        """The first weights `[R, P]` and buffers `[R, Q]`."""
        return self._averages.start

    @property
    def losses(self) -> Tensor:
        """Minibatch losses before each update so far, `[T, R]`."""
        return self._training.losses

    @property
    def latest_rates(self) -> np.ndarray:
        """Rates `[R]` of the last update, before the first those of the first."""
        return self._training.latest_rates

    @property
    def _averages(self) -> Averages:
        return self._training.averages

    def averaged(self, readout: Readout) -> Pair:
        """Weights `[R, P]` of a readout, and its buffers `[R, Q]` averaged as they are."""
        return self._averages.read(readout, self._training.carry, self.done)

    def weights(self, readout: Readout) -> Pair:
        """Weights `[R, P]` of a readout, buffers `[R, Q]` with the statistics that it asks for."""
        theta, buffers = self.averaged(readout)
        if readout.statistics == "copied":
            return theta, self.buffers
        if readout.statistics == "reestimated":
            return theta, self._reestimated(theta, self.examples.look(self.examples.train))
        return theta, buffers

    def outputs(self, readout: Readout, look: Look) -> Tensor:
        """Outputs `[R, N, …, K]` of every replica on its examples, in inference mode."""
        return self._each(self.flat.outputs, *self.weights(readout), look.pool, look.rows)

    def score(self, readout: Readout, look: Look) -> pd.DataFrame:
        """One row a replica: accuracy, loss and calibration error of a readout."""
        theta, buffers = self.weights(readout)
        return self._measured(self.flat.outputs, theta, buffers, look)

    def score_reestimated(
        self, readout: Readout, look: Look, batch: int | None = None
    ) -> pd.DataFrame:
        """The same, with batch-norm statistics from the examples looked at: from all of them, or
        from each `batch` that come together.
        """
        theta, buffers = self.weights(readout)
        if batch:
            return self._measured(self._batch_by_batch(batch), theta, buffers, look)
        if not self.task.surface:
            buffers = self._reestimated(theta, look)
        return self._measured(self.flat.outputs, theta, buffers, look)

    def _measured(
        self, outputs: Callable[..., Tensor], theta: Tensor, buffers: Tensor, look: Look
    ) -> pd.DataFrame:
        diverged = ~self.alive
        if self._start_height is not None:
            return measure_surface(self._height(theta, buffers), self._start_height, diverged)
        logits = lambda rows: self._each(outputs, theta, buffers, look.pool, rows)
        return measure(logits, look.rows, look.targets, diverged)

    def _reestimated(self, theta: Tensor, look: Look) -> Tensor:
        """Buffers `[R, Q]` that these weights give on examples: the mean over batches of their
        statistics, which are those before layers add noise.
        """
        flat = Flat(self.flat.module, STATISTICS_BATCH)
        still = theta.new_zeros(flat.draws)
        forward = lambda theta, buffers, x: flat.forward(theta, buffers, still, x)[1]
        with statistics_momentum(flat.module, 1.0):
            batches = [
                self._each(forward, theta, self.buffers, look.pool, part)
                for part in look.rows.split(STATISTICS_BATCH, dim=1)
            ]
        return torch.stack(batches).mean(0)

    def _batch_by_batch(self, size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Outputs of one replica whose batch norm has the statistics of each `size` inputs, as in
        training.
        """
        flat = Flat(self.flat.module, size)

        def outputs(theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
            batches = x.unflatten(0, (-1, size))
            still, each = theta.new_zeros(flat.draws), buffers.expand(len(batches), -1)
            of_batch = lambda buffers, batch: flat.forward(theta, buffers, still, batch)[0]
            return vmap(of_batch)(each, batches).flatten(0, 1)

        return outputs

    def _each(
        self,
        function: Callable[..., Tensor],
        theta: Tensor,
        buffers: Tensor,
        pool: Tensor,
        rows: Tensor,
    ) -> Tensor:
        """A function of weights, buffers and inputs for every replica and its rows `[R, N]` of a
        pool, stacked.

        Replica after replica on a CPU, where large plain products beat batched ones.
        """
        x = self.task.inputs(pool[rows], self.examples.mean, self.examples.std)
        if self.device.type == "cuda":
            at_once = replicas_at_once(function, (theta, buffers, x), room_on(self.device))
            return vmap(function, chunk_size=at_once)(theta, buffers, x)
        return torch.stack([function(*replica) for replica in zip(theta, buffers, x, strict=True)])


def _heights(flat: Flat, draw: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """f(θ) of a surface for every replica, `[R]`; without noise any draw `[R, 1, D]` will do."""

    def heights(theta: Tensor, buffers: Tensor) -> Tensor:
        return vmap(flat.outputs)(theta, buffers, draw)[:, 0]

    return heights
