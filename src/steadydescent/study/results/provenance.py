"""Where a result came from: command, commit, packages, device."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from steadydescent.study.paths import ROOT

PACKAGES = (
    "steadydescent",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "mnist1d",
    "papermill",
)
TOKEN = "STEADY_TOKEN"
"""Variable that says which run of a notebook this is; a result's receipt tells it."""


def device_name(device: str) -> str:
    """A name a reader understands: the GPU's own, or the number of cores and the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The code's commit, with `+changes` when files differ from it, or `unknown`."""
    # not another repository's, which git's variables may name, or which the code was unpacked
    # inside
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = lambda *words: os.fsdecode(
        subprocess.run(
            ["git", "-C", ROOT, *words], capture_output=True, check=True, env=own
        ).stdout.strip()
    )
    try:
        if not Path(git("rev-parse", "--show-toplevel")).samefile(ROOT):
            return "unknown"
        return git("rev-parse", "--short=12", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def packages() -> dict[str, str]:
    """Versions of the packages that numbers depend on; those not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def receipt(device: str, **more: Any) -> dict[str, Any]:
    """A receipt for something computed just now on `device`."""
    return {
        "command": os.environ.get("STEADY_COMMAND", " ".join(sys.argv[:1])),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device_name(device),
        "device_kind": device,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "optimized": not __debug__,  # with -O torch's vmap takes other kernels
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages(),
        **more,
    }
