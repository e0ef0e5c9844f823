"""The networks of a stack as evaluation and probes look at them: everything to read, nothing to
change.

Axes: R replicas, P parameters, Q buffer entries, N examples, D inputs, K classes, T updates.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from steadydescent.engine.averaging import Averages, Pair
from steadydescent.engine.evaluation import (
    CHUNK,
    Look,
    Outputs,
    ReplicaScores,
    measure,
    measure_surface,
)
from steadydescent.engine.examples import Examples
from steadydescent.engine.inference import (
    CACHE,
    Pass,
    batch_by_batch,
    batch_statistics,
    chunk,
    inference,
    inputs,
)
from steadydescent.engine.stepping import Flat, Recordings
from steadydescent.engine.tasks import Task
from steadydescent.engine.updating import Training
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
        self.batched = self.device.type == "cuda"
        """Whether all replicas go through a pass as one, or each in its turn."""
        self._anew: dict[Readout, Tensor] = {}
        self._anew_at = -1
        self._height = Recordings(_heights(flat, examples.pool[:1].expand(len(self.seeds), 1, -1)))
        self._start_height = self._height(*self.start) if task.surface else None

    @property
    def done(self) -> int:
        """Updates that have been made."""
        return self._training.done

    @property
    def theta(self) -> Tensor:
        """The weights `[R, P]`."""
        return self._training.carry.weights[0]

    @property
    def buffers(self) -> Tensor:
        """The buffers `[R, Q]`."""
        return self._training.carry.weights[1]

    @property
    def alive(self) -> Tensor:
        """Which replicas `[R]` have not diverged."""
        return self._training.survived >= self.done

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
        return self._pairs([readout])[0]

    def _pairs(self, readouts: Sequence[Readout]) -> list[Pair]:
        """The same of several readouts; what is the same is one tensor."""
        last = self._training.carry.weights
        kept, pairs = {LAST_WEIGHTS.text: last}, []
        for readout in readouts:
            name = readout.text.partition("/")[0]
            if name not in kept:
                kept[name] = self.averaged(readout)
            theta, buffers = kept[name]
            if readout.statistics == "copied":
                buffers = last[1]
            elif readout.statistics == "reestimated":
                buffers = self._reestimated_now(readout, theta)
            pairs.append((theta, buffers))
        return pairs

    def _reestimated_now(self, readout: Readout, theta: Tensor) -> Tensor:
        """The same buffers for all that look at these weights before the next update."""
        if self._anew_at != self.done:
            self._anew, self._anew_at = {}, self.done
        if readout not in self._anew:
            look = self.examples.look(self.examples.train)
            self._anew[readout] = self._reestimated(theta, look)
        return self._anew[readout]

    def outputs(self, readout: Readout, look: Look) -> Tensor:
        """Outputs `[R, N, …, K]` of every replica on its examples, in inference mode."""
        function, pair = inference(self.task, self.batched), self.weights(readout)
        found: list[list[Tensor]] = [[] for _ in self.seeds]
        for part in self._passes(function, [pair], look, range(len(self.seeds))):
            for place, outputs in zip(part.networks, part.logits, strict=True):
                found[place].append(outputs)
        return torch.stack([torch.cat(parts) for parts in found])

    def score(self, readout: Readout, look: Look) -> ReplicaScores:
        """Accuracy, loss and calibration error `[R]` of a readout."""
        return self.scores([readout], look)[0]

    def scores(self, readouts: Sequence[Readout], look: Look) -> list[ReplicaScores]:
        """The same of several readouts, in one pass over the examples."""
        return self._scored(self._pairs(readouts), look)

    def scores_reestimated(
        self, readouts: Sequence[Readout], look: Look, batch: int | None = None
    ) -> list[ReplicaScores]:
        """The same, with batch-norm statistics from the examples looked at: from all of them, or
        from each `batch` that come together.
        """
        pairs = self._pairs(readouts)
        if not batch and self.flat.buffers:
            pairs = [(theta, self._reestimated(theta, look)) for theta, _ in pairs]
        return self._scored(pairs, look, batch)

    def _scored(
        self, pairs: Sequence[Pair], look: Look, batch: int | None = None
    ) -> list[ReplicaScores]:
        """Scores of K pairs; those whose tensors are the same are looked at once."""
        if self._start_height is not None:
            heights = [self._height(*pair) for pair in pairs]
            return [measure_surface(h, self._start_height, ~self.alive) for h in heights]
        names = [tuple(tensor.data_ptr() for tensor in pair) for pair in pairs]
        distinct = dict(zip(names, pairs, strict=True))
        function = (
            batch_by_batch(self.task, batch, self.batched)
            if batch
            else inference(self.task, self.batched)
        )
        parts = self._passes(function, [*distinct.values()], look, self._asked, batch=batch or 1)
        scores = measure(parts, (~self.alive).repeat(len(distinct)))
        count, last = len(self.seeds), self.wanted - 1
        # what fills the stack up is the last run again
        places = {
            name: k * count + np.minimum(range(count), last) for k, name in enumerate(distinct)
        }
        return [scores.at(places[name]) for name in names]

    @property
    def _asked(self) -> Sequence[int]:
        """The replicas to look at: those that were asked for and have not diverged, at least one.

        What diverged counts as guessing, whatever its outputs.
        """
        if self.batched:
            return range(len(self.seeds))
        return torch.nonzero(self.alive[: self.wanted]).flatten().tolist() or [0]

    def _reestimated(self, theta: Tensor, look: Look) -> Tensor:
        """Buffers `[R, Q]` that these weights give on examples: the mean over batches of their
        statistics, which are those before layers add noise.
        """
        size = min(STATISTICS_BATCH, look.rows.shape[1])
        function = batch_statistics(self.task, size, self.batched)
        parts = [*self._passes(function, [(theta, self.buffers)], look, self._asked, size)]
        mean = torch.zeros_like(self.buffers)
        batches = len(range(0, look.rows.shape[1], size))
        for part in parts:
            mean[list(part.networks)] += part.logits / batches
        return mean

    def _passes(
        self,
        function: Pass,
        pairs: Sequence[Pair],
        look: Look,
        places: Sequence[int],
        size: int = 0,
        batch: int = 1,
    ) -> Iterator[Outputs]:
        """What a function of weights, buffers and inputs gives for the replicas at these places
        under every pair, `size` examples at a time; network k·R + r is replica r under pair k.

        Inputs are made once for all pairs, and once for all replicas of a seed. Network after
        network on a CPU, where large plain products beat batched ones.
        """
        count = len(self.seeds)
        size = size or (
            CHUNK if self.batched else chunk(self.task, self._inputs(look, 0, slice(1)), batch)
        )
        for start in range(0, look.rows.shape[1], size):
            part = slice(start, start + size)
            if self.batched:
                x = self._inputs(look, slice(None), part)
                for k, pair in enumerate(pairs):
                    networks = range(k * count, (k + 1) * count)
                    yield Outputs(networks, function(*pair, x), look.targets[:, part])
                continue
            yield from self._in_turn(function, pairs, look, places, part)

    def _in_turn(
        self,
        function: Pass,
        pairs: Sequence[Pair],
        look: Look,
        places: Sequence[int],
        part: slice,
    ) -> Iterator[Outputs]:
        """A part of the examples through network after network, handed on while it is in the
        cache.
        """
        networks: list[int] = []
        outputs: list[Tensor] = []
        for first, *others in self._by_seed(places):
            x = self._inputs(look, first, part)
            for k, (theta, buffers) in enumerate(pairs):
                for place in (first, *others):
                    outputs.append(function(theta[place], buffers[place], x))
                    networks.append(k * len(self.seeds) + place)
                    if len(outputs) * outputs[0].nbytes >= CACHE:
                        yield self._together(networks, outputs, look, part)
                        networks, outputs = [], []
        if outputs:
            yield self._together(networks, outputs, look, part)

    def _together(
        self, networks: Sequence[int], outputs: Sequence[Tensor], look: Look, part: slice
    ) -> Outputs:
        places = [network % len(self.seeds) for network in networks]
        return Outputs(networks, torch.stack([*outputs]), look.targets[places, part])

    def _inputs(self, look: Look, places: int | slice, part: slice) -> Tensor:
        """Inputs `[n, D]` of a replica for a part of its examples, or `[R, n, D]` of all."""
        rows = look.rows[places, part]
        x = look.pool.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return inputs(self.task)(x, self.examples.mean[places], self.examples.std[places])

    def _by_seed(self, places: Sequence[int]) -> list[list[int]]:
        """Places of replicas, those of a seed together."""
        seats: dict[int, list[int]] = {}
        for place in places:
            seats.setdefault(self.seeds[place], []).append(place)
        return list(seats.values())


def _heights(flat: Flat, draw: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """f(θ) of a surface for every replica, `[R]`; without noise any draw `[R, 1, D]` will do."""

    def heights(theta: Tensor, buffers: Tensor) -> Tensor:
        return vmap(flat.outputs)(theta, buffers, draw)[:, 0]

    return heights
