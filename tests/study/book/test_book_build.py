"""The book at hand stays until the new one is whole; the same results give the same bytes."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from small_book import build, checkout, content, write
from steadydescent.study.book import build as book_build
from steadydescent.study.book.build import build_book

PATIENCE = 300  # seconds, on a machine that has other things to do


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder in which a build is quick: one page, which says which build it was."""
    (tmp_path / "results/published").mkdir(parents=True)
    monkeypatch.setattr(book_build, "ROOT", tmp_path)
    monkeypatch.setattr(book_build, "HTML", tmp_path / "_build/html")
    monkeypatch.setattr(book_build, "GENERATED", tmp_path / "generated")
    monkeypatch.setattr(book_build, "folder", lambda source, profile: tmp_path / "results" / source)
    monkeypatch.setattr(book_build, "findings", lambda source, profile: {"source": source})
    monkeypatch.setattr(book_build, "_quietly", functools.partial(jupyter_book, tmp_path))
    edition(tmp_path, "first")
    build_book("published")
    return tmp_path


def jupyter_book(home: Path, *words: str) -> int:
    """What Jupyter Book would do, in two steps; a page that says `bad` has warnings."""
    text = (home / "page.md").read_text()
    built = Path(words[words.index("--path-output") + 1]) / "_build"
    (built / ".doctrees").mkdir(parents=True)
    (built / "html").mkdir()
    (built / "html/start.html").write_text(text)
    (built / "html/index.html").write_text(text)
    return int("bad" in text)


def edition(home: Path, text: str) -> None:
    (home / "page.md").write_text(text)


def shown(home: Path) -> list[str]:
    return [(home / f"_build/html/{name}.html").read_text() for name in ("start", "index")]


def leftovers(home: Path) -> list[Path]:
    """What stands in _build besides the link, its book and the lock."""
    kept = (home / "_build/html").resolve().parent
    expected = {"html", "books", ".building.lock"}
    return [p for p in (home / "_build").iterdir() if p.name not in expected] + [
        p for p in (home / "_build/books").iterdir() if p != kept
    ]


def test_a_new_book_takes_the_place_of_the_old_one_and_nothing_else_is_left(home):
    assert shown(home) == ["first", "first"]
    edition(home, "second")
    assert build_book("published") == home / "_build/html/index.html"
    assert shown(home) == ["second", "second"] and leftovers(home) == []
    served = {path.name for path in (home / "_build/html").rglob("*")}
    assert served == {"start.html", "index.html"}  # no .doctrees, no notes


def test_a_book_is_built_again_only_when_something_it_shows_has_changed(home, monkeypatch):
    built = []
    counted = lambda *words: built.append(words) or jupyter_book(home, *words)
    monkeypatch.setattr(book_build, "_quietly", counted)

    def again(source: str = "published") -> int:
        built.clear()
        build_book(source)
        return len(built)

    assert again() == 0
    edition(home, "second")
    assert [again(), again()] == [1, 0]
    assert [again("reproduced"), again("reproduced"), again()] == [1, 0, 1]
    (home / "results/published/toy/task").mkdir(parents=True)
    (home / "results/published/toy/task/receipt.json").write_text("{}")
    assert [again(), again()] == [1, 0]
    (home / "_build/html").unlink()
    assert [again(), again()] == [1, 0]
    shutil.rmtree(home / "_build")
    assert [again(), again()] == [1, 0]


def test_a_build_that_fails_leaves_the_old_book_and_is_tried_again(home):
    edition(home, "bad")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="warnings fail the build"):
            build_book("published")
        assert shown(home) == ["first", "first"] and leftovers(home) == []


def test_a_book_that_was_a_folder_gives_way_to_the_link(home):
    shutil.rmtree(home / "_build")
    (home / "_build/html").mkdir(parents=True)
    (home / "_build/html/index.html").write_text("of an earlier version")
    build_book("published")
    assert (
        (home / "_build/html").is_symlink()
        and shown(home) == ["first", "first"]
        and leftovers(home) == []
    )


# ---- kills ---------------------------------------------------------------------------------------

STEPS = {
    Path: (
        "mkdir",
        "chmod",
        "rename",
        "replace",
        "symlink_to",
        "unlink",
        "write_text",
        "write_bytes",
        "touch",
    ),
    os: ("rename", "replace", "fsync", "unlink", "rmdir"),
    shutil: ("rmtree",),
    tempfile: ("mkdtemp",),
}
"""What a build does to the disk."""


def killed_at(step: int) -> bool:
    """Build in a process that dies without a word before that step; False once it has no so many
    steps.
    """
    if (child := os.fork()) == 0:
        left = [step]
        for owner, names in STEPS.items():
            for name in names:
                setattr(owner, name, counted(left, getattr(owner, name)))
        build_book("published")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def counted(left: list[int], function):
    def either(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return function(*args, **kwargs)

    return either


def test_a_build_that_is_killed_before_any_step_leaves_the_old_book_or_the_new_one(home):
    step, news = 0, []
    edition(home, "second")
    while killed_at(step):
        first, second = shown(home)
        assert first == second and first in ("first", "second")
        news.append(first)
        if first == "second":  # the old book again, for the next kill
            edition(home, "first")
            build_book("published")
            edition(home, "second")
            assert leftovers(home) == []
        step += 1
    assert step > 20 and set(news) == {"first", "second"} and shown(home) == ["second", "second"]
    edition(home, "third")
    build_book("published")
    assert shown(home) == ["third", "third"] and leftovers(home) == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_while_books_are_built_a_server_always_has_a_whole_one(home):
    handler = functools.partial(Quiet, directory=str(home / "_build/html"))
    done, wrong, asked = threading.Event(), [], [0]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask() -> None:
            while not done.is_set():
                try:
                    with urllib.request.urlopen(
                        f"http://127.0.0.1:{server.server_port}/index.html"
                    ) as page:
                        asked[0] += 1
                        if not page.read().decode().startswith("edition"):
                            wrong.append("no edition")
                except OSError as error:
                    wrong.append(str(error))

        edition(home, "edition 0")
        build_book("published")
        reader = threading.Thread(target=ask)
        reader.start()
        for number in range(1, 40):
            edition(home, f"edition {number}")
            build_book("published")
        done.set()
        reader.join()
        server.shutdown()
    assert wrong == [] and asked[0] > 5


def test_of_two_builds_at_once_the_second_waits_and_says_so(home, monkeypatch, capsys):
    started, go, built = threading.Event(), threading.Event(), []

    def slow(*words: str) -> int:
        built.append(threading.current_thread().name)
        started.set()
        go.wait(10)
        return jupyter_book(home, *words)

    monkeypatch.setattr(book_build, "_quietly", slow)
    edition(home, "second")
    one, other = (
        threading.Thread(target=build_book, args=("published",), name=name)
        for name in ("one", "other")
    )
    one.start()
    started.wait(10)
    other.start()
    said, limit = "", time.monotonic() + 10
    while "\n" not in said and time.monotonic() < limit:
        time.sleep(0.01)
        said += capsys.readouterr().err
    go.set()
    one.join()
    other.join()
    assert said == "Another build of the book is running here; this one waits for it to end.\n"
    assert set(built) == {"one"} and shown(home) == [
        "second",
        "second",
    ]  # what it waited for was what it wanted


# ---- a real book ---------------------------------------------------------------------------------


def finished(process) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def runs_jupyter_book(process: psutil.Process) -> bool:
    return set(book_build.COMMAND) < set(process.cmdline())


@pytest.mark.slow
def test_jupyter_book_alone_builds_what_the_command_builds(tmp_path):
    """In a clean checkout; and over a book at hand, which then no longer counts as whole."""
    home, other = checkout(tmp_path / "one"), checkout(tmp_path / "other")
    finished(build(home))
    marked = (home / "_build/html").resolve().parent / "made-from"
    assert marked.exists()
    for place in (other, home):
        finished(jupyter_book_alone(place))
        assert content(place / "_build/html") == content(home / "_build/html")
    assert not marked.exists()


def jupyter_book_alone(home: Path) -> subprocess.Popen:
    """The tool's own command in a checkout, started; a warning fails it."""
    command = str(Path(sys.executable).with_name("jupyter-book"))
    return subprocess.Popen(
        [command, "build", ".", "-W", "-n", "--keep-going"],
        cwd=home,
        env=os.environ | {"STEADY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_real_book_has_the_same_bytes_again_and_outlives_a_kill(tmp_path):
    home = checkout(tmp_path)
    finished(build(home))
    book = home / "_build/html"
    before, place = content(book), book.resolve()
    assert {"index.html", "chapters/cells.html", "searchindex.js", "claims/ema-wins.html"} <= set(
        before
    )
    assert not [name for name in before if ".doctrees" in name]

    write(home, "published", {"constant": 0.0, "linear": 0.0})
    killed = build(home)
    limit = time.monotonic() + PATIENCE
    while not any(map(runs_jupyter_book, psutil.Process(killed.pid).children(recursive=True))):
        assert time.monotonic() < limit and killed.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    family = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait(10)
    assert content(book) == before and book.resolve() == place
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert gone and alive == []

    write(home, "published", {"constant": 0.05, "linear": 0.0})
    place.parent.joinpath("made-from").unlink()  # build again though nothing has changed
    finished(build(home))
    assert book.resolve() != place and leftovers(home) == []
    after = content(book)
    assert set(after) == set(before)
    assert [name for name in before if before[name] != after[name]] == []
