"""What a shift returns, and what each kind of shift should move."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steadydescent.checks import check_count

SEVERITIES = range(6)
"""0 leaves the data unchanged; 1 to 5 move them further and further."""

MOVES = {
    "covariate": {"p(x)": True, "p(y)": False, "p(x|y)": True, "p(y|x)": False},
    "prior": {"p(x)": True, "p(y)": True, "p(x|y)": False, "p(y|x)": False},
    "concept": {"p(x)": False, "p(y)": False, "p(x|y)": True, "p(y|x)": True},
}
"""Kind of shift → aspect of the distribution → whether it should move, as `verify` measures it.

For p(y|x) it measures whether examples keep their labels. For p(y) under a concept shift, the
classes that exchange labels are taken to be equally frequent.
"""


@dataclass(frozen=True, eq=False)
class Shifted:
    """Labelled examples; after a shift, with the example of the unshifted set that each comes from.

    x     [B, F]  examples, in the type they had (it may be the very tensor that was shifted)
    y     [B]     int64 class numbers
    rows  [B]     int64 rows of the unshifted set; None if the two sets share no examples

    Raises ValueError if the lengths differ, there is no example, or a part is no tensor or of
    another type.

    >>> Shifted(torch.zeros(3, 2), torch.tensor([0, 1]))
    Traceback (most recent call last):
        ...
    ValueError: x, y and rows must have one entry an example and at least one, got x [3, 2]...
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        columns = {"y": self.y} if self.rows is None else {"y": self.y, "rows": self.rows}
        for name, part in {"x": self.x, **columns}.items():
            check_tensor(part, name)
        lengths = {tuple(column.shape) for column in columns.values()}
        if self.x.ndim != 2 or lengths != {(len(self.x),)}:
            rows = "no rows" if self.rows is None else [*self.rows.shape]
            sizes = f"x {[*self.x.shape]}, y {[*self.y.shape]}, {rows}"
            raise ValueError(
                f"x, y and rows must have one entry an example and at least one, got {sizes}"
            )
        check_labels(self.y)
        if self.rows is not None and self.rows.dtype != torch.int64:
            raise ValueError(f"rows must be int64 row numbers, got {self.rows.dtype}")


def check_tensor(value: Any, name: str) -> Tensor:
    """A tensor: neither a list nor a numpy array, which torch.as_tensor turns into one."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name} must be a tensor, got {type(value).__name__}; torch.as_tensor makes one"
        )
    return value


def check_severity(severity: int) -> int:
    """Return `severity` if it is a whole number from 0 to 5, else raise a ValueError."""
    if check_count(severity, "severity", least=0) not in SEVERITIES:
        raise ValueError(
            f"severity must be a whole number from 0 (unchanged) to {SEVERITIES[-1]}, "
            f"got {severity}"
        )
    return int(severity)


def check_labels(labels: Tensor) -> Tensor:
    """Return `labels` `[B]` if they are class numbers, at least one; else raise a ValueError."""
    check_tensor(labels, "labels")
    if labels.ndim != 1 or labels.dtype != torch.int64 or not len(labels) or labels.min() < 0:
        smallest = f", smallest {labels.min()}" if labels.numel() else ""
        raise ValueError(
            "labels must be int64 class numbers from 0 on, [B] with at least one, "
            f"got {labels.dtype} {[*labels.shape]}{smallest}"
        )
    return labels
