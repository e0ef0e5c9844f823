"""Where results lie, and what lies there: tables and receipts, verified."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.checks import check_choice
from steadydescent.engine.tasks import TASKS
from steadydescent.files import DamagedFile, completed, replaced_in
from steadydescent.study.paths import PUBLISHED, REPRODUCED
from steadydescent.study.planning import PROFILES
from steadydescent.study.results import published
from steadydescent.study.results.receipts import untrue
from steadydescent.study.results.store import RECEIPT, Result, read_folder

NOTEBOOKS = "notebooks"
"""Folder beside one's own results: executed notebooks, and notes of what they were made from."""
DEPTH = len(("experiment", "task", "file"))


def folder(source: str, profile: str | None) -> Path:
    """The folder that holds results: what was published, or one's own of a profile."""
    check_choice(source, ("published", "reproduced"), "source")
    if source == "published" and profile is None:
        return PUBLISHED
    check_choice(profile, PROFILES, "profile")
    return PUBLISHED if source == "published" else REPRODUCED / str(profile)


def results(root: Path) -> Iterator[tuple[str, str, Path, Result, dict[str, Any]]]:
    """Experiment, task, folder, tables and receipt of every result below `root`, verified.

    What the study asks for today is not looked at: a result says itself what it is.

    Raises:
        DamagedFile: for a file that is altered, stands in another's place, or is gone though it
            was made or published.
    """
    places = list(homes(root))  # first of all, for it finishes moves that were cut short
    if root == PUBLISHED:
        published.check(root)
    for name, task, home in places:
        if os.path.lexists(home):
            yield name, task, home, *read_result(root, name, task)
        elif (root / NOTEBOOKS / f"{name}-{task}.made-from").exists():
            raise DamagedFile(
                f"{home} is gone, though a run had finished it; {_again(root, name, task)}"
            )


def homes(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Experiment, task and the folder below `root` of every result that is there, or was made.

    Experiments go by name, tasks in the engine's order. A move that was cut short is finished
    first.
    """
    places = _published(root) if root == PUBLISHED else _own(root)
    order = {task: number for number, task in enumerate(TASKS)}
    for name, task in sorted(places, key=lambda at: (at[0], order.get(at[1], len(order)), at[1])):
        yield name, task, completed(root / name / task)


def _published(root: Path) -> set[tuple[str, str]]:
    """Experiment and task of every folder that the manifest lists a file of."""
    parts = (name.split("/") for name in published.listed(root))
    return {(part[0], part[1]) for part in parts if len(part) == DEPTH}


def _own(root: Path) -> set[tuple[str, str]]:
    """Experiment and task of every folder there, those in replacement too, and of finished runs."""
    finished = {path.stem.partition("-") for path in root.glob(f"{NOTEBOOKS}/*.made-from")}
    there = {(name, task) for name, _, task in finished}
    for experiment in root.glob("[!.]*/"):
        tasks = {path.name for path in experiment.glob("[!.]*")} | replaced_in(experiment)
        there |= {(experiment.name, task) for task in tasks}
    return {(name, task) for name, task in there if name != NOTEBOOKS}


def _again(root: Path, name: str, task: str) -> str:
    """What makes a result anew."""
    return (
        published.MEND
        if root == PUBLISHED
        else f"`steady run --profile {root.name} --only {name}/{task}` makes it"
    )


def read_result(root: Path, name: str, task: str) -> tuple[Result, dict[str, Any]]:
    """A result whose files are whole, and whose receipt is true of place and tables."""
    home = root / name / task
    try:
        verified.check_inside(home, root)
        result, receipt = read_folder(home, Result)
    except DamagedFile as error:
        raise DamagedFile(f"{error}; {_again(root, name, task)}") from error
    if wrong := untrue(name, task, None if root == PUBLISHED else root.name, result, receipt):
        raise DamagedFile(f"{home / RECEIPT} is refused: {wrong}; {_again(root, name, task)}")
    return result, receipt
