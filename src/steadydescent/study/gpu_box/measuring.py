"""What is measured and trained on a box: the benchmark, the widths, and the study."""

import json
from pathlib import Path
from runpy import run_path
from typing import Any

import click
import torch
import yaml

from steadydescent import verified
from steadydescent.files import write_atomically
from steadydescent.study.gpu_box.box import Box
from steadydescent.study.paths import ROOT, STORE
from steadydescent.study.planning.stacks import ROWS
from steadydescent.study.results.provenance import device_name, receipt
from steadydescent.study.results.store_archive import pack, trained_on
from steadydescent.study.training.in_order import in_order
from steadydescent.study.training.items import work_through

ARCHIVE_BYTES, ARCHIVES = 15 * 2**20, 3
"""The stacks that come back: few files that any transfer takes."""
LONGEST_ITEM = 150.0
"""Seconds that a case of the benchmark, or a task's widths, may take."""


def bench_part(box: Box, before: dict[str, Any], until: float) -> bool:
    """The engine against its peers on every task, and the ceilings: cheap cases first."""
    done: dict[str, Any] = dict(before.get("cases", {}))
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


def timed_on_box(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that a call left in its folder, and the receipt of the machine that measured them.

    Raises:
        ValueError: for a folder that has none.
    """
    path = out / "bench.json"
    if not path.exists():
        raise ValueError(f"{out} has no bench.json; `make gpu` writes it there")
    found = verified.parsed(verified.read(path), path)
    rows = [row for case in found["cases"].values() for row in case.get("rows", ())]
    if not rows:
        raise ValueError(f"{path} has no case that was measured: all failed, or time was over")
    minutes = sum(case["seconds"] for case in found["cases"].values()) / 60
    return rows, {**found["receipt"], "minutes": round(minutes, 1)}


CASES = (
    "update and EMA",
    "train {}, one EMA",
    "bare products, {}",
    "step against its bare matrix products, {}",
    "step against its products and passes, {}",
)
"""Names of the cases; those that the suite has of a task are measured."""


def _cases(box: Box) -> list[str]:
    known = run_path(str(ROOT / "benchmarks"))["CASES"]
    names = [name.format(task) for task in box.extent.tasks for name in CASES]
    return [name for name in dict.fromkeys(names) if name in known]


def _measuring(box: Box, asked: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    script = str(ROOT / "benchmarks" / "item_by_item.py")
    return box.worker(script, json.dumps(asked), compiles=box.extent.compiles)


def widths(box: Box, before: dict[str, Any], until: float) -> bool:
    """Width, compiling and graph of every task, as rows of the table of stackings."""
    rows: dict[str, Any] = dict(before.get(box.device) or {})
    rests_on: dict[str, Any] = dict(before.get("measured") or {})
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


def _write_rows(box: Box, rows: dict[str, Any], rests_on: dict[str, Any], finished: bool) -> None:
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
    done: dict[str, Any] = dict(before.get("experiments", {}))
    left = [name for name in in_order(box.extent.profile) if name not in done]

    def keep(finished: bool = False) -> None:
        stacks = trained_on(device_name(box.device), STORE)
        packed = pack(stacks, box.out, ARCHIVE_BYTES, ARCHIVES)
        content = {"profile": box.extent.profile, "finished": finished, "left": left}
        content |= {"stacks": packed.stacks, "left_out": packed.left_out}
        box.write("study.json", content | {"experiments": done})

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
