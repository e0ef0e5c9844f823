"""Shifted test sets for the engine: a shift as one line of text, `contrast(severity=3)`, to
examples and labels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

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
    shifted_signals,
)
from steadydescent.engine.data import TaskData
from steadydescent.engine.data.mnist1d import COUNTS, TEST_SEED
from steadydescent.engine.evaluation import CHUNK
from steadydescent.engine.settings import Setting, read
from steadydescent.engine.tasks.task import Task

KNOBS = {"mnist1d": set(SIGNAL_KNOBS), "fashion-mnist": set(IMAGE_KNOBS)}
STATISTICS = ("frozen", "reestimated")
PRIOR_EXAMPLES = {"mnist1d": 4_000, "fashion-mnist": 2_000}
"""Examples of a prior-shifted test set; of as many every severity can be drawn without repetition.
"""


class Look(NamedTuple):
    """Examples to evaluate on: `pool` `[N, D]`, for each of S seeds (or R replicas) rows and labels
    `[S, M]`.
    """

    pool: Tensor
    rows: Tensor
    targets: Tensor


def canonical(text: str, task: Task) -> str:
    """The one way to write a shift of a task's test set.

    Covariate shifts go by their knob, the others are `prior` and `concept`. `severity` is 0 to 5;
    `statistics` says whether batch norm keeps the training data's (`frozen`, unless given) or takes
    those of the shifted inputs: of all of them, or with `batch` of each so many that come together.

    Raises:
        ValueError: for a shift that the task's data do not have, or an option outside its range.
    """
    setting = read(text)
    allowed = sorted(
        KNOBS.get(task.source, set()) | ({"prior", "concept"} if task.source in KNOBS else set())
    )
    if setting.name not in allowed:
        raise ValueError(
            f"shift must be one of {allowed} for {task.source} data, got {setting.name!r}"
        )
    if unknown := sorted(set(setting.options) - {"severity", "statistics", "batch"}):
        raise ValueError(
            f"shift {text!r} has no option {unknown}; allowed are severity, statistics and batch"
        )
    severity, statistics = (
        setting.options.get("severity"),
        setting.options.get("statistics", "frozen"),
    )
    if not isinstance(severity, int) or isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(
            f"severity must be a whole number from 0 to {SEVERITIES[-1]}, got {severity!r} in {text!r}"
        )
    if statistics not in STATISTICS:
        raise ValueError(f"statistics must be one of {STATISTICS}, got {statistics!r} in {text!r}")
    _check_batch(setting, text)
    return setting.text({"statistics": "frozen"})


def _check_batch(setting: Setting, text: str) -> None:
    batch = setting.options.get("batch", CHUNK)
    if "batch" in setting.options and setting.options.get("statistics") != "reestimated":
        raise ValueError(
            f"batch says where re-estimated statistics come from; add statistics=reestimated to {text!r}"
        )
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 2 or CHUNK % batch:
        raise ValueError(f"batch must divide {CHUNK} and be at least 2, got {batch!r} in {text!r}")


def frozen(text: str) -> str:
    """The same shift with the statistics of training.

    >>> frozen('shear(batch=10, severity=3, statistics="reestimated")')
    'shear(severity=3)'
    """
    setting = read(text)
    return Setting(setting.name, {"severity": setting.options["severity"]}).text()


def reestimates(text: str) -> int | None:
    """How many shifted inputs batch norm takes its statistics from at a time; 0: from all, None:
    from none.
    """
    options = read(text).options
    return int(options.get("batch", 0)) if options.get("statistics") == "reestimated" else None


def shifted_test(text: str, task: Task, data: TaskData, streams: Sequence[int]) -> Look:
    """The task's test set after a shift, for each of S seeds.

    A covariate shift is the same for all. Which classes a prior or concept shift takes is drawn
    from each seed's stream (`streams` `[S]` seeds a generator each), the same ones at every
    severity.
    """
    name, options = read(text)
    severity = options["severity"]
    x, y = data.pool[data.test], data.labels[data.test]
    if name in KNOBS[task.source]:
        if task.source == "mnist1d":
            after = _signals(name, severity)
        else:
            after = shifted_images(
                x, y, name, severity, generator=torch.Generator().manual_seed(TEST_SEED)
            )
        return Look(
            after.x, torch.arange(len(x)).expand(len(streams), -1), after.y.expand(len(streams), -1)
        )
    found = []
    for stream in streams:
        generator = torch.Generator().manual_seed(stream)
        if name == "prior":
            count = PRIOR_EXAMPLES[task.source]
            found.append(
                shifted_prior(x, y, severity, classes=10, count=count, generator=generator)
            )
        else:
            found.append(shifted_concept(x, y, severity, classes=10, generator=generator))
    rows = [shifted.rows for shifted in found if shifted.rows is not None]
    return Look(x, torch.stack(rows), torch.stack([shifted.y for shifted in found]))


@lru_cache(
    maxsize=64
)  # drawing 20 000 signals takes seconds, and every stack of a sweep looks at the same ones
def _signals(knob: str, severity: int) -> Shifted:
    return shifted_signals(knob, severity, seed=TEST_SEED, count=COUNTS["test"])
