"""Shifted test sets: a shift, `contrast(severity=3)`, and the examples and labels that it gives."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from steadydescent.dataset_shift import (
    IMAGE_KNOBS,
    SEVERITIES,
    SIGNAL_KNOBS,
    Shifted,
    shifted_concept,
    shifted_images,
    shifted_prior,
)
from steadydescent.engine.data import TaskData, mnist1d
from steadydescent.engine.evaluation import CHUNK, Look
from steadydescent.engine.settings import Setting, read
from steadydescent.engine.tasks.task import Task

_LOG = logging.getLogger(__name__)
KNOBS = {"mnist1d": set(SIGNAL_KNOBS), "fashion-mnist": set(IMAGE_KNOBS)}
OF_LABELS = {"prior", "concept"}
"""The kinds of shift that are no knob of the inputs."""
SHIFT_STATISTICS = ("frozen", "reestimated")
"""What batch norm may use on a shifted test set."""
PRIOR_EXAMPLES = {"mnist1d": 4_000, "fashion-mnist": 2_000}
"""Examples of a prior-shifted test set; of as many every severity can be drawn without repetition.
"""


@dataclass(frozen=True)
class Shift:
    """How a test set is moved: `contrast(severity=3)`.

    A covariate shift goes by its knob, the other kinds are `prior` and `concept`. `severity` is 0
    to 5. `statistics` says whether batch norm keeps the training data's (`frozen`) or takes those
    of the shifted inputs (`reestimated`): of all of them, or of each `batch` that come together.

    >>> Shift.parse("shear( severity=3, statistics=frozen )")
    Shift(kind='shear', severity=3, statistics='frozen', batch=None)
    >>> Shift("prior", 3, "reestimated", batch=10).text
    'prior(batch=10, severity=3, statistics="reestimated")'
    """

    kind: str
    severity: int
    statistics: str = SHIFT_STATISTICS[0]
    batch: int | None = None

    @staticmethod
    @cache
    def parse(text: str) -> "Shift":
        """The shift that a text names.

        Raises:
            ValueError: for an option outside its range, or one that no shift has.
        """
        setting = read(text)
        options = {
            "severity": None,
            "statistics": SHIFT_STATISTICS[0],
            "batch": None,
        } | setting.options
        if unknown := sorted(set(options) - {"severity", "statistics", "batch"}):
            raise ValueError(
                f"shift {text!r} has no option {unknown}; "
                "allowed are severity, statistics and batch"
            )
        severity, statistics = options["severity"], options["statistics"]
        if not _is_whole(severity) or severity not in SEVERITIES:
            raise ValueError(
                f"severity must be a whole number from 0 to {SEVERITIES[-1]}, "
                f"got {severity!r} in {text!r}"
            )
        if statistics not in SHIFT_STATISTICS:
            raise ValueError(
                f"statistics must be one of {SHIFT_STATISTICS}, got {statistics!r} in {text!r}"
            )
        shift = Shift(setting.name, severity, statistics, options["batch"])
        if "batch" in setting.options:
            shift._check_batch(text)
        return shift

    def _check_batch(self, text: str) -> None:
        if not self.reestimated:
            raise ValueError(
                "batch says where re-estimated statistics come from; "
                f"add statistics=reestimated to {text!r}"
            )
        if not _is_whole(self.batch) or not self.batch or self.batch < 2 or CHUNK % self.batch:
            raise ValueError(
                f"batch must divide {CHUNK} and be at least 2, got {self.batch!r} in {text!r}"
            )

    def check_data(self, source: str) -> None:
        """See that a source of data can be shifted like this.

        Raises:
            ValueError: for another shift than the data have.
        """
        allowed = sorted(KNOBS[source] | OF_LABELS) if source in KNOBS else []
        if self.kind not in allowed:
            raise ValueError(f"shift must be one of {allowed} for {source} data, got {self.kind!r}")

    @property
    def text(self) -> str:
        """The one text that names it, in YAML and in the keys of runs."""
        batch = {} if self.batch is None else {"batch": self.batch}
        options = {"severity": self.severity, "statistics": self.statistics} | batch
        return Setting(self.kind, options).text({"statistics": SHIFT_STATISTICS[0]})

    @property
    def reestimated(self) -> bool:
        """Whether batch norm takes the statistics of the shifted inputs."""
        return self.statistics != SHIFT_STATISTICS[0]

    @property
    def with_frozen_statistics(self) -> "Shift":
        """The same shift, batch norm with the statistics of training."""
        return Shift(self.kind, self.severity)


def family(kind: str) -> str:
    """What a kind of shift moves: `covariate`, `prior` or `concept`.

    >>> family("shear"), family("prior")
    ('covariate', 'prior')
    """
    return kind if kind in OF_LABELS else "covariate"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def shifted_test(
    shift: Shift, task: Task, data: TaskData, streams: Sequence[int], root: Path
) -> Look:
    """The task's test set after a shift, for each of S seeds; `root` is where data lie.

    A covariate shift is the same for all. Which classes a prior or concept shift takes is drawn
    from each seed's stream (`streams` `[S]` seeds a generator each), the same ones at every
    severity.
    """
    x, y = data.pool[data.test], data.labels[data.test]
    if shift.kind in KNOBS[task.source]:
        after = _inputs_shifted(shift, task.source, x, y, root)
        rows = torch.arange(len(x)).expand(len(streams), -1)
        return Look(after.x, rows, after.y.expand(len(streams), -1))
    draws = [_labels_shifted(shift, task.source, x, y, stream) for stream in streams]
    drawn_rows = [draw.rows for draw in draws if draw.rows is not None]
    return Look(x, torch.stack(drawn_rows), torch.stack([draw.y for draw in draws]))


def _inputs_shifted(shift: Shift, source: str, x: Tensor, y: Tensor, root: Path) -> Shifted:
    if source == "mnist1d":
        return _signals(shift.kind, shift.severity, root)
    generator = torch.Generator().manual_seed(mnist1d.TEST_SEED)
    return shifted_images(x, y, shift.kind, shift.severity, generator=generator)


def _labels_shifted(shift: Shift, source: str, x: Tensor, y: Tensor, stream: int) -> Shifted:
    generator = torch.Generator().manual_seed(stream)
    if shift.kind == "concept":
        return shifted_concept(x, y, shift.severity, classes=10, generator=generator)
    count = PRIOR_EXAMPLES[source]
    return shifted_prior(x, y, shift.severity, classes=10, count=count, generator=generator)


# every stack of a sweep looks at the same ones
@lru_cache(maxsize=64)
def _signals(knob: str, severity: int, root: Path) -> Shifted:
    return mnist1d.shifted_test_set(knob, severity, root, _LOG.warning)
