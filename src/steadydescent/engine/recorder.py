"""Tables of what a stack leaves behind.

Rows of all replicas come in; those of the runs that are wanted, the first of the stack, are kept by
their keys. Tables are made at the end, all at once: there may be thousands of points.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from steadydescent.engine.evaluation import ReplicaScores
from steadydescent.engine.finals import Final
from steadydescent.engine.probes import Classes, Measurement
from steadydescent.engine.runs import Run
from steadydescent.weight_averaging import Readout

SCORE_COLUMNS = list(ReplicaScores._fields)


@dataclass(frozen=True)
class Histories:
    """What a stack leaves behind, in tidy tables.

    A row of `runs` is a run, of `finals` a (run, readout, part of the data), of `curves` a (run,
    readout, step), of `measures` what a probe found, and of `predictions` the classes of a (run,
    readout), where they were asked for. `seconds` is how long all of it took, of which `evaluation`
    says how long each kind of look at the networks did: `curves`, `probes`, `monitor`, `finals`,
    `shifts`.
    """

    runs: pd.DataFrame
    finals: pd.DataFrame
    curves: pd.DataFrame
    measures: pd.DataFrame
    predictions: pd.DataFrame
    seconds: float
    evaluation: dict[str, float]


class Recorder:
    """Keeps what is measured of the wanted runs."""

    def __init__(self, wanted: Sequence[Run]) -> None:
        self.wanted, self.keys = list(wanted), [run.key for run in wanted]
        self.evaluation: dict[str, float] = defaultdict(float)
        self._points: list[tuple[ReplicaScores, str, int]] = []
        self._finals: list[Final] = []
        self._readings: list[Measurement] = []
        self._classes: list[Classes] = []

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """A `with` block whose seconds count as evaluation of a kind.

        A GPU is waited for at first, so that no updates count; what is measured waits anyhow.
        """
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        began = time.perf_counter()
        yield
        self.evaluation[kind] += time.perf_counter() - began

    def add_point(self, scores: ReplicaScores, readout: Readout, step: int) -> None:
        """ReplicaScores of a readout along training, one for every replica."""
        self._points.append((scores, readout.text, step))

    def add_findings(self, findings: Iterable[Measurement | Classes]) -> None:
        """What a probe found."""
        for finding in findings:
            if isinstance(finding, Classes):
                self._classes.append(finding)
            else:
                self._readings.append(finding)

    def add_finals(self, finals: Iterable[Final]) -> None:
        """ReplicaScores at the end."""
        self._finals += finals

    def runs(self, survived: Sequence[int]) -> pd.DataFrame:
        """The runs, with the update at which one diverged; `survived` counts those before."""
        pairs = zip(self.wanted, survived, strict=False)
        diverged = [None if count == run.steps else count + 1 for run, count in pairs]
        table = pd.DataFrame([run.row for run in self.wanted])
        return table.assign(diverged_at=pd.array(diverged, "Int64"))

    def finals(self) -> pd.DataFrame:
        """ReplicaScores at the end."""
        shifts = [final.shift for final in self._finals]
        return self._keyed(
            self._stacked([final.scores for final in self._finals]),
            readout=[final.readout.text for final in self._finals],
            split=[final.split for final in self._finals],
            shift=[shift.kind if shift else "" for shift in shifts],
            severity=pd.array([shift.severity if shift else None for shift in shifts], "Int64"),
            statistics=[shift.statistics if shift else "" for shift in shifts],
            batch=pd.array([shift.batch if shift else None for shift in shifts], "Int64"),
        )

    def curves(self) -> pd.DataFrame:
        """ReplicaScores along training."""
        if not self._points:
            return pd.DataFrame(columns=["run", "readout", "step", *SCORE_COLUMNS])
        scores, readouts, steps = zip(*self._points, strict=True)
        return self._keyed(self._stacked(scores), readout=readouts, step=steps)

    def measures(self) -> pd.DataFrame:
        """What probes found, a number each."""
        count = len(self.keys)
        values = [
            np.asarray(reading.values, dtype=np.float64)[:count] for reading in self._readings
        ]
        whole = lambda numbers: pd.array(list(numbers), "Int64")
        return self._keyed(
            pd.DataFrame({"value": np.concatenate(values)}),
            readout=[reading.readout for reading in self._readings],
            measure=[reading.quantity for reading in self._readings],
            batch_size=whole(reading.batch_size for reading in self._readings),
            step=whole(reading.step for reading in self._readings),
        )

    def predictions(self) -> pd.DataFrame:
        """Classes that were predicted for the first test examples."""
        if not self._classes:
            return pd.DataFrame(columns=["run", "readout", "classes"])
        rows = [row for classes in self._classes for row in classes.rows[: len(self.keys)]]
        readouts = [classes.readout for classes in self._classes]
        return self._keyed(pd.DataFrame({"classes": rows}), readout=readouts)

    def _stacked(self, scores: Sequence[ReplicaScores]) -> pd.DataFrame:
        wanted = [one.at(slice(len(self.keys))) for one in scores]
        columns = map(np.concatenate, zip(*wanted, strict=True))
        return pd.DataFrame(dict(zip(SCORE_COLUMNS, columns, strict=True)))

    def _keyed(self, table: pd.DataFrame, **columns: Sequence) -> pd.DataFrame:
        """The table with the keys of the runs, and with columns that say of each block of rows, one
        row a wanted run, what it is of.
        """
        # taken by place: nothing is looked at again for its type, row by row
        rows, places = np.divmod(np.arange(len(table)), len(self.keys))
        repeated = {
            name: pd.Series(values).take(rows).reset_index(drop=True)
            for name, values in columns.items()
        }
        keys = pd.Series(self.keys).take(places).reset_index(drop=True)
        return table.assign(**repeated, run=keys)
