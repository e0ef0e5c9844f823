"""The engine: runs of one shape → one stack → their histories. The only place that trains.

Axes: R replicas, P parameters, Q buffer entries, T updates.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from steadydescent.engine.averaging import Averages, Pair
from steadydescent.engine.blocks import RECORDED, Block, Feed, one_by_one, recorded
from steadydescent.engine.draws import draws_of
from steadydescent.engine.examples import examples_of
from steadydescent.engine.finals import finals
from steadydescent.engine.probes import made_for
from steadydescent.engine.recorder import Histories, Recorder
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.shifted_tests import Shift
from steadydescent.engine.stack_rates import PlannedRates, PlateauRates, Rates
from steadydescent.engine.stepping import Carry, Flat, prepared
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import find, initial_model
from steadydescent.engine.updating import Training
from steadydescent.engine.view import LAST_WEIGHTS, View
from steadydescent.optimizers import RULES
from steadydescent.schedules import Plateau
from steadydescent.weight_averaging import Readout

LONGEST_SILENCE = 3 * RECORDED
"""Updates between two signs of life."""


def initial_weights(task: str, seed: int) -> nn.Module:
    """The task's model as initialised for a run's seed, whatever its normalisation."""
    return initial_model(task, stream_seed(find(task).source, seed, "weights"))


class Stack:
    """R runs of one shape, trained together as one tensor program.

    `training` makes the updates, `view` is how evaluation and probes see the networks, `examples`
    are what they learn from; `wanted` are the runs that were asked for, `runs` all replicas.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        root: Path,
        device: str = "cpu",
        compile: bool = True,
        width: int = 0,
        graph: bool = True,
    ) -> None:
        """With a `width` above R, replicas of the last run fill the stack up, so that one compiled
        shape serves all. On a GPU updates are replayed from a CUDA `graph`.
        """
        if len({run.shape for run in runs}) != 1:
            raise ValueError("runs of a stack must agree in all but seed, rate and schedule")
        first, seeds = runs[0], sorted({run.seed for run in runs})
        self.wanted, self.first = list(runs), first
        self.runs = self.wanted + [runs[-1]] * (width - len(runs))
        self.task, self.readouts = find(first.task), [*map(Readout.parse, first.readouts)]
        self.flat, self.step = prepared(first.task, first.optimizer, first.batch_size, compile)
        places = [run.seed for run in self.runs]
        self.rates = _rates(self.runs)
        self.examples = examples_of(self.task, places, root, device, bool(self.rates.observed))
        self.data = self.examples.data
        start = _start(self.flat, self.runs, device)
        averages = Averages(self.readouts, first.steps, start)
        ahead = min(LONGEST_SILENCE, first.steps)
        draws = draws_of(self.task, seeds, self.examples, first.batch_size, self.flat.draws, ahead)
        self.training = Training(
            _carry(first.optimizer, start, averages.empty()),
            self._block(device, graph),
            draws,
            self.rates,
            averages,
        )
        self.view = View(
            self.task,
            self.flat,
            self.examples,
            self.training,
            self.readouts,
            places,
            len(self.wanted),
            first.optimizer,
            first.batch_size,
        )
        self.probes = made_for(first.probes)
        self.recorder = Recorder(self.wanted)
        total, points = first.steps, first.curve_points
        self.curve_steps = [round(total * (i + 1) / points) for i in range(points)]
        stops = {*self.curve_steps, *averages.marks, *self.rates.observed, total}
        stops.update(*(probe.looks_at(self.curve_steps) for probe in self.probes))
        self.stops = sorted({*stops, *range(LONGEST_SILENCE, total, LONGEST_SILENCE)})

    def _block(self, device: str, graph: bool) -> Block:
        lane = self.examples.lane.to(device)
        feed = Feed(self.examples.pool, lane, self.examples.mean, self.examples.std)
        plain = one_by_one(self.step, feed)
        return recorded(plain) if device == "cuda" and graph else plain

    def train(self, tick: Callable[[int], None] = lambda replica_steps: None) -> Histories:
        """Train to the end; `tick` is given the replica-steps done, block by block."""
        began = time.perf_counter()
        with torch.no_grad():
            for stop in self.stops:
                updates = stop - self.training.done
                self.training.advance(stop)
                tick(updates * len(self.runs))
                if stop in self.curve_steps:
                    self._add_point()
                for probe in self.probes:
                    if stop in probe.looks_at(self.curve_steps):
                        self.recorder.add_findings(probe.look(self.view))
                if stop in self.rates.observed:
                    monitor = self.examples.look(self.examples.monitor)
                    self.rates.observe(self.view.score(LAST_WEIGHTS, monitor).loss.to_numpy())
            shifts = [Shift.parse(text) for text in self.first.shifts]
            self.recorder.add_finals(finals(self.view, self.first.test, shifts))
        return Histories(
            runs=self.recorder.runs(self.training.carry.survived.tolist()),
            finals=self.recorder.finals(),
            curves=self.recorder.curves(),
            measures=self.recorder.measures(),
            predictions=self.recorder.predictions(),
            seconds=time.perf_counter() - began,
        )

    def _add_point(self) -> None:
        """Evaluate the readouts that mean something on the way, for a point of the curve."""
        if len(self.curve_steps) > 1:
            look = self.examples.look(self.examples.curve)
            for readout in self.readouts:
                if readout.along:
                    score = self.view.score(readout, look)
                    self.recorder.add_point(score, readout, self.training.done)


def _rates(runs: Sequence[Run]) -> Rates:
    """The rates of runs of one shape."""
    first = runs[0]
    name, options = read(first.schedule)
    if name != "plateau":
        return PlannedRates(np.stack([run.rates() for run in runs], axis=1))
    every = options.pop("every", first.epoch)
    return PlateauRates(Plateau(**options), [run.lr for run in runs], every, first.steps)


def _start(flat: Flat, runs: Sequence[Run], device: str) -> Pair:
    """The first weights `[R, P]` and buffers `[R, Q]`; runs of one seed start alike."""
    packed = {run.seed: flat.pack(initial_weights(run.task, run.seed)) for run in runs}
    theta, buffers = zip(*(packed[run.seed] for run in runs), strict=True)
    return torch.stack(theta).to(device), torch.stack(buffers).to(device)


def _carry(optimizer: str, start: Pair, averages: Pair) -> Carry:
    """What updates change, before the first."""
    theta, buffers = start
    survived = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    return Carry(theta, buffers, RULES[read(optimizer).name].init(theta), averages, survived)
