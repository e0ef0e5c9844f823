"""Building the book beside the one at hand, which stays as it is until the new one is whole.

    _build/html → books/abc/html    a link, which is what moves; it always leads to a whole book
    _build/books/abc/made-from      what that book was made from, so that it need not be made again

`steady book` prepares what pages refer to and then calls `jupyter-book build`. That command alone
builds the published book, too, and prepares it through the book's extension; then there is no
second book beside the one at hand. One build at a time: generated/ belongs to it.
"""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from filelock import FileLock, Timeout

from steadydescent.files import flush, require_room
from steadydescent.study.book import jupyter_book_command
from steadydescent.study.book.findings import findings, write
from steadydescent.study.book.saved_results import folder
from steadydescent.study.paths import GENERATED, ROOT
from steadydescent.study.results.provenance import packages
from steadydescent.study.results.up_to_date import digest, remember, unchanged

HTML = ROOT / "_build" / "html"
"""The book at hand: a link to the folder of the last build that came through."""
MADE_FROM = (
    "_config.yml",
    "_toc.yml",
    "*.md",
    "*.bib",
    "chapters",
    "experiments",
    "web",
    "src",
    "tests",
    "benchmarks",
    "results/published",
)
"""What the book is built from, besides one's own results when it shows these."""
COMMAND = (sys.executable, "-m", jupyter_book_command.__name__)
"""Jupyter Book's command, as a process that ends with this one."""
KERNEL_NOTICES = ("Kernel is running over TCP", "KeyboardInterrupt caught in kernel")


def build_book(source: str, profile: str | None = None) -> Path:
    """Build the book from published or reproduced results; returns its first page.

    Warnings fail the build. The book at hand stays until the new one is whole; a build that fails,
    or is killed, leaves it alone. Nothing is built when the book at hand was made from the same.
    While another build is running this one waits, and says so.

    Raises:
        FileNotFoundError: if there are no such results.
        RuntimeError: if the pages do not build without a warning.
    """
    home = folder(source, profile)
    if not _at_hand(_made_from(home, source, profile)):
        require_room(HTML.parent)
        with _alone():
            # the build that was waited for may have made this very book
            if not _at_hand(made_from := _made_from(home, source, profile)):
                prepare(source, profile)
                _build(made_from)
    return HTML / "index.html"


def prepare(source: str, profile: str | None = None) -> None:
    """Write anew all that pages refer to and that is computed before they are read."""
    computed = findings(source, profile)
    shutil.rmtree(GENERATED, ignore_errors=True)
    write(GENERATED / "findings.json", computed)


def prepare_in_place() -> FileLock:
    """Prepare the published book for `jupyter-book build`, which writes over the book at hand.

    Returns:
        The lock of builds, to be held until the build ends.
    """
    lock = _lock()
    (HTML.resolve().parent / "made-from").unlink(missing_ok=True)  # it is no longer what it was
    prepare("published")
    return lock


def _made_from(home: Path, source: str, profile: str | None) -> str:
    """Digest of all that the book is made from."""
    sources = [path for pattern in MADE_FROM for path in ROOT.glob(pattern)]
    return digest([*sources, *home.glob("*/*/*")], source, profile, packages())


def _at_hand(made_from: str) -> bool:
    """Whether the book at hand is whole, and made from just this."""
    whole = (HTML / "index.html").exists()
    return whole and unchanged(HTML.resolve().parent / "made-from", made_from)


def _lock() -> FileLock:
    """The lock of builds, once no other build holds it."""
    HTML.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(HTML.parent / ".building.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting = "Another build of the book is running here; this one waits for it to end."
        click.echo(waiting, err=True)
        lock.acquire()
    return lock


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other builds waiting; what a killed one has left is removed on both sides."""
    lock = _lock()
    try:
        _remove_all_but_the_book_at_hand()
        yield
    finally:
        _remove_all_but_the_book_at_hand()
        lock.release()


def _build(made_from: str) -> None:
    """Let Jupyter Book build the pages in a folder of their own, and put them in place."""
    new = HTML.parent / "books" / uuid.uuid4().hex[:8]
    new.mkdir(parents=True)
    strict = ("-W", "-n", "--keep-going", "-q")
    if _quietly(*COMMAND, "build", ".", *strict, "--path-output", str(new)):
        raise RuntimeError("there is no new book: warnings fail the build; they are above")
    (new / "_build" / "html").rename(new / "html")
    shutil.rmtree(new / "_build", ignore_errors=True)
    remember(new / "made-from", made_from)
    _put_in_place(new)


def _put_in_place(new: Path) -> None:
    """Let the link lead to the new book, by a rename: at no moment does it lead nowhere."""
    if HTML.is_dir() and not HTML.is_symlink():  # made by `jupyter-book build` alone
        HTML.rename(new / "before")
    link = Path(f"{HTML}.{new.name}")
    link.symlink_to(new.relative_to(HTML.parent) / "html", target_is_directory=True)
    link.replace(HTML)
    flush(HTML.parent)


def _remove_all_but_the_book_at_hand() -> None:
    at_hand = HTML.resolve().parent
    for link in HTML.parent.glob(f"{HTML.name}.*"):
        link.unlink()
    for book in (HTML.parent / "books").glob("*"):
        if book.resolve() != at_hand:
            shutil.rmtree(book, ignore_errors=True)


def _quietly(*words: str) -> int:
    """Run a command for its standard error, less what kernels print as they start and end."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | {jupyter_book_command.BUILDER: str(os.getpid())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_kernels = lambda line: any(notice in line for notice in KERNEL_NOTICES)
    lines = [line for line in done.stderr.splitlines() if not of_kernels(line)]
    click.echo("\n".join(lines), err=True, nl=bool(lines))
    return done.returncode
