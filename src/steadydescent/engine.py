"""The engine: runs of one shape → one stack → their histories. The only place that trains.

Axes: R replicas, B batch, P parameters, Q buffer entries, K averaged readouts, T steps, D inputs.
"""

import shutil
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import cross_entropy

from steadydescent.data import load
from steadydescent.evaluation import measure
from steadydescent.minibatches import IndexStream
from steadydescent.optimizers import RULES, State
from steadydescent.runs import Run, stream_seed
from steadydescent.schedules import rates
from steadydescent.tasks import TASKS
from steadydescent.weight_averaging import Readout, mix, parse

CURVE_EXAMPLES = 2_000
"""Validation examples looked at along training; they draw curves and decide nothing."""
TRAIN_EXAMPLES = 4_000
"""Training examples looked at in the end, for the gap between training and test accuracy."""


class Flat:
    """A module's parameters and floating-point buffers as two vectors, and back.

    One `split` and one view each; slicing leaf by leaf would make every slice's backward full-size.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = {name: p.shape for name, p in module.named_parameters()}
        self.buffers = {name: b.shape for name, b in module.named_buffers()}
        for name, buffer in module.named_buffers():
            if not buffer.is_floating_point():
                raise ValueError(f"buffer {name} is {buffer.dtype}; the engine stacks floating-point buffers only")

    def pack(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Weights `[P]` and buffers `[Q]` of a module of this shape."""
        join = lambda tensors: torch.cat([t.detach().flatten() for t in tensors] or [torch.empty(0)])
        return join(module.parameters()), join(module.buffers())

    @staticmethod
    def _unpack(vector: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
        pieces = vector.split([shape.numel() for shape in shapes.values()]) if shapes else ()
        return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}

    def loss(self, theta: Tensor, buffers: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of one replica on a minibatch, and its new buffers."""
        fresh = self._unpack(buffers.clone(), self.buffers)  # batch norm writes into them
        logits = functional_call(self.module.train(), (self._unpack(theta, self.parameters), fresh), (x,))
        return cross_entropy(logits, y), torch.cat([b.flatten() for b in fresh.values()]) if fresh else buffers

    def logits(self, theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        """Logits of one replica in inference mode."""
        pieces = (self._unpack(theta, self.parameters), self._unpack(buffers, self.buffers))
        return functional_call(self.module.eval(), pieces, (x,))


class Carry(NamedTuple):
    """Everything that a step changes. `survived` counts the steps before a replica's loss went non-finite."""

    theta: Tensor  # [R, P]
    buffers: Tensor  # [R, Q]
    state: State  # each [R, P]
    averages: tuple[Tensor, Tensor]  # [K, R, P] and [K, R, Q]
    survived: Tensor  # [R]


def make_step(flat: Flat, optimizer: str) -> Callable[..., Carry]:
    """One update of a whole stack as a pure function of tensors."""
    gradients = vmap(grad_and_value(flat.loss, has_aux=True))
    update = RULES[optimizer].update

    def step(
        carry: Carry, x: Tensor, y: Tensor, mean: Tensor, std: Tensor, t: Tensor, lr: Tensor, weights: Tensor
    ) -> Carry:
        """x [R, B, D] as stored, y [R, B], mean and std [R, 1, D or 1], t a scalar, lr [R, 1], weights [K, 1, 1]."""
        grad, (loss, buffers) = gradients(carry.theta, carry.buffers, (x - mean) / std, y)
        theta, state = update(carry.theta, grad, carry.state, t, lr)
        # A replica that has diverged freezes where it last was; its neighbours never feel it.
        alive = torch.isfinite(loss) & (carry.survived == t - 1)
        keep = lambda new, old: torch.where(alive[:, None], new, old)
        theta, buffers = keep(theta, carry.theta), keep(buffers, carry.buffers)
        state = tuple(keep(new, old) for new, old in zip(state, carry.state, strict=True))
        weights = weights * alive[:, None]
        averages = (mix(carry.averages[0], theta, weights), mix(carry.averages[1], buffers, weights))
        return Carry(theta, buffers, state, averages, carry.survived + alive)

    return step


def can_compile(device: str) -> str | None:
    """Why torch.compile cannot be used on this device, or None when it can."""
    if device != "cpu":
        return None
    if shutil.which("g++") is None:
        return "g++ is missing"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (Python.h) are missing"
    return None


@cache
def _compiled(task: str, optimizer: str, compile: bool) -> tuple[Flat, Callable[..., Carry]]:
    flat = Flat(TASKS[task].build())
    step = make_step(flat, optimizer)
    return flat, torch.compile(step, fullgraph=True, dynamic=False) if compile else step


@contextmanager
def numerics(threads: int | None = None):
    """The arithmetic of every run: denormals flushed, no TF32, a fixed number of threads; then as before."""
    before = (torch.get_num_threads(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.set_num_threads(threads or before[0])
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_flush_denormal(False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[1:]


@dataclass(frozen=True)
class Histories:
    """What a stack leaves behind: tidy tables, one row a run, a (run, readout, split), a (run, step, readout)."""

    runs: pd.DataFrame
    finals: pd.DataFrame
    curves: pd.DataFrame
    seconds: float


def initial_weights(task: str, seed: int) -> nn.Module:
    """The task's model as initialised for a seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(TASKS[task].source, seed, "weights"))
        return TASKS[task].build()


def on_curves(run: Run) -> list[str]:
    """Readouts that mean something in the middle of a run: those that do not wait for its end."""
    return [name for name in run.readouts if name == "last" or name.startswith("ema")]


def evaluated(run: Run, validation: int, test: int) -> int:
    """Examples × readouts that a run's evaluations look at, given the sizes of the validation and test sets."""
    if not run.test:
        return validation * len(run.readouts)
    curve = len(on_curves(run)) * run.curve_points * min(CURVE_EXAMPLES, validation) if run.curve_points > 1 else 0
    return curve + (test + TRAIN_EXAMPLES) * len(run.readouts)


class Stack:
    """R runs of one shape, trained together as one tensor program."""

    def __init__(
        self, runs: Sequence[Run], root: Path, device: str = "cpu", compile: bool = True, width: int = 0
    ) -> None:
        """With a `width` above R, replicas of the last run fill the stack up, so that one compiled shape serves all."""
        if len({run.shape for run in runs}) != 1:
            raise ValueError("runs of a stack must agree in all but seed, rate and schedule")
        self.wanted, self.device, self.first = list(runs), device, runs[0]
        self.runs = self.wanted + [runs[-1]] * (width - len(runs))
        self.flat, self.step = _compiled(self.first.task, self.first.optimizer, compile)
        seeds = sorted({run.seed for run in runs})
        self.lane = torch.tensor([seeds.index(run.seed) for run in self.runs])  # [R] → the seed's place in the data
        self.data = load(TASKS[self.first.task].source, seeds, root)
        self.pool, self.labels = self.data.pool.to(device), self.data.labels.to(device)
        spread = lambda t: t[self.lane].to(device)[:, None]  # [R, 1, D or 1]
        self.mean, self.std = spread(self.data.mean), spread(self.data.std)
        self._plan_readouts()
        self._start()

    def _plan_readouts(self) -> None:
        """Accumulators that move at every step ride in the compiled step, those of checkpoints between chunks."""
        total = self.first.steps
        parsed = [parse(name, total) for name in self.first.readouts]
        self.readouts = [readout for readout, _ in parsed]
        weights = {readout.source: w for readout, w in parsed if w is not None}
        self.dense = {name: w for name, w in weights.items() if not name.startswith("checkpoints")}
        self.sparse = {name: w for name, w in weights.items() if name.startswith("checkpoints")}
        points = self.first.curve_points
        self.curve_steps = [round(total * (i + 1) / points) for i in range(points)]
        marks = {int(i) + 1 for w in self.sparse.values() for i in np.flatnonzero(w)}
        self.boundaries = sorted({*self.curve_steps, *marks, total})

    def _start(self) -> None:
        models = {run.seed: self.flat.pack(initial_weights(run.task, run.seed)) for run in self.runs}
        theta, buffers = (torch.stack([models[run.seed][i] for run in self.runs]).to(self.device) for i in (0, 1))
        zeros = lambda t, k: t.new_zeros(k, *t.shape)
        averages = (zeros(theta, len(self.dense)), zeros(buffers, len(self.dense)))
        self.start = (theta, buffers)
        survived = torch.zeros(len(self.runs), dtype=torch.int64, device=self.device)
        self.carry = Carry(theta, buffers, RULES[self.first.optimizer].init(theta), averages, survived)
        self.checkpoints = {name: (torch.zeros_like(theta), torch.zeros_like(buffers)) for name in self.sparse}
        examples, size = self.data.train.shape[1], self.first.batch_size
        order = lambda seed: stream_seed(TASKS[self.first.task].source, seed, "order")
        streams = {run.seed: IndexStream(examples, size, order(run.seed)) for run in self.runs}
        self.streams = [streams[seed] for seed in sorted(streams)]
        self.rates = np.stack([rates(run.schedule, run.lr, run.steps) for run in self.runs], axis=1)  # [T, R]

    def advance(self, start: int, stop: int) -> None:
        """Make updates start + 1 … stop; `start` is where the last call stopped."""
        to = lambda array: torch.as_tensor(array, dtype=torch.float32, device=self.device)
        batches = torch.stack([stream.take(stop - start) for stream in self.streams])  # [S, chunk, B]
        rows = torch.stack([self.data.train[s][batches[s]] for s in range(len(self.streams))])[self.lane]
        rows = rows.transpose(0, 1).to(self.device)  # [chunk, R, B]
        lr = to(self.rates[start:stop])[:, :, None]
        weights = to(
            np.array([w[start:stop] for w in self.dense.values()]).reshape(len(self.dense), stop - start)
        ).T.contiguous()
        steps = torch.arange(start + 1, stop + 1, device=self.device)
        carry = self.carry
        for i in range(stop - start):
            x, y = self.pool[rows[i]], self.labels[rows[i]]
            carry = self.step(carry, x, y, self.mean, self.std, steps[i], lr[i], weights[i, :, None, None])
        self.carry = carry
        for name, schedule in self.sparse.items():
            if weight := float(schedule[stop - 1]):
                theta, buffers = self.checkpoints[name]
                self.checkpoints[name] = (mix(theta, carry.theta, weight), mix(buffers, carry.buffers, weight))

    def weights(self, readout: Readout) -> tuple[Tensor, Tensor]:
        """Weights `[R, P]` and buffers `[R, Q]` of a readout as they stand now."""
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

    def _evaluate(self, readout: Readout, rows: Tensor) -> pd.DataFrame:
        diverged = self.carry.survived < self.done
        weights = self.weights(readout)
        x = lambda part: (self.pool[part] - self.mean) / self.std
        forward = vmap(self.flat.logits) if self.device == "cuda" else self._one_by_one
        return measure(forward, weights, x, self.labels, rows.to(self.device), diverged)

    def _one_by_one(self, theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        """Logits [R, N, K], replica after replica: on a CPU large plain products beat batched ones."""
        return torch.stack([self.flat.logits(*replica) for replica in zip(theta, buffers, x, strict=True)])

    def train(self, tick: Callable[[int], None] = lambda replica_steps: None) -> Histories:
        """Train to the end; `tick` is told of the replica-steps done, chunk by chunk."""
        began, self.done, curves = time.perf_counter(), 0, []
        shown = [r for r in self.readouts if r.name in on_curves(self.first)]
        validation = self.data.validation[self.lane]
        with torch.no_grad():
            for stop in self.boundaries:
                self.advance(self.done, stop)
                tick((stop - self.done) * len(self.runs))
                self.done = stop
                if stop in self.curve_steps and self.first.curve_points > 1:
                    part = validation[:, :CURVE_EXAMPLES]
                    curves += [self._rows(self._evaluate(r, part), r, step=stop) for r in shown]
            finals = self._finals(validation)
        rows = [{"run": run.key, **run.model_dump(exclude={"readouts"})} for run in self.wanted]
        survived = self.carry.survived[: len(rows)].tolist()
        steps = self.first.steps
        table = pd.DataFrame(rows).assign(
            diverged_at=pd.array([s + 1 if s < steps else None for s in survived], "Int64")
        )
        empty = pd.DataFrame(columns=["run", "readout", "step", "accuracy", "loss", "calibration_error"])
        return Histories(
            table,
            pd.concat(finals, ignore_index=True),
            pd.concat(curves, ignore_index=True) if curves else empty,
            time.perf_counter() - began,
        )

    def _finals(self, validation: Tensor) -> list[pd.DataFrame]:
        splits = {"validation": validation}
        if self.first.test:
            test = self.data.test.expand(len(self.runs), -1)
            splits = {"test": test, "train": self.data.train[self.lane][:, :TRAIN_EXAMPLES]}
        return [
            self._rows(self._evaluate(readout, rows), readout, split=split)
            for split, rows in splits.items()
            for readout in self.readouts
        ]

    def _rows(self, measures: pd.DataFrame, readout: Readout, **columns) -> pd.DataFrame:
        keys = [run.key for run in self.wanted]
        return measures.head(len(keys)).assign(run=keys, readout=readout.name, **columns)
