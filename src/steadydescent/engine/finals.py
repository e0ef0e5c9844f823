"""What a run is scored on in the end."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from steadydescent.engine.evaluation import Look, ReplicaScores
from steadydescent.engine.shifted_tests import Shift, shifted_test
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.view import View
from steadydescent.weight_averaging import Readout


class Final(NamedTuple):
    """Scores `[R]` of a readout on a part of the data, the test set as it is or after a
    shift."""

    scores: ReplicaScores
    readout: Readout
    split: str
    shift: Shift | None = None


def finals(view: View, test: bool) -> Iterator[Final]:
    """Scores on validation data; of a report run also on test and training data."""
    parts = {"validation": view.examples.validation}
    if test:
        parts |= {"test": view.examples.test, "train": view.examples.train}
    for split, rows in parts.items():
        found = view.scores(view.readouts, view.examples.look(rows))
        for scores, readout in zip(found, view.readouts, strict=True):
            yield Final(scores, readout, split)


def shifted_finals(
    view: View, shifts: Sequence[Shift], readouts: Sequence[Readout]
) -> Iterator[Final]:
    """Scores of these readouts on the test set after each shift."""
    known: dict[Shift, list[ReplicaScores]] = {}
    for shift in shifts:
        # without batch norm nothing can be taken anew
        scored = shift if view.flat.buffers else shift.with_frozen_statistics
        if scored not in known:
            known[scored] = _scores(view, scored, readouts)
        for scores, readout in zip(known[scored], readouts, strict=True):
            yield Final(scores, readout, "test", shift)


def _scores(view: View, shift: Shift, readouts: Sequence[Readout]) -> list[ReplicaScores]:
    """Their scores on the test set after a shift, drawn for each replica's seed."""
    purpose = f"shift/{shift.kind}"
    streams = [stream_seed(view.task.source, seed, purpose) for seed in view.seeds]
    parts = shifted_test(shift, view.task, view.examples.data, streams, view.examples.root)
    look = Look(*(part.to(view.device) for part in parts))
    if not shift.reestimated:
        return view.scores(readouts, look)
    return view.scores_reestimated(readouts, look, shift.batch)
