"""Items in a process of their own: what is done is told at once, and a failure costs one item."""

import os
import sys
import time

import psutil
import pytest

from steadydescent.study.planning import plans
from steadydescent.study.training import in_order
from steadydescent.study.training.in_order import ORDER
from steadydescent.study.training.items import Outcome, work_through
from steadydescent.study.training.trial import Trial
from trials import start

SERVES = """
import json, os, sys, time
from steadydescent.study.training.items import serve_items

def work(item):
    print("noise", item)
    if item == "fails":
        raise ValueError("a reason" + " and more" * 200)
    if item == "dies":
        os._exit(7)
    if item == "hangs":
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    return {"pid": os.getpid(), "length": len(item)}

serve_items(work, json.loads(sys.argv[2]))
"""


@pytest.fixture
def through(tmp_path):
    """`work_through` with a process that does, fails, dies or hangs as its item says."""
    (script := tmp_path / "serves.py").write_text(SERVES)
    command = [sys.executable, str(script), str(tmp_path / "pid")]

    def work(items, seconds=60.0, **more) -> list[Outcome]:
        until = time.monotonic() + seconds
        return list(work_through(command, items, until, dict(os.environ), **more))

    work.pid = tmp_path / "pid"
    return work


def test_one_process_does_all_and_what_it_prints_is_not_taken_for_what_it_tells(through):
    found = through(["a", "bcd"])
    assert [(one.item, one.found["length"], one.error) for one in found] == [
        ("a", 1, ""),
        ("bcd", 3, ""),
    ]
    assert len({one.found["pid"] for one in found}) == 1


def test_an_item_that_fails_or_dies_costs_itself_alone(through):
    a, fails, b, dies, c = through(["a", "fails", "b", "dies", "c"])
    assert [one.item for one in (a, fails, b, dies, c)] == ["a", "fails", "b", "dies", "c"]
    assert a.found and b.found and c.found
    assert len({one.found["pid"] for one in (a, b, c)}) == 3
    assert fails.error.startswith("ValueError: a reason and more") and len(fails.error) < 510
    assert dies.error == "its process ended with status 7 and without a word"


def test_an_item_that_hangs_is_ended_and_the_next_is_done(through, monkeypatch):
    monkeypatch.setattr("steadydescent.study.training.items.START_ALLOWED", 9.0)
    ticks = []
    hangs, a = through(["hangs", "a"], most=1.0, tick=lambda: ticks.append(1))
    assert hangs.error == "it took longer than 1 seconds and was ended" and a.found and ticks
    assert not psutil.pid_exists(int(through.pid.read_text()))


def test_at_the_end_of_the_time_the_process_is_killed_and_nothing_is_made_up(through):
    found = through(["a", "hangs", "b"], seconds=15.0)
    assert [one.item for one in found] == ["a"]
    assert not psutil.pid_exists(int(through.pid.read_text()))
    assert through(["a"], seconds=-1) == []


# ---- the order in which experiments are trained --------------------------------------------------


def test_the_order_names_all_that_full_runs_and_nothing_else():
    full = [f"{plan.experiment.name}/{plan.task}" for plan in plans("full")]
    assert sorted(ORDER) == sorted(full) and in_order.in_order("full") == list(ORDER)
    smoke = in_order.in_order("smoke")
    assert len(smoke) == len(plans("smoke")) and [n for n in ORDER if n in smoke] == [
        n for n in smoke if n in ORDER
    ]


def test_training_without_a_notebook_trains_what_the_notebook_does(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0, "tail-25": 2})
    trial.tune()
    trial.report()
    keys = lambda: [sorted(run.key for run in runs) for runs in asked]
    by_notebook = keys()
    asked.clear()
    again = lambda *given: Trial(*given, store=toy / "another")
    monkeypatch.setattr(in_order, "Trial", again)
    found = in_order.train_whole("toy/mnist1d-mlp", "laptop", "cpu")
    assert keys() == by_notebook and found["runs"] == len(trial.runs)


def test_an_experiment_that_is_none_is_refused(toy):
    with pytest.raises(ValueError, match="an experiment and its task 'toi/mnist1d-mlp' is unknown"):
        in_order.train_whole("toi/mnist1d-mlp", "laptop", "cpu")
