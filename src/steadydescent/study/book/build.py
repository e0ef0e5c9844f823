"""Building the book beside the one at hand, which stays as it is until the new one is whole.

    _build/html → books/abc/html       a link, which is what moves; where it points there is always
    a whole book _build/books/abc/made-from         what that book was made from, so that it need
    not be made again

One build at a time: conf.py and generated/ belong to it.
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
BUILDER = "STEADY_BOOK_BUILDER"
"""The variable that tells Sphinx which command built the book, so that it ends with that command.
"""
KERNEL_NOTICES = ("Kernel is running over TCP", "KeyboardInterrupt caught in kernel")


def build_book(source: str, profile: str | None = None) -> Path:
    """Build the book from published or reproduced results; returns its first page. Warnings fail
    the build.

    The book at hand stays until the new one is whole; a build that fails, or is killed, leaves it
    alone. Nothing is built when the book at hand was made from the same. While another build is
    running this one waits, and says so.

    Raises:
        FileNotFoundError: if there are no such results.
        RuntimeError: if the pages do not build without a warning.
    """
    home = folder(source, profile)
    if not _at_hand(_made_from(home, source, profile)):
        require_room(HTML.parent)
        with _alone():
            if not _at_hand(
                made_from := _made_from(home, source, profile)
            ):  # the other build may have made it
                _build(findings(source, profile), made_from)
    return HTML / "index.html"


def _made_from(home: Path, source: str, profile: str | None) -> str:
    """Digest of all that the book is made from."""
    sources = [path for pattern in MADE_FROM for path in ROOT.glob(pattern)]
    return digest([*sources, *home.glob("*/*/*")], source, profile, packages())


def _at_hand(made_from: str) -> bool:
    """Whether the book at hand is whole, and made from just this."""
    return (
        unchanged(HTML.resolve().parent / "made-from", made_from) and (HTML / "index.html").exists()
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for another build to end; what a killed one has left is removed on both sides."""
    HTML.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(HTML.parent / ".building.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        click.echo(
            "Another build of the book is running here; this one waits for it to end.", err=True
        )
        lock.acquire()
    try:
        _remove_all_but_the_book_at_hand()
        yield
    finally:
        _remove_all_but_the_book_at_hand()
        lock.release()


def _build(found: dict, made_from: str) -> None:
    new = HTML.parent / "books" / uuid.uuid4().hex[:8]
    new.mkdir(parents=True)
    shutil.rmtree(GENERATED, ignore_errors=True)
    write(GENERATED / "findings.json", found)
    if _quietly(str(Path(sys.executable).with_name("jupyter-book")), "config", "sphinx", "."):
        raise RuntimeError(
            "jupyter-book could not turn _config.yml into conf.py; its message is above"
        )
    options = (
        "-q",
        "-W",
        "-n",
        "--keep-going",
        "-j",
        "2",
        "-b",
        "html",
        "-d",
        str(new / "doctrees"),
    )
    if _quietly(sys.executable, "-m", "sphinx", *options, ".", str(new / "html")):
        raise RuntimeError("the book has warnings, and warnings fail the build; they are above")
    for by_product in ("doctrees", "jupyter_execute"):
        shutil.rmtree(new / by_product, ignore_errors=True)
    remember(new / "made-from", made_from)
    _put_in_place(new)


def _put_in_place(new: Path) -> None:
    """Let the link point to the new book, by a rename: at every moment it points to the old book or
    to the new one.
    """
    if (
        HTML.is_dir() and not HTML.is_symlink()
    ):  # the book of an earlier version, which was a folder
        HTML.rename(new / "before")
    link = Path(f"{HTML}.{new.name}")
    link.symlink_to(new.relative_to(HTML.parent) / "html", target_is_directory=True)
    link.replace(HTML)
    flush(HTML.parent)


def _remove_all_but_the_book_at_hand() -> None:
    kept = HTML.resolve().parent
    for left in HTML.parent.glob(f"{HTML.name}.*"):
        left.unlink()
    for book in (HTML.parent / "books").glob("*"):
        if book.resolve() != kept:
            shutil.rmtree(book, ignore_errors=True)


def _quietly(*words: str) -> int:
    """Run a command for what it says on standard error, less what notebook kernels print as they
    start and end.
    """
    own = os.environ | {BUILDER: str(os.getpid())}
    done = subprocess.run(
        words, cwd=ROOT, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lines = [
        line
        for line in done.stderr.splitlines()
        if not any(notice in line for notice in KERNEL_NOTICES)
    ]
    click.echo("\n".join(lines), err=True, nl=bool(lines))
    return done.returncode
