"""Who a result's runs are: the condition and the arm that each serves, and what for.

A run whose readouts several arms are serves all of them: one row of the roster each. Rows keep the
study's order of conditions and arms.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from steadydescent.files import DamagedFile

PURPOSES = ("tuning", "report", "range test")


class Trajectory(NamedTuple):
    """What the runs of an arm under a condition have in common: all but rate and seed; where the
    options of its rule were searched, each rate has its own.
    """

    task: str
    optimizer: str
    schedule: str
    batch_size: int
    steps: int


SETTINGS = list(Trajectory._fields)


def check_roster(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Refuse a roster that does not fit the runs, or choices that were not among what was tuned.

    Raises:
        DamagedFile: names the folder and what is amiss.
    """
    runs, roster, choices = tables["runs"], tables["roster"], tables["choices"]
    if idle := len(set(runs.run) - set(roster.run)):
        raise DamagedFile(f"{folder} is refused: {idle} runs serve no condition and arm")
    served = roster.merge(runs, on="run")
    if not ((served.purpose == "report") == served.test).all():
        raise DamagedFile(
            f"{folder} is refused: not the runs with test data, and they alone, report"
        )
    compared = served[served.purpose != "range test"]
    rules = compared.assign(optimizer=compared.optimizer.str.partition("(")[0])
    rates = compared.groupby(["condition", "arm", "lr"]).optimizer.nunique()
    if (rules.groupby(["condition", "arm"])[SETTINGS].nunique() > 1).any(axis=None) or (
        rates > 1
    ).any():
        raise DamagedFile(f"{folder} is refused: runs of one arm and condition have other settings")
    tuned = served.loc[served.purpose == "tuning", ["condition", "arm", "lr"]].drop_duplicates()
    if len(choices.merge(tuned)) < len(choices):
        raise DamagedFile(f"{folder} is refused: a rate was chosen that no tuning run had")
    if not set(tables["suggestions"].run) <= set(served.run[served.purpose == "range test"]):
        raise DamagedFile(f"{folder} is refused: runs that are no range tests suggest rates")
