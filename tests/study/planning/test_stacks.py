"""Stacks hold every run once; what is missing is trained, and nothing else."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fabricated import a_run, stack_receipt, tables
from planned import EVERY_PLAN, label, planned
from steadydescent.engine.tasks import TASKS
from steadydescent.study.planning import Plan
from steadydescent.study.planning import stacks as planning_stacks
from steadydescent.study.planning.stacks import stacking, stackings, stacks, worth_compiling
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


def test_steps_are_compiled_where_all_stacks_of_a_shape_make_enough_updates(monkeypatch):
    other = replace(stacking("mnist1d-mlp", "cpu"), width=2, compile_from=30)
    monkeypatch.setattr(planning_stacks, "stackings", lambda device: {"mnist1d-mlp": other})
    # two stacks, 22 updates; three stacks, 30 updates
    few = [a_run(seed=seed, steps=11, curve_points=2) for seed in range(4)]
    many = [a_run(seed=seed, steps=10, curve_points=2) for seed in range(5)]
    assert worth_compiling(stacks(few + many, "cpu"), "cpu") == {many[0].shape} != {few[0].shape}


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
