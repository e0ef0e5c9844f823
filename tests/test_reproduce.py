"""The study survives being killed, bit for bit; a verdict that flips is told apart from one that is not decided."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import papermill
import psutil
import pytest
from click.testing import CliRunner

from fabricated import SMALL_EXPERIMENT, experiments_from, receipt, result, write_experiments, write_result
from steadydescent import findings, reproduce
from steadydescent.cli import main
from steadydescent.paths import DATA, EXPERIMENTS
from steadydescent.results import Result, read_folder
from steadydescent.study import Plan, load_study, plans
from steadydescent.sweep import OWN_GIB

TASK = "mnist1d-mlp"
NOTEBOOK = "weight_averaging.ipynb"
PATIENCE = 600  # seconds, on a machine that has other things to do
SHORT = {TASK: {"steps": 100, "tuning": 2, "report": 2, "points": 3}}

# ---- interruption --------------------------------------------------------------------------------------------------


def tree(home: Path) -> Path:
    """A working folder with a study of four small stacks, run by the real notebook on this repository's data."""
    write_experiments(home / "experiments", SMALL_EXPERIMENT | {"notebook": NOTEBOOK, "profiles": {"smoke": SHORT}})
    shutil.copy(EXPERIMENTS / NOTEBOOK, home / "experiments" / NOTEBOOK)
    DATA.mkdir(exist_ok=True)
    (home / "data").symlink_to(DATA)
    return home


def steady_run(home: Path) -> subprocess.Popen:
    own = {
        name: value for name, value in os.environ.items() if name not in ("PROFILE", "DEVICE", "ONLY", "STEADY_JOURNAL")
    }
    words = [sys.executable, "-m", "steadydescent.cli", "run", "--profile", "smoke", "--device", "cpu"]
    with (home / "log.txt").open("a") as log:
        return subprocess.Popen(
            words, env=own | {"STEADY_HOME": str(home)}, stdout=log, stderr=log, start_new_session=True
        )


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the command and to the kernel that it started, which has a process group of its own."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait(10)
    psutil.wait_procs(family, timeout=10)


def finish(process: subprocess.Popen, home: Path) -> None:
    try:
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            kill(process)
    assert process.returncode == 0, (home / "log.txt").read_text()[-3000:]


def stacks_of(home: Path) -> dict[str, int]:
    """Finished stacks, and when each was written."""
    found = (home / "results" / "store").glob("[0-9a-f][0-9a-f]/[0-9a-f]*/receipt.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_killed_study_goes_on_where_it_was_and_ends_with_the_same_bits(tmp_path):
    killed, quiet = tree(tmp_path / "killed"), tree(tmp_path / "quiet")
    place = Path("results", "reproduced", "smoke", "toy", TASK)

    undisturbed, process, limit = steady_run(quiet), steady_run(killed), time.monotonic() + PATIENCE
    try:
        while not stacks_of(killed) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        kill(process)
        before = stacks_of(killed)
        assert 1 <= len(before) < 4 and not (killed / place).exists(), "was to be killed midway"
        finish(steady_run(killed), killed)
    finally:
        finish(undisturbed, quiet)
    assert before.items() < stacks_of(killed).items()  # what was finished was not trained again
    assert set(stacks_of(killed)) == set(stacks_of(quiet)) and len(stacks_of(quiet)) == 4
    (mine, my_receipt), (theirs, their_receipt) = (read_folder(home / place, Result) for home in (killed, quiet))
    for one, other in zip(mine, theirs, strict=True):
        assert one.equals(other)
    assert len(mine.finals) > 0 and my_receipt["result"] == their_receipt["result"]


# ---- notebooks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The small study in a folder of its own, where results are read and written."""
    write_experiments(tmp_path / "experiments")
    places = {"ROOT": tmp_path, "RESULTS": tmp_path / "results", "GENERATED": tmp_path / "generated"}
    places |= {"EXPERIMENTS": tmp_path / "experiments"}
    places |= {"PUBLISHED": tmp_path / "results/published", "REPRODUCED": tmp_path / "results/reproduced"}
    for module in (findings, reproduce):
        for name, place in places.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, place)
    for name in ("PROFILE", "DEVICE", "ONLY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STEADY_COMMAND", "steady test")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path


def toy_plan(profile: str = "laptop") -> Plan:
    return Plan(experiment=load_study()["toy"], task=TASK, profile=profile)


def scored(gain: dict[str, float], spread: float = 0.0):
    """EMA minus last weights = `gain` of the schedule; a spread adds to it for even seeds and takes from it for odd."""

    def score(run, readout, split):
        return 0.6 + readout.startswith("ema-") * (gain[run.schedule] + spread * (-1) ** run.seed)

    return score


def keep(home: Path, source: str, gain: dict[str, float], spread: float = 0.0, profile: str = "laptop") -> None:
    root = home / "results" / ("published" if source == "published" else f"reproduced/{profile}")
    write_result(root / "toy" / TASK, result(toy_plan(profile), scored(gain, spread)), profile, f"toy/{TASK}@{source}")


def test_notebook_is_run_with_checked_plain_parameters_from_the_root(home, monkeypatch):
    seen = {}

    def run(source, output, parameters, cwd, **_):
        seen.update(source=Path(source).name, parameters=parameters, cwd=cwd, journal=os.environ["STEADY_JOURNAL"])
        keep(home, "reproduced", {"constant": 0.0, "linear": 0.0})

    monkeypatch.setattr(papermill, "execute_notebook", run)
    assert reproduce.run_notebook(toy_plan(), "cpu") == home / "results/reproduced/laptop/toy" / TASK
    assert seen["parameters"] == {"experiment": "toy", "task": TASK, "profile": "laptop", "device": "cpu"}
    assert seen["source"] == "toy.ipynb" and seen["cwd"] == str(home) and seen["journal"].endswith(".jsonl")
    assert "STEADY_JOURNAL" not in os.environ


def test_notebook_that_writes_no_result_is_no_success_although_an_older_result_is_there(home, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"ended without writing a result to .*{TASK}; open it"):
            reproduce.run_notebook(toy_plan(), "cpu")
        keep(home, "reproduced", {"constant": 0.0, "linear": 0.0})


def test_notebook_that_leaves_a_damaged_result_is_no_success(home, monkeypatch):
    def run(*_, **__):
        keep(home, "reproduced", {"constant": 0.0, "linear": 0.0})
        (home / "results/reproduced/laptop/toy" / TASK / "finals.parquet").write_bytes(b"PAR1")

    monkeypatch.setattr(papermill, "execute_notebook", run)
    with pytest.raises(ValueError, match=r"finals\.parquet has SHA-256"):
        reproduce.run_notebook(toy_plan(), "cpu")


def test_notebook_is_run_again_only_when_its_result_code_or_parameters_have_changed(home, monkeypatch):
    ran = []

    def run(*_, parameters, **__):
        ran.append(parameters["profile"])
        keep(home, "reproduced", {"constant": len(ran) / 100, "linear": 0.0}, profile=parameters["profile"])

    def again(profile: str = "laptop") -> int:
        ran.clear()
        reproduce.run_study(profile, "cpu", f"toy/{TASK}", asked="1")
        return len(ran)

    monkeypatch.setattr(papermill, "execute_notebook", run)
    monkeypatch.setattr(reproduce.data, "fetch", lambda *_: None)
    result = home / "results/reproduced/laptop/toy" / TASK
    (code := home / "src" / "some.py").parent.mkdir()
    assert [again(), again(), again("smoke"), again()] == [1, 0, 1, 0]
    code.write_text("new = True")
    assert [again(), again()] == [1, 0]
    (home / "experiments" / "toy.ipynb").write_text("{}")
    assert [again(), again()] == [1, 0]
    (result / "receipt.json").write_text((result / "receipt.json").read_text() + " ")
    assert [again(), again()] == [1, 0]
    shutil.rmtree(result)
    assert [again(), again()] == [1, 0]
    monkeypatch.setattr(reproduce, "packages", lambda: {"torch": "0"})
    assert [again(), again()] == [1, 0]


def test_book_is_built_again_only_when_something_it_shows_has_changed(home, monkeypatch):
    built = []

    def build(*words):
        if "sphinx" in words and "config" not in words:
            built.append(words)
            (html / "index.html").parent.mkdir(parents=True, exist_ok=True)
            (html / "index.html").write_text("")
        return len(built) == fails

    html, fails = home / "_build" / "html", 2
    monkeypatch.setattr(reproduce, "HTML", html)
    monkeypatch.setattr(reproduce, "_quietly", build)
    keep(home, "published", {"constant": 0.0, "linear": 0.0})
    keep(home, "reproduced", {"constant": 0.0, "linear": 0.0})

    def again(source: str = "published") -> int:
        built.clear()
        assert reproduce.build_book(source, "laptop") == html / "index.html"
        return len(built)

    assert [again(), again()] == [1, 0]
    (home / "page.md").write_text("# A page")
    assert [again(), again()] == [1, 0]
    assert [again("reproduced"), again("reproduced"), again()] == [1, 0, 1]
    keep(home, "published", {"constant": 0.1, "linear": 0.0})
    assert [again(), again()] == [1, 0]
    shutil.rmtree(html)
    assert [again(), again()] == [1, 0]
    (home / "page.md").write_text("# A page with a warning")
    built.append(())
    with pytest.raises(RuntimeError, match="warnings fail the build"):
        reproduce.build_book("published")
    assert again() == 1  # a book that failed is no book


def test_verdicts_are_computed_again_only_when_what_they_rest_on_has_changed(home, monkeypatch):
    keep(home, "published", {"constant": 0.0, "linear": 0.0})
    asked, rows = [], findings.rows
    monkeypatch.setattr(findings, "rows", lambda root: asked.append(root) or rows(root))
    first = findings.rows_kept("published", None)
    assert findings.rows_kept("published", None) == first and len(asked) == 1
    keep(home, "published", {"constant": 0.3, "linear": 0.0})
    assert findings.rows_kept("published", None) != first and len(asked) == 2


def test_study_fetches_each_source_once_and_runs_what_only_asks_for(home, monkeypatch):
    fetched, ran = [], []
    monkeypatch.setattr(reproduce.data, "fetch", lambda source, *_: fetched.append(source))
    monkeypatch.setattr(reproduce, "run_notebook", lambda plan, device: ran.append((plan.task, device)))
    reproduce.run_study("smoke", "cpu", f"toy/{TASK}")
    assert (fetched, ran) == (["mnist1d"], [(TASK, "cpu")])
    with pytest.raises(ValueError, match="only must be one of"):
        reproduce.run_study("smoke", "cpu", "toy/other")


# ---- verify --------------------------------------------------------------------------------------------------------

UP, DOWN, NOTHING = 0.05, -0.05, 0.0


@pytest.mark.parametrize(
    ("published", "mine", "spread", "outcome", "code"),
    [
        (UP, UP, 0.0, "held", 0),
        (NOTHING, NOTHING, 0.0, "held", 0),
        (UP, DOWN, 0.0, "flipped", 1),
        (UP, NOTHING, 0.0, "flipped", 1),
        (NOTHING, UP, 0.0, "flipped", 1),
        (UP, UP, 0.2, "undecided", 0),  # mine is inconclusive
    ],
)
def test_verify_tells_held_flipped_and_undecided_apart_and_exits_accordingly(
    home, published, mine, spread, outcome, code
):
    keep(home, "published", {"constant": published, "linear": published})
    keep(home, "reproduced", {"constant": mine, "linear": published}, spread)
    rows = {row["condition"]: row for row in reproduce.compare("laptop")}
    assert rows["constant"]["outcome"] == outcome
    assert rows["linear"]["outcome"] == ("undecided" if spread else "held")
    printed = CliRunner().invoke(main, ["verify", "--profile", "laptop", "--json"])
    assert printed.exit_code == code
    assert {row["outcome"] for row in json.loads(printed.output)} == {row["outcome"] for row in rows.values()}
    told = CliRunner().invoke(main, ["verify", "--profile", "laptop"])
    assert told.exit_code == code and f"of 2 published verdicts held, {code} flipped." in told.output


def test_published_result_that_was_inconclusive_cannot_flip(home):
    keep(home, "published", {"constant": UP, "linear": UP}, spread=0.2)
    keep(home, "reproduced", {"constant": UP, "linear": DOWN})
    assert {row["outcome"] for row in reproduce.compare("laptop")} == {"undecided"}


def test_intervals_that_overlap_are_said_to(home):
    keep(home, "published", {"constant": UP, "linear": UP})
    keep(home, "reproduced", {"constant": UP, "linear": DOWN})
    overlap = {row["condition"]: row["intervals_overlap"] for row in reproduce.compare("laptop")}
    assert overlap == {"constant": True, "linear": False}


def test_verify_refuses_to_compare_nothing(home):
    """Neither without results of one's own nor without published ones: an empty comparison is no success."""
    keep(home, "published", {"constant": UP, "linear": UP})
    with pytest.raises(
        FileNotFoundError, match="no reproduced results of profile laptop; run `make reproduce PROFILE=laptop`"
    ):
        reproduce.compare("laptop")
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    shutil.rmtree(home / "results" / "published")
    with pytest.raises(FileNotFoundError, match=r"no published result .* nothing to compare"):
        reproduce.compare("laptop")
    failed = CliRunner().invoke(main, ["verify", "--profile", "laptop"])
    assert failed.exit_code == 1 and "nothing to compare" in failed.output


# ---- publish and clean ---------------------------------------------------------------------------------------------


def test_publish_copies_the_rows_as_they_are_and_replaces_older_ones(home):
    keep(home, "published", {"constant": DOWN, "linear": DOWN})
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    readme = home / "README.md"
    readme.write_text("before\n<!-- verdicts: written by `make publish` -->\nold\n<!-- end of verdicts -->\nafter\n")
    (told,) = reproduce.publish_results("laptop")
    said = readme.read_text(encoding="utf-8")
    assert said.startswith("before\n") and said.endswith("\nafter\n") and "old" not in said and "**supported**" in said
    assert told == f"toy/{TASK}@reproduced (2 primary contrasts)"
    mine, mine_receipt = read_folder(home / "results/reproduced/laptop/toy" / TASK, Result)
    there, receipt_there = read_folder(home / "results/published/toy" / TASK, Result)
    assert all(one.equals(other) for one, other in zip(mine, there, strict=True)) and receipt_there == mine_receipt
    assert {row["outcome"] for row in reproduce.compare("laptop")} == {"held"}


def test_publish_refuses_smoke_and_what_is_not_there(home):
    keep(home, "reproduced", {"constant": UP, "linear": UP}, profile="smoke")
    with pytest.raises(ValueError, match="'smoke' supports no claim and is not published; use laptop, desk or full"):
        reproduce.publish_results("smoke")
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    with pytest.raises(FileNotFoundError, match="no reproduced results of profile laptop match only='toy/other'"):
        reproduce.publish_results("laptop", "toy/other")
    assert not (home / "results" / "published").exists()


def test_damaged_result_is_not_published(home):
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    (home / "results/reproduced/laptop/toy" / TASK / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"runs\.parquet has SHA-256"):
        reproduce.publish_results("laptop")
    assert not (home / "results" / "published").exists()


def test_clean_leaves_results_and_data_unless_asked_for_results(home):
    keep(home, "published", {"constant": UP, "linear": UP})
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    for name in ("_build/html/index.html", "generated/findings.json", "conf.py", "data/images", "results/store/ab/x"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("")
    there = lambda: {path.relative_to(home).as_posix() for path in [*home.glob("*"), *home.glob("results/*")]}
    kept = {"data", "experiments", "results", "results/published", "results/reproduced", "results/store"}
    reproduce.clean_tree(with_results=False)
    assert there() == kept
    reproduce.clean_tree(with_results=True)
    assert there() == kept - {"results/reproduced", "results/store"}
    assert reproduce.clean_tree(with_results=True) == []


# ---- cost ----------------------------------------------------------------------------------------------------------


def test_bill_names_networks_time_memory_disk_and_what_is_left_out(capsys):
    rows = reproduce.costs("laptop", "cpu")
    reproduce.say_cost(rows, "laptop", "cpu")
    said = capsys.readouterr().out
    assert f"About {sum(row['networks'] for row in rows)} networks" in said
    for word in (
        "minutes",
        "GiB of memory",
        "MB of disk",
        "Kill it at any time",
        "Profile laptop leaves out: ",
        "weight_averaging/fashion-mnist-cnn",
    ):
        assert word in said
    assert "PROFILE=full" not in said


def test_bill_for_two_processes_is_half_the_time_and_twice_the_memory_beside_the_commands_own(capsys):
    row = {"networks": 5, "minutes": 30.0, "memory_gib": 1.5, "disk_mb": 1.0}
    reproduce.say_cost([row], "full", "cpu")
    assert "30 minutes of training in one process" in (alone := capsys.readouterr().out) and "1.5 GiB" in alone
    reproduce.say_cost([row], "full", "cpu", processes=2)
    both = capsys.readouterr().out
    assert "15 minutes of training in 2 processes" in both and f" {3 + OWN_GIB:g} GiB" in both


def test_bill_on_a_gpu_says_what_full_would_take(capsys):
    reproduce.say_cost(reproduce.costs("smoke", "cuda"), "smoke", "cuda")
    assert "PROFILE=full would take about" in capsys.readouterr().out


def test_only_limits_the_bill():
    assert [row["task"] for row in reproduce.costs("desk", "cpu", f"weight_averaging/{TASK}")] == [TASK]
    assert len(reproduce.costs("desk", "cpu")) == len(plans("desk"))


def test_small_experiment_used_here_is_a_valid_one(home):
    assert (
        load_study()["toy"].arms.keys() == SMALL_EXPERIMENT["arms"].keys()
        and receipt("smoke", "x")["profile"] == "smoke"
    )
