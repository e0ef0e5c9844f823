"""Where results lie, and what lies there: tables and receipts, verified."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.checks import check_choice
from steadydescent.files import DamagedFile, completed
from steadydescent.study.paths import PUBLISHED, REPRODUCED
from steadydescent.study.planning import PROFILES, load_study
from steadydescent.study.results import published
from steadydescent.study.results.receipts import untrue
from steadydescent.study.results.store import RECEIPT, Result, read_folder


def folder(source: str, profile: str | None) -> Path:
    """The folder that holds results: what was published, or one's own of a profile."""
    check_choice(source, ("published", "reproduced"), "source")
    if source == "published" and profile is None:
        return PUBLISHED
    check_choice(profile, PROFILES, "profile")
    return PUBLISHED if source == "published" else REPRODUCED / str(profile)


def results(root: Path) -> Iterator[tuple[str, str, Path, Result, dict[str, Any]]]:
    """Experiment, task, folder, tables and receipt of every result below `root`, verified.

    Raises:
        DamagedFile: for a file that is altered, stands in another's place, or is gone though it
            was made or published.
    """
    places = list(homes(root))
    if root == PUBLISHED:
        published.check(root)
        _refuse_strangers(root, {f"{name}/{task}" for name, task, _ in places})
    for name, task, home in places:
        if os.path.lexists(home):
            yield name, task, home, *read_result(root, name, task)
        elif (root / "notebooks" / f"{name}-{task}.made-from").exists():
            raise DamagedFile(
                f"{home} is gone, though a run had finished it; {_again(root, name, task)}"
            )


def homes(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Experiment, task and the folder below `root` for its result.

    A move that was cut short is finished first.
    """
    for name, experiment in load_study().items():
        for task in experiment.rates:
            yield name, task, completed(root / name / task)


def _refuse_strangers(root: Path, known: set[str]) -> None:
    """Refuse a published result that no experiment of the study owns.

    It would not be shown, nor missed.
    """
    owned = {
        place.rpartition("/")[0]
        for place in published.listed(root)
        if place.endswith(f"/{RECEIPT}")
    }
    if strangers := sorted(owned - known):
        raise DamagedFile(
            f"{root / strangers[0]} is refused: experiments/study.yml has no rates for it; "
            "put them back, or remove the result and its lines in the manifest"
        )


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
    size = load_study()[name].profiles.get(receipt["profile"], {}).get(task)
    # none of its runs would match the plan, and nobody would miss them
    if size is None or size.steps != receipt["updates"]:
        asks = f"{size.steps} updates" if size else "nothing of the kind"
        raise ValueError(
            f"{home} was made in profile {receipt['profile']!r} with {receipt['updates']} "
            f"updates, and experiments/study.yml now asks for {asks}; "
            "take that change back, or run and publish it again"
        )
    return result, receipt
