"""Progress that a person can read: a bar with time left in a terminal, plain lines in a log file.

Training happens in a notebook's kernel, whose output nobody sees while it runs. So the kernel
appends its progress to a journal, a file of JSON lines, and the command that drives it shows it. A
journal belongs to one command and one notebook.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

VARIABLE = "STEADY_JOURNAL"
LOG_EVERY = 10.0
BAR = (
    "{desc}: {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} replica-steps, {rate_fmt}, "
    "{remaining} left"
)


class Journal:
    """Where progress goes: to the journal file that a command names, else to standard error."""

    def __init__(self) -> None:
        name = os.environ.get(VARIABLE)
        self._file = Path(name) if name else None
        self._view = None if name else View(sys.stderr)

    def tell(self, **event: object) -> None:
        """An event: `start`, `total`, `done` (replica-steps since the last), `note`, or `end`."""
        if self._view is not None:
            self._view.show(event)
        elif self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(event) + "\n")
            except OSError:  # a full disk ends no training; what cannot be stored will say so
                self._file, self._view = None, View(sys.stderr)
                self._view.show(event)


class _Lines:
    """What tqdm writes, as plain lines for a log file: no carriage returns, no blank lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        for line in text.replace("\r", "\n").split("\n"):
            if line.strip():
                self.stream.write(line.rstrip() + "\n")

    def flush(self) -> None:
        self.stream.flush()


class View:
    """Shows events as a tqdm bar on a terminal, as a line every ten seconds elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.bar: tqdm | None = None
        self.interactive = stream.isatty()
        self.stream = stream if self.interactive else _Lines(stream)

    def show(self, event: dict) -> None:
        if "note" in event and self.interactive:
            tqdm.write(str(event["note"]), file=self.stream)  # above the bar
        elif "note" in event:
            self.stream.write(str(event["note"]))
        if "start" in event:
            self.close()
            self.bar = tqdm(
                total=event["total"],
                initial=event.get("initial", 0),
                desc=event["start"],
                file=self.stream,
                unit="step",
                unit_scale=True,
                dynamic_ncols=self.interactive,
                smoothing=0.1,
                leave=True,
                mininterval=0.2 if self.interactive else LOG_EVERY,
                miniters=1,
                ascii=not self.interactive,
                bar_format=BAR,
                position=None if self.interactive else 0,  # in a log nothing moves the cursor
            )
        if "done" in event and self.bar is not None:
            self.bar.update(event["done"])
        if "end" in event:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def followed(journal: Path, prefix: str = "") -> Iterator[None]:
    """Show what is written to `journal` until the block ends.

    `prefix` goes before the name of what is done. The file is this block's alone, and gone after
    it.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("", encoding="utf-8")
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(journal, prefix, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        journal.unlink(missing_ok=True)


def _follow(journal: Path, prefix: str, stop: threading.Event) -> None:
    view, rest = View(sys.stderr), ""
    with journal.open(encoding="utf-8", errors="replace") as stream:
        while True:
            # asked before reading, so that nothing written earlier is missed
            ending = stop.is_set()
            *lines, rest = (rest + stream.read()).split("\n")
            for line in lines:
                # a killed kernel leaves half a line
                with suppress(ValueError, TypeError, KeyError, RecursionError):
                    event = json.loads(line)
                    start = {"start": prefix + event["start"]} if "start" in event else {}
                    view.show(event | start)
            if ending:
                view.close()
                return
            time.sleep(0.1)
