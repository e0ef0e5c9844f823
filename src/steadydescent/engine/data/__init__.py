"""Data sets, verified: ``load`` for a run, ``identity`` for its key, ``fetch`` for `steady data`.

One module a source: `mnist1d`, `fashion_mnist`, `gaussian`, and `names` with `name_pairs`,
`name_groups` and `spelling`; `task_data` is the shape in which all arrive. Imports the techniques
and `engine.source_code`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from steadydescent.checks import check_choice
from steadydescent.engine.data import fashion_mnist, mnist1d, names
from steadydescent.engine.data.fashion_mnist import DataUnavailable
from steadydescent.engine.data.gaussian import DRAWS, Gaussian
from steadydescent.engine.data.task_data import SEED_LIMIT, Report, TaskData, checked_seeds
from steadydescent.files import DamagedFile

__all__ = [
    "SEED_LIMIT",
    "SOURCES",
    "SPLIT_SIZES",
    "DamagedFile",
    "DataUnavailable",
    "TaskData",
    "fetch",
    "identity",
    "load",
]


class _Source(Protocol):
    """What each module of this package offers."""

    def load(self, seeds: Sequence[int], root: Path, report: Report) -> TaskData: ...
    def identity(self) -> str: ...
    def fetch(self, root: Path, report: Report) -> Path: ...


_GAUSSIANS: dict[str, _Source] = {
    f"gaussian-{dimension}": Gaussian(dimension) for dimension in (2, 100)
}
SOURCES: dict[str, _Source] = {
    "mnist1d": mnist1d,
    "fashion-mnist": fashion_mnist,
    "names": names,
    **_GAUSSIANS,
}
SPLIT_SIZES = {
    "mnist1d": mnist1d.COUNTS,
    "fashion-mnist": {"train": fashion_mnist.TRAIN_COUNT, "validation": 10_000, "test": 10_000},
    "names": names.COUNTS,
    **{name: {"train": DRAWS, "validation": 1, "test": 1} for name in _GAUSSIANS},
}
_LOG = logging.getLogger(__name__)


def load(source: str, seeds: Sequence[int], root: Path, report: Report = _LOG.warning) -> TaskData:
    """The data of ``source`` for these seeds, made or fetched into ``root`` if they are missing.

    ``report`` takes a sentence whenever something had to be drawn, fetched or refused (else nothing
    is said). The rows and bytes of a seed do not depend on the other seeds. Raises ValueError or
    TypeError for an unknown source or unusable seeds, DataUnavailable when no source serves.
    """
    return _named(source).load(checked_seeds(seeds), Path(root), report)


def identity(source: str) -> str:
    """A stable id of the data for the keys of runs: a SHA-256 known without making anything."""
    return _named(source).identity()


def fetch(source: str, root: Path, report: Report) -> Path:
    """Make or find the data under ``root``; tell ``report`` what served, return the folder."""
    return _named(source).fetch(Path(root), report)


def _named(source: str) -> _Source:
    return SOURCES[check_choice(source, SOURCES, "source")]
