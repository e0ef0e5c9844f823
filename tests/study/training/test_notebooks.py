"""A notebook counts as run only with a fresh, verified result; whatever else it does is one
sentence.
"""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from real_commands import PARAMETERS, write_notebook
from small_study import TASK, keep, toy_plan
from steadydescent import verified
from steadydescent.study import reproduce
from steadydescent.study.training import kernels, notebooks

FLAT = {"constant": 0.0, "linear": 0.0}
OUTPUT = f"toy-{TASK}.ipynb"
UNFINISHED = f"toy-{TASK}.unfinished.ipynb"


def made(home: Path) -> Path:
    return home / "results/reproduced/laptop/notebooks"


def place(home: Path) -> Path:
    return home / "results/reproduced/laptop/toy" / TASK


@pytest.fixture
def executed(home, monkeypatch):
    """Notebooks that are not run: a result like that of a good one appears, or `outcomes` does
    something else.
    """

    class Executed(list):
        outcome = staticmethod(lambda parameters, token: good(parameters, token))

    def good(parameters, token, gain=FLAT) -> None:
        keep(
            home, "reproduced", gain, profile=parameters["profile"], token=token, device_kind="cpu"
        )

    calls = Executed()

    def execute(notebook, output, parameters, start, seconds) -> None:
        calls.append(
            {"notebook": notebook, "parameters": parameters, "start": start, "seconds": seconds}
        )
        output.write_text("{}")
        calls.outcome(parameters, start["env"]["STEADY_TOKEN"])

    monkeypatch.setattr(kernels, "execute", execute)
    monkeypatch.setattr(reproduce.data, "fetch", lambda *_: None)
    write_notebook(home / "experiments" / "toy.ipynb")
    calls.good = good
    return calls


# ---- what counts as success ----------------------------------------------------------------------


def test_notebook_is_run_with_checked_plain_parameters_from_the_root(home, executed):
    assert notebooks.run_notebook(toy_plan(), "cpu", cell_hours=2) == place(home)
    (call,) = executed
    assert call["parameters"] == {
        "experiment": "toy",
        "task": TASK,
        "profile": "laptop",
        "device": "cpu",
    }
    assert (
        call["notebook"].name == "toy.ipynb"
        and call["start"]["cwd"] == str(home)
        and call["seconds"] == 7200
    )
    assert call["start"]["env"]["STEADY_JOURNAL"].endswith(f".{os.getpid()}.jsonl")
    assert not {"STEADY_JOURNAL", "STEADY_TOKEN"} & set(os.environ)
    assert {path.name for path in made(home).iterdir()} == {
        OUTPUT,
        f"toy-{TASK}.made-from",
        f".toy-{TASK}.lock",
    }


OUTCOMES = {
    "nothing": (lambda home, good: None, "ended without writing a result to .*; open it"),
    "touched receipt": (
        lambda home, good: os.utime(place(home) / "receipt.json"),
        "ended without writing a result to .*, where an older one is",
    ),
    "receipt written again": (
        lambda home, good: (place(home) / "receipt.json").write_bytes(
            (place(home) / "receipt.json").read_bytes()
        ),
        "ended without writing a result to .*, where an older one is",
    ),
    "result of another run": (
        lambda home, good: keep(home, "reproduced", FLAT, token="f" * 32, device_kind="cpu"),
        "ended without writing a result",
    ),
    "another profile": (
        lambda home, good: good(profile="smoke"),
        "was to write a result of .*'laptop'.* and it wrote one of .*'smoke'",
    ),
    "another task": (
        lambda home, good: good(result="toy/other@12345678"),
        "and it wrote one of .*'toy/other'",
    ),
    "another device": (lambda home, good: good(device_kind="cuda"), "and it wrote one of .*'cuda'"),
    "damaged": (
        lambda home, good: (good(), (place(home) / "finals.parquet").write_bytes(b"PAR1")),
        r"finals\.parquet has SHA-256",
    ),
}


@pytest.mark.parametrize(
    ("kind", "older"),
    [
        (kind, older)
        for kind in OUTCOMES
        for older in (True, False)
        if older or "receipt" not in kind
    ],
)
def test_only_a_fresh_whole_result_of_these_parameters_is_success(home, executed, kind, older):
    act, sentence = OUTCOMES[kind]
    if older:
        keep(home, "reproduced", FLAT, token="0" * 32, device_kind="cpu")
    sentence = sentence if older else sentence.replace(", where an older one is", "")

    def outcome(parameters, token) -> None:
        def good(**noted) -> None:
            executed.good(parameters, token)
            receipt = place(home) / "receipt.json"
            found = json.loads(receipt.read_text()) | noted
            receipt.write_bytes(
                verified.sealed(
                    {key: value for key, value in found.items() if key != verified.SEAL}
                )
            )

        act(home, good)

    executed.outcome = outcome
    for _ in range(2):  # nor is it up to date afterwards
        with pytest.raises((RuntimeError, ValueError), match=sentence):
            notebooks.run_notebook(toy_plan(), "cpu")
        assert (made(home) / UNFINISHED).exists() and not (made(home) / OUTPUT).exists()


def test_notebook_is_run_again_only_when_its_result_code_or_parameters_have_changed(
    home, executed, monkeypatch
):
    def again(profile: str = "laptop") -> int:
        executed.clear()
        reproduce.run_study(profile, "cpu", f"toy/{TASK}", asked="1")
        return len(executed)

    (code := home / "package" / "some.py").parent.mkdir()
    # the code that runs, wherever the study is
    monkeypatch.setattr(notebooks, "PACKAGE", code.parent)
    assert [again(), again(), again("smoke"), again()] == [1, 0, 1, 0]
    code.write_text("new = True")
    assert [again(), again()] == [1, 0]
    write_notebook(home / "experiments" / "toy.ipynb", "a = 1")
    assert [again(), again()] == [1, 0]
    receipt = place(home) / "receipt.json"
    receipt.write_text(receipt.read_text() + " ")
    assert [again(), again()] == [1, 0]
    shutil.rmtree(place(home))
    assert [again(), again()] == [1, 0]
    monkeypatch.setattr(notebooks, "packages", lambda: {"torch": "0"})
    assert [again(), again()] == [1, 0]


def test_study_fetches_each_source_once_and_runs_what_only_asks_for(home, executed, monkeypatch):
    fetched = []
    monkeypatch.setattr(reproduce.data, "fetch", lambda source, *_: fetched.append(source))
    reproduce.run_study("smoke", "cpu", f"toy/{TASK}")
    assert fetched == ["mnist1d"] and [call["parameters"]["profile"] for call in executed] == [
        "smoke"
    ]
    with pytest.raises(ValueError, match="toy/other"):
        reproduce.run_study("smoke", "cpu", "toy/other")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda path: write_notebook(path, tags=()),
            "has no cell tagged `parameters` that sets device, experiment,",
        ),
        (
            lambda path: write_notebook(path, tags=("Parameters",)),
            "has no cell tagged `parameters`",
        ),
        (
            lambda path: write_notebook(path, parameters='task = "x"'),
            "that sets device, experiment, profile, so",
        ),
        (
            lambda path: write_notebook(
                path, parameters=PARAMETERS.replace("profile", "# profile")
            ),
            "sets profile, so",
        ),
        (lambda path: path.write_text("{}"), "is no Jupyter notebook that can be read"),
        (lambda path: path.write_text('{"nbformat": 4'), "is no Jupyter notebook that can be read"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is no Jupyter notebook that can be read"),
        (lambda path: path.unlink(), "toy.ipynb"),
    ],
)
def test_notebook_that_would_run_values_of_its_own_is_refused_by_name_before_anything_starts(
    home, executed, monkeypatch, write, sentence
):
    write(home / "experiments" / "toy.ipynb")
    monkeypatch.setattr(reproduce.data, "fetch", lambda *_: pytest.fail("was to be refused first"))
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as refused:
        reproduce.run_study("smoke", "cpu", f"toy/{TASK}")
    assert "toy.ipynb" in str(refused.value) and not executed


# ---- two at once ---------------------------------------------------------------------------------


def test_notebook_that_another_process_runs_is_waited_for_and_then_up_to_date(
    home, executed, capsys
):
    notebooks.run_notebook(toy_plan(), "cpu")  # what the other will have done
    finished = {
        path.name: path.read_bytes() for path in made(home).iterdir() if path.suffix != ".lock"
    }
    (made(home) / f"toy-{TASK}.made-from").unlink()
    (made(home) / f"toy-{TASK}.{os.getppid()}.jsonl").write_text("{")
    other = FileLock(made(home) / f".toy-{TASK}.lock")
    other.acquire()
    waiting = threading.Thread(target=notebooks.run_notebooks, args=([toy_plan()], "cpu"))
    waiting.start()
    try:
        while "waiting for it" not in (said := capsys.readouterr().err):
            assert waiting.is_alive()
            time.sleep(0.01)
        assert f"process {os.getppid()} is at it" in said
        for name, content in finished.items():
            (made(home) / name).write_bytes(content)
    finally:
        other.release()
        waiting.join()
    assert len(executed) == 1 and "up to date" in capsys.readouterr().err


def test_what_is_free_is_run_before_what_another_process_runs(home, executed):
    first, second = toy_plan("smoke"), toy_plan("laptop")
    (lock := home / f"results/reproduced/smoke/notebooks/.toy-{TASK}.lock").parent.mkdir(
        parents=True
    )
    other = FileLock(lock, thread_local=False)  # let go of by the thread that runs the notebook
    other.acquire()
    good = executed.outcome
    executed.outcome = lambda *given: (good(*given), other.release())
    notebooks.run_notebooks([first, second], "cpu")
    assert [call["parameters"]["profile"] for call in executed] == ["laptop", "smoke"]


# ---- real kernels --------------------------------------------------------------------------------

CELLS = {
    "exception": ("{}['missing']", 1, "failed with KeyError: 'missing'; what is finished is kept"),
    "SystemExit(0)": (
        "raise SystemExit(0)",
        1,
        "ended the notebook with SystemExit; what is finished is kept",
    ),
    "SystemExit(3)": ("raise SystemExit(3)", 1, "failed with SystemExit: 3"),
    "interrupt": ("raise KeyboardInterrupt", 1, "failed with KeyboardInterrupt"),
    "hangs": (
        "import time; time.sleep(600)",
        1 / 3600,
        "took longer than .* hours .*--cell-hours allows it more",
    ),
    "dies": (
        "import os; os.kill(os.getpid(), 9)",
        1,
        "the kernel of .* died, perhaps for want of memory",
    ),
    "exits": ("import os; os._exit(0)", 1, "the kernel of .* died"),
    "no result": ("1", 1, "ended without writing a result"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cell_that_fails_however_it_does_is_one_sentence_and_no_finished_notebook(home, kind):
    cell, hours, sentence = CELLS[kind]
    write_notebook(home / "experiments" / "toy.ipynb", cell, "open('went_on', 'w').close()")
    before = psutil.Process().children(recursive=True)
    with pytest.raises(RuntimeError, match=sentence) as failed:
        notebooks.run_notebooks([toy_plan()], "cpu", cell_hours=hours)
    assert "\n" not in str(failed.value)
    assert (home / "went_on").exists() == (kind == "no result")
    assert {path.name for path in made(home).iterdir()} == {UNFINISHED, f".toy-{TASK}.lock"}
    assert UNFINISHED in str(failed.value)
    _, alive = psutil.wait_procs(
        [one for one in psutil.Process().children() if one not in before], timeout=10
    )
    assert not alive


def test_failure_of_one_notebook_ends_the_other_at_once(home):
    """It may have hours to go, and the error is to be told now."""
    write_notebook(
        home / "experiments" / "toy.ipynb",
        "import time, pathlib\n"
        "pathlib.Path(profile).touch()\n"
        "while profile == 'laptop' or not pathlib.Path('laptop').exists(): time.sleep(0.05)\n"
        "raise ValueError(profile)",
    )
    with pytest.raises(RuntimeError, match=r"smoke.*failed with ValueError: smoke"):
        notebooks.run_notebooks([toy_plan("laptop"), toy_plan("smoke")], "cpu", at_a_time=2)
    assert not kernels._running
    assert (
        not [*home.glob("results/**/toy-mnist1d-mlp.ipynb")]
        and len([*home.glob(f"results/**/{UNFINISHED}")]) == 2
    )
