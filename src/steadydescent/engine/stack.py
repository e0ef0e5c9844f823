"""The engine: runs of one shape → one stack → their histories. The only place that trains.

Axes: R replicas, P parameters, Q buffer entries, T updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from steadydescent.engine.averaging import Averages, Pair
from steadydescent.engine.blocks import RECORDED, Lanes, one_by_one, recorded
from steadydescent.engine.draws import draws_of
from steadydescent.engine.examples import examples_of
from steadydescent.engine.finals import Final, finals, shifted_finals
from steadydescent.engine.probes import made_for
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.shifted_tests import Shift
from steadydescent.engine.stack_rates import PlannedRates, PlateauRates, Rates
from steadydescent.engine.stepping import Carry, Feed, Flat, prepared
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import find, initial_model
from steadydescent.engine.updating import Training
from steadydescent.engine.view import LAST_WEIGHTS, View
from steadydescent.optimizers import RULES
from steadydescent.schedules import Plateau
from steadydescent.weight_averaging import Readout

if TYPE_CHECKING:
    from steadydescent.engine.recorder import Histories

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
        lanes: int = 0,
        graph: bool = True,
    ) -> None:
        """So many `lanes` are updated together, all R unless told otherwise; replicas of the last
        run fill the last group up, so that one compiled shape serves all. On a GPU updates are
        replayed from a CUDA `graph`.
        """
        from steadydescent.engine.recorder import Recorder  # and pandas with it

        if len({run.shape for run in runs}) != 1:
            raise ValueError("runs of a stack must agree in all but seed, rate and schedule")
        first, seeds = runs[0], sorted({run.seed for run in runs})
        self.wanted, self.first = list(runs), first
        self.lanes = lanes or len(runs)
        self.runs = self.wanted + [runs[-1]] * (-len(runs) % self.lanes)
        self.task, self.readouts = find(first.task), [*map(Readout.parse, first.readouts)]
        self.flat, self.step = prepared(
            first.task, first.optimizer, first.batch_size, compile, together=self.lanes > 1
        )
        places = [run.seed for run in self.runs]
        self.rates = _rates(self.runs)
        self.examples = examples_of(self.task, places, root, device, bool(self.rates.observed))
        self.data = self.examples.data
        start = _start(self.flat, self.runs, device)
        averages = Averages(self.readouts, first.steps, start)
        ahead = min(LONGEST_SILENCE, first.steps)
        draws = draws_of(self.task, seeds, self.examples, first.batch_size, self.flat.draws, ahead)
        carry = _carry(self.flat, first.optimizer, start, len(averages.dense))
        self.groups = self._groups(carry, device)
        block = one_by_one(self.step, self.groups)
        block = recorded(block, carry) if device == "cuda" and graph else block
        self.training = Training(carry, block, draws, self.rates, averages)
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

    def _groups(self, carry: Carry, device: str) -> list[Lanes]:
        """The replicas in groups of `lanes`; one alone is without an axis for it."""
        examples, groups = self.examples, []
        for start in range(0, len(self.runs), self.lanes):
            part = slice(start, start + self.lanes)
            place: slice | int = part if self.lanes > 1 else start
            feed = Feed(examples.mean[place], examples.std[place])
            seats = examples.lane.to(device)[place]
            groups.append(Lanes(carry.lanes(part), feed, examples.pool, seats, part))
        return groups

    def train(self, tick: Callable[[int], None] = lambda replica_steps: None) -> Histories:
        """Train to the end; `tick` is given the replica-steps done, block by block."""
        from steadydescent.engine.recorder import Histories

        began = time.perf_counter()
        with torch.no_grad():
            for stop in self.stops:
                updates = stop - self.training.done
                self.training.advance(stop)
                tick(updates * len(self.runs))
                if stop in self.curve_steps:
                    with self.recorder.timed("curves"):
                        self._add_point()
                for probe in self.probes:
                    if stop in probe.looks_at(self.curve_steps):
                        with self.recorder.timed("probes"):
                            self.recorder.add_findings(probe.look(self.view))
                if stop in self.rates.observed:
                    monitor = self.examples.look(self.examples.monitor)
                    with self.recorder.timed("monitor"):
                        self.rates.observe(self.view.score(LAST_WEIGHTS, monitor).loss)
            with self.recorder.timed("finals"):
                self.recorder.add_finals(finals(self.view, self.first.test))
            with self.recorder.timed("shifts"):
                self.recorder.add_finals(self._shifted_finals())
        return Histories(
            runs=self.recorder.runs(self.training.survived.tolist()),
            finals=self.recorder.finals(),
            curves=self.recorder.curves(),
            measures=self.recorder.measures(),
            predictions=self.recorder.predictions(),
            seconds=time.perf_counter() - began,
            evaluation=dict(self.recorder.evaluation),
        )

    def _shifted_finals(self) -> Iterator[Final]:
        """Scores on shifted test sets, of the readouts that are asked for."""
        shifts = [Shift.parse(text) for text in self.first.shifts]
        asked = self.first.shifted_readouts or self.first.readouts
        return shifted_finals(self.view, shifts, [Readout.parse(text) for text in asked])

    def _add_point(self) -> None:
        """Evaluate the readouts that mean something on the way, for a point of the curve."""
        if len(self.curve_steps) > 1:
            look = self.examples.look(self.examples.curve)
            along = [readout for readout in self.readouts if readout.along]
            for readout, scores in zip(along, self.view.scores(along, look), strict=True):
                self.recorder.add_point(scores, readout, self.training.done)


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


def _carry(flat: Flat, optimizer: str, start: Pair, averages: int) -> Carry:
    """What updates change, before the first: each parameter in memory of its own."""
    theta, buffers = start
    apart = lambda pieces: tuple(piece.clone() for piece in pieces)
    zeros = lambda pieces: tuple(torch.zeros_like(piece) for piece in pieces)
    weights = apart(flat.split(theta, flat.parameters))
    statistics = apart(flat.split(buffers, flat.buffers))
    slots = [RULES[read(optimizer).name].init(weight) for weight in weights]
    return Carry(
        weights,
        statistics,
        tuple(zip(*slots, strict=True)),
        tuple(zeros(weights) for _ in range(averages)),
        tuple(zeros(statistics) for _ in range(averages)),
    )
