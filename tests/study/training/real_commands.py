"""The command as a process, on a small study in a folder of its own, and what is left of it
afterwards.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from fabricated import SMALL_EXPERIMENT, write_experiments
from steadydescent.study.paths import DATA

PATIENCE = 300  # seconds, on a machine that has other things to do
SOON = 10
"""Seconds within which everything is to be gone, on such a machine."""
PARAMETERS = (
    'experiment = "weight_averaging"\ntask = "mnist1d-mlp"\nprofile = "smoke"\ndevice = "auto"'
)
SHORT = {"steps": 100, "tuning": 2, "report": 2, "points": 3}


def write_notebook(
    path: Path, *cells: str, parameters: str = PARAMETERS, tags: tuple[str, ...] = ("parameters",)
):
    """A notebook whose first cell sets the parameters."""
    first = new_code_cell(parameters, metadata={"tags": list(tags)})
    spec = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)], metadata=spec), path)


def study_in(home: Path, *cells: str, tasks: tuple[str, ...] = ("mnist1d-mlp",)) -> Path:
    """A home for `STEADY_HOME` whose one experiment runs these cells, on this repository's data."""
    rates = dict.fromkeys(tasks, SMALL_EXPERIMENT["rates"]["mnist1d-mlp"])
    profiles = {"smoke": dict.fromkeys(tasks, SHORT)}
    write_experiments(
        home / "experiments", SMALL_EXPERIMENT | {"profiles": profiles, "rates": rates}
    )
    write_notebook(home / "experiments" / "toy.ipynb", *cells)
    DATA.mkdir(exist_ok=True)
    (home / "data").symlink_to(DATA)
    return home


def start(home: Path, *words: str, log: str = "log.txt", **variables: str) -> subprocess.Popen:
    """`steady WORDS` at home, in a session of its own; what it says goes into a log."""
    ours = (
        "PROFILE",
        "DEVICE",
        "ONLY",
        "WORKERS",
        "STEADY_JOURNAL",
        "STEADY_TOKEN",
        "DASK_SCHEDULER_ADDRESS",
    )
    env = {name: value for name, value in os.environ.items() if name not in ours} | {
        "STEADY_HOME": str(home)
    }
    with (home / log).open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "steadydescent.cli", *words],
            env=env | variables,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def start_run(home: Path, workers: int = 1, **more: str) -> subprocess.Popen:
    """Run the study."""
    return start(
        home, "run", "--profile", "smoke", "--device", "cpu", "--workers", str(workers), **more
    )


def said(home: Path, log: str = "log.txt") -> str:
    return (home / log).read_text()


def until(there: Callable[[], object], process: subprocess.Popen, home: Path) -> None:
    """Wait until something is true while the command runs."""
    limit = time.monotonic() + PATIENCE
    while not there():
        assert process.poll() is None and time.monotonic() < limit, said(home)[-3000:]
        time.sleep(0.02)


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """The command and all that it has started, with that which these have started."""
    command = psutil.Process(process.pid)
    return [command, *command.children(recursive=True)]


def called(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in given for given in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def alive(members: list[psutil.Process]) -> list[str]:
    """Those of a family that are not gone soon."""
    _, left = psutil.wait_procs(members, timeout=SOON)
    return [
        f"{one.pid} {one.status()} {one.cmdline()}"
        for one in left
        if one.status() != psutil.STATUS_ZOMBIE
    ]


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to the command and to everything that it has started."""
    try:
        members = family(process)
    except psutil.NoSuchProcess:
        members = []
    for member in members:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(SOON)
    psutil.wait_procs(members, timeout=SOON)


def finish(process: subprocess.Popen, home: Path) -> None:
    """Let the command run to its end, which must be a good one."""
    try:
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            kill_all(process)
    assert process.returncode == 0, said(home)[-3000:]
