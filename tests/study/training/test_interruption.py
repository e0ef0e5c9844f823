"""Killed at any moment, by several runners at once: the study goes on where it was and ends with
the same bytes.
"""

import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from fabricated import SMALL_EXPERIMENT, write_experiments
from real_commands import (
    SHORT,
    alive,
    called,
    family,
    finish,
    kill_all,
    said,
    start_run,
    study_in,
    until,
)
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.results.store import Result, read_folder

NOTEBOOK = "weight_averaging.ipynb"
TASK = "mnist1d-mlp"
STACKS = 4


def tree(home: Path, **size: int) -> Path:
    """A home with a study of four small stacks, run by the real notebook on the data here."""
    study_in(home)
    profiles = {"smoke": {TASK: SHORT | size}}
    write_experiments(
        home / "experiments", SMALL_EXPERIMENT | {"notebook": NOTEBOOK, "profiles": profiles}
    )
    shutil.copy(EXPERIMENTS / NOTEBOOK, home / "experiments" / NOTEBOOK)
    return home


def stacks_of(home: Path) -> dict[str, int]:
    """Finished stacks, and when each was written."""
    found = (home / "results" / "store").glob("[0-9a-f][0-9a-f]/[0-9a-f]*/receipt.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def place(home: Path) -> Path:
    return home / "results" / "reproduced" / "smoke" / "toy" / TASK


def tables_of(home: Path) -> dict[str, bytes]:
    """The tables of the result, byte for byte, once they are found to be whole."""
    read_folder(place(home), Result)
    return {path.name: path.read_bytes() for path in place(home).glob("*.parquet")}


def one_called(process: subprocess.Popen, word: str) -> psutil.Process | None:
    return next((one for one in family(process)[1:] if called(one, word)), None)


def kill_part(process: subprocess.Popen, home: Path, part: str) -> None:
    """Kill everything, the command, its kernel or a worker; the first three end the command, with
    all it started.
    """
    members = family(process)
    if part == "everything":
        kill_all(process)
    elif part == "command":
        process.kill()
        process.wait()
    else:
        word = {"kernel": "ipykernel_launcher", "worker": "multiprocessing.spawn"}[part]
        if (one := one_called(process, word)) is None:
            return
        one.kill()
        if part == "worker":
            return
        assert process.wait(120) in (0, 1), said(home)[-3000:]  # 0: its work was done
        if process.returncode:
            last = said(home).splitlines()[-2]
            assert (
                last.startswith("Error: the kernel of ") and "what is finished is kept" in last
            ), last
    assert not alive(members)


def test_killed_study_goes_on_where_it_was_with_two_runners_and_ends_with_the_same_bytes(tmp_path):
    killed, quiet = tree(tmp_path / "killed"), tree(tmp_path / "quiet")
    undisturbed, process = start_run(quiet), start_run(killed)
    try:
        until(lambda: stacks_of(killed), process, killed)
        kill_part(process, killed, "command")
        before = stacks_of(killed)
        assert 1 <= len(before) < STACKS and not place(killed).exists(), "was to be killed midway"
        process = start_run(killed)
        until(lambda: one_called(process, "ipykernel_launcher"), process, killed)
        kill_part(process, killed, "kernel")
        assert before.items() <= stacks_of(killed).items()

        one, other = start_run(killed, log="one.txt"), start_run(killed, log="other.txt")
        finish(one, killed)
        finish(other, killed)
    finally:
        finish(undisturbed, quiet)
    assert before.items() < stacks_of(killed).items()  # what was finished was not trained again
    assert set(stacks_of(killed)) == set(stacks_of(quiet)) and len(stacks_of(quiet)) == STACKS
    assert tables_of(killed) == tables_of(quiet)
    both = said(killed, "one.txt") + said(killed, "other.txt")
    assert both.count("Toy, mnist1d-mlp: up to date") == 1 and "Traceback" not in both
    notebooks = {path.name for path in place(killed).parents[1].joinpath("notebooks").iterdir()}
    assert notebooks == {f"toy-{TASK}.ipynb", f"toy-{TASK}.made-from", f".toy-{TASK}.lock"}


def at_work_or_done(process: subprocess.Popen) -> bool:
    """Whether the command has started another process, or found that nothing was left to do."""
    return process.poll() is not None or len(family(process)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_study_killed_at_random_moments_ends_with_the_same_bytes(tmp_path, workers, seed):
    draw, killed, quiet = random.Random(seed), tree(tmp_path / "killed"), tree(tmp_path / "quiet")
    undisturbed = start_run(quiet)
    for kill in range(20):
        before, process = stacks_of(killed), start_run(killed, workers)
        until(lambda process=process: at_work_or_done(process), process, killed)
        time.sleep(draw.expovariate(1 / (4 + kill)))
        if process.poll() is not None:
            break
        kill_part(
            process,
            killed,
            draw.choice(["everything", "command", "kernel", *["worker"] * (workers > 1)]),
        )
        if process.poll() is None:  # a worker alone, whose stack goes to another
            finish(process, killed)
        assert before.items() <= stacks_of(killed).items()
    finish(start_run(killed, workers), killed)
    finish(undisturbed, quiet)
    assert tables_of(killed) == tables_of(quiet) and set(stacks_of(killed)) == set(stacks_of(quiet))
    assert not [*(killed / "results" / "store").glob("damaged/*")]
    assert "Traceback" not in said(killed)


@pytest.mark.slow
def test_four_runners_on_one_results_folder_lose_double_and_mix_nothing(tmp_path):
    home, quiet = tree(tmp_path / "four"), tree(tmp_path / "quiet")
    runners = [start_run(home, log=f"{number}.txt") for number in range(4)]
    finish(start_run(quiet), quiet)
    until(lambda: stacks_of(home), runners[0], home) if runners[0].poll() is None else None
    at_work = next(one for one in runners if one.poll() is None)
    kill_all(at_work)  # the others must not wait for it
    for runner in runners:
        if runner is not at_work:
            finish(runner, home)
    assert tables_of(home) == tables_of(quiet) and set(stacks_of(home)) == set(stacks_of(quiet))
    assert not [*home.glob("results/**/*.jsonl")] and not [
        *(home / "results" / "store").glob("damaged/*")
    ]
    logs = "".join(said(home, f"{number}.txt") for number in range(4))
    assert "Traceback" not in logs and "is at it; waiting for it" in logs
