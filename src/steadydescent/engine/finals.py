"""What a run is scored on in the end."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from steadydescent.engine.evaluation import Look
from steadydescent.engine.shifted_tests import Shift, shifted_test
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.view import View
from steadydescent.weight_averaging import Readout


class Final(NamedTuple):
    """Scores of a readout, a row for every replica, on a part of the data, the test set as it is or
    after a shift.
    """

    scores: pd.DataFrame
    readout: Readout
    split: str
    shift: Shift | None = None


def finals(view: View, test: bool, shifts: Sequence[Shift]) -> Iterator[Final]:
    """Validation data; of a report run also test and training data, and each shifted test set."""
    parts = {"validation": view.examples.validation}
    if test:
        parts |= {"test": view.examples.test, "train": view.examples.train}
    for split, rows in parts.items():
        for readout in view.readouts:
            yield Final(view.score(readout, view.examples.look(rows)), readout, split)
    scores: dict[Shift, list[pd.DataFrame]] = {}
    for shift in shifts:
        # without batch norm nothing can be taken anew
        scored = shift if view.flat.buffers else shift.with_frozen_statistics
        if scored not in scores:
            scores[scored] = _scores(view, scored)
        for table, readout in zip(scores[scored], view.readouts, strict=True):
            yield Final(table, readout, "test", shift)


def _scores(view: View, shift: Shift) -> list[pd.DataFrame]:
    """Scores of every readout on the test set after a shift, drawn for each replica's seed."""
    purpose = f"shift/{shift.kind}"
    streams = [stream_seed(view.task.source, seed, purpose) for seed in view.seeds]
    parts = shifted_test(shift, view.task, view.examples.data, streams)
    look = Look(*(part.to(view.device) for part in parts))
    if not shift.reestimated:
        return [view.score(readout, look) for readout in view.readouts]
    return [view.score_reestimated(readout, look, shift.batch) for readout in view.readouts]
