"""However a command is ended, nothing that it started is left, its exit code tells how, and one
sentence says so.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from fabricated import write_experiments
from real_commands import alive, called, family, kill_all, said, start, start_run, study_in, until
from steadydescent.study.training import processes

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
NEVER_ENDS = "import time; open('asleep', 'w').close(); time.sleep(600)"


@pytest.fixture
def at_home(tmp_path):
    """A study whose notebook never ends, and whatever was started there is ended."""
    started = []

    def begin(workers: int = 1) -> tuple[Path, subprocess.Popen]:
        home = study_in(tmp_path / "home", NEVER_ENDS)
        started.append(start_run(home, workers))
        return home, started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            kill_all(process)


def stopped_well(
    home: Path, process: subprocess.Popen, members: list[psutil.Process], code: int
) -> None:
    assert process.wait(20) == code, said(home)
    assert not alive(members), said(home)
    text = said(home)
    assert "Traceback" not in text and "Error" not in text and "WARNING" not in text, text
    assert text.splitlines()[-1].startswith("Stopped by ") and text.endswith(
        f": {processes.KEPT}.\n"
    )
    assert not [*home.glob("results/reproduced/smoke/notebooks/toy-mnist1d-mlp.ipynb")]


def send(process: subprocess.Popen, name: str, group: bool) -> None:
    (os.killpg if group else os.kill)(process.pid, getattr(signal, name))


@pytest.mark.parametrize(
    ("name", "group", "workers"),
    [
        ("SIGTERM", False, 1),
        ("SIGINT", True, 2),
        pytest.param("SIGINT", False, 1, marks=pytest.mark.slow),
        pytest.param("SIGINT", True, 1, marks=pytest.mark.slow),
        pytest.param("SIGHUP", False, 2, marks=pytest.mark.slow),
        pytest.param("SIGTERM", True, 2, marks=pytest.mark.slow),
        pytest.param("SIGTERM", False, 2, marks=pytest.mark.slow),
    ],
)
def test_signal_ends_the_command_and_all_it_started_with_one_sentence(
    at_home, name, group, workers
):
    home, process = at_home(workers)
    until((home / "asleep").exists, process, home)
    members = family(process)
    assert [one for one in members if called(one, "ipykernel_launcher")] and len(
        members
    ) >= 1 + workers
    send(process, name, group)
    stopped_well(home, process, members, CODES[name])


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_signal_while_a_kernel_or_workers_start(at_home, name, workers):
    home, process = at_home(workers)
    until(lambda: len(family(process)) > 1, process, home)
    members = family(process)
    assert not (home / "asleep").exists()
    send(process, name, group=True)
    stopped_well(home, process, members, CODES[name])


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_command_leaves_nothing_running(at_home, workers):
    home, process = at_home(workers)
    until((home / "asleep").exists, process, home)
    members = family(process)
    process.kill()
    process.wait()
    assert not alive(members)
    assert not [*home.glob("results/reproduced/smoke/notebooks/toy-mnist1d-mlp.ipynb")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("moment", range(6))
def test_command_killed_while_it_starts_leaves_nothing_running(at_home, workers, moment):
    home, process = at_home(workers)
    until(lambda: len(family(process)) > 1, process, home)
    time.sleep(moment / 4)
    members = family(process)
    process.kill()
    process.wait()
    assert not alive(members)


# ---- a process that follows another --------------------------------------------------------------

FOLLOWER = textwrap.dedent("""
    import os, subprocess, sys, time
    from steadydescent.study.training.processes import follow
    follow(int(sys.argv[1]) or os.getppid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
""")
LEADER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], "0"])
time.sleep(600)
"""


def test_follower_and_its_children_end_with_the_process_that_it_follows():
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, FOLLOWER], stdout=subprocess.PIPE, text=True
    )
    members = [psutil.Process(int(number)) for number in leader.stdout.readline().split()]
    assert len(members) == 2 and all(one.is_running() for one in members)
    leader.kill()
    leader.wait()
    assert not alive(members)


def test_follower_of_a_process_that_is_gone_already_ends_at_once():
    """The command may be killed while a kernel starts."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    late = subprocess.run(
        [sys.executable, "-c", FOLLOWER, str(gone.pid)], capture_output=True, timeout=60
    )
    assert late.returncode == -signal.SIGKILL


def test_ignored_signal_stays_ignored():
    code = (
        "import signal; from steadydescent.study.training.processes import leave_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); leave_on_signals()\n"
        "signal.raise_signal(signal.SIGHUP); print('went on', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "went on\n")
    assert done.stderr == f"Stopped by SIGTERM: {processes.KEPT}.\n"


# ---- pipes, ports --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("cite",), ("plan", "--profile", "smoke")])
def test_reader_that_goes_away_ends_the_command_as_a_closed_pipe_does(words):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:  # noqa: PTH123
        words = [sys.executable, "-m", "steadydescent.cli", *words]
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_ends_serving_quietly_and_a_port_in_use_is_a_sentence(tmp_path):
    write_experiments(tmp_path / "experiments")
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text("<p>book</p>")
    port = str(20_000 + os.getpid() % 20_000)
    serving = start(tmp_path, "serve", "--port", port)
    until(lambda: "Ctrl-C stops" in said(tmp_path), serving, tmp_path)
    second = start(tmp_path, "serve", "--port", port, log="second.txt")
    assert second.wait(60) == 1 and f"port {port} cannot be had (Address already in use)" in said(
        tmp_path, "second.txt"
    )
    serving.send_signal(signal.SIGINT)
    assert serving.wait(20) == 0 and "Traceback" not in said(tmp_path)


def test_closed_standard_output_ends_no_command(tmp_path):
    study_in(tmp_path)
    words = [sys.executable, "-m", "steadydescent.cli", "plan", "--profile", "smoke"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *words],
        env=os.environ | {"STEADY_HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0
