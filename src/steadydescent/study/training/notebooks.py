"""One experiment on one task by its notebook, for a verified result, by one process at a time.

notebooks/  toy-saddle.ipynb                what was run to its end
            toy-saddle.unfinished.ipynb     what runs now, failed or was stopped
            toy-saddle.made-from            digest of all that the result depends on
            toy-saddle.1234.jsonl           what the kernel of process 1234 tells, until it ends
            .toy-saddle.lock                held by the process that runs it
"""

import os
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import click
import psutil
from filelock import FileLock, Timeout

from steadydescent.files import writing
from steadydescent.study.paths import EXPERIMENTS, PACKAGE, REPRODUCED, ROOT
from steadydescent.study.planning import Parameters, Plan
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.provenance import TOKEN, device_name, packages
from steadydescent.study.results.store import Result, read_folder
from steadydescent.study.results.up_to_date import digest, remember, unchanged
from steadydescent.study.training.processes import heard
from steadydescent.study.training.progress import VARIABLE, followed

CELL_HOURS = 48.0
"""A cell that takes longer counts as hung."""
POLL_SECONDS = 0.5


class Busy(RuntimeError):
    """Another process runs this notebook."""


def run_notebooks(
    plans: list[Plan], device: str, at_a_time: int = 1, cell_hours: float = CELL_HOURS
) -> None:
    """Run notebooks, so many at a time.

    Those that another process runs come last, and are then up to date. When one fails, those
    beside it are ended too, so that the error shows at once.
    """
    left, busy, stopped = deque(plans), deque[Plan](), threading.Event()

    def work() -> None:
        for queue, patient in ((left, False), (busy, True)):
            while plan := _next(queue):
                if stopped.is_set():
                    return
                try:
                    run_notebook(plan, device, cell_hours, stopped if patient else None)
                except Busy:
                    busy.append(plan)

    with ThreadPoolExecutor(at_a_time) as pool:
        working = [pool.submit(work) for _ in range(at_a_time)]
        try:
            heard(working)
        finally:
            stopped.set()
            while wait(working, timeout=POLL_SECONDS).not_done:
                _end_kernels()


def _next(queue: deque[Plan]) -> Plan | None:
    try:
        return queue.popleft()
    except IndexError:
        return None


def _end_kernels() -> None:
    from steadydescent.study.training.kernels import end_kernels

    end_kernels()


def run_notebook(
    plan: Plan, device: str, cell_hours: float = CELL_HOURS, patient: threading.Event | None = None
) -> Path:
    """Run one experiment's notebook on one task, unless that is up to date.

    Only a verified result counts as success.

    Raises:
        Busy: when another process runs it; with `patient` it is waited for, until that event is
            set.
        RuntimeError: when the notebook fails, or leaves no result of these parameters.
        ValueError: when it would run with other parameters, or leaves a damaged result.
    """
    from steadydescent.study.training.kernels import execute

    output, unfinished = output_of(plan), output_of(plan).with_suffix(".unfinished.ipynb")
    with _alone(plan, patient):
        if up_to_date(plan, device):
            click.echo(f"{plan.experiment.title}, {plan.task}: up to date", err=True)
            return place_of(plan)
        inputs, token = _inputs(plan, device), uuid.uuid4().hex
        journal = output.with_suffix(f".{os.getpid()}.jsonl")
        environment = os.environ | {VARIABLE: str(journal), TOKEN: token}
        parameters = _parameters(plan, device).model_dump()
        click.echo(f"{plan.experiment.title}, {plan.task}", err=True)
        with writing(unfinished), followed(journal, f"{plan.experiment.title}, "):
            execute(
                EXPERIMENTS / plan.experiment.notebook,
                unfinished,
                parameters,
                {"cwd": str(ROOT), "env": environment},
                cell_hours * 3600,
            )
        _verify(plan, device, token, unfinished)
        unfinished.replace(output)
        remember(_note(plan), inputs + _digest_of_result(plan))
    return place_of(plan)


@contextmanager
def _alone(plan: Plan, patient: threading.Event | None) -> Iterator[None]:
    """Hold the lock of a plan's notebook, which goes with this process."""
    output = output_of(plan)
    output.parent.mkdir(parents=True, exist_ok=True)
    lock, waiting = FileLock(output.with_name(f".{output.stem}.lock")), False
    while True:
        try:
            lock.acquire(timeout=POLL_SECONDS if waiting else 0)
            break
        except Timeout:
            if not waiting:
                who = ", ".join(_runners(output)) or "another process"
                later = "waiting for it" if patient else "left for last"
                click.echo(
                    f"{plan.experiment.title}, {plan.task}: {who} is at it; {later}", err=True
                )
            if patient is None or patient.is_set():
                raise Busy(
                    f"{plan.experiment.title}, {plan.task} is run by another process"
                ) from None
            waiting = True
    try:
        for journal in _journals(output):  # left by processes that were killed
            journal.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _journals(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f"{output.stem}.*.jsonl"))


def _runners(output: Path) -> list[str]:
    numbers = [journal.suffixes[-2].removeprefix(".") for journal in _journals(output)]
    return [
        f"process {number}"
        for number in numbers
        if number.isdigit() and psutil.pid_exists(int(number))
    ]


def _verify(plan: Plan, device: str, token: str, output: Path) -> None:
    """Refuse a result that is damaged, was there before, or is not what was asked for."""
    place = place_of(plan)
    nothing = f"{output} ended without writing a result to {place}"
    if not place.exists():
        raise RuntimeError(f"{nothing}; open it and look at its last cells")
    _, receipt = read_folder(place, Result)
    if receipt.get("token") != token:
        raise RuntimeError(f"{nothing}, where an older one is; open it and look at its last cells")
    asked = {
        "result": f"{plan.experiment.name.replace('_', '-')}/{plan.task}",
        "profile": plan.profile,
        "device_kind": device,
    }
    made = {name: str(receipt.get(name)).split("@")[0] for name in asked}
    if made != asked:
        raise RuntimeError(
            f"{output} was to write a result of {asked} to {place}, and it wrote one of {made}"
        )


def check_notebooks(plans: list[Plan], device: str) -> None:
    """Refuse, by name, what would run with parameters of its own.

    Raises:
        ValueError: as `steadydescent.study.training.kernels.check_parameters`.
    """
    from steadydescent.study.training.kernels import check_parameters

    for plan in plans:
        check_parameters(
            EXPERIMENTS / plan.experiment.notebook, _parameters(plan, device).model_dump()
        )


def up_to_date(plan: Plan, device: str) -> bool:
    """Whether the result at hand was made from what is there now."""
    return unchanged(_note(plan), _inputs(plan, device) + _digest_of_result(plan))


def place_of(plan: Plan) -> Path:
    """Where a plan's result goes."""
    return REPRODUCED / plan.place


def output_of(plan: Plan) -> Path:
    """Where a plan's notebook goes once it has run to its end."""
    return REPRODUCED / plan.profile / "notebooks" / f"{plan.experiment.name}-{plan.task}.ipynb"


def _note(plan: Plan) -> Path:
    return output_of(plan).with_suffix(".made-from")


def _inputs(plan: Plan, device: str) -> str:
    """Digest of what a result depends on: code, notebooks, packages, parameters, machine."""
    made_with = packages(), device_name(device), __debug__, numerics.accepted()
    return digest([PACKAGE, EXPERIMENTS], _parameters(plan, device), *made_with)


def _digest_of_result(plan: Plan) -> str:
    """Digest of the result at hand."""
    return digest([place_of(plan)])


def _parameters(plan: Plan, device: str) -> Parameters:
    return Parameters(
        experiment=plan.experiment.name, task=plan.task, profile=plan.profile, device=device
    )
