"""Trials of the small study whose networks are scored at once, not trained."""

from contextlib import contextmanager

import numpy as np

from fabricated import (
    LAPTOP,
    SMALL_EXPERIMENT,
    experiments_from,
    stack_receipt,
    tables,
    write_experiments,
)
from steadydescent.study.training import trial as module
from steadydescent.study.training.trial import Trial


def peak_at(optimum: dict[str, float]):
    """Accuracy that falls with the distance, in grid points, from each readout's best point; a
    little noise a seed.
    """

    def score(run, readout: str, split: str) -> float:
        place = np.log2(run.lr / 0.1)
        best = optimum.get(f"{run.schedule}/{readout}", optimum.get(readout, optimum[""]))
        return (
            0.7
            - 0.02 * abs(place - best)
            + 1e-4 * (run.seed % 7)
            + (0.01 if split == "train" else 0)
        )

    return score


def start(
    monkeypatch, toy, optimum: dict[str, float], profile: str = "laptop", **told
) -> tuple[Trial, list]:
    """A trial whose networks are not trained but scored at once; and the lists of runs that it
    asked for.
    """
    asked, score = [], told.pop("score", peak_at(optimum))

    def pretend(runs, store, device, journal, title):
        asked.append(runs)
        missing = [run for run in runs if run.key not in store.keys()]  # noqa: SIM118  a store is no dict
        if missing:
            store.save(tables(missing, score, **told), stack_receipt(missing))

    monkeypatch.setattr(module, "train", pretend)
    return Trial("toy", "mnist1d-mlp", profile, "cpu", store=toy / "store"), asked


@contextmanager
def study_with(toy, size: dict | None = None, **fields):
    """The small experiment with other fields, its laptop profile with another size."""
    told = {
        "profiles": {"laptop": {"mnist1d-mlp": LAPTOP | (size or {})}},
        "secondary": [],
    } | fields
    write_experiments(toy / "other", SMALL_EXPERIMENT | told, claims=[])
    with experiments_from(toy / "other"):
        yield


def places(runs) -> list[int]:
    """Grid points of runs, by rounding the logarithm of their rates."""
    return sorted({round(np.log2(run.lr / 0.1)) for run in runs})
