"""Predicted classes, and how far two networks disagree."""

from collections.abc import Iterator

import numpy as np
import torch

from steadydescent.checks import check_count
from steadydescent.engine.probes.probe import Classes, Probe, ProbedRun
from steadydescent.engine.tasks import find
from steadydescent.engine.tasks.task import IGNORED
from steadydescent.engine.view import View
from steadydescent.weight_averaging import Readout

LOST = 255
"""The class that a diverged network predicts."""


class Predictions(Probe):
    """The classes that every readout predicts for the first test examples."""

    name = "predictions"
    when = "end"

    @classmethod
    def check(cls, run: ProbedRun) -> None:
        """Raises ValueError for a run that never looks at test data, and for a surface."""
        if not run.test:
            raise ValueError(
                "the probe 'predictions' looks at test data, which a run with test=False never does"
            )
        if find(run.task).surface:
            raise ValueError(
                f"the probe 'predictions' needs classes, which the surface {run.task} has not"
            )

    def look(self, view: View) -> Iterator[Classes]:
        for readout in view.readouts:
            yield Classes(readout.text, predicted_classes(view, readout))


def predicted_classes(view: View, readout: Readout, examples: int = 1_000) -> list[bytes]:
    """Arg-max classes of the first test examples, a byte each, for every replica; 255 where one has
    diverged.

    A sequence gives a class at each of its labels; padding is left out.

    Raises:
        ValueError: for a surface, which has no classes; more examples than the test set has; more
            than 255 classes.
    """
    if view.task.surface:
        raise ValueError("a surface predicts no classes")
    most = len(view.examples.data.test)
    if check_count(examples, "examples") > most:
        raise ValueError(f"examples must be at most the {most} of the test set, got {examples}")
    look = view.examples.look(view.examples.test[:, :examples])
    logits = view.outputs(readout, look)  # [R, examples, …, K]
    if logits.shape[-1] > LOST:
        raise ValueError(
            f"classes must be at most {LOST} to fit a byte each, got {logits.shape[-1]}"
        )
    lost = ~view.alive | ~logits.isfinite().flatten(1).all(1)
    lost = lost.view(-1, *[1] * (logits.dim() - 2))
    classes = torch.where(lost, LOST, logits.argmax(-1)).to(torch.uint8)
    counted = look.targets[0] != IGNORED
    return [row[counted].cpu().numpy().tobytes() for row in classes]


def churn(a: bytes, b: bytes) -> float:
    """The share of examples on which two networks disagree; a diverged one agrees with none, not
    even another.

    Raises:
        ValueError: for predictions of different length, or none.

    >>> churn(bytes([3, 1, 4, 1]), bytes([3, 1, 4, 5]))
    0.25
    """
    if len(a) != len(b) or not a:
        raise ValueError(
            f"predictions must be of the same examples, at least one; got {len(a)} and {len(b)}"
        )
    one, other = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    return float(np.mean((one != other) | (one == LOST)))
