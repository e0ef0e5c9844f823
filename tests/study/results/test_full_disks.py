"""A disk that is full, over quota, failing or read-only: one sentence with the path, and what was
there stays.
"""

import errno
import itertools
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from disk_faults import FAILING, FULL, QUOTA, READ_ONLY, counted
from fabricated import SMALL_EXPERIMENT, write_experiments
from steadydescent import files
from steadydescent.cli import main
from steadydescent.files import CannotWrite, explained, require_room
from steadydescent.study import paths, reproduce
from steadydescent.study.book import build as book_build
from steadydescent.study.book import verdict_rows
from writers import (
    SAME_WAY,
    TASK,
    WRITERS,
    copied,
    in_memory,
    keep,
    places_in,
    prepared,
    study,
    tree,
    visible,
)

NOTEBOOK = "weight_averaging.ipynb"
SHORT = {TASK: {"steps": 20, "tuning": 2, "report": 2, "points": 3}}
rows = verdict_rows.rows
DISKS = {
    "full": (FULL, "No space left on device, .* are free; make room there"),
    "over quota": (QUOTA, "Disk quota exceeded; your quota there is used up"),
    "read-only": (READ_ONLY, "Read-only file system; make it writable"),
    "failing": (FAILING, "Input/output error; the disk may be failing"),
}
SLOW = pytest.mark.slow
SILENT = ("verdicts kept",)
"""What is done without where it cannot be written."""


CASES = [
    (disk, name)
    if disk in ("full", "read-only") and name not in SAME_WAY
    else pytest.param(disk, name, marks=SLOW)
    for disk in DISKS
    for name in WRITERS
]


@pytest.mark.parametrize(("disk", "name"), CASES)
def test_refusal_at_any_step_is_one_sentence_and_loses_nothing(name, disk, tmp_path, monkeypatch):
    """From each step on the disk refuses. A full one still removes, so nothing half-made is left on
    it.
    """
    chosen, (refuse, sentence) = WRITERS[name], DISKS[disk]
    with in_memory(tmp_path) as place:
        home, template, after = prepared(chosen, place / "home", monkeypatch)
        shown = lambda folder: chosen.read(copied(folder, place / "shown"))
        for step in itertools.count(1):
            copied(template, home)
            with counted(step, refuse) as steps:
                error = raised_by(lambda: chosen.write(home))
            assert error is None or re.search(f"{place}.* cannot be written: {sentence}", error), (
                error
            )
            if visible(home) not in (visible(template), visible(after)):
                for found, *either in zip(
                    chosen.read(home), shown(template), shown(after), strict=True
                ):
                    assert found in either
            if error is None and name not in SILENT:  # what was refused was of no account
                assert chosen.read(home) == shown(after)
            assert refuse not in (FULL, QUOTA) or not [
                left for left in tree(home) if ".partial" in left
            ]
            if len(steps.names) < step:
                break
        assert step > 4


def raised_by(act) -> str | None:
    try:
        act()
    except CannotWrite as error:
        return str(error)
    return None


# ---- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(files.REMEDIES))
def test_every_refusal_names_the_path_the_reason_and_what_to_do_in_any_process(number, tmp_path):
    error = CannotWrite(number, os.strerror(number), str(tmp_path / "a" / "file"))
    for told in (error, pickle.loads(pickle.dumps(error))):  # as from a worker
        said = str(told)
        assert (
            said.startswith(f"{tmp_path}/a/file cannot be written: {os.strerror(number)}")
            and "\n" not in said
        )
        assert files.REMEDIES[number] in said and "What was finished before is kept" in said


class FromRust(Exception):
    """As safetensors raises."""


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "target"),
        (OSError(errno.EACCES, "Permission denied", "HERE/.target.x.partial"), "target"),
        (OSError(errno.EROFS, "Read-only file system", "HERE"), "target"),
        (OSError(errno.EACCES, "Permission denied", "/elsewhere/file"), "/elsewhere/file"),
        (
            FromRust("Error while serializing: I/O error: No space left on device (os error 28)"),
            "target",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_file_that_is_named_is_the_one_that_was_asked_for_or_the_one_that_stands_in_the_way(
    raised, named, tmp_path
):
    if isinstance(raised, OSError) and raised.filename:
        raised.filename = raised.filename.replace("HERE", str(tmp_path))
    with pytest.raises(CannotWrite) as told, files.writing(tmp_path / "target"):
        raise raised
    assert told.value.filename == str(tmp_path / named)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("x"), ValueError("x")]
)
def test_other_errors_of_a_writer_stay_what_they_are(error, tmp_path):
    with pytest.raises(type(error)) as told, files.replacing(tmp_path / "target"):
        raise error
    assert told.value is error and list(tmp_path.iterdir()) == []


def test_too_little_room_is_refused_before_work_starts(tmp_path):
    require_room(tmp_path / "not" / "there", 0.001)
    with pytest.raises(
        CannotWrite, match=r"not/there cannot be written: 1000000000000.0 MB are needed, \S+ MB"
    ):
        require_room(tmp_path / "not" / "there", 1e12)


# ---- commands ------------------------------------------------------------------------------------

READ = [["plan"], ["claims"], ["verify"], ["cite"], ["serve"]]
WRITE = [
    ["run"],
    ["reproduce", "--no-book"],
    ["publish"],
    ["data", "fetch", "mnist1d"],
    ["bench", "--save"],
    ["book"],
]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The small study with results of both kinds and a book, in a folder of its own."""
    with in_memory(tmp_path) as place:
        places_in(monkeypatch, place)
        study(place)
        keep("published", 0.05)(place)
        keep("reproduced/laptop", 0.05)(place)
        monkeypatch.setattr(verdict_rows, "rows", rows)
        (place / "html").mkdir()
        (place / "html" / "index.html").write_text("the book")
        (place / "screenshots").mkdir()
        (place / "pyproject.toml").write_text('[project]\nname = "steadydescent"\n')
        for module in (reproduce, book_build):
            monkeypatch.setattr(module, "HTML", place / "html")
        monkeypatch.setattr(paths, "DATA", place / "data")
        monkeypatch.setattr(paths, "PUBLISHED", place / "results/published")
        monkeypatch.setattr(paths, "ROOT", place)
        monkeypatch.setattr(
            reproduce.http.server.ThreadingHTTPServer, "serve_forever", lambda server: None
        )
        for name in ("PROFILE", "DEVICE", "ONLY", "STEADY_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        yield place


def refused(place, *words, by) -> str:
    """What a command says that the disk refuses from the first step on."""
    before = visible(place)
    with counted(1, by):
        found = CliRunner().invoke(main, list(words))
    assert found.exit_code == 1, (found.output, found.exception)
    assert "Traceback" not in found.output and visible(place) == before
    (said,) = (line for line in found.output.splitlines() if line.startswith("Error: "))
    return said


@pytest.mark.parametrize("words", WRITE, ids=" ".join)
@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_command_that_must_write_ends_with_one_sentence_before_it_works(words, disk, commands):
    refuse, sentence = DISKS[disk]
    said = refused(commands, *words, by=refuse)
    assert re.search(rf"{commands}\S* cannot be written: {sentence}.* kept", said), said


def test_clean_says_what_it_cannot_remove(commands):
    assert "screenshots cannot be written: Read-only" in refused(commands, "clean", by=READ_ONLY)


@pytest.mark.parametrize("words", READ, ids=" ".join)
@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_command_that_only_reads_needs_no_room(words, disk, commands):
    words = [*words, "--port", "0"] if words == ["serve"] else words
    with counted(1, DISKS[disk][0]):
        found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, (found.output, found.exception)


def test_errors_of_the_system_that_name_a_path_are_told_with_it_and_what_to_do():
    said = explained(PermissionError(errno.EACCES, "Permission denied", "/some/claims.yml"))
    assert said.startswith(
        "/some/claims.yml cannot be read or written: Permission denied; change its owner"
    )
    assert explained(OSError("no scheduler answers")) == "no scheduler answers"


# ---- real disks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["another result", "another stack", "a checkpoint", "another note", "downloaded data"]
)
def test_limit_on_the_size_of_files_is_told_and_loses_nothing(name, tmp_path, monkeypatch):
    """What the system itself says, wherever in a library it says it."""
    home, template, _ = prepared(WRITERS[name], tmp_path / "home", monkeypatch)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
    try:
        error = raised_by(lambda: WRITERS[name].write(home))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.search(
        f"{home}.* cannot be written: File too large; a limit on the size of files is set", error
    )
    assert tree(home).keys() - tree(template).keys() <= {"data"} | {
        n for n in tree(home) if n.startswith("store/")
    }
    assert visible(home) == visible(template)


@contextmanager
def mounted(place: Path, kilobytes: int):
    """A disk of so many kB; a skip where nothing can be mounted."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def steady(home: Path, *words: str) -> subprocess.CompletedProcess:
    """A command as a process of its own."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PROFILE", "DEVICE", "ONLY")
    }
    return subprocess.run(
        [sys.executable, "-m", "steadydescent.cli", *words],
        env=own | {"STEADY_HOME": str(home)},
        text=True,
        capture_output=True,
    )


def small_study(home: Path) -> None:
    """A study whose notebook is real."""
    write_experiments(
        home / "experiments",
        SMALL_EXPERIMENT | {"notebook": NOTEBOOK, "profiles": {"smoke": SHORT, "laptop": SHORT}},
    )
    shutil.copy(paths.EXPERIMENTS / NOTEBOOK, home / "experiments" / NOTEBOOK)
    (home / "data").symlink_to(paths.DATA)


def one_sentence(done: subprocess.CompletedProcess, path: Path, reason: str) -> bool:
    said = done.stderr.strip().splitlines()
    return (
        done.returncode == 1
        and "Traceback" not in done.stderr
        and any(
            line.startswith("Error: ") and str(path) in line and reason in line for line in said
        )
    )


@pytest.mark.slow
def test_study_on_a_full_disk_says_so_goes_on_with_room_and_is_read_where_nothing_can_be_written(
    tmp_path,
):
    words = ("run", "--profile", "smoke", "--device", "cpu", "--workers", "1")
    with mounted(tmp_path / "small disk", 2_000) as home:
        small_study(home)
        for free, reason in (
            (60_000, "MB are needed, 0.1 MB are free"),
            (250_000, "No space left on device"),
        ):
            (home / "filler").unlink(missing_ok=True)
            (home / "filler").write_bytes(b"x" * (shutil.disk_usage(home).free - free))
            done = steady(home, *words)
            assert one_sentence(done, home, reason), done.stderr
        (home / "filler").unlink()
        done = steady(home, *words)
        assert done.returncode == 0, done.stderr
        before = visible(home)
        subprocess.run(["mount", "-o", "remount,ro", home], check=True)
        for reads in (
            ["claims", "--source", "reproduced", "--profile", "smoke"],
            ["plan", "--profile", "smoke"],
        ):
            assert steady(home, *reads).returncode == 0
        assert one_sentence(
            steady(home, "run", "--profile", "laptop"), home, "Read-only file system"
        )
        assert visible(home) == before
