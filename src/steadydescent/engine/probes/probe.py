"""What a probe is: what it may be asked for, when it looks, and what it leaves behind."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from steadydescent.engine.view import View

FEW = 3
"""At about so many points of the curve the costly probes look; others look at every point."""


class Quantity(NamedTuple):
    """A number that a probe leaves of every replica.

    `name` is what tables call it. With a `claim`, what claims call it, it may bear a verdict: then
    arms are compared by `statistic`, in its `unit`, and `higher` says whether more is better.
    """

    name: str
    claim: str = ""
    unit: str = ""
    higher: bool = True
    statistic: Literal["mean", "log mean"] = "mean"


class Measurement(NamedTuple):
    """One quantity of every replica, `[R]`; of a readout, a minibatch size or an update where it
    has one.
    """

    quantity: str
    values: Tensor | np.ndarray
    readout: str = ""
    batch_size: int | None = None
    step: int | None = None


class Classes(NamedTuple):
    """Predicted classes of a readout, a byte each, a row for every replica."""

    readout: str
    rows: Sequence[bytes]


class ProbedRun(Protocol):
    """What a probe may want to know of a run before it is trained."""

    @property
    def task(self) -> str: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def readouts(self) -> tuple[str, ...]: ...
    @property
    def steps(self) -> int: ...
    @property
    def test(self) -> bool: ...


class Probe:
    """Measures more of the networks of a stack and never changes their training.

    A stack makes a probe of its own, which may keep what it saw. It reads a view between two
    blocks of updates. Draws come from a generator for each (probe, run seed, step), so that
    neighbours leave no trace. A number is nan for a replica that diverged, for those that merely
    fill a stack up, and where it has no meaning.
    """

    name: ClassVar[str]
    """What runs and the study ask for it by."""
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    when: ClassVar[Literal["points", "few points", "end"]] = "points"
    """It looks at every point of the curve, or, where a look costs much, at about `FEW`; or once,
    at the end.
    """
    examples: ClassVar[int] = 0
    """Examples that one look evaluates, for the bill before the run."""

    @classmethod
    def check(cls, run: ProbedRun) -> None:
        """See that it can look at a run.

        Raises:
            ValueError: for a run that has not what the probe needs.
        """

    @classmethod
    def looks_at(cls, points: Sequence[int]) -> Sequence[int]:
        """The updates at which it looks, given those at which the curve has a point; the last is
        the end. A stack stops at all of them.
        """
        if cls.when == "end":
            return points[-1:]
        return points[:: max(1, len(points) // FEW)] if cls.when == "few points" else points

    def look(self, view: View) -> Iterable[Measurement | Classes]:
        """What it finds at the current weights."""
        raise NotImplementedError
