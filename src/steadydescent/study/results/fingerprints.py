"""What the numbers of a run are made with, ingredient by ingredient: code, torch, device, threads.

A run's key says what it is, its ingredients what made it. They stand in the receipt of the stack
that it was trained in, and a stored run counts as finished only while each of them is what it would
be today. So a changed rule has the runs of that rule trained again and no others, and so has a
stack whose receipt does not say what made it. What does not fit stays in the store, where it is
found when the change is taken back.

No ingredients: the company and the width of a stack, and whether its step was compiled. These move
a number by no more than rounding, follow from the stack plan, and the receipt of a result tells how
many stacks were compiled.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.shifted_tests import Shift
from steadydescent.engine.source_code import Code, Unit, sources
from steadydescent.engine.tasks import base, find
from steadydescent.study.results.provenance import device_name, packages
from steadydescent.weight_averaging import Readout

ROOTS = (
    Unit("engine.stack", "Stack"),
    Unit("engine.stepping", "numerics"),
    Unit("engine.runs", "Run", "rates"),
    Unit("engine.runs", "Run", "epoch"),
)
"""What trains every run."""
TABLES = {
    "rule": Unit("optimizers.rules", "RULES"),
    "schedule": Unit("schedules.by_name", "SCHEDULES"),
    "task": Unit("engine.tasks.task", "TASKS"),
    "features": Unit("engine.tasks.task", "FEATURES"),
    "surface": Unit("engine.tasks.surfaces", "SURFACES"),
    "norm": Unit("normalization", "KINDS"),
    "data": Unit("engine.data", "SOURCES"),
    "size of data": Unit("engine.data", "SPLIT_SIZES"),
    "readout": Unit("weight_averaging.readouts", "READOUTS"),
    "probe": Unit("engine.probes", "PROBES"),
    "shift of signals": Unit("dataset_shift.covariate", "SIGNAL_KNOBS"),
    "shift of images": Unit("dataset_shift.covariate", "IMAGE_KNOBS"),
}
"""Tables of which a run uses some entries."""
_TESTS, _COVARIATE = "engine.shifted_tests", "dataset_shift.covariate"
_BATCH, _GHOST, _NOISY = (
    Unit("normalization.batch", f"{kind}BatchNorm") for kind in ("", "Ghost", "Noisy")
)
CHOICES = {
    "norm batch": [_BATCH],
    "norm ghost": [_BATCH, _GHOST],
    "norm noisy-batch": [_BATCH, _NOISY],
    "norm mildly-noisy-batch": [_BATCH, _NOISY],
    "schedule plateau": [
        Unit("schedules.plateau", "Plateau"),
        Unit("engine.stack_rates", "PlateauRates"),
    ],
    "measures of networks": [Unit("engine.evaluation", "measure")],
    "measures of surfaces": [Unit("engine.evaluation", "measure_surface")],
    "wrong labels": [Unit("engine.data.task_data", "wrong_labels")],
    "shifted test sets": [Unit(_TESTS, "Shift"), Unit(_TESTS, "shifted_test")],
    "shift prior": [Unit("dataset_shift.labels", "shifted_prior")],
    "shift concept": [Unit("dataset_shift.labels", "shifted_concept")],
    "shifted signals": [Unit(_COVARIATE, "shifted_signals"), Unit(_TESTS, "_signals")],
    "shifted images": [Unit(_COVARIATE, "shifted_images")],
    "CUDA graph": [Unit("engine.blocks", "recorded")],
}
"""Definitions that some runs use and others do not."""
CARRIERS = (
    Unit("files", "write_atomically"),
    Unit("engine.data.mnist1d", "_draw_in_processes"),
    Unit("engine.data.fashion_mnist", "fetch"),
    Unit("dataset_shift.torchvision_shim", "import_torchvision"),
)
"""Definitions that bring bytes from one place to another, which are compared with their digest: no
ingredients.
"""
ACCEPT = "STEADY_ACCEPT_STALE"
"""With this variable at 1 stored runs are taken whatever made them; receipts of results still say
what did.
"""
SCHEDULER = "DASK_SCHEDULER_ADDRESS"
PACKAGES = ("torch", "numpy")
"""Packages whose version is an ingredient; those that make data have theirs in the data's identity.
"""
SHOWN = 3
"""So many names and reasons are given, the rest counted."""
TEXTS = sources()
"""Read as the process starts: the code that it runs, whatever becomes of the files."""


@cache
def code() -> Code:
    """The package's code as it was when this process started."""
    return Code(
        TEXTS,
        ROOTS,
        TABLES.values(),
        {*CARRIERS, *(unit for units in CHOICES.values() for unit in units)},
    )


def ingredients(run: Run, device: str) -> dict[str, str]:
    """Ingredient → digest of the code that a run's numbers depend on through it.

    >>> run = Run(task="saddle", optimizer="sgd", schedule="linear", lr=0.1, batch_size=1,
    ...           steps=9, seed=0, readouts=("last", "tail-50"))
    >>> list(ingredients(run, "cpu"))  # doctest: +NORMALIZE_WHITESPACE
    ['engine', 'rule sgd', 'schedule linear', 'task saddle', 'surface saddle',
     'features standardised', 'data gaussian-2', 'size of data gaussian-2',
     'measures of surfaces', 'readout last', 'readout tail']
    """
    return _digests(
        run.task,
        read(run.optimizer).name,
        read(run.schedule).name,
        tuple(dict.fromkeys(Readout.parse(text).kind for text in run.readouts)),
        tuple(dict.fromkeys(Shift.parse(text).kind for text in run.shifts)),
        run.probes,
        device,
    )


@cache
def _digests(
    task: str, rule: str, schedule: str, readouts: tuple, shifts: tuple, probes: tuple, device: str
) -> dict[str, str]:
    names = _names(task, rule, schedule, readouts, shifts, probes, device)
    return {name: code().digest(*units) for name, units in {"engine": list(ROOTS), **names}.items()}


def _names(
    task: str, rule: str, schedule: str, readouts: tuple, shifts: tuple, probes: tuple, device: str
) -> dict[str, list[Unit]]:
    """Ingredient → what it consists of, the engine left out."""
    settings, names = find(task), dict[str, list[Unit]]()

    def add(name: str, key: str | None = None) -> None:
        whole = name if key is None else f"{name} {key}"
        entry = [code().entry(TABLES[name], key)] if key is not None and name in TABLES else []
        names[whole] = CHOICES.get(whole, []) + entry

    add("rule", rule)
    add("schedule", schedule)
    add("task", base(task))
    if settings.surface:
        add("surface", base(task))
    if settings.norm:
        add("norm", settings.norm)
    if not settings.tokens:
        add("features", settings.features)
    if settings.wrong_labels:
        add("wrong labels")
    add("data", settings.source)
    add("size of data", settings.source)
    add("measures of surfaces" if settings.surface else "measures of networks")
    for kind in readouts:
        add("readout", kind)
    for probe in probes:
        add("probe", probe)
    if shifts:
        add("shifted test sets")
    for kind in shifts:
        if f"shift {kind}" in CHOICES:
            add("shift", kind)
        else:
            inputs = "signals" if settings.source == "mnist1d" else "images"
            add(f"shifted {inputs}")
            add(f"shift of {inputs}", kind)
    if device == "cuda":
        add("CUDA graph")
    return names


def made_with(runs: Iterable[Run], device: str) -> dict[str, str]:
    """The ingredients of all runs of a stack, for its receipt."""
    return {name: digest for run in runs for name, digest in ingredients(run, device).items()}


def differences(run: Run, receipt: Mapping[str, Any], device: str, threads: int) -> list[str]:
    """How what made a stored run differs from what would make it now, for a reader; nothing if the
    run still stands.

    `receipt` is that of the stack that it was trained in, `threads` are those of its stack plan.
    """
    then, now = receipt.get("code"), ingredients(run, device)
    if not then:
        return ["code that their receipt does not name"]
    changed = [name for name, digest in now.items() if then.get(name) != digest]
    reasons = [f"other code ({_some(changed)})"] if changed else []
    versions, today = receipt.get("packages", {}), _versions()
    reasons += [
        f"{name} {versions.get(name)}" for name in PACKAGES if versions.get(name) != today[name]
    ]
    if receipt.get("device_kind") != device or (
        _here() and _model(receipt.get("device")) != _model(_device(device))
    ):
        reasons.append(f"another device ({receipt.get('device')})")
    if not any(receipt.get("threads") == count for count in _threads(threads)):
        reasons.append(f"{receipt.get('threads')} threads")
    if receipt.get("optimized", False) == __debug__:
        reasons.append("python -O" if __debug__ else "python without -O")
    return reasons


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def stale(differing: Iterable[Sequence[str]]) -> str:
    """How many runs are trained again and why, in a sentence; of each its differences are given.

    >>> stale([["other code (rule adam)"], ["other code (rule adam)"]])
    '2 stored runs were trained by other code (rule adam): trained again'
    """
    reasons = Counter(", ".join(why) for why in differing)
    shown = reasons.most_common(SHOWN)
    parts = [f"{count} stored runs were trained by {why}" for why, count in shown]
    rest = sum(reasons.values()) - sum(count for _, count in shown)
    return "; ".join([*parts, *([f"{rest} more by others"] if rest else [])]) + ": trained again"


def accepted() -> bool:
    """Whether stored runs are taken whatever made them.

    Raises:
        ValueError: for a variable that says neither 1 nor nothing.
    """
    if (value := os.environ.get(ACCEPT, "")) not in ("", "1"):
        raise ValueError(
            f"{ACCEPT} must be 1, which takes stored runs whatever made them, or unset, "
            f"got {value!r}"
        )
    return value == "1"


def trained_by(receipts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What trained the stacks of these receipts: each distinct commit, torch, device and number of
    threads.

    `stacks` counts those of each, `compiled` those whose step was compiled.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for receipt in receipts:
        torch = receipt.get("packages", {}).get("torch", "unknown")
        named = [receipt.get(name, "unknown") for name in ("commit", "device", "threads")]
        groups.setdefault((named[0], torch, *named[1:]), []).append(receipt)
    return [
        dict(zip(("commit", "torch", "device", "threads"), key, strict=True))
        | {"stacks": len(stacks), "compiled": sum(bool(stack.get("compiled")) for stack in stacks)}
        for key, stacks in sorted(groups.items(), key=lambda item: str(item[0]))
    ]


@cache
def _versions() -> dict[str, str | None]:
    return {name: packages().get(name) for name in PACKAGES}


@cache
def _device(kind: str) -> str:
    return device_name(kind)


def _model(device: object) -> str:
    """A device's name without the number of its cores, most of which no stack uses."""
    return str(device).partition(" cores, ")[2] or str(device)


def _threads(planned: int) -> Iterable[int]:
    """Threads that a stack may have: those of its plan; on a worker fewer, where it has no more."""
    return range(1, planned + 1) if os.environ.get(SCHEDULER) else [planned]


def _here() -> bool:
    """Whether this machine trains: a scheduler elsewhere has machines of its own, one like another
    or not.
    """
    host = urlsplit(os.environ.get(SCHEDULER, "")).hostname
    return host in (None, "localhost", "127.0.0.1", "::1")
