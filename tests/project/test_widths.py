"""Widths of stacks: what is proposed follows from what was measured, want of memory included."""

import pytest
import torch

import widths
from steadydescent.engine.tasks import TASKS
from steadydescent.study.planning.stacks import Stacking
from widths import NEVER, Look, Measured, busiest, compile_from, narrowest, proposed

USUAL = Stacking(64, 1, 500, 100, 1000, 4.0, probe=0.12)


def searched(first: int, widest: int, rate) -> tuple[int, list[int]]:
    tried = []

    def counted(width):
        tried.append(width)
        return rate(width)

    return narrowest(first, widest, counted), tried


@pytest.mark.parametrize(
    ("rate", "found", "tried"),
    [
        (lambda w: min(w, 256), 256, [64, 128, 256, 512]),
        (lambda w: w, 512, [64, 128, 256, 512]),  # no wider than asked for
        (lambda w: min(w, 16), 16, [64, 128, 32, 16, 8]),  # nothing is lost down to 16
        (lambda w: None if w > 16 else w, 16, [64, 32, 16, 8]),  # what did not fit is not retried
        (lambda w: None if w > 128 else w, 128, [64, 128, 256]),
        (lambda w: 1 + 1e-3 * w, 1, [64, 128, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_the_narrowest_width_that_is_nearly_as_fast_as_the_best(rate, found, tried):
    assert searched(64, 512, rate) == (found, tried)


def test_where_not_one_network_fits_there_is_no_width():
    with pytest.raises(ValueError, match="not even one"):
        narrowest(8, 64, lambda width: None)


def ways(**rates: float) -> list[Measured]:
    names = {"t": "traced", "tg": "traced, graph", "c": "compiled", "cg": "compiled, graph"}
    starts = {"t": 1.0, "tg": 2.0, "c": 30.0, "cg": 32.0}
    return [Measured(64, names[key], rate, starts[key], 7e5, 1.23) for key, rate in rates.items()]


def test_compiling_pays_when_the_updates_it_saves_are_worth_its_start():
    traced, compiled = ways(tg=6400.0, cg=12800.0)
    # 30 s more to start, 10 ms an update traced and 5 ms compiled
    assert compile_from(traced, compiled) == 30 / (0.010 - 0.005)
    assert compile_from(traced, ways(cg=6500.0)[0]) == NEVER
    assert compile_from(traced, Measured(64, "compiled, graph", None)) == NEVER


def test_the_graph_is_kept_unless_it_costs():
    row = proposed(USUAL, ways(t=100.0, tg=1000.0, c=200.0, cg=2000.0), 64)
    assert (row.graph, row.rate, row.width, row.probe) == (True, 2000, 64, 0.12)
    row = proposed(USUAL, ways(t=1000.0, tg=500.0, c=3000.0, cg=600.0), 64)
    assert (row.graph, row.rate) == (False, 3000) and row.compile_from < NEVER
    row = proposed(USUAL, ways(t=1000.0), 64)  # a CPU without a compiler
    assert (row.graph, row.rate, row.compile_from) == (True, 1000, NEVER)
    assert row.memory == pytest.approx(1.3) and row.evaluation == 7e5


def test_every_task_has_a_shape_that_the_study_trains():
    for task in TASKS:
        run, count = busiest(task)
        assert run.task.partition("(")[0] == task and count > 1


def test_a_stack_that_does_not_fit_is_a_row_without_a_rate(monkeypatch):
    real = widths.stack_of

    def limited(like, width, device, way):
        if width > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(like, width, device, way)

    monkeypatch.setattr(widths, "stack_of", limited)
    monkeypatch.setattr(widths, "can_compile", lambda device: "not here")
    look = Look(seconds=0.01, widest=8, examples=50)
    found = widths.widths("saddle", "cpu", look)
    rates = {one["width"]: one["rate"] for one in found["measured"]}
    assert rates[8] is None and rates[4] is None and rates[2] > 0
    assert found["row"]["width"] <= 2 and found["row"]["rate"] > 0
    monkeypatch.setattr(widths, "stack_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        widths.widths("saddle", "cpu", look)
