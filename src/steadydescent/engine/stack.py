"""The engine: runs of one shape → one stack → their histories. The only place that trains.

Axes: R replicas, B batch, P parameters, Q buffer entries, K averaged readouts, T steps, D inputs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import vmap

from steadydescent.engine.blocks import RECORDED, Batches, Draws, Feed, one_by_one, recorded
from steadydescent.engine.data import load
from steadydescent.engine.data.task_data import first_examples, wrong_labels
from steadydescent.engine.evaluation import measure, measure_surface
from steadydescent.engine.probes import PROBES, predicted_classes
from steadydescent.engine.runs import Run, stream_seed
from steadydescent.engine.settings import read
from steadydescent.engine.stepping import Carry, Flat, prepared, traced
from steadydescent.engine.tasks import find, initial_model
from steadydescent.engine.tasks.shifted_tests import Look, frozen, reestimates, shifted_test
from steadydescent.minibatches import IndexStream
from steadydescent.normalization import statistics_momentum
from steadydescent.optimizers import RULES
from steadydescent.schedules import Plateau
from steadydescent.weight_averaging import Readout, mix, parse

CURVE_EXAMPLES = 2_000
"""Validation examples looked at along training; they draw curves and decide nothing."""
TRAIN_EXAMPLES = 4_000
"""Training examples looked at in the end, for the gap to test accuracy and to re-estimate
batch-norm statistics.
"""
MONITOR_EVERY = 4
"""A plateau schedule watches every fourth validation example; such a run is evaluated on the
others.
"""
PROBED = 3
"""At about so many points of the curve the costly probes look; all others look at every point."""
LONGEST = 3 * RECORDED
"""Updates between two signs of life."""
STATISTICS_BATCH = 1_000
"""Examples a batch when batch-norm statistics are re-estimated."""


@dataclass(frozen=True)
class Histories:
    """What a stack leaves behind: tidy tables, one row a run, a (run, readout, split), a (run,
    step, readout), and a (run, readout, measure, step) for what its probes found; predicted classes
    where they were asked for.
    """

    runs: pd.DataFrame
    finals: pd.DataFrame
    curves: pd.DataFrame
    measures: pd.DataFrame
    predictions: pd.DataFrame
    seconds: float


def initial_weights(task: str, seed: int) -> nn.Module:
    """The task's model as initialised for a run's seed, whatever its normalisation."""
    return initial_model(task, stream_seed(find(task).source, seed, "weights"))


def on_curves(run: Run) -> list[str]:
    """Readouts that mean something in the middle of a run: those that do not wait for its end."""
    return [
        name
        for name in run.readouts
        if (name == "last" or name.startswith("ema")) and "/" not in name
    ]


def evaluated(run: Run, validation: int, test: int) -> int:
    """Examples × readouts that a run's evaluations look at, given the sizes of the validation and
    test sets.
    """
    train = TRAIN_EXAMPLES
    if find(run.task).surface:  # f(θ) alone
        validation = test = train = 1
    point = len(on_curves(run)) * min(CURVE_EXAMPLES, validation) if run.curve_points > 1 else 0
    point += train if "training-loss" in run.probes else 0
    shifts = (
        run.shifts
        if "batch" in (find(run.task).norm or "")
        else {frozen(shift) for shift in run.shifts}
    )
    end = validation + (test * (1 + len(shifts)) + train if run.test else 0)
    return run.curve_points * point + end * len(run.readouts)


def looks(run: Run) -> int:
    """How many times the costly probes look at a run."""
    points = len(range(0, run.curve_points, max(1, run.curve_points // PROBED)))
    return points * sum(probe in PROBES for probe in run.probes)


class Stack:
    """R runs of one shape, trained together as one tensor program."""

    def __init__(
        self,
        runs: Sequence[Run],
        root: Path,
        device: str = "cpu",
        compile: bool = True,
        width: int = 0,
    ) -> None:
        """With a `width` above R, replicas of the last run fill the stack up, so that one compiled
        shape serves all.
        """
        if len({run.shape for run in runs}) != 1:
            raise ValueError("runs of a stack must agree in all but seed, rate and schedule")
        self.wanted, self.device, self.first = list(runs), device, runs[0]
        self.runs = self.wanted + [runs[-1]] * (width - len(runs))
        self.task = find(self.first.task)
        self.flat, self.step = prepared(
            self.first.task, self.first.optimizer, self.first.batch_size, compile
        )
        seeds = sorted({run.seed for run in runs})
        self.lane = torch.tensor(
            [seeds.index(run.seed) for run in self.runs]
        )  # [R] → the seed's place in the data
        self.data = first_examples(load(self.task.source, seeds, root), self.task.examples)
        self.pool, self.labels = self.data.pool.to(device), self.data.labels.to(device)
        spread = lambda t: t[self.lane].to(device)[:, None]  # [R, 1, D or 1]
        self.mean, self.std = spread(self.data.mean), spread(self.data.std)
        self.validation = self.data.validation[self.lane]
        self._plan_rates()
        self._plan_readouts()
        self._start()
        if self.task.surface:
            draw = self.pool[:1].expand(
                len(self.runs), 1, -1
            )  # any will do: a height [R] is without noise
            self.height = traced(
                lambda theta, buffers: vmap(self.flat.outputs)(theta, buffers, draw)[:, 0]
            )
            self.start_height = self.height(*self.start)

    def _plan_rates(self) -> None:
        """Rates of the whole run, or a plateau schedule that learns them from validation examples
        of its own.
        """
        name, options = read(self.first.schedule)
        self.plateau: Plateau | None = None
        self.observed: set[int] = set()
        if name != "plateau":
            self.rates = np.stack([run.rates() for run in self.runs], axis=1)  # [T, R]
            return
        every = options.pop("every", self.first.epoch)
        self.plateau = Plateau(**options)
        self.observed = set(range(every, self.first.steps, every))
        self.plateau_state = self.plateau.init(len(self.runs))
        held_back = torch.arange(self.validation.shape[1]) % MONITOR_EVERY == 0
        self.monitor, self.validation = (
            self.validation[:, held_back],
            self.validation[:, ~held_back],
        )
        self.peaks = np.array([run.lr for run in self.runs])

    def _plan_readouts(self) -> None:
        """Accumulators that move at every step ride in the compiled step, those of checkpoints
        between chunks.
        """
        total = self.first.steps
        parsed = [parse(name, total) for name in self.first.readouts]
        self.readouts = [readout for readout, _ in parsed]
        weights = {readout.source: w for readout, w in parsed if w is not None}
        self.sparse = {
            name: w for name, w in weights.items() if name.startswith(("checkpoints-", "at-"))
        }
        self.dense = {name: w for name, w in weights.items() if name not in self.sparse}
        points = self.first.curve_points
        self.curve_steps = [round(total * (i + 1) / points) for i in range(points)]
        marks = {int(i) + 1 for w in self.sparse.values() for i in np.flatnonzero(w)}
        self.boundaries = sorted(
            {*self.curve_steps, *marks, *self.observed, *range(LONGEST, total, LONGEST), total}
        )

    def _start(self) -> None:
        models = {
            run.seed: self.flat.pack(initial_weights(run.task, run.seed)) for run in self.runs
        }
        theta, buffers = (
            torch.stack([models[run.seed][i] for run in self.runs]).to(self.device) for i in (0, 1)
        )
        zeros = lambda t, k: t.new_zeros(k, *t.shape)
        averages = (zeros(theta, len(self.dense)), zeros(buffers, len(self.dense)))
        self.start = (theta, buffers)
        survived = torch.zeros(len(self.runs), dtype=torch.int64, device=self.device)
        self.carry = Carry(
            theta, buffers, RULES[read(self.first.optimizer).name].init(theta), averages, survived
        )
        self.checkpoints = {
            name: (torch.zeros_like(theta), torch.zeros_like(buffers)) for name in self.sparse
        }
        examples, size = self.data.train.shape[1], self.first.batch_size
        stream = lambda seed, purpose: stream_seed(self.task.source, seed, purpose)
        seeds = sorted({run.seed for run in self.runs})
        order = [
            IndexStream(examples, size, stream(s, "order"), replacement=self.task.surface)
            for s in seeds
        ]
        noise = [torch.Generator().manual_seed(stream(s, "noise")) for s in seeds]
        self.train_rows = self.data.train.to(self.device)  # [S, M]
        self.train_labels = self.labels[self.train_rows]  # [S, M, …], as they are trained on
        if share := self.task.wrong_labels:
            spoilt = lambda labels, seed: wrong_labels(labels, share, stream(seed, "wrong-labels"))
            self.train_labels = torch.stack(
                [spoilt(*pair) for pair in zip(self.train_labels, seeds, strict=True)]
            )
        plain = one_by_one(
            self.step, Feed(self.pool, self.lane.to(self.device), self.mean, self.std)
        )
        self.block = recorded(plain) if self.device == "cuda" else plain
        self.draws = Draws(
            order,
            noise,
            self.flat.draws,
            self.train_rows,
            self.train_labels,
            min(LONGEST, self.first.steps),
        )
        self.losses: list[Tensor] = []
        self.measures: list[pd.DataFrame] = []

    def advance(self, start: int, stop: int) -> None:
        """Make updates start + 1 … stop; `start` is where the last call stopped."""
        self.carry, losses = self.block(self.carry, self._batches(start, stop))
        self.losses.append(losses)
        for name, schedule in self.sparse.items():
            if weight := float(schedule[stop - 1]):
                theta, buffers = self.checkpoints[name]
                self.checkpoints[name] = (
                    mix(theta, self.carry.theta, weight),
                    mix(buffers, self.carry.buffers, weight),
                )

    def _batches(self, start: int, stop: int) -> Batches:
        """What these updates take from outside."""
        to = lambda array: torch.as_tensor(array, dtype=torch.float32, device=self.device)
        steps = torch.arange(start + 1, stop + 1, device=self.device)
        averaging = np.zeros(
            (stop - start, len(self.dense))
        )  # filled, not transposed: strides decide about compiling
        for k, weight in enumerate(self.dense.values()):
            averaging[:, k] = weight[start:stop]
        rates, weights = to(self._rates(start, stop))[:, :, None], to(averaging)[:, :, None, None]
        rows, labels, noise = self.draws.take(stop - start)
        return Batches(rows, labels, noise, steps, rates, weights)

    def _rates(self, start: int, stop: int) -> np.ndarray:
        """Learning rates of the updates start + 1 … stop, `[chunk, R]`."""
        if self.plateau is None:
            return self.rates[start:stop]
        return np.tile(self.peaks * self.plateau.factors(self.plateau_state), (stop - start, 1))

    def weights(self, readout: Readout) -> tuple[Tensor, Tensor]:
        """Weights `[R, P]` and buffers `[R, Q]` of a readout as they stand now."""
        theta, buffers = self._averaged(readout)
        if readout.statistics == "copied":
            return theta, self.carry.buffers
        if readout.statistics == "reestimated":
            return theta, self._reestimated(
                theta, self.look(self.data.train[self.lane][:, :TRAIN_EXAMPLES])
            )
        return theta, buffers

    def _reestimated(self, theta: Tensor, look: Look) -> Tensor:
        """Buffers `[R, Q]` that these weights give on examples: the mean over batches of their
        statistics.
        """
        flat = Flat(self.flat.module, STATISTICS_BATCH)
        still = theta.new_zeros(flat.draws)  # statistics are those before the noise
        forward = lambda theta, buffers, x: flat.forward(theta, buffers, still, x)[1]
        with statistics_momentum(flat.module, 1.0):
            parts = look.rows.split(STATISTICS_BATCH, dim=1)
            found = [
                self._each(forward, theta, self.carry.buffers, look.pool, part) for part in parts
            ]
        return torch.stack(found).mean(0)

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

    def _averaged(self, readout: Readout) -> tuple[Tensor, Tensor]:
        if readout.source == "last":
            return self.carry.theta, self.carry.buffers
        if readout.source in self.checkpoints:
            return self.checkpoints[readout.source]
        row = list(self.dense).index(readout.source)
        average = (self.carry.averages[0][row], self.carry.averages[1][row])
        if not readout.start_share:
            return average
        share = readout.start_share ** (self.done / self.first.steps)  # β^T → β^t
        return mix(average[0], self.start[0], share), mix(average[1], self.start[1], share)

    def look(self, rows: Tensor) -> Look:
        """Examples to evaluate on: rows `[R, N]` of the data."""
        rows = rows.to(self.device)
        return Look(self.pool, rows, self.labels[rows])

    def evaluate(self, readout: Readout, look: Look, reestimate: int | None = None) -> pd.DataFrame:
        """One row a replica; with `reestimate`, batch norm takes its statistics from the examples
        looked at.

        0: from all of them; otherwise from each so many, as they come.
        """
        diverged = self.carry.survived < self.done
        theta, buffers = self.weights(readout)
        if self.task.surface:
            return measure_surface(self.height(theta, buffers), self.start_height, diverged)
        outputs = self._batch_by_batch(reestimate) if reestimate else self.flat.outputs
        buffers = self._reestimated(theta, look) if reestimate == 0 else buffers
        forward = lambda rows: self._each(outputs, theta, buffers, look.pool, rows)
        return measure(forward, look.rows, look.targets, diverged)

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
        x = self.task.inputs(pool[rows], self.mean, self.std)
        if self.device == "cuda":
            return vmap(function)(theta, buffers, x)
        return torch.stack([function(*replica) for replica in zip(theta, buffers, x, strict=True)])

    def train(self, tick: Callable[[int], None] = lambda replica_steps: None) -> Histories:
        """Train to the end; `tick` is told of the replica-steps done, chunk by chunk."""
        began, self.done = time.perf_counter(), 0
        curves: list[tuple[pd.DataFrame, str, int]] = []
        shown = (
            [r for r in self.readouts if r.name in on_curves(self.first)]
            if self.first.curve_points > 1
            else []
        )
        with torch.no_grad():
            for stop in self.boundaries:
                self.advance(self.done, stop)
                tick((stop - self.done) * len(self.runs))
                self.done = stop
                if stop in self.curve_steps:
                    look = self.look(self.validation[:, :CURVE_EXAMPLES])
                    curves += [
                        (self.evaluate(readout, look), readout.name, stop) for readout in shown
                    ]
                    self._probe()
                if self.plateau and stop in self.observed:
                    seen = self.evaluate(
                        Readout("last", "last"), self.look(self.monitor)
                    ).loss.to_numpy()
                    self.plateau_state = self.plateau.observe(self.plateau_state, seen)
            finals = self._finals()
            self._watch_losses()
            self._watch_orbit()
        rows = [run.row for run in self.wanted]
        survived = self.carry.survived[: len(rows)].tolist()
        steps = self.first.steps
        table = pd.DataFrame(rows).assign(
            diverged_at=pd.array([s + 1 if s < steps else None for s in survived], "Int64")
        )
        return Histories(
            table,
            pd.concat(finals, ignore_index=True),
            self._curves(curves),
            pd.concat(self.measures, ignore_index=True),
            self._predictions(),
            time.perf_counter() - began,
        )

    def _measure(
        self, values: Tensor | np.ndarray, measure: str, step: int | None, readout: str = ""
    ) -> None:
        """Keep what was measured of every replica, `[R]`."""
        frame = pd.DataFrame({"value": np.asarray(values, dtype=np.float64)})
        measure, _, size = measure.partition("/")
        columns = {"batch_size": int(size) if size else None, "step": step}
        whole = {name: pd.array([value] * len(frame), "Int64") for name, value in columns.items()}
        self.measures.append(self._keyed(frame, readout=readout, measure=measure, **whole))

    def _probe(self) -> None:
        """What the run's probes find at the current weights."""
        for probe in self.first.probes:
            if (
                probe in PROBES
                and self.done in self.curve_steps[:: max(1, len(self.curve_steps) // PROBED)]
            ):
                for name, values in PROBES[probe](self).items():
                    self._measure(values.cpu(), name, self.done)
            elif probe == "training-loss":
                look = self.look(self.data.train[self.lane][:, :TRAIN_EXAMPLES])
                self._measure(
                    self.evaluate(Readout("last", "last"), look).loss.to_numpy(),
                    probe,
                    self.done,
                    "last",
                )

    def _watch_losses(self) -> None:
        """Mean and spread of the minibatch losses of the last quarter; all of them where a probe
        asks for it.
        """
        losses = torch.cat(self.losses).double().cpu()  # [T, R]
        tail = losses[-max(2, len(losses) // 4) :]
        self._measure(tail.mean(0), "tail-loss-mean", None)
        self._measure(tail.std(0), "tail-loss-sd", None)
        if "losses" in self.first.probes:
            for step, values in enumerate(losses, start=1):
                self._measure(values, "loss", step)

    def _watch_orbit(self) -> None:
        """How far single steps' weights lie from the mean of the tail, where a probe asks for it."""
        if "orbit" in self.first.probes:
            centre = self._averaged(next(r for r in self.readouts if r.source.startswith("tail-")))[
                0
            ]
            for readout in self.readouts:
                if readout.source == "last" or readout.source.startswith("at-"):
                    apart = (self._averaged(readout)[0] - centre).double().norm(dim=1).cpu()
                    self._measure(apart, "distance to the tail mean", None, readout.name)

    def _predictions(self) -> pd.DataFrame:
        """Classes predicted for the first test examples, a row a (run, readout), where a probe asks
        for them.
        """
        parts = []
        if "predictions" in self.first.probes:
            for readout in self.readouts:
                classes = pd.DataFrame({"classes": predicted_classes(self, readout)})
                parts.append(self._keyed(classes, readout=readout.name))
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else pd.DataFrame(columns=["run", "readout", "classes"])
        )

    def _finals(self) -> list[pd.DataFrame]:
        """Validation data; of a report run also test and training data, and each shifted test set."""
        rows = {"validation": self.validation}
        if self.first.test:
            test = self.data.test.expand(len(self.runs), -1)
            rows = {
                "validation": self.validation,
                "test": test,
                "train": self.data.train[self.lane][:, :TRAIN_EXAMPLES],
            }
        finals = [
            self._rows(self.evaluate(readout, self.look(part)), readout, split=split)
            for split, part in rows.items()
            for readout in self.readouts
        ]
        scores: dict[str, list[pd.DataFrame]] = {}
        for shift in self.first.shifts:
            how = (
                shift if self.flat.buffers else frozen(shift)
            )  # without batch norm nothing can be taken anew
            if how not in scores:
                streams = [
                    stream_seed(self.task.source, run.seed, f"shift/{read(shift).name}")
                    for run in self.runs
                ]
                look = Look(
                    *(
                        part.to(self.device)
                        for part in shifted_test(shift, self.task, self.data, streams)
                    )
                )
                scores[how] = [
                    self.evaluate(readout, look, reestimates(how)) for readout in self.readouts
                ]
            pairs = zip(scores[how], self.readouts, strict=True)
            finals += [
                self._rows(table, readout, split="test", **_told(shift, len(table)))
                for table, readout in pairs
            ]
        none = pd.array([None] * len(self.wanted), "Int64")
        plain = {"shift": "", "severity": none, "statistics": "", "batch": none}
        return [table if "shift" in table else table.assign(**plain) for table in finals]

    def _curves(self, points: list[tuple[pd.DataFrame, str, int]]) -> pd.DataFrame:
        """What was measured of every replica at every point, keyed all at once: there may be
        thousands of points.
        """
        if not points:
            return pd.DataFrame(
                columns=["run", "readout", "step", "accuracy", "loss", "calibration_error"]
            )
        tables, names, steps = zip(*points, strict=True)
        count = len(self.wanted)
        whole = pd.concat([table.head(count) for table in tables], ignore_index=True)
        keys = np.tile([run.key for run in self.wanted], len(points))
        return whole.assign(readout=np.repeat(names, count), step=np.repeat(steps, count), run=keys)

    def _rows(self, measures: pd.DataFrame, readout: Readout, **columns: Any) -> pd.DataFrame:
        return self._keyed(measures, readout=readout.name, **columns)

    def _keyed(self, table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
        """One row a replica → one row a wanted run, by its key."""
        count = len(self.wanted)
        cut = {
            name: value[:count] if isinstance(value, pd.api.extensions.ExtensionArray) else value
            for name, value in columns.items()
        }
        return table.head(count).assign(run=[run.key for run in self.wanted], **cut)


def _told(shift: str, count: int) -> dict[str, Any]:
    """A shift as columns of `count` rows."""
    name, options = read(shift)
    whole = lambda option: pd.array([options.get(option)] * count, "Int64")
    return {
        "shift": name,
        "severity": whole("severity"),
        "statistics": options.get("statistics", "frozen"),
        "batch": whole("batch"),
    }
