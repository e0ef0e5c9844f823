"""What a box is, and whether the tests that need a GPU pass there."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import psutil
import torch

from steadydescent.study.gpu_box.box import Box
from steadydescent.study.gpu_box.needs import LEFT_OUT, missing
from steadydescent.study.paths import ROOT

GPU_FACTS = "name,driver_version,memory.total,memory.used,compute_cap,clocks.max.sm,power.limit"


def machine(box: Box, before: dict[str, Any], until: float) -> bool:
    """What the box is: its GPU by its driver and by torch, memory, packages, what is missing."""
    found: dict[str, Any] = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "torch": {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "missing": {name: LEFT_OUT[name] for name in missing(tuple(LEFT_OUT))},
        "nvidia_smi": _nvidia_smi(),
    }
    if box.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": about.name,
            "count": torch.cuda.device_count(),
            "memory_gib": round(about.total_memory / 2**30, 1),
            "multiprocessors": about.multi_processor_count,
            "capability": f"{about.major}.{about.minor}",
        }
    box.write("machine.json", found | {"finished": True})
    return True


def _nvidia_smi() -> dict[str, str] | str:
    """What the driver's command says of the first GPU, or why it says nothing."""
    if (command := shutil.which("nvidia-smi")) is None:
        return "there is no nvidia-smi"
    words = [command, f"--query-gpu={GPU_FACTS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "nvidia-smi gave no answer in 20 seconds"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return f"nvidia-smi failed: {(done.stderr or done.stdout).strip()[:200]}"
    values = (value.strip() for value in lines[0].split(","))
    return dict(zip(GPU_FACTS.split(","), values, strict=False))


def tests(box: Box, before: dict[str, Any], until: float) -> bool:
    """The tests that need a GPU, counted, with the reasons of those that failed or were skipped."""
    mark = "pytest.mark.gpu"
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if mark in path.read_text(encoding="utf-8")
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        words += [f"--junitxml={report}", *files]
        output, ended = _run(words, until - time.monotonic())
        found = _counted(report)
    finished = ended is not None
    content = {"finished": finished, "status": ended, **found, "output": output[-4_000:]}
    box.write("tests.json", content)
    click.echo("  " + ", ".join(f"{n} {what}" for what, n in found["counts"].items()), err=True)
    return finished


def _run(words: Sequence[str], seconds: float) -> tuple[str, int | None]:
    """Output and status of a command in the project's folder; no status where its time was over."""
    both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(words, cwd=ROOT, timeout=seconds, **both)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), None
    return done.stdout.decode(errors="replace"), done.returncode


def _counted(report: Path) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, and why, from pytest's report."""
    cases = ElementTree.parse(report).getroot().iter("testcase") if report.exists() else ()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    reasons = {}
    for case in cases:
        outcome, why = "passed", ""
        for kind, named in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            if (element := case.find(kind)) is not None:
                outcome, why = named, element.get("message", "")
        counts[outcome] += 1
        if why:
            reasons[f"{case.get('classname')}.{case.get('name')}"] = f"{outcome}: {why[:300]}"
    return {"counts": counts, "reasons": reasons}
