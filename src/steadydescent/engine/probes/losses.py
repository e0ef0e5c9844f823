"""Losses: of every minibatch, of the last quarter of them, and of the training set on the way."""

from collections.abc import Iterator
from typing import ClassVar

from steadydescent.engine.examples import TRAIN_EXAMPLES
from steadydescent.engine.probes.probe import Measurement, Probe, Quantity
from steadydescent.engine.view import LAST_WEIGHTS, View

TAIL = 4
"""The tail of the minibatch losses is their last so-manieth part, and never fewer than two."""


class TailLosses(Probe):
    """Mean and standard deviation of the minibatch losses of a run's last quarter."""

    name = "tail-losses"
    quantities = (
        Quantity("tail-loss-mean"),
        Quantity("tail-loss-sd", "spread of the loss", "×", higher=False, statistic="log mean"),
    )
    when = "end"

    def look(self, view: View) -> Iterator[Measurement]:
        losses = view.losses.double().cpu()
        tail = losses[-max(2, len(losses) // TAIL) :]
        yield Measurement("tail-loss-mean", tail.mean(0))
        yield Measurement("tail-loss-sd", tail.std(0))


class Losses(Probe):
    """The minibatch loss before every update."""

    name = "losses"
    quantities = (Quantity("loss"),)
    when = "end"

    def look(self, view: View) -> Iterator[Measurement]:
        for step, values in enumerate(view.losses.double().cpu(), start=1):
            yield Measurement("loss", values, step=step)


class TrainingLoss(Probe):
    """Cross-entropy of the training set, or as much of it as is looked at in the end."""

    name = "training-loss"
    quantities = (Quantity("training-loss"),)
    examples: ClassVar[int] = TRAIN_EXAMPLES

    def look(self, view: View) -> Iterator[Measurement]:
        scores = view.score(LAST_WEIGHTS, view.examples.look(view.examples.train))
        yield Measurement("training-loss", scores.loss, LAST_WEIGHTS.text, step=view.done)
