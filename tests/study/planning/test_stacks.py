"""Stacks hold every run once; what is missing is trained, and nothing else."""

from collections import Counter
from dataclasses import asdict, replace
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
import yaml

from fabricated import a_run, stack_receipt, tables
from planned import EVERY_PLAN, label, planned
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import prepared
from steadydescent.engine.tasks import TASKS
from steadydescent.study.paths import DATA
from steadydescent.study.planning import Plan
from steadydescent.study.planning import stacks as planning_stacks
from steadydescent.study.planning.stacks import (
    narrower,
    stacking,
    stackings,
    stacks,
    worth_compiling,
)
from steadydescent.study.results.store import Store
from steadydescent.study.training import stack_training
from steadydescent.study.training.stack_training import pick_device
from steadydescent.study.training.sweep import train


@pytest.fixture(params=range(len(EVERY_PLAN)), ids=[label(plan) for plan in EVERY_PLAN])
def plan(request) -> Plan:
    return EVERY_PLAN[request.param]


@pytest.fixture
def expected(plan) -> list:
    return planned(EVERY_PLAN.index(plan))


# ---- stacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_stacks_hold_every_run_once_and_are_never_too_wide(plan, expected, device):
    cut, width = stacks(expected, device), stacking(plan.task, device).width
    assert sorted(run.key for stack in cut for run in stack) == sorted(run.key for run in expected)
    assert all(1 <= len(stack) <= width and len({run.shape for run in stack}) == 1 for stack in cut)
    counts = Counter(run.shape for run in expected)
    assert len(cut) == sum(
        -(-count // width) for count in counts.values()
    )  # and no stack is split without need


def test_stacks_are_cut_the_same_way_every_time_whatever_shapes_are_mixed():
    runs = [a_run(seed=seed, steps=40 + seed % 3) for seed in range(100)]
    names = lambda cut: [[run.key for run in stack] for stack in cut]
    assert names(stacks(runs, "cpu")) == names(stacks(list(runs), "cpu"))
    assert all(len({run.steps for run in stack}) == 1 for stack in stacks(runs, "cpu"))


def test_every_task_has_a_stacking_on_every_kind_of_device():
    assert set(stackings("cpu")) == set(stackings("cuda")) == set(TASKS)


# ---- training what is missing --------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A store, a journal's events, and the stacks that were trained: nothing real."""
    found = SimpleNamespace(store=Store(tmp_path / "store"), events=[], trained=[])

    def pretend(runs, device, tell, compiled):
        found.trained.append([run.seed for run in runs])
        tell(done=sum(run.steps for run in runs))
        return tables(runs), stack_receipt(runs)

    found.journal = SimpleNamespace(tell=lambda **event: found.events.append(event))
    monkeypatch.setattr(stack_training, "train_stack", pretend)
    return found


def seeds(numbers: range) -> list:
    return [a_run(seed=seed, curve_points=2) for seed in numbers]


def test_what_is_finished_is_not_trained_again(bench):
    width = stacking("mnist1d-mlp", "cpu").width
    train(seeds(range(2 * width + 3)), bench.store, "cpu", bench.journal)
    assert [len(stack) for stack in bench.trained] == [width, width, 3]
    bench.trained.clear()
    train(seeds(range(2 * width + 3)), bench.store, "cpu", bench.journal)
    assert bench.trained == []


def test_added_seeds_alone_are_trained(bench):
    train(seeds(range(3)), bench.store, "cpu", bench.journal)
    train(seeds(range(5)), bench.store, "cpu", bench.journal)
    assert bench.trained == [[0, 1, 2], [3, 4]]


def test_steps_are_compiled_where_all_stacks_of_a_program_make_enough_updates(monkeypatch):
    other = replace(stacking("mnist1d-mlp", "cpu"), width=2, compile_from=30)
    monkeypatch.setattr(planning_stacks, "stackings", lambda device: {"mnist1d-mlp": other})
    worth = lambda *runs: worth_compiling(stacks([*chain(*runs)], "cpu"), "cpu")
    # two stacks, 22 updates; three stacks, 30 updates; a run alone does not fill a stack
    few = [a_run(seed=seed, steps=11, curve_points=2) for seed in range(4)]
    many = [a_run(seed=seed, steps=10, curve_points=2, optimizer="adam") for seed in range(6)]
    assert worth(few, many) == {many[0].shape} != {few[0].shape}
    assert worth(few, many[:5]) == set()
    # as many, on more examples each or through norms, which take longer
    large, normed = ([one.model_copy(update=more) for one in few] for more in COSTLY)
    assert worth(large, normed) == {large[0].shape, normed[0].shape}
    # eight more updates, of the same program or of another
    pair = lambda *readouts: [a_run(seed=s, steps=8, readouts=readouts) for s in (0, 1)]
    same = pair("last", "at-50", "ema-20")
    assert worth(few, same) == {few[0].shape, same[0].shape}
    assert worth(few, pair("last", "ema-20", "tail-50")) == set()


@pytest.mark.parametrize("task", TASKS)
def test_a_stack_is_compiled_that_fills_more_than_half_of_a_step(task):
    plan = stacking(task, "cpu")
    together = plan.together(plan.width, compiled=True)
    filling = [runs for runs in range(1, plan.width + 1) if plan.fills(runs)]
    assert filling == [*range(together // 2 + 1, plan.width + 1)]


def test_a_few_runs_of_a_compiled_program_are_traced():
    runs = seeds(range(stacking("mnist1d-mlp", "cpu").width // 2))
    _, note = stack_training.train_stack(runs, "cpu", lambda **_: None, compiled=True)
    assert note["compiled"] is False


COSTLY = ({"batch_size": 500}, {"task": 'mnist1d-mlp(norm="batch")'})
USUAL = {"steps": 10, "readouts": ("last",), "test": False}
PROGRAMS = (
    {},
    {"optimizer": "momentum(mu=0.8)"},
    {"optimizer": "adam"},
    {"batch_size": 16},
    {"task": 'mnist1d-mlp(norm="batch")'},
    {"task": 'mnist1d-mlp(features="badly-scaled")'},
    {"readouts": ("last", "ema-20")},
    {"readouts": ("last", "ema-20", "tail-50")},
)
OF_ONE_PROGRAM = (
    {"steps": 12, "curve_points": 2},
    {"test": True, "shifts": ("prior(severity=1)",)},
    {"schedule": "linear", "lr": 0.3},
    {"readouts": ("last", "at-50", "last/copied")},
)


def test_the_engine_records_one_step_for_what_counts_as_one_program():
    prepared.cache_clear()
    steps, programs = set(), set()
    for changes in PROGRAMS:
        for more in ({}, *OF_ONE_PROGRAM):
            more = {} if changes.keys() & more.keys() else more
            stack = Stack([a_run(**USUAL | changes | more)], DATA, compile=False)
            stack.train()
            steps.add(stack.step)
            programs.add(planning_stacks._program(stack.first))
    assert sum(len(step.graphs) for step in steps) == len(programs) == len(PROGRAMS)


def test_what_another_runner_trained_meanwhile_is_not_trained_again(bench, monkeypatch):
    runs, lock = seeds(range(3)), bench.store.lock

    def overtaken(keys):
        Store(bench.store.root).save(tables(runs), stack_receipt(runs))
        return lock(keys)

    monkeypatch.setattr(bench.store, "lock", overtaken)
    train(runs, bench.store, "cpu", bench.journal)
    assert bench.trained == []


def test_progress_adds_up_to_the_total_whatever_was_there(bench):
    width = stacking("mnist1d-mlp", "cpu").width
    train(
        seeds(range(width + 2)), bench.store, "cpu", bench.journal
    )  # one whole stack and part of the next
    bench.events.clear()
    runs = seeds(range(2 * width + 5))
    train(runs, bench.store, "cpu", bench.journal)
    start = bench.events[0]
    assert start["total"] == sum(run.steps for run in runs)
    assert start["initial"] + sum(event.get("done", 0) for event in bench.events) == start["total"]
    assert "end" in bench.events[-1]


# ---- what does not fit ---------------------------------------------------------------------------


@pytest.fixture
def small_device(bench, monkeypatch):
    """A device whose memory holds so many networks and no more; `failures` are the widths tried."""
    pretend, bench.room, bench.failures = stack_training.train_stack, 3, []

    def limited(runs, device, tell, compiled):
        if len(runs) > bench.room:
            bench.failures.append(len(runs))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        return pretend(runs, device, tell, compiled)

    monkeypatch.setattr(stack_training, "train_stack", limited)
    monkeypatch.setattr(stack_training, "FITTING", {})
    return bench


def test_widths_to_fall_back_to_are_the_powers_of_two_below():
    assert list(narrower(512)) == [256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert list(narrower(300))[:2] == [256, 128] and list(narrower(1)) == []


def test_a_stack_that_does_not_fit_is_trained_in_narrower_ones_and_no_run_is_lost(small_device):
    runs = seeds(range(stacking("mnist1d-mlp", "cpu").width + 5))
    train(runs, small_device.store, "cpu", small_device.journal)
    assert small_device.store.keys() == {run.key for run in runs}
    trained = sorted(seed for stack in small_device.trained for seed in stack)
    assert trained == [run.seed for run in runs]
    # 16 → 8 → 4 → 2, and 2 is kept for the stacks that follow
    assert small_device.failures == [16, 8, 4]
    assert {len(stack) for stack in small_device.trained} == {2, 1}
    notes = [event["note"] for event in small_device.events if "note" in event]
    assert notes[0] == (
        "a stack of 16 networks of mnist1d-mlp does not fit (CUDA out of memory): "
        "from here on they are trained 8 at a time"
    )
    assert len(notes) == 3
    done = sum(event.get("done", 0) for event in small_device.events)
    assert done == sum(run.steps for run in runs)


def test_what_was_trained_before_memory_ran_out_stays(small_device, monkeypatch):
    runs = seeds(range(6))
    limited, calls = stack_training.train_stack, []

    def then_none(stack, *rest):
        calls.append(len(stack))
        small_device.room = 3 if len(calls) < 4 else 0
        return limited(stack, *rest)

    monkeypatch.setattr(stack_training, "train_stack", then_none)
    with pytest.raises(torch.OutOfMemoryError):
        train(runs, small_device.store, "cpu", small_device.journal)
    # 6 → 4 → 2, which fits once, before not one network does
    assert calls == [6, 4, 2, 2, 1] and len(small_device.store.keys()) == 2


def test_one_network_that_does_not_fit_is_an_error(small_device):
    small_device.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        train(seeds(range(2)), small_device.store, "cpu", small_device.journal)


def test_other_errors_are_not_taken_for_a_want_of_memory(bench, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(stack_training, "train_stack", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(seeds(range(4)), bench.store, "cpu", bench.journal)


# ---- rows that were measured here ----------------------------------------------------------------


def test_rows_measured_here_take_the_place_of_the_tables(tmp_path, monkeypatch):
    row = asdict(stacking("mnist1d-mlp", "cuda")) | {"width": 1024, "graph": False}
    (path := tmp_path / "rows.yml").write_text(yaml.safe_dump({"cuda": {"mnist1d-mlp": row}}))
    usual = stackings("cuda")
    monkeypatch.setenv("STEADY_STACKINGS", str(path))
    assert asdict(stacking("mnist1d-mlp", "cuda")) == row
    assert stacking("mnist1d-cnn", "cuda") == usual["mnist1d-cnn"]
    assert stackings("cpu")["mnist1d-mlp"].width == 16


@pytest.mark.parametrize(
    "content", ["cuda: {mnist2d: {width: 1}}", "- 1", "cuda: {mnist1d-mlp: {wide: 1}}", "cuda: 3"]
)
def test_rows_that_are_none_are_refused_with_their_file(tmp_path, monkeypatch, content):
    (path := tmp_path / "rows.yml").write_text(content)
    monkeypatch.setenv("STEADY_STACKINGS", str(path))
    with pytest.raises(ValueError, match=r"rows\.yml"):
        stackings("cuda")


def test_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(stack_training.torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(
        ValueError, match="device 'cuda' was asked for, but torch finds no GPU; use DEVICE=cpu"
    ):
        pick_device("cuda")
    with pytest.raises(ValueError, match="device 'gpu' is unknown; did you mean 'cpu'"):
        pick_device("gpu")
    monkeypatch.setattr(stack_training.torch.cuda, "is_available", lambda: True)
    assert (pick_device("auto"), pick_device("cuda"), pick_device("cpu")) == ("cuda", "cuda", "cpu")
