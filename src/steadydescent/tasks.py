"""Tasks: a data set, a model and a loss (cross-entropy) under one name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from steadydescent.models import ConvNet, mlp


@dataclass(frozen=True)
class Task:
    """`source` names the data (see `steadydescent.data.load`), `build` makes a freshly initialised model."""

    source: str
    build: Callable[[], nn.Module]
    classes: int = 10


TASKS = {
    "mnist1d-mlp": Task("mnist1d", lambda: mlp(40, 100, 100, 10)),
    "fashion-mnist-mlp": Task("fashion-mnist", lambda: mlp(784, 128, 10)),
    "fashion-mnist-cnn": Task("fashion-mnist", ConvNet),
}
