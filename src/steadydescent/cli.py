"""The `steady` command."""

import codecs
import io
import json
import os
import shlex
import signal
import sys
import time

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

PROFILE = click.option(
    "--profile",
    default="laptop",
    show_default=True,
    help="How large: smoke, laptop, desk or full.",
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
    help="Processes to train in: 1, more (with Dask), or auto: a core each with room in memory, or a GPU each.",
)
SOURCE = click.option(
    "--source", default="published", show_default=True, help="published, or reproduced (yours)."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")


class Seconds(click.FloatRange):
    """A range that no NaN is in, which compares with nothing."""

    def convert(self, value, param, ctx):
        if (number := super().convert(value, param, ctx)) != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


CLOSED_PIPE = 128 + 13
"""Exit code of whoever writes where nobody reads, as shells tell it."""
CELL_HOURS = click.option(
    "--cell-hours",
    default=48.0,
    show_default=True,
    envvar="CELL_HOURS",
    type=Seconds(0, 10_000, min_open=True),
    help="Hours after which a cell of a notebook counts as hung.",
)


class Listing(Console):
    """A console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        sys.exit(CLOSED_PIPE)


COMPUTING = ("run", "reproduce", "book", "bench")
"""Commands that run cells whose assertions count, or train."""


class OfStudy(click.Command):
    """A command that works on a study: without one it refuses, once its options are understood and
    help was given.
    """

    def invoke(self, ctx: click.Context):
        from steadydescent.study.paths import ROOT, require_study

        require_study(ROOT)
        if sys.flags.optimize and self.name in COMPUTING:
            raise click.ClickException(
                f"steady {self.name} needs the checks that Python leaves out with -O; run it without, or unset "
                "PYTHONOPTIMIZE"
            )
        return super().invoke(ctx)


class Friendly(click.Group):
    """Turns the errors that a user can mend into one sentence; anything else keeps its traceback."""

    command_class = OfStudy

    def __call__(self, *args, **kwargs):
        """The command as a process of its own, which also answers to signals and closed pipes."""
        from steadydescent.study.training.processes import leave, leave_on_signals

        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever called
                setattr(
                    sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
                )
        leave_on_signals()
        try:
            try:
                return super().__call__(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # `steady plan | head -1`
            leave(CLOSED_PIPE)

    def invoke(self, ctx: click.Context):
        _speak_any_language()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.exit(CLOSED_PIPE)  # click would make it 1
        except (click.exceptions.Exit, click.Abort):
            raise  # they are RuntimeErrors: --help ends with one, Ctrl-C with the other
        except (ValueError, OSError, RuntimeError) as error:
            from steadydescent.files import explained

            if os.environ.get("STEADY_DEBUG"):
                raise
            raise click.ClickException(
                f"{explained(error)}\n(STEADY_DEBUG=1 shows where this happened.)"
            ) from error


def _speak_any_language() -> None:
    """Let standard output carry every letter, in the C locale too, as Python's UTF-8 mode would."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        plain = codecs.lookup(sys.stdout.encoding).name == "ascii"
        sys.stdout.reconfigure(
            encoding="utf-8" if plain else None, errors="surrogateescape" if plain else "replace"
        )


@click.group(cls=Friendly, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Steady Descent: reproduce, verify and read the study."""
    os.environ.setdefault("STEADY_COMMAND", shlex.join(["steady", *sys.argv[1:]]))
    # Threads that wait by spinning cost several times the speed as soon as anything else runs on
    # the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Activations of some MB come and go at every step; handing them back to the system each time
    # costs a third.
    for name, size in (
        ("MALLOC_MMAP_THRESHOLD_", 2**32),
        ("MALLOC_TRIM_THRESHOLD_", 2**33),
        ("MALLOC_TOP_PAD_", 2**28),
    ):
        os.environ.setdefault(name, str(size))


def show(rows: list[dict], as_json: bool, title: str = "") -> None:
    """Print rows as a JSON list, or for people as a table; in a terminal too narrow for one, as a
    block a row.
    """
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=float))
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ["nothing"]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = Listing(width=None if sys.stdout.isatty() else 176)
    console.print(table if _width(rows) <= console.width else _blocks(rows, title))


def _width(rows: list[dict]) -> int:
    """Letters that a table of these rows takes across when it breaks no word of up to ten."""
    columns = (
        [[name.replace("_", " "), *(_cell(row[name]).plain for row in rows)] for name in rows[0]]
        if rows
        else []
    )
    longest = [
        max((len(word) for cell in column for word in cell.split()), default=0)
        for column in columns
    ]
    return sum(min(letters, 10) + 3 for letters in longest) + 1


def _blocks(rows: list[dict], title: str) -> Group:
    """A block for each row: what it is called, and below that a line for each value it has."""
    parts: list[RenderableType] = [Text(title, "bold")]
    for row in rows:
        (_, name), *values = row.items()
        block = Table.grid(padding=(0, 1))
        block.add_column(no_wrap=True, style="dim")
        block.add_column(overflow="fold")
        for key, value in values:
            if value not in ("", None):
                block.add_row(f"  {key.replace('_', ' ')}", _cell(value))
        parts += [Text(str(name), "bold"), block]
    return Group(*parts)


def _cell(value: object) -> Text:
    from steadydescent.study.book.words import short

    return Text(short(value))


def verdict_rows(rows: list[dict]) -> list[dict]:
    """The columns of a claim's rows that fit a terminal."""
    from steadydescent.study.book.words import for_terminal

    return [
        {
            "claim": row["id"],
            "task": row["task"],
            "condition": row["condition"],
            "verdict": row["verdict"],
            "measure": row["measure"],
            "estimate": for_terminal(row),
            "margin": f"{row['margin']:g}",
            "seeds": row["n_seeds"] or "",
            "networks": row["networks"] or "",
            "diverged": row["diverged"] or "",
            "would decide": f"{row['seeds_needed']} seeds" if row["seeds_needed"] else "",
            "rests on": row["result"] or " ".join(row["tests"][:1]),
        }
        for row in rows
    ]


@main.command()
@PROFILE
@DEVICE
@ONLY
@WORKERS
@JSON
def plan(profile: str, device: str, only: str, workers: str, as_json: bool) -> None:
    """What a profile will train and cost: networks, minutes of one process, memory, disk. Trains
    nothing.
    """
    from steadydescent.study.reproduce import costs, say_cost
    from steadydescent.study.training.sweep import pick_device, processes

    device = pick_device(device)
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
    from steadydescent.study.reproduce import build_book, run_study, say_cost
    from steadydescent.study.reproduce import costs as costs_of
    from steadydescent.study.training.sweep import pick_device, processes

    device = pick_device(device)
    rows = costs_of(profile, device, only)
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
    from steadydescent.study.training.sweep import pick_device

    run_study(profile, pick_device(device), only, workers, cell_hours)


def _verdicts(source: str, profile: str, as_json: bool) -> None:
    from steadydescent.study.book.verdict_rows import cached_rows

    found = cached_rows(source, profile)
    if not any(row["result"] for row in found) and not as_json:
        raise FileNotFoundError(
            f"no {source} results" + (f" of profile {profile}" if source == "reproduced" else "")
        )
    show(found if as_json else verdict_rows(found), as_json, f"Verdicts, {source} results")


@main.command()
@SOURCE
@PROFILE
@JSON
def claims(source: str, profile: str, as_json: bool) -> None:
    """Every claim's verdict with estimate, interval, margin and seeds."""
    _verdicts(source, profile, as_json)


@main.command()
@PROFILE
@JSON
def verify(profile: str, as_json: bool) -> None:
    """Compare your verdicts and numbers with the published ones; exit 1 when a published verdict
    flips.
    """
    from steadydescent.study.reproduce import compare

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

    click.echo(f"The book: {build_book(source, profile)}")


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

    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # the way to end it, and nothing to be kept
    serve_book(port)


@main.command()
@PROFILE
@ONLY
def publish(profile: str, only: str) -> None:
    """Make your results the published ones (reproduced → published)."""
    from steadydescent.study.reproduce import publish_results

    for name in publish_results(profile, only):
        click.echo(f"published {name}")


@main.command()
@click.argument("result", default="")
@SOURCE
@PROFILE
def cite(result: str, source: str, profile: str) -> None:
    """BibTeX of one result, or of all. RESULT is an id such as
    weight-averaging/mnist1d-mlp@3f9c2a7e, or its start.
    """
    from steadydescent.checks import check_choice
    from steadydescent.study.book.citations import bibtex
    from steadydescent.study.book.saved_results import folder, results

    found = [receipt for *_, receipt in results(folder(source, profile))]
    chosen = [receipt for receipt in found if receipt["result"].startswith(result)]
    if not chosen:
        check_choice(result, [receipt["result"] for receipt in found], f"the {source} result")
    click.echo("\n\n".join(bibtex(receipt) for receipt in chosen))


class DataGroup(click.Group):
    command_class = OfStudy


@main.group(cls=DataGroup)
def data() -> None:
    """The data sets."""


@data.command()
@click.argument("source", default="all")
def fetch(source: str) -> None:
    """Make or find the data (mnist1d, fashion-mnist or all), verify it, and say which source
    served.
    """
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
def bench(
    device: str, as_json: bool, only: str, also: str, seconds: float | None, rounds: int, save: bool
) -> None:
    """Time the engine side by side with what people would otherwise use, interleaved in one run."""
    from steadydescent.files import require_room
    from steadydescent.study.paths import PUBLISHED, ROOT
    from steadydescent.study.training.sweep import pick_device

    if save:
        require_room(PUBLISHED)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import suite
    from training import SECONDS, Settings

    began = time.monotonic()
    suite.chosen(only, also)  # refuses before anything is measured
    device = pick_device(device)
    rows = suite.measured(
        only, also, device, Settings(seconds or SECONDS[device], rounds), dict(os.environ)
    )
    show(rows if as_json else suite.brief(rows), as_json, f"Side by side on {device}")
    if save:
        path = suite.save(rows, device, (time.monotonic() - began) / 60)
        click.echo(f"saved {path}", err=True)


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
