"""What R replicas are trained and evaluated on.

Axes: R replicas, S seeds, N and M examples, D inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from steadydescent.engine.data import TaskData, load
from steadydescent.engine.data.task_data import first_examples, wrong_labels
from steadydescent.engine.evaluation import Look
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import Task

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


@dataclass(frozen=True, eq=False)
class Examples:
    """The data of a stack, each replica with the training and validation set of its seed."""

    data: TaskData
    root: Path
    """Where data lie."""
    pool: Tensor
    """All examples as stored, on the stack's device, and so are their `labels`."""
    labels: Tensor
    lane: Tensor
    """`[R]`: the place of each replica's seed among the S seeds of the data."""
    mean: Tensor
    """`[R, 1, D or 1]`, as the deviation `std`."""
    std: Tensor
    train_rows: Tensor
    """`[S, M]` rows of the pool, and `train_labels` `[S, M, …]` as they are trained on."""
    train_labels: Tensor
    validation: Tensor
    """`[R, N]` rows of the pool that runs are evaluated on."""
    monitor: Tensor
    """`[R, N]` rows that a plateau schedule watches, none without one."""

    @property
    def curve(self) -> Tensor:
        """Rows `[R, N]` that points of a curve are measured on."""
        return self.validation[:, :CURVE_EXAMPLES]

    @property
    def train(self) -> Tensor:
        """Rows `[R, N]` of training examples that are evaluated."""
        return self.data.train[self.lane][:, :TRAIN_EXAMPLES]

    @property
    def test(self) -> Tensor:
        """Rows `[R, N]` of the test set, the same for all."""
        return self.data.test.expand(len(self.lane), -1)

    def look(self, rows: Tensor) -> Look:
        """Examples to evaluate on: rows `[R, N]` of the pool."""
        rows = rows.to(self.pool.device)
        return Look(self.pool, rows, self.labels[rows])


def examples_of(
    task: Task, seeds: Sequence[int], root: Path, device: str, monitored: bool
) -> Examples:
    """The examples of R replicas with these seeds; if `monitored`, every `MONITOR_EVERY`-th
    validation example is kept for a plateau schedule.
    """
    distinct = sorted(set(seeds))
    lane = torch.tensor([distinct.index(seed) for seed in seeds])
    data = first_examples(load(task.source, distinct, root), task.examples)
    pool, labels = data.pool.to(device), data.labels.to(device)
    spread = lambda moments: moments[lane].to(device)[:, None]
    validation = data.validation[lane]
    held_back = torch.arange(validation.shape[1]) % MONITOR_EVERY == 0
    held_back &= monitored
    rows = data.train.to(device)
    return Examples(
        data=data,
        root=root,
        pool=pool,
        labels=labels,
        lane=lane,
        mean=spread(data.mean),
        std=spread(data.std),
        train_rows=rows,
        train_labels=_as_trained(task, labels[rows], distinct),
        validation=validation[:, ~held_back],
        monitor=validation[:, held_back],
    )


def _as_trained(task: Task, labels: Tensor, seeds: Sequence[int]) -> Tensor:
    """The labels `[S, M, …]` with the task's share of wrong ones."""
    if not task.wrong_labels:
        return labels
    streams = [stream_seed(task.source, seed, "wrong-labels") for seed in seeds]
    pairs = zip(labels, streams, strict=True)
    return torch.stack([wrong_labels(mine, task.wrong_labels, stream) for mine, stream in pairs])
