"""Driving the study: what it costs, running it, comparing, publishing, serving and cleaning up."""

import functools
import http.server
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import click

from steadydescent.checks import check_choice
from steadydescent.engine import data
from steadydescent.engine.tasks import find
from steadydescent.files import require_room, writing
from steadydescent.study.book.build import HTML
from steadydescent.study.book.build import build_book as build_book
from steadydescent.study.book.findings import findings
from steadydescent.study.book.saved_results import folder, results
from steadydescent.study.book.summary import write_summary
from steadydescent.study.book.verdict_rows import rows
from steadydescent.study.book.words import interval_text
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.judge import judge_all
from steadydescent.study.judging.verdicts import stance
from steadydescent.study.paths import DATA, PUBLISHED, REPRODUCED, RESULTS, ROOT, STORE
from steadydescent.study.planning import left_out, plans
from steadydescent.study.planning.stacks import OWN_GIB
from steadydescent.study.results import published
from steadydescent.study.results.first_seen import note_first_seen
from steadydescent.study.results.store import Result, write_folder
from steadydescent.study.training.notebooks import (
    CELL_HOURS,
    check_notebooks,
    run_notebooks,
    up_to_date,
)
from steadydescent.study.training.workers import workers


def costs(profile: str, device: str, only: str = "") -> list[dict]:
    """One row a task: networks, points on surfaces, replica-steps, minutes, memory, disk."""
    return [plan.cost(device) for plan in plans(profile, only)]


def say_cost(rows: list[dict], profile: str, device: str, processes: int = 1) -> None:
    """The bill in a sentence, for so many processes that train, and what the profile leaves out."""
    networks, points, minutes, disk = (
        sum(row[column] for row in rows) for column in ("networks", "points", "minutes", "disk_mb")
    )
    runs = f"{networks} networks" + (f" and {points} points on surfaces" if points else "")
    memory = processes * max(row["memory_gib"] for row in rows)
    memory += OWN_GIB if processes > 1 else 0
    where = f"{processes} processes" if processes > 1 else "one process"
    click.echo(
        f"About {runs}, {max(1, round(minutes / processes))} minutes of training in "
        f"{where} on the machine these rates were measured on, {memory:g} GiB of memory, "
        f"{disk:.0f} MB of disk. Kill it at any time; the next run goes on where it was."
    )
    if missing := left_out(profile):
        click.echo(f"Profile {profile} leaves out: {', '.join(missing)}.")
    if device == "cuda" and profile != "full":
        full = costs("full", device)
        more = [sum(row[column] for row in full) for column in ("networks", "points", "minutes")]
        click.echo(
            f"This machine has a GPU: PROFILE=full would train {more[0]} networks and {more[1]} "
            "points on surfaces, with more seeds and more updates on every task, and leave nothing "
            f"out; it would take about {more[2] / 60:.1f} hours at the rates measured so far."
        )


def run_study(
    profile: str, device: str, only: str = "", asked: str = "", cell_hours: float = CELL_HOURS
) -> None:
    """Fetch the data and run the notebooks of the profile that are not up to date.

    `asked` processes train. Where they are several, two notebooks run at a time: while one is
    judged the other's networks keep all busy.
    """
    todo = []
    for plan in plans(profile, only):
        if up_to_date(plan, device):
            click.echo(f"{plan.experiment.title}, {plan.task}: up to date", err=True)
        else:
            todo.append(plan)
    if todo:
        require_room(REPRODUCED)
        needed = sum(float(plan.cost(device)["disk_mb"]) for plan in todo)
        require_room(STORE, needed - _size(STORE) / 1e6)
    check_notebooks(todo, device)
    for source in sorted({find(plan.task).source for plan in todo}):
        data.fetch(source, DATA, click.echo)
    with workers(device, asked) if todo else nullcontext() as address:
        run_notebooks(todo, device, 2 if address else 1, cell_hours)


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, less those that another process removes meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += Path(place, name).stat().st_size
    return size


def compare(profile: str) -> list[dict]:
    """Published rows against one's own: held, flipped, or undecided.

    Flipped means that one decisive verdict became another that contradicts it; what is known in one
    and open in the other, such as a size, contradicts nothing.
    """
    published.check(PUBLISHED)
    place = lambda row: (row["id"], row["task"], row["condition"])
    measured = lambda root: {place(row): row for row in rows(root) if row["result"]}
    mine = measured(folder("reproduced", profile))
    if not mine:
        raise FileNotFoundError(
            f"no reproduced results of profile {profile}; "
            f"run `make reproduce PROFILE={profile}` first"
        )
    compared = [
        _compared(row, mine[key]) for key, row in measured(PUBLISHED).items() if key in mine
    ]
    if not compared:
        raise FileNotFoundError(
            f"no published result is of a task that profile {profile} has run; "
            "there is nothing to compare"
        )
    return compared


def _compared(theirs: dict, own: dict) -> dict:
    """A published row beside one's own of the same claim, task and condition."""
    overlap = own["ci_low"] <= theirs["ci_high"] and theirs["ci_low"] <= own["ci_high"]
    return {
        "claim": theirs["id"],
        "task": theirs["task"],
        "condition": theirs["condition"],
        "published": theirs["verdict"],
        "yours": own["verdict"],
        "published_interval": interval_text(theirs),
        "your_interval": interval_text(own),
        "intervals_overlap": overlap,
        "outcome": _outcome(theirs, own),
    }


def _outcome(theirs: dict, own: dict) -> str:
    if theirs["verdict"] == own["verdict"]:
        return "held"
    if "open" in (theirs["verdict"], own["verdict"]):
        return "undecided"
    opposite = {stance(row["verdict"]) for row in (theirs, own)} == {"for", "against"}
    pairs = [{theirs[what], own[what]} - {"open"} for what in ("direction", "size")]
    return "flipped" if opposite or any(len(pair) > 1 for pair in pairs) else "held"


def publish_results(profile: str, only: str = "") -> list[str]:
    """Copy verified results of a profile to `results/published`, and sum up what is then published.

    Raises:
        ValueError: for profile smoke, which supports no claim.
        FileNotFoundError: when there are no results of the profile.
    """
    if profile == "smoke":
        raise ValueError(
            "profile 'smoke' supports no claim and is not published; use laptop, desk or full"
        )
    chosen = _reproduced(profile, only)
    for place in (PUBLISHED, RESULTS):
        require_room(place)
    published.check(PUBLISHED, but=chosen)  # what stays must be sound before anything is replaced
    for name, (result, receipt) in chosen.items():
        _publish(name, result, receipt)
    answered = [row for pair in chosen.values() for row in judge_all(Evidence(*pair))]
    note_first_seen({row.key: row.first_seen for row in answered if row.first_seen}, PUBLISHED)
    write_summary(findings("published")["claims"], RESULTS)
    return [receipt["result"] for _, receipt in chosen.values()]


def _reproduced(profile: str, only: str) -> dict[str, tuple[Result, dict]]:
    """Experiment/task → one's own result and receipt; `only` picks an experiment or a task."""
    there = {
        f"{experiment}/{task}": (result, receipt)
        for experiment, task, _, result, receipt in results(folder("reproduced", profile))
    }
    if not there:
        raise FileNotFoundError(
            f"no reproduced results of profile {profile}; `make reproduce PROFILE={profile}` first"
        )
    names = [part for name in there for part in (name.partition("/")[0], name)]
    if only:
        check_choice(only, list(dict.fromkeys(names)), "only, among the reproduced results,")
    picked = lambda name: only in ("", name, name.partition("/")[0])
    return {name: there[name] for name in there if picked(name)}


def _publish(name: str, result: Result, receipt: dict) -> None:
    """Write one result, whose files the manifest lists before they are there."""

    def announce(files: dict[str, str]) -> None:
        published.announce({f"{name}/{f}": digest for f, digest in files.items()}, PUBLISHED)

    write_folder(PUBLISHED / name, result, receipt, replace=True, announce=announce)
    published.record([name], PUBLISHED)


def serve_book(port: int) -> None:
    """Serve the built book on this machine until interrupted."""
    if not (HTML / "index.html").exists():
        raise FileNotFoundError(f"there is no book in {HTML}; run `make book` first")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(HTML))
    try:
        listening = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise RuntimeError(
            f"port {port} cannot be had ({error.strerror}); name another with --port"
        ) from error
    with listening as server:
        click.echo(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C stops)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("")


def clean_tree(with_results: bool, tell: Callable[[Path], None] = lambda path: None) -> list[Path]:
    """Remove builds and caches; with `with_results` also reproduced results and the store.

    `tell` hears of each before. A link goes, what it leads to stays.

    Raises:
        CannotWrite: for what cannot be removed; what was told of before is gone.
    """
    made = [ROOT / name for name in ("_build", "generated", "screenshots", ".hypothesis")]
    made += [*ROOT.glob(".*_cache"), *ROOT.glob("src/**/__pycache__")]
    made += [RESULTS / "reproduced", RESULTS / "store"] if with_results else []
    gone = [path for path in made if path.exists() or path.is_symlink()]
    for path in gone:
        tell(path)
        with writing(path):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return gone
