"""No process outlives the command that started it, however that ends, and a command that is stopped
says so.

A command that is stopped ends at once instead of unwinding: every file is written so that a kill
costs what was in hand and no more, and clean-up that waits for kernels and workers is what used to
leave some behind.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import NoReturn, TypeVar

import psutil

KEPT = "what is finished is kept; run it again and it goes on from there"
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a polite kill, and the end of the terminal; Windows lacks the last."""
POLL_SECONDS = 0.3
T = TypeVar("T")


def _stopping_signals() -> list[signal.Signals]:
    return [signal.Signals[name] for name in STOPPING if hasattr(signal, name)]


def follow(parent: int) -> None:
    """End this process, and all that it has started, once its `parent` is gone.

    At once if it is gone already. This is for the processes that a command starts: a command that
    is killed cannot tell them that it ends.
    """
    threading.Thread(target=_follow, args=(parent,), name=f"follows {parent}", daemon=True).start()


def _follow(parent: int) -> None:
    # a POSIX orphan has another parent at once; Windows keeps telling the old number
    alive = (
        (lambda: psutil.pid_exists(parent)) if os.name == "nt" else (lambda: os.getppid() == parent)
    )
    while alive():
        time.sleep(POLL_SECONDS)
    end_children()
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def end_children() -> None:
    """Kill all processes that this one, or a child of it, has started."""
    for _ in range(5):  # one may have started another while the list was read
        if not (family := psutil.Process().children(recursive=True)):
            return
        _kill(family)


def end(process: int) -> None:
    """Kill a process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        _kill([parent, *parent.children(recursive=True)])


def _kill(family: Iterable[psutil.Process]) -> None:
    for member in (family := list(family)):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=1)


def leave(code: int, sentence: str = "") -> NoReturn:
    """End this process and everything it has started, with a sentence on standard error."""
    with suppress(OSError):
        copy = os.dup(2)  # not sys.stderr, which a signal may have met in the middle of a line
        # what libraries here have to say about the processes that now end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        end_children()
        os.write(copy, f"{sentence}\n".encode() if sentence else b"")
    os._exit(code)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for stopping in _stopping_signals():
        signal.signal(stopping, signal.SIG_IGN)
    names = {"SIGINT": "Ctrl-C", "SIGHUP": "the end of its terminal"}
    name = names.get(signal.Signals(number).name, "SIGTERM")
    leave(128 + number, f"{os.linesep if sys.stderr.isatty() else ''}Stopped by {name}: {KEPT}.")


def leave_on_signals() -> None:
    """End this command with one sentence when it is signalled.

    Ctrl-C gives exit code 130, SIGTERM 143, SIGHUP 129. A signal that is ignored, as under
    `nohup`, stays ignored.
    """
    for stopping in _stopping_signals():
        if signal.getsignal(stopping) != signal.SIG_IGN:
            signal.signal(stopping, _stop)


def heard(working: Sequence[Future[T]]) -> list[T]:
    """What threads return, or the first error of one, in a wait that signals end.

    A signal that another thread happens to receive would not wake a main thread that waits without
    a limit.
    """
    while True:
        done, left = futures.wait(working, POLL_SECONDS, futures.FIRST_EXCEPTION)
        if not left or any(future.exception() for future in done):
            return [future.result() for future in working if future.done()]


def deaf() -> None:
    """Block these signals in this thread, and so in all threads and processes that it starts.

    A terminal sends Ctrl-C to every process in the foreground. The command alone is to answer, and
    ends the others.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _stopping_signals())
