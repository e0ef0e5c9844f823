"""One command for a GPU box: what it is, that the tests pass there, how fast it is, and then as much
of the study as the time allows.

Each part writes its own file as soon as there is something in it, so that a box that is taken away
at any moment has left what it had; a second call goes on where the first ended.

    machine.json    what the box is
    tests.json      the tests that need a GPU
    bench.json      the engine against its peers, with the machine's ceilings, case by case
    stackings.yml   rows for `study/planning/stackings.yml`, and the measurements they rest on
    study.json      what of the study was trained, experiment by experiment
    store-1.tar …   its finished stacks, for `steady import-store` elsewhere

It needs no network, no notebook and no book. Measuring and training go on in processes of their
own (`steadydescent.study.training.items`): this one only reads what they tell.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click
import psutil
import torch
import yaml

from steadydescent.files import require_room, write_atomically
from steadydescent.study import yaml_files
from steadydescent.study.paths import ROOT, STORE
from steadydescent.study.planning.stacks import ROWS, stackings
from steadydescent.study.results.provenance import receipt
from steadydescent.study.results.store_archive import pack, stored_since
from steadydescent.study.training.in_order import in_order
from steadydescent.study.training.items import work_through

MINUTES = 9.0
ARCHIVE_BYTES, ARCHIVES = 15 * 2**20, 3
"""The stacks that come back: few files that any transfer takes."""
FILES = ("machine.json", "tests.json", "bench.json", "stackings.yml", "study.json")
SAVED_FOR_THE_END = 5.0
"""Seconds in which the last archive is written."""
LONGEST_ITEM = 150.0
"""Seconds that a case of the benchmark, or a task's widths, may take."""
LEFT_OUT = {
    "jax": "the peer P4 (JAX)",
    "pytest": "the tests that need a GPU",
    "hypothesis": "the tests that need a GPU",
    "torchvision": "Fashion-MNIST's shifted test sets",
}
"""Package → what the box does without it."""
NEEDED = ("torch", "numpy", "pandas", "pyarrow", "scipy", "pydantic", "PyYAML", "click", "tqdm")
NEEDED += ("filelock", "safetensors", "psutil", "pycountry", "mnist1d")
"""Packages without which nothing runs; notebooks, kernels and the book are not among them."""


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
        return json.loads(path.read_text(encoding="utf-8"))

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


class Part(NamedTuple):
    """A part: its file, up to which share of the time it may go on, and what does it.

    The function is given what an earlier call left, and says whether the part is finished.
    """

    name: str
    file: str
    share: float
    work: Callable[[Box, dict[str, Any], float], bool]


def missing(names: Sequence[str]) -> list[str]:
    """Those of some packages that are not installed."""

    def there(name: str) -> bool:
        try:
            return bool(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            return False

    return [name for name in names if not there(name)]


def on_gpu_box(device: str, minutes: float, out: Path, again: bool = False) -> None:
    """Do the parts one after another, each as far as its time goes; see the module's head.

    Raises:
        RuntimeError: when a package is missing without which nothing runs.
        CannotWrite: when the folder cannot be written.
    """
    if gone := missing(NEEDED):
        raise RuntimeError(
            f"{', '.join(gone)} not installed, without which nothing can be trained; run "
            f"pip install --no-deps {' '.join(gone)} (elsewhere `pip download` makes wheels of them)"
        )
    require_room(out)
    if again:
        for path in (*(out / name for name in FILES), *out.glob("store-*.tar")):
            path.unlink(missing_ok=True)
    for name in missing(tuple(LEFT_OUT)):
        click.echo(f"{name} is not installed: left out is {LEFT_OUT[name]}", err=True)
    running = time.time() - psutil.Process().create_time()
    box = Box(device, out, time.monotonic() - running, minutes)
    for part in PARTS:
        _do(part, box)
    left = [part.name for part in PARTS if not box.read(part.file).get("finished")]
    click.echo(
        f"{'All is finished' if not left else 'Not finished: ' + ', '.join(left)}; "
        f"{out} has {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}"
        + ("" if not left else ". The same command goes on from there")
    )


def _do(part: Part, box: Box) -> None:
    before = box.read(part.file)
    if before.get("finished"):
        click.echo(f"{part.name}: finished by an earlier call", err=True)
        return
    if (seconds := box.until(part.share) - time.monotonic()) <= 0:
        click.echo(f"{part.name}: skipped, there is no time left for it", err=True)
        return
    click.echo(f"{part.name}: at most {seconds:.0f} seconds", err=True)
    finished = part.work(box, before, box.until(part.share))
    click.echo(f"{part.name}: {'finished' if finished else 'its time is over'}", err=True)


# ---- the parts -----------------------------------------------------------------------------------

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
    box.write(
        "tests.json",
        {"finished": finished, "status": ended, **found, "output": output[-4_000:]},
    )
    return finished


def _run(words: Sequence[str], seconds: float) -> tuple[str, int | None]:
    """Output and status of a command in the project's folder; without a status its time was over."""
    try:
        done = subprocess.run(
            words, cwd=ROOT, timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return os.fsdecode(late.stdout or b""), None
    return done.stdout, done.returncode


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


def bench(box: Box, before: dict[str, Any], until: float) -> bool:
    """The engine against its peers on every task, and the ceilings: cheap cases first."""
    done: dict[str, Any] = before.get("cases", {})
    asked = {"kind": "case", "device": box.device, "settings": box.extent.cases}
    left = [name for name in _cases(box) if name not in done]
    command, variables = _measuring(box, asked)
    for case in work_through(command, left, until, variables, LONGEST_ITEM):
        left.remove(case.item)
        error = {"error": case.error} if case.error else {"rows": case.found}
        done[case.item] = error | {"seconds": case.seconds}
        box.write("bench.json", {"finished": not left, "left": left, "cases": done})
        _say(case.item, case.seconds, case.error)
    if not left and not before.get("finished"):
        box.write("bench.json", {"finished": True, "left": [], "cases": done})
    return not left


CASES = ("update and EMA", "train {}, one EMA", "bare products, {}")
CASES += ("step against its bare matrix products, {}",)
"""Names of the cases; those that the suite has of a task are measured."""


def _cases(box: Box) -> list[str]:
    from runpy import run_path

    known = run_path(str(ROOT / "benchmarks"))["CASES"]
    names = [name.format(task) for task in box.extent.tasks for name in CASES]
    return [name for name in dict.fromkeys(names) if name in known]


def _measuring(box: Box, asked: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    script = str(ROOT / "benchmarks" / "item_by_item.py")
    return box.worker(script, json.dumps(asked), compiles=box.extent.compiles)


def widths(box: Box, before: dict[str, Any], until: float) -> bool:
    """Width, compiling and graph of every task, as rows of the table of stackings."""
    rows: dict[str, Any] = before.get(box.device) or {}
    rests_on: dict[str, Any] = before.get("measured") or {}
    asked = {"kind": "widths", "device": box.device, "settings": box.extent.looks}
    left = [task for task in box.extent.tasks if task not in rests_on]
    command, variables = _measuring(box, asked)
    for task in work_through(command, left, until, variables, LONGEST_ITEM):
        left.remove(task.item)
        if task.error:
            rests_on[task.item] = {"error": task.error}
        else:
            rows[task.item] = task.found.pop("row")
            rests_on[task.item] = task.found
        _write_rows(box, rows, rests_on, not left)
        _say(task.item, task.seconds, task.error)
    return not left


def _write_rows(
    box: Box, rows: dict[str, Any], rests_on: dict[str, Any], finished: bool
) -> None:
    """Rows to be pasted, a line each, and below them what they rest on."""
    flow = lambda value: yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    ).strip()
    lines = [
        f"# Measured on {receipt(box.device)['device']}, torch {torch.__version__}. "
        f"{ROWS}=<this file> takes these rows as they are.",
        f"finished: {'true' if finished else 'false'}",
        f"{box.device}:",
        *(f"  {task}: {flow(row)}" for task, row in rows.items()),
        *(["  {}"] if not rows else []),
        "measured:",
        *(f"  {task}: {flow(found)}" for task, found in rests_on.items()),
    ]
    write_atomically(box.out / "stackings.yml", ("\n".join(lines) + "\n").encode())


def study(box: Box, before: dict[str, Any], until: float) -> bool:
    """As much of a profile as the time allows, those experiments first that tell most."""
    content = {"profile": box.extent.profile, "since": before.get("since", time.time())}
    done: dict[str, Any] = before.get("experiments", {})
    left = [name for name in in_order(box.extent.profile) if name not in done]

    def keep(finished: bool = False) -> None:
        stacks = stored_since(STORE, content["since"])
        packed = pack(stacks, box.out, ARCHIVE_BYTES, ARCHIVES)
        counted = {"stacks": packed.stacks, "left_out": packed.left_out, "left": left}
        box.write("study.json", content | counted | {"finished": finished, "experiments": done})

    asked = {"profile": box.extent.profile, "device": box.device}
    module = "steadydescent.study.training.in_order"
    command, variables = box.worker("-m", module, json.dumps(asked))
    measured = box.out / "stackings.yml"
    if box.extent.compiles and measured.exists():  # in small its widths are no plan
        variables[ROWS] = str(measured.absolute())
    keep()
    for experiment in work_through(command, left, until, variables, tick=keep):
        left.remove(experiment.item)
        error = {"error": experiment.error} if experiment.error else experiment.found
        done[experiment.item] = error | {"seconds": experiment.seconds}
        keep()
        _say(experiment.item, experiment.seconds, experiment.error)
    keep(finished=not left)
    return not left


def _say(item: str, seconds: float, error: str) -> None:
    click.echo(f"  {item}: {error or 'done'} ({seconds:.0f} s)", err=True)


PARTS = (
    Part("machine", "machine.json", 0.04, machine),
    Part("tests", "tests.json", 0.15, tests),
    Part("benchmark", "bench.json", 0.5, bench),
    Part("widths", "stackings.yml", 0.72, widths),
    Part("study", "study.json", 1.0, study),
)
"""The parts in their order; what one leaves of its time is the next one's."""
