"""What `experiments/claims.yml` says of its own past is held to git, where the past is at hand."""

import datetime
import json
import subprocess
from functools import cache
from pathlib import Path

import pytest

from steadydescent.study import yaml_files
from steadydescent.study.paths import EXPERIMENTS, ROOT

FILE = EXPERIMENTS / "claims.yml"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def has_history() -> bool:
    try:
        return git("rev-parse", "--is-shallow-repository").strip() == "false"
    except (OSError, subprocess.CalledProcessError):
        return False


def contrasts(text: str, path: Path = FILE) -> dict[str, str]:
    """Every contrast as it asks, and where: claim, experiment, rank and content → `registered`.

    The day itself is no part of what is asked.
    """
    found = {}
    for claim in yaml_files._parsed(text, path).content:
        for rank in ("primary", "secondary", "contrasts"):
            for contrast in claim.get(rank) or ():
                asked = {name: value for name, value in contrast.items() if name != "registered"}
                what = [claim["id"], claim.get("experiment"), rank, asked]
                found[json.dumps(what, sort_keys=True)] = contrast.get("registered", "")
    return found


@cache
def first_commits() -> dict[str, str]:
    """Contrast → the day of the first commit in which it stands as it does there."""
    name, found = FILE.relative_to(ROOT).as_posix(), {}
    for line in git("log", "--reverse", "--format=%H %as", "--", name).splitlines():
        commit, day = line.split()
        try:
            asked = contrasts(git("show", f"{commit}:{name}"))
        except (ValueError, subprocess.CalledProcessError):
            continue  # what was no such file then registers nothing
        found |= {contrast: day for contrast in asked if contrast not in found}
    return found


def too_early(now: dict[str, str], commits: dict[str, str], today: str) -> list[str]:
    """Contrasts that are said to be registered before the first commit that has them."""
    return [asked for asked, day in now.items() if day < commits.get(asked, today)]


@pytest.mark.skipif(not has_history(), reason="there is no git history: registered is not checked")
def test_no_contrast_is_registered_before_the_commit_that_brought_it():
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert too_early(contrasts(FILE.read_text("utf-8")), first_commits(), today) == []


def test_a_day_typed_earlier_than_the_commit_is_found():
    """Another margin, rank or moderator is another contrast; another day is the same one."""
    claim = (
        "- id: a\n  experiment: toy\n  {}:\n    - {{arm: b, margins: {{t: {}}}, registered: {}}}"
    )
    (asked,) = contrasts(claim.format("primary", 1.0, "2026-02-01"))
    commits = {asked: "2026-02-01"}
    early = contrasts(claim.format("primary", 1.0, "2026-01-31"))
    assert set(early) == {asked} and too_early(early, commits, "2026-03-01") == [asked]
    assert too_early(contrasts(claim.format("primary", 1.0, "2026-02-02")), commits, "") == []
    for rank, margin in (("secondary", 1.0), ("primary", 1.1)):
        other = contrasts(claim.format(rank, margin, "2026-02-01"))
        assert too_early(other, commits, "2026-03-01") == list(other)
