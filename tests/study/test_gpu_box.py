"""A GPU box in minutes: parts go as far as their time, leave files at once, and go on where they
ended.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fabricated import a_run, stack_receipt, tables
from steadydescent.study.gpu_box import command, facts, measuring, needs
from steadydescent.study.gpu_box.box import EXTENTS, Box
from steadydescent.study.gpu_box.command import Part, on_gpu_box
from steadydescent.study.paths import ROOT
from steadydescent.study.planning.stacks import stacking, stackings
from steadydescent.study.results.provenance import device_name
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.results.store_archive import take_in
from steadydescent.study.training.items import Outcome

BLOCKED = ("papermill", "ipykernel", "jupyter_book", "sphinx", "altair", "distributed", "dask")
BLOCKED += ("jupyter_client", "nbformat", "nbclient", "seaborn", "sphinxext", "playwright")
BLOCKER = f"""
import sys
from importlib.machinery import PathFinder

class Without:
    def find_spec(name, path=None, target=None):
        found = name.partition(".")[0] not in {BLOCKED!r}
        return PathFinder.find_spec(name, path, target) if found else None

    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


@pytest.fixture
def box(tmp_path) -> Box:
    return Box("cpu", tmp_path, time.monotonic(), 60.0)


# ---- one part after another ----------------------------------------------------------------------


@pytest.fixture
def parts(monkeypatch):
    """Parts that note what they are given and end as they are told."""
    seen, ends = [], {"a": True, "b": True, "c": True}

    def made(name: str, share: float) -> Part:
        def work(box, before, until):
            seen.append((name, before.get("left", "nothing"), until))
            if isinstance(ends[name], Exception):
                raise ends[name]
            box.write(f"{name}.json", {"finished": ends[name], "left": f"some of {name}"})
            return ends[name]

        return Part(name, f"{name}.json", share, work)

    monkeypatch.setattr(command, "BOX_PARTS", (made("a", 0.2), made("b", 0.6), made("c", 1.0)))
    return seen, ends


def test_parts_share_one_time_and_what_one_leaves_is_the_next_ones(parts, tmp_path):
    seen, _ = parts
    on_gpu_box("cpu", 1e4, tmp_path)
    assert [name for name, *_ in seen] == ["a", "b", "c"]
    a, b, c = (until for *_, until in seen)
    assert a < b < c and (b - a) / (c - b) == pytest.approx(0.4 / 0.4)


def test_a_second_call_goes_on_where_the_first_ended(parts, tmp_path, capsys):
    seen, ends = parts
    ends["b"] = False
    on_gpu_box("cpu", 1e4, tmp_path)
    assert "Not finished: b; " in capsys.readouterr().out
    seen.clear()
    ends["b"] = True
    on_gpu_box("cpu", 1e4, tmp_path)
    assert [given[:2] for given in seen] == [("b", "some of b")]
    assert "All is finished" in capsys.readouterr().out
    seen.clear()
    (tmp_path / "store-1.tar").write_bytes(b"old")
    on_gpu_box("cpu", 1e4, tmp_path, again=True)
    assert [given[:2] for given in seen] == [(name, "nothing") for name in "abc"]
    assert not (tmp_path / "store-1.tar").exists()


def test_a_part_without_time_is_skipped_and_said_so(parts, tmp_path, capsys):
    seen, _ = parts
    on_gpu_box("cpu", 1e-4, tmp_path)
    said = capsys.readouterr()
    assert seen == [] and said.err.count("skipped, there is no time left") == 3
    assert "Not finished: a, b, c" in said.out


def test_a_part_that_fails_costs_itself_alone_and_leaves_its_reason(parts, tmp_path, capsys):
    seen, ends = parts
    ends["b"] = RuntimeError("CUDA error: an illegal memory access was encountered")
    on_gpu_box("cpu", 1e4, tmp_path)
    assert [name for name, *_ in seen] == ["a", "b", "c"]
    assert "illegal memory access" in json.loads((tmp_path / "b-failed.json").read_text())["error"]
    assert "b: failed, RuntimeError: CUDA error" in capsys.readouterr().err


# ---- what is measured ----------------------------------------------------------------------------


def worked(monkeypatch, outcomes: list[Outcome], leave: int = 0) -> list[list[str]]:
    """Items that were asked for; the outcomes told of them, but for the last `leave`."""
    asked = []

    def through(words, items, until, environment, *_, tick=lambda: None, **__):
        asked.append([*words[1:], *items])
        told = {one.item: one for one in outcomes}
        for item in items[: len(items) - leave]:
            yield told.get(item, Outcome(item, [{"case": item}], "", 1.0))
        tick()

    monkeypatch.setattr(measuring, "work_through", through)
    return asked


def test_cases_are_kept_one_by_one_and_those_left_are_taken_up(box, monkeypatch):
    failed = Outcome("update and EMA", None, "RuntimeError: no", 2.0)
    worked(monkeypatch, [failed], leave=1)
    assert not measuring.bench_part(box, {}, 0.0)
    first = box.read("bench.json")
    assert first["cases"]["update and EMA"] == {"error": "RuntimeError: no", "seconds": 2.0}
    assert len(first["left"]) == 1 and not first["finished"]
    asked = worked(monkeypatch, [])
    assert measuring.bench_part(box, first, 0.0)
    assert asked[0][2:] == first["left"]
    whole = box.read("bench.json")
    assert whole["finished"] and [*whole["cases"]] == [*first["cases"], *first["left"]]
    assert whole["receipt"]["device_kind"] == "cpu"


def test_what_a_box_measured_is_kept_among_published_results_under_its_name(box, monkeypatch):
    failed = Outcome("update and EMA", None, "RuntimeError: no", 30.0)
    worked(monkeypatch, [failed])
    with pytest.raises(ValueError, match=r"has no bench\.json; `make gpu` writes it"):
        measuring.timed_on_box(box.out)
    measuring.bench_part(box, {}, 0.0)
    rows, origin = measuring.timed_on_box(box.out)
    cases = box.read("bench.json")["cases"]
    assert [row["case"] for row in rows] == [name for name in cases if name != failed.item]
    assert origin["minutes"] == round((29 + len(cases)) / 60, 1)
    from suite import keep

    path = keep(rows, origin["device_kind"], origin, box.out / "published")
    (part,) = json.loads(path.read_bytes())
    assert path.name == "bench-cpu.json" and part == {"rows": rows, "receipt": origin}
    box.write("bench.json", {"cases": {failed.item: cases[failed.item]}})
    with pytest.raises(ValueError, match="has no case that was measured"):
        measuring.timed_on_box(box.out)


def test_every_task_with_its_ceilings_is_measured_on_a_gpu(box, monkeypatch):
    box.extent = EXTENTS["cuda"]
    asked = worked(monkeypatch, [])
    measuring.bench_part(box, {}, 0.0)
    from suite import CASES, PERCEPTRONS
    from training import TASKS

    names = asked[0][2:]
    assert names[0] == "update and EMA" and set(names) <= set(CASES)
    assert {f"train {task}, one EMA" for task in TASKS} <= set(names)
    assert {f"bare products, {task}" for task in PERCEPTRONS} <= set(names)
    assert set(EXTENTS["cuda"].tasks) == set(stackings("cuda"))


ROW = {"width": 1024, "threads": 1, "compile_from": 700, "rate": 9e5, "evaluation": 1e6}
ROW |= {"memory": 3.5, "probe": 0.0, "graph": True}


def test_rows_can_be_pasted_or_taken_as_they_are(box, monkeypatch):
    rests_on = {"measured": [{"width": 1024, "rate": 9e5}, {"width": 2048, "rate": None}]}
    told = [
        Outcome("mnist1d-mlp", {"row": dict(ROW), **rests_on}, "", 3.0),
        Outcome("mnist1d-cnn", None, "ValueError: not even one network fits", 1.0),
    ]
    worked(monkeypatch, told, leave=1)
    assert not measuring.widths(box, {}, 0.0)
    text = (box.out / "stackings.yml").read_text()
    assert "  mnist1d-mlp: {width: 1024, threads: 1, compile_from: 700, rate: 900000.0," in text
    found = box.read("stackings.yml")
    assert found["cpu"] == {"mnist1d-mlp": ROW} and found["measured"]["mnist1d-mlp"] == rests_on
    assert "not even one network" in found["measured"]["mnist1d-cnn"]["error"]
    monkeypatch.setenv("STEADY_STACKINGS", str(box.out / "stackings.yml"))
    assert stacking("mnist1d-mlp", "cpu").width == 1024
    asked = worked(monkeypatch, [Outcome("saddle", {"row": dict(ROW), **rests_on}, "", 1.0)])
    assert measuring.widths(box, found, 0.0) and asked[0][2:] == ["saddle"]
    assert [*box.read("stackings.yml")["cpu"]] == ["mnist1d-mlp", "saddle"]


def test_what_was_trained_is_packed_while_it_goes_on_and_can_be_taken_in(
    box, monkeypatch, tmp_path
):
    store = Store(tmp_path / "store")
    monkeypatch.setattr(measuring, "STORE", store.root)
    here = {"device": device_name("cpu")}
    runs = [a_run(seed=seed, curve_points=2) for seed in range(3)]
    names = measuring.in_order("smoke")

    def through(words, items, until, environment, most=0, tick=lambda: None):
        assert json.loads(words[-1]) == {"profile": "smoke", "device": "cpu"}
        store.save(Tables(*tables(runs)), stack_receipt(runs, **here))
        tick()
        assert (box.out / "store-1.tar").exists()  # the box may be taken away from here on
        yield Outcome(items[0], {"runs": 3, "updates": 30}, "", 1.0)

    monkeypatch.setattr(measuring, "work_through", through)
    assert not measuring.study(box, {}, 0.0)
    found = box.read("study.json")
    assert found["experiments"][names[0]]["runs"] == 3 and found["left"] == names[1:]
    assert (found["stacks"], found["left_out"]) == (1, 0)
    assert take_in(box.out / "store-1.tar", Store(tmp_path / "here")).networks == 3


# ---- what the box is, and what it has ------------------------------------------------------------


def test_what_the_machine_is_needs_no_nvidia_smi(box, monkeypatch):
    monkeypatch.setattr(facts.shutil, "which", lambda name: None)
    assert facts.machine(box, {}, 0.0)
    found = box.read("machine.json")
    assert found["nvidia_smi"] == "there is no nvidia-smi" and found["finished"]
    assert found["receipt"]["packages"]["torch"] == torch.__version__


def test_facts_of_the_driver_are_read_by_name(monkeypatch, tmp_path):
    (command_ := tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'NVIDIA H0, 580.1, 1000 MiB, 3 MiB, 9.0, 1980 MHz, 700.00 W'\n"
    )
    command_.chmod(0o755)
    monkeypatch.setattr(facts.shutil, "which", lambda name: str(command_))
    found = facts._nvidia_smi()
    assert (found["name"], found["driver_version"], found["power.limit"]) == (
        "NVIDIA H0", "580.1", "700.00 W",
    )  # fmt: skip
    command_.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert facts._nvidia_smi() == "nvidia-smi failed: no devices were found"


def test_tests_are_counted_with_their_reasons(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2, 'why'\n"
        "def test_c(): pytest.skip('no GPU')\n"
    )
    report = tmp_path / "junit.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--junitxml={report}"]
    _, status = facts._run([*words, str(tmp_path / "test_it.py")], 120)
    found = facts._counted(report)
    assert status == 1 and found["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert any("why" in reason for reason in found["reasons"].values())
    assert facts._run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)[1] is None


def test_what_is_missing_is_named_before_anything_is_imported(monkeypatch):
    real = needs.importlib.metadata.version

    def version(name):
        if name in ("mnist1d", "jax"):
            raise needs.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(needs.importlib.metadata, "version", version)
    with pytest.raises(RuntimeError, match=r"^mnist1d not installed.*pip install mnist1d"):
        needs.check_needs()
    assert needs.missing(("jax", "torch")) == ["jax"]


def blocked(tmp_path: Path) -> dict[str, str]:
    """Variables under which Python finds no package of notebooks, kernels and the book."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    paths = [str(tmp_path), str(ROOT / "src")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "STEADY_HOME": str(ROOT)}


def test_the_whole_path_is_there_without_notebooks_kernels_cluster_and_book(tmp_path):
    imports = (
        "import sys; from runpy import run_path\n"
        "from steadydescent.study.gpu_box import needs; needs.check_needs()\n"
        "import steadydescent.cli, steadydescent.study.gpu_box.command\n"
        "import steadydescent.study.training.in_order, steadydescent.study.results.store_archive\n"
        f"print(len(run_path({str(ROOT / 'benchmarks')!r})['CASES']))\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import item_by_item\n"
        "try:\n    import papermill\nexcept ModuleNotFoundError: print('blocked')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", imports], env=blocked(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "blocked" and int(done.stdout.split()[0]) > 20


@pytest.mark.slow
def test_the_same_path_goes_through_on_a_cpu_in_small(tmp_path):
    home, out, variables = tmp_path / "home", tmp_path / "out", blocked(tmp_path)
    home.mkdir()
    for name in ("benchmarks", "data", "experiments", "tests", "pyproject.toml"):
        (home / name).symlink_to(ROOT / name)
    variables["STEADY_HOME"] = str(home)
    words = [sys.executable, "-m", "steadydescent.cli", "gpu", "--device", "cpu"]
    for minutes in (2.5, 2.5):
        done = subprocess.run(
            [*words, "--minutes", str(minutes), "--out", str(out)],
            env=variables, capture_output=True, text=True, timeout=60 * minutes + 60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    read = lambda name: json.loads((out / name).read_text())
    assert read("tests.json")["counts"]["failed"] == 0 and read("machine.json")["finished"]
    cases = read("bench.json")["cases"]
    assert not [case for case in cases.values() if "error" in case]
    peers = {row["peer_name"][:2] for row in cases["train mnist1d-mlp, one EMA"]["rows"]}
    assert {"P0", "P1", "P2", "P3"} <= peers
    rows = Box("cpu", out, 0.0, 1.0).read("stackings.yml")
    assert rows["cpu"]["mnist1d-mlp"]["rate"] > 0
    study = read("study.json")
    assert study["experiments"] and not [e for e in study["experiments"].values() if "error" in e]
    assert take_in(out / "store-1.tar", Store(tmp_path / "here")).stacks == study["stacks"] > 0
