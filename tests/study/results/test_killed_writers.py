"""A writer killed at each of its steps: readers find the old or the new, and the next writer leaves
the new alone.
"""

import errno
import itertools
import os
import shutil
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

from disk_faults import killed_at
from steadydescent import files
from steadydescent.files import (
    CannotWrite,
    completed,
    replacing,
    replacing_folder,
    write_atomically,
)
from steadydescent.study.results import store as results
from writers import (
    SAME_WAY,
    TASK,
    WRITERS,
    copied,
    in_memory,
    keep,
    places_in,
    prepared,
    read_result,
    study,
    tree,
    visible,
)


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.slow) if n in SAME_WAY else n for n in WRITERS]
)
def writer(request, tmp_path, monkeypatch):
    """A writer, a folder for it, and what stands there before and after it."""
    with in_memory(tmp_path) as place:
        chosen = WRITERS[request.param]
        yield chosen, *prepared(chosen, place / "home", monkeypatch)


def assert_old_or_new(chosen, home, template, after):
    """Each part that a reader finds is the old or the new; nobody need read what has the same
    bytes.
    """
    if visible(home) not in (visible(template), visible(after)):
        either = [
            chosen.read(copied(folder, home.with_name("shown"))) for folder in (template, after)
        ]
        for found, *allowed in zip(chosen.read(home), *either, strict=True):
            assert found in allowed


def assert_same(chosen, home, after):
    """Nothing is left about, and every byte is the same; safetensors orders a file's metadata as it
    likes.
    """
    assert tree(home).keys() == tree(after).keys()
    assert tree(home) == tree(after) or chosen.read(home) == chosen.read(
        copied(after, home.with_name("shown"))
    )


def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_and_the_next_one_cleans_up(writer):
    chosen, home, template, after = writer
    for step in itertools.count(1):
        copied(template, home)
        if not killed_at(step, lambda: chosen.write(home)):
            break
        assert_old_or_new(chosen, home, template, after)
        chosen.write(home)
        assert_same(chosen, home, after)
    assert step > 4
    assert_same(chosen, home, after)


# ---- what is left about, and by whom -------------------------------------------------------------


def test_what_a_living_writer_has_in_hand_is_left_to_it_however_many_write_beside_it(tmp_path):
    with replacing(tmp_path / "slow") as partial:
        partial.write_text("mine")
        with replacing_folder(tmp_path / "folder", "whole") as folder:
            (folder / "whole").write_text("mine too")
            for number in range(3):
                write_atomically(tmp_path / f"quick-{number}", b"")
        write_atomically(tmp_path / "slow", b"quicker")
    assert (tmp_path / "slow").read_text() == "mine" and (
        tmp_path / "folder" / "whole"
    ).read_text() == "mine too"
    assert len(list(tmp_path.iterdir())) == 5


def test_files_and_folders_of_other_people_with_such_names_are_left_alone(tmp_path):
    theirs = [
        ".note.partial",
        ".notes.0123.partial",
        "note.0123456789abcdef0123456789abcdef.partial",
        ".git",
        "a/.old",
    ]
    for name in theirs:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    write_atomically(tmp_path / "note", b"")
    assert all((tmp_path / name / "file").exists() for name in theirs)


def patiently(path: Path) -> str:
    """What a reader finds who looks again when the folder moved between finding and opening it."""
    for _ in range(20):
        with suppress(FileNotFoundError):
            return (completed(path) / "whole").read_text()
    raise FileNotFoundError(path)


def test_writers_at_once_lose_nothing_and_leave_nothing(tmp_path):
    """Writers of one file and of one folder, in processes of their own, each sweeping beside the
    others.
    """
    with replacing_folder(tmp_path / "folder", "whole") as folder:
        (folder / "whole").write_text("at first")
    children = []
    for number in range(3):
        if (child := os.fork()) == 0:
            try:
                for turn in range(30):
                    write_atomically(tmp_path / "file", f"{number} {turn}".encode())
                    with replacing_folder(tmp_path / "folder", "whole", replace=True) as folder:
                        (folder / "whole").write_text(f"{number} {turn}")
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    while children:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            children.remove(ended)
            assert status == 0
        assert patiently(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]


def test_reader_between_the_two_moves_of_a_living_writer_finds_the_new_result(
    tmp_path, monkeypatch
):
    """The reader finishes the move; the writer takes that for its own doing."""
    study(tmp_path)
    places_in(monkeypatch, tmp_path)
    keep("reproduced/laptop", 0.01)(tmp_path)
    old, seen, rename = read_result("reproduced/laptop")(tmp_path), [], os.rename

    def slow(source, target, *given, **more):
        rename(source, target, *given, **more)
        if Path(target).name == files.OLD:
            assert not Path(source).exists()
            seen.append(read_result("reproduced/laptop")(tmp_path))

    monkeypatch.setattr(os, "rename", slow)
    keep("reproduced/laptop", 0.05)(tmp_path)
    new = read_result("reproduced/laptop")(tmp_path)
    assert seen == [new] != [old] and not [
        path for path in tmp_path.rglob("*") if ".partial" in path.name
    ]


def test_result_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    """No reader sees the tables of one writing with the receipt of another, nor an error."""
    study(tmp_path)
    places_in(monkeypatch, tmp_path)
    keep("reproduced/laptop", 0.01)(tmp_path)
    digest = results.file_digest

    def overtaken(path):
        monkeypatch.setattr(results, "file_digest", digest)
        keep("reproduced/laptop", 0.05)(tmp_path)
        return digest(path)

    monkeypatch.setattr(results, "file_digest", overtaken)
    assert read_result("reproduced/laptop")(tmp_path) == read_result("reproduced/laptop")(tmp_path)


def test_result_that_cannot_take_the_place_of_the_old_one_leaves_it_to_be_found(
    tmp_path, monkeypatch
):
    """The disk fails between the two moves: a later reader finishes what the writer could not."""
    study(tmp_path)
    places_in(monkeypatch, tmp_path)
    keep("reproduced/laptop", 0.01)(tmp_path)
    rename, place = os.rename, tmp_path / "results" / "reproduced" / "laptop" / "toy" / TASK

    def failing(source, target, *given, **more):
        if Path(target) == place:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(CannotWrite, match="cannot be written: Input/output error"):
            keep("reproduced/laptop", 0.05)(tmp_path)
    assert read_result("reproduced/laptop")(tmp_path)[0][-1]["result"] == f"toy/{TASK}@0.05"


def test_what_is_no_folder_gives_way_to_a_result_and_is_not_waited_for(tmp_path):
    for spoil in (
        lambda path: os.mkfifo(path),
        lambda path: path.write_text(""),
        lambda path: path.symlink_to(tmp_path),
    ):
        spoil(tmp_path / "result")
        with replacing_folder(tmp_path / "result", "whole", replace=True) as folder:
            (folder / "whole").write_text("")
        assert [path.name for path in (tmp_path / "result").iterdir()] == ["whole"]
        shutil.rmtree(tmp_path / "result")
