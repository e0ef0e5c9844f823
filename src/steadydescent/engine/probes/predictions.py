"""Predicted classes, and how far two networks disagree."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from steadydescent.checks import check_count
from steadydescent.engine.evaluation import IGNORED
from steadydescent.weight_averaging import Readout

if TYPE_CHECKING:
    from steadydescent.engine.stack import Stack

LOST = 255
"""The class that a diverged network predicts."""


def predicted_classes(stack: "Stack", readout: Readout, examples: int = 1_000) -> list[bytes]:
    """Arg-max classes of the first test examples, a byte each, for every replica; 255 where one has
    diverged.

    A sequence gives a class at each of its labels; padding is left out.

    Raises: ValueError: for a surface, which has no classes; more examples than the test set has;
        more than 255 classes.
    """
    if stack.task.surface:
        raise ValueError(f"task {stack.first.task} is a surface, it predicts no classes")
    if check_count(examples, "examples") > len(stack.data.test):
        raise ValueError(
            f"examples must be at most the {len(stack.data.test)} of the test set, got {examples}"
        )
    look = stack.look(stack.data.test[:examples].expand(len(stack.runs), -1))
    logits = stack._each(
        stack.flat.outputs, *stack.weights(readout), look.pool, look.rows
    )  # [R, examples, …, K]
    if logits.shape[-1] > LOST:
        raise ValueError(
            f"classes must be at most {LOST} to fit a byte each, got {logits.shape[-1]}"
        )
    lost = (stack.carry.survived < stack.done) | ~logits.isfinite().flatten(1).all(1)
    classes = torch.where(lost.view(-1, *[1] * (logits.dim() - 2)), LOST, logits.argmax(-1)).to(
        torch.uint8
    )
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
