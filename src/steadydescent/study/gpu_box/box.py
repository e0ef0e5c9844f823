"""A call of the command: what it does on a kind of device, where its files go, when it ends."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.files import write_atomically
from steadydescent.study import yaml_files
from steadydescent.study.planning.stacks import stackings
from steadydescent.study.results.provenance import receipt

SAVED_FOR_THE_END = 5.0
"""Seconds in which the last archive is written."""


@dataclass(frozen=True)
class Extent:
    """How much is done, on a kind of device."""

    profile: str
    cases: dict[str, Any]
    """Settings of the benchmark."""
    tasks: tuple[str, ...]
    """Tasks whose cases and widths are measured."""
    looks: dict[str, Any]
    """Settings of the widths."""
    compiles: bool


EXTENTS = {
    "cuda": Extent(
        "full",
        {"seconds": 0.3, "rounds": 6},
        tuple(stackings("cuda")),
        {"seconds": 0.5},
        compiles=True,
    ),
    "cpu": Extent(
        "smoke",
        {"seconds": 0.02, "rounds": 2, "checked": 2, "width": 2},
        ("mnist1d-mlp", "mnist1d-cnn", "saddle"),
        {"seconds": 0.05, "widest": 4, "examples": 200},
        compiles=False,
    ),
}
"""What the command does on a kind of device: on a CPU the same path in small."""


@dataclass
class Box:
    """A call of the command: where its files go, and when it has to end."""

    device: str
    out: Path
    began: float
    """On the clock of `time.monotonic`."""
    minutes: float
    extent: Extent = field(init=False)

    def __post_init__(self) -> None:
        self.extent = EXTENTS[self.device]

    def until(self, share: float) -> float:
        """The moment by which a part has to end that may take the time up to this share of it."""
        return self.began + share * (60 * self.minutes - SAVED_FOR_THE_END)

    def read(self, name: str) -> dict[str, Any]:
        """What an earlier call has left in a file; nothing where there is none."""
        path = self.out / name
        if not path.exists():
            return {}
        if name.endswith(".yml"):
            return yaml_files.read(path).content or {}
        return verified.parsed(verified.read(path), path)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a part's file with a receipt of this call."""
        whole = content | {"receipt": receipt(self.device)}
        text = json.dumps(whole, indent=1, ensure_ascii=False, default=float)
        write_atomically(self.out / name, f"{text}\n".encode())

    def worker(self, *words: str, compiles: bool = True) -> tuple[list[str], dict[str, str]]:
        """A command that works through items, and its variables.

        Where nothing is to be compiled the compiler is out of its sight.
        """
        hidden = {} if compiles else {"PATH": str(Path(sys.executable).parent)}
        return [sys.executable, *words], {**os.environ, **hidden}
