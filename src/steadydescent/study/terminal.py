"""How the `steady` command meets whoever called it: errors in a sentence, signals, closed pipes,
tables.

Everything heavy is imported where it is needed, so that help comes at once.
"""

import codecs
import io
import json
import os
import sys

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

CLOSED_PIPE = 128 + 13
"""Exit code of whoever writes where nobody reads, by the convention of shells."""
UNBROKEN = ("estimate", "verdict")
"""Columns whose cells are not broken."""
WIDE = 180
"""Letters across where no terminal says how many: no result's id is broken there."""
COMPUTING = ("run", "reproduce", "book", "bench", "gpu")
"""Commands that run cells whose assertions count, or train."""


class Seconds(click.FloatRange):
    """A range that no NaN is in, which compares with nothing."""

    def convert(self, value, param, ctx):
        """The number, or click's refusal."""
        if (number := super().convert(value, param, ctx)) != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class OfStudy(click.Command):
    """A command that works on a study; without one it refuses, once help was given."""

    def invoke(self, ctx: click.Context):
        """Run the command where there is a study and the checks that it needs are on."""
        from steadydescent.study.paths import ROOT, require_study

        require_study(ROOT)
        if sys.flags.optimize and self.name in COMPUTING:
            raise click.ClickException(
                f"steady {self.name} needs the checks that Python leaves out with -O; "
                "run it without, or unset PYTHONOPTIMIZE"
            )
        return super().invoke(ctx)


class GroupOfStudy(click.Group):
    """A group of such commands."""

    command_class = OfStudy


class Friendly(GroupOfStudy):
    """Turns the errors that a user can mend into one sentence; others keep their traceback."""

    def __call__(self, *args, **kwargs):
        """The command as a process of its own, which also answers to signals and closed pipes."""
        from steadydescent.study.training.processes import leave, leave_on_signals

        _open_closed_streams()
        leave_on_signals()
        try:
            try:
                return super().__call__(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # `steady plan | head -1`
            leave(CLOSED_PIPE)

    def invoke(self, ctx: click.Context):
        """Run a command; its errors become click's."""
        _write_any_letter()
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
            hint = "(STEADY_DEBUG=1 shows where this happened.)"
            raise click.ClickException(f"{explained(error)}\n{hint}") from error


def _open_closed_streams() -> None:
    """Give the streams that the caller has closed a place to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
            setattr(sys, name, nowhere)


def _write_any_letter() -> None:
    """Let standard output carry every letter, in the C locale too, as Python's UTF-8 mode would."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        plain = codecs.lookup(sys.stdout.encoding).name == "ascii"
        sys.stdout.reconfigure(
            encoding="utf-8" if plain else None, errors="surrogateescape" if plain else "replace"
        )


class Listing(Console):
    """A console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        """End as a shell expects of one whose reader has gone."""
        sys.exit(CLOSED_PIPE)


def show(rows: list[dict], as_json: bool, title: str = "") -> None:
    """Print rows as a JSON list, or for people: a table, or blocks where that would be too wide."""
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=float))
        return
    console = Listing(width=None if sys.stdout.isatty() else WIDE)
    fits = _width(rows) <= console.width
    console.print(_table(rows, title) if fits else _blocks(rows, title))


def _table(rows: list[dict], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ["nothing"]:
        table.add_column(_heading(name), overflow="fold", no_wrap=name in UNBROKEN)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _width(rows: list[dict]) -> int:
    """Letters that a table of these rows takes across when it breaks no word of up to ten, and
    nothing in columns that stay whole.
    """
    across = 1
    for name in rows[0] if rows else []:
        cells = [_heading(name), *(_cell(row[name]).plain for row in rows)]
        words = [word for cell in cells for word in cell.split()]
        longest = max(map(len, words), default=0)
        across += (max(map(len, cells)) if name in UNBROKEN else min(longest, 10)) + 3
    return across


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
                block.add_row(f"  {_heading(key)}", _cell(value))
        parts += [Text(str(name), "bold"), block]
    return Group(*parts)


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> Text:
    from steadydescent.study.book.words import short

    return Text(short(value))
