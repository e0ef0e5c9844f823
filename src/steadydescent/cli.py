"""The `steady` command: its options, and what each subcommand calls.

Everything heavy is imported where it is needed, so that help comes at once.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

import click

from steadydescent.study.terminal import Friendly, GroupOfStudy, OfStudy, Seconds, show

PROFILE = click.option(
    "--profile",
    default="auto",
    show_default=True,
    help="How large: smoke, laptop, desk, full, or auto: laptop, and with a GPU what is published.",
    envvar="PROFILE",
)
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu or cuda.", envvar="DEVICE"
)
ONLY = click.option("--only", default="", help="One experiment, or experiment/task.", envvar="ONLY")
WORKERS = click.option(
    "--workers",
    default="auto",
    show_default=True,
    envvar="WORKERS",
    help="Processes to train in: 1, more (with Dask), or auto: a core each with room in memory, "
    "or a GPU each.",
)
CELL_HOURS = click.option(
    "--cell-hours",
    default=48.0,
    show_default=True,
    envvar="CELL_HOURS",
    type=Seconds(0, 10_000, min_open=True),
    help="Hours after which a cell of a notebook counts as hung.",
)
SOURCE = click.option(
    "--source", default="published", show_default=True, help="published, or reproduced (yours)."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": 2**32,
    "MALLOC_TRIM_THRESHOLD_": 2**33,
    "MALLOC_TOP_PAD_": 2**28,
}
"""Activations of some MB come and go at every step; handing them back to the system each time costs
a third."""


def _profile(asked: str, device: str = "") -> str:
    """The profile that is meant; what has no device of its own takes that of the environment."""
    from steadydescent.study.planning import AUTO, profile_for
    from steadydescent.study.training.stack_training import pick_device

    if asked != AUTO:
        return asked
    return profile_for(asked, device or pick_device(os.environ.get("DEVICE") or "auto"))


@click.group(cls=Friendly, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Steady Descent: reproduce, verify and read the study."""
    os.environ.setdefault("STEADY_COMMAND", shlex.join(["steady", *sys.argv[1:]]))
    # Threads that wait by spinning cost several times the speed as soon as anything else runs here.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name, size in MALLOC.items():
        os.environ.setdefault(name, str(size))


@main.command()
@PROFILE
@DEVICE
@ONLY
@WORKERS
@JSON
def plan(profile: str, device: str, only: str, workers: str, as_json: bool) -> None:
    """What a profile costs, training nothing: networks, minutes of one process, memory, disk."""
    from steadydescent.study.reproduce import costs, say_cost
    from steadydescent.study.training.stack_training import pick_device
    from steadydescent.study.training.workers import processes

    device = pick_device(device)
    profile = _profile(profile, device)
    rows = costs(profile, device, only)
    show(rows, as_json, f"Profile {profile} on {device}")
    if not as_json:
        say_cost(rows, profile, device, processes(device, workers))


@main.command()
@PROFILE
@DEVICE
@ONLY
@WORKERS
@CELL_HOURS
@click.option("--book/--no-book", default=True, help="Build the book from the results at the end.")
def reproduce(
    profile: str, device: str, only: str, workers: str, cell_hours: float, book: bool
) -> None:
    """Plan, fetch data, train what is missing, judge the claims, and build the book."""
    from steadydescent.study.reproduce import build_book, costs, run_study, say_cost
    from steadydescent.study.training.stack_training import pick_device
    from steadydescent.study.training.workers import processes

    device = pick_device(device)
    profile = _profile(profile, device)
    rows = costs(profile, device, only)
    show(rows, False, f"Profile {profile} on {device}")
    say_cost(rows, profile, device, processes(device, workers))
    run_study(profile, device, only, workers, cell_hours)
    _verdicts("reproduced", profile, False)
    if book:
        click.echo(f"The book with your results: {build_book('reproduced', profile)}")


@main.command()
@PROFILE
@DEVICE
@ONLY
@WORKERS
@CELL_HOURS
def run(profile: str, device: str, only: str, workers: str, cell_hours: float) -> None:
    """Train what is missing, without the book."""
    from steadydescent.study.reproduce import run_study
    from steadydescent.study.training.stack_training import pick_device

    device = pick_device(device)
    run_study(_profile(profile, device), device, only, workers, cell_hours)


def verdict_rows(rows: list[dict]) -> list[dict]:
    """The columns of a claim's rows that fit a terminal."""
    from steadydescent.study.book.words import for_terminal

    return [
        {
            "claim": row["id"],
            "task": row["task"],
            "condition": row["condition"],
            "kind": "primary" if row["primary"] else "secondary",
            "verdict": row["verdict"],
            "measure": row["measure"],
            "estimate": for_terminal(row),
            "margin": f"{row['margin']:g}",
            "seeds": row["n_seeds"] or "",
            "note": "; ".join(_notes(row)),
            "rests on": row["result"] or " ".join(row["tests"][:1]),
        }
        for row in rows
    ]


def _notes(row: dict) -> Iterator[str]:
    """What people should know of a row beside its estimate."""
    from steadydescent.study.book.words import ADDED_AFTER, added_after

    if row["seeds_needed"] is not None:
        enough = "no number of" if row["seeds_needed"] == "never" else row["seeds_needed"]
        yield f"{enough} seeds would decide"
    if row["diverged"]:
        yield f"{row['diverged']} diverged"
    if added_after(row):
        yield ADDED_AFTER


def _verdicts(source: str, profile: str, as_json: bool) -> None:
    from steadydescent.study.book.verdict_rows import cached_rows

    rows = cached_rows(source, profile)
    if not any(row["result"] for row in rows) and not as_json:
        which = f" of profile {profile}" if source == "reproduced" else ""
        raise FileNotFoundError(f"no {source} results{which}")
    if not as_json:
        found = dict.fromkeys((row["id"], row["headline"]) for row in rows)
        lines = [{"claim": claim, "what was found": said} for claim, said in found]
        show(lines, False, f"Claims, {source} results")
    show(rows if as_json else verdict_rows(rows), as_json, f"Verdicts, {source} results")


@main.command()
@SOURCE
@PROFILE
@JSON
def claims(source: str, profile: str, as_json: bool) -> None:
    """Every claim's verdict with estimate, interval, margin and seeds."""
    _verdicts(source, _profile(profile), as_json)


@main.command()
@PROFILE
@JSON
def verify(profile: str, as_json: bool) -> None:
    """Compare your verdicts with the published ones; exit 1 when a published verdict flips."""
    from steadydescent.study.reproduce import compare

    profile = _profile(profile)
    rows = compare(profile)
    show(rows, as_json, f"Your {profile} results against the published ones")
    flipped = [row for row in rows if row["outcome"] == "flipped"]
    if not as_json:
        held = sum(row["outcome"] == "held" for row in rows)
        click.echo(f"{held} of {len(rows)} published verdicts held, {len(flipped)} flipped.")
    sys.exit(bool(flipped))


@main.command()
@SOURCE
@PROFILE
def book(source: str, profile: str) -> None:
    """Build the book into _build/html; warnings fail the build."""
    from steadydescent.study.reproduce import build_book

    click.echo(f"The book: {build_book(source, _profile(profile))}")


@main.command()
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0: any that is free.",
)
def serve(port: int) -> None:
    """Serve the built book on this machine."""
    from steadydescent.study.reproduce import serve_book

    # Ctrl-C is the way to end it, and there is nothing to be kept.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve_book(port)


@main.command()
@PROFILE
@ONLY
def publish(profile: str, only: str) -> None:
    """Make your results the published ones (reproduced → published)."""
    from steadydescent.study.reproduce import publish_results

    for name in publish_results(_profile(profile), only):
        click.echo(f"published {name}")


@main.command()
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path))
def import_store(archive: tuple[Path, ...]) -> None:
    """Take in stacks that another machine has trained, each once it has been verified.

    ARCHIVE is one or more of the files store-1.tar, store-2.tar, … that `make gpu` leaves.
    """
    from steadydescent.study.paths import STORE
    from steadydescent.study.results.store import Store
    from steadydescent.study.results.store_archive import take_in

    store, refused = Store(STORE), 0
    for path in archive:
        found = take_in(path, store)
        refused += len(found.refused)
        for reason in found.refused:
            click.echo(reason, err=True)
        click.echo(
            f"{path}: {found.stacks} stacks of {found.networks} networks taken in, "
            f"{found.present} were here already, {len(found.refused)} refused"
        )
    click.echo(
        "Another machine's numbers count as old on this one and are trained again, unless "
        "STEADY_ACCEPT_STALE=1 takes them as they are."
    )
    sys.exit(bool(refused))


@main.command()
@click.argument("result", default="")
@SOURCE
@PROFILE
def cite(result: str, source: str, profile: str) -> None:
    """BibTeX of one result, or of all.

    RESULT is an id such as weight-averaging/mnist1d-mlp@3f9c2a7e, or its start.
    """
    from steadydescent.checks import check_choice
    from steadydescent.study.book.citations import bibtex
    from steadydescent.study.book.saved_results import folder, results

    receipts = [receipt for *_, receipt in results(folder(source, _profile(profile)))]
    named = [receipt for receipt in receipts if receipt["result"].startswith(result)]
    if not named:
        check_choice(result, [receipt["result"] for receipt in receipts], f"the {source} result")
    click.echo("\n\n".join(bibtex(receipt) for receipt in named))


@main.group(cls=GroupOfStudy)
def data() -> None:
    """The data sets."""


class ListsSources(OfStudy):
    """A command whose help ends with the sources that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Name them as the engine does; its import is worth its time only here."""
        from steadydescent.engine.data import SOURCES

        self.epilog = f"SOURCE is one of {', '.join(SOURCES)}, or all."
        super().format_epilog(ctx, formatter)


@data.command(cls=ListsSources)
@click.argument("source", default="all")
def fetch(source: str) -> None:
    """Make or find data, verify them, and say which place they came from."""
    from steadydescent.checks import check_choice
    from steadydescent.engine import data as sources
    from steadydescent.files import require_room
    from steadydescent.study.paths import DATA

    check_choice(source, [*sources.SOURCES, "all"], "source")
    require_room(DATA)
    for name in sources.SOURCES if source == "all" else [source]:
        click.echo(f"{name}: {sources.fetch(name, DATA, click.echo)}")


@main.command()
@DEVICE
@JSON
@click.option("--only", default="", help="Cases whose name holds this, or matches it as a glob.")
@click.option(
    "--with",
    "also",
    default="",
    help="Cases that take minutes: reproduce, book, or both with a comma.",
)
@click.option(
    "--seconds",
    type=Seconds(min=0, max=600, min_open=True),
    help="Seconds a measurement, at most 600; 1 on a CPU, 0.4 on a GPU unless given.",
)
@click.option(
    "--rounds",
    default=7,
    show_default=True,
    type=click.IntRange(2, 100),
    help="Interleaved repetitions.",
)
@click.option(
    "--save",
    is_flag=True,
    help="Keep rows and a receipt in results/published, where the book reads them.",
)
@click.option(
    "--from",
    "box",
    type=click.Path(path_type=Path, file_okay=False),
    help="Measure nothing: keep there what `make gpu` left in this folder.",
)
def bench(
    device: str,
    as_json: bool,
    only: str,
    also: str,
    seconds: float | None,
    rounds: int,
    save: bool,
    box: Path | None,
) -> None:
    """Time the engine side by side with what people would otherwise use, interleaved in one run."""
    from steadydescent.files import require_room
    from steadydescent.study.gpu_box.measuring import timed_on_box
    from steadydescent.study.paths import PUBLISHED, ROOT
    from steadydescent.study.training.stack_training import pick_device

    if save or box:
        require_room(PUBLISHED)
    suite = run_path(str(ROOT / "benchmarks"))
    if box:
        found, origin = timed_on_box(box)
        click.echo(f"saved {suite['keep'](found, origin['device_kind'], origin)}", err=True)
        return
    began = time.monotonic()
    suite["chosen"](only, also)  # refuses before anything is measured
    device = pick_device(device)
    settings = suite["Settings"](seconds or suite["SECONDS"][device], rounds)
    measured = suite["measured"](only, also, device, settings, dict(os.environ))
    show(measured if as_json else suite["brief"](measured), as_json, f"Side by side on {device}")
    if save:
        path = suite["save"](measured, device, (time.monotonic() - began) / 60)
        click.echo(f"saved {path}", err=True)


@main.command()
@DEVICE
@click.option(
    "--minutes",
    default=9.0,
    show_default=True,
    envvar="MINUTES",
    type=Seconds(0.1, 10_000),
    help="Minutes in which all has to end.",
)
@click.option(
    "--out",
    default="results/gpu",
    show_default=True,
    envvar="OUT",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of its files.",
)
@click.option("--again", is_flag=True, envvar="AGAIN", help="Do again what is finished.")
def gpu(device: str, minutes: float, out: Path, again: bool) -> None:
    """What a GPU box is, its tests, speed and widths, then as much of profile full as time allows.

    Each part writes its file at once; the same command goes on where it ended. On a CPU it goes
    the same way in small.
    """
    from steadydescent.study.gpu_box.needs import check_needs

    check_needs()  # before anything that needs them is imported
    from steadydescent.study.gpu_box.command import on_gpu_box
    from steadydescent.study.paths import ROOT
    from steadydescent.study.training.stack_training import pick_device

    on_gpu_box(pick_device(device), minutes, ROOT / out, again)


@main.command()
@click.option(
    "--results", "with_results", is_flag=True, help="Also your reproduced results and the store."
)
def clean(with_results: bool) -> None:
    """Remove what builds made; results and data stay unless asked for."""
    from steadydescent.study.paths import ROOT, require_project
    from steadydescent.study.reproduce import clean_tree

    require_project(ROOT)
    if not clean_tree(with_results, lambda path: click.echo(f"removing {path}")):
        click.echo("Nothing to clean.")


if __name__ == "__main__":
    main()
