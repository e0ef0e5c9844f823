"""Every step by which a writer changes a disk, counted; at the k-th it is killed, or refused from
there on.

A step is a call of the system that makes, fills, flushes, moves or removes a file or folder.
Writing a Parquet or safetensors file is one step, of which a killed or refused writer leaves the
half.
"""

import builtins
import errno
import io
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch

from steadydescent.weight_averaging import checkpoint_files

MAKE = ("open", "mkdir", "rename", "replace")
REMOVE = ("unlink", "remove", "rmdir")
NAMES = (*MAKE, *REMOVE, "fsync", "chmod", "link", "symlink", "truncate", "ftruncate")


class Steps:
    """Counts steps; `fault` is told at the k-th what is left: a function that leaves the half of
    it, or None.
    """

    def __init__(self, at: int, fault: Callable[["Steps", str], None]) -> None:
        self.at, self.fault, self.names = at, fault, list[str]()

    def step(self, name: str, half: Callable[[], object] | None = None) -> None:
        self.names.append(name)
        if len(self.names) >= self.at:
            if half is not None and len(self.names) == self.at:
                half()
            self.fault(self, name)


class _Told(io.FileIO):
    """A file whose every write is a step."""

    steps: Steps

    def write(self, content: Any) -> int:
        self.steps.step(
            "write", lambda: io.FileIO.write(self, bytes(content)[: len(bytes(content)) // 2])
        )
        return super().write(content)


def _opening(steps: Steps) -> Callable[..., Any]:
    real = io.open

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **more):
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, encoding, errors, newline, **more)
        steps.step("create")
        if more.get("opener") or more.get("closefd") is False:  # of tempfile and subprocess
            return real(file, mode, buffering, encoding, errors, newline, **more)
        raw = _Told(file, mode.replace("b", "").replace("t", ""))
        raw.steps = steps
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    return opened


@contextmanager
def counted(at: int, fault: Callable[[Steps, str], None]) -> Iterator[Steps]:
    """Count the steps inside, and have the fault happen at one of them."""
    steps = Steps(at, fault)
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(os, name, _before(getattr(os, name), name, steps))
        for opener in (io, builtins):
            patch.setattr(opener, "open", _opening(steps))
        for library, name in (
            (pq, "write_table"),
            (checkpoint_files, "save_file"),
            (safetensors.torch, "save_file"),
        ):
            patch.setattr(library, name, _whole(getattr(library, name), name, steps))
        yield steps


def _before(real: Callable[..., Any], name: str, steps: Steps) -> Callable[..., Any]:
    def called(*given, **more):
        reading = name == "open" and not (given[1] if len(given) > 1 else 0) & (
            os.O_CREAT | os.O_WRONLY | os.O_RDWR
        )
        if not reading:
            steps.step(name)
        return real(*given, **more)

    return called


def _whole(real: Callable[..., Any], name: str, steps: Steps) -> Callable[..., Any]:
    def written(content, path, *given, **more):
        def half():
            real(content, path, *given, **more)
            with io.FileIO(path, "r+") as file:
                file.truncate(Path(path).stat().st_size // 2)

        steps.step(name, half)
        return real(content, path, *given, **more)

    return written


def killed_at(step: int, write: Callable[[], object]) -> bool:
    """Run a writer in a child that is killed as it comes to this step; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            with counted(step, lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
                write()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the writer failed by itself"
    return False


def refusal(number: int, removing: bool) -> Callable[[Steps, str], None]:
    """A disk that from here on refuses to write, and to remove too when asked for, as one that
    turns read-only does.
    """

    def refuse(steps: Steps, name: str) -> None:
        if removing or name not in REMOVE:
            raise OSError(number, os.strerror(number))

    return refuse


FULL, QUOTA = refusal(errno.ENOSPC, removing=False), refusal(errno.EDQUOT, removing=False)
READ_ONLY, FAILING = refusal(errno.EROFS, removing=True), refusal(errno.EIO, removing=True)
