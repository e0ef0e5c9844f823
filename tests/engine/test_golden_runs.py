"""Golden runs: the same numbers as when the table was written, for every choice a run has; and the
table notices.
"""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest

import golden_runs
from golden_runs import GOLDEN, departures, written
from steadydescent import schedules
from steadydescent.dataset_shift import IMAGE_KNOBS, SIGNAL_KNOBS
from steadydescent.engine import (
    draws,
    evaluation,
    examples,
    shifted_tests,
    stepping,
    streams,
    tasks,
    view,
)
from steadydescent.engine import stack as engine
from steadydescent.engine.probes import PROBES, internal_shift, losses, noise
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import FEATURES, TASKS, base, find
from steadydescent.normalization import KINDS
from steadydescent.optimizers import RULES
from steadydescent.schedules import SCHEDULES, by_name, functions
from steadydescent.study.judging import measures
from steadydescent.weight_averaging import Readout, readouts
from steadydescent.weight_averaging.readouts import READOUTS

ALL = [run for stack in GOLDEN.values() for run in stack]


SLOW = {"names-transformer", "fashion-mnist-cnn"}


def mark(name: str):
    marks = [pytest.mark.needs_fashion] if name.startswith("fashion") else []
    return pytest.param(
        name, marks=[*marks, pytest.mark.slow] if name.removeprefix("task ") in SLOW else marks
    )


@pytest.mark.parametrize("name", [mark(name) for name in GOLDEN])
def test_golden_runs_give_what_the_table_says(name):
    """When this fails and the change is meant, write the table anew (see `golden_runs.py`) and say
    so.
    """
    assert not departures(name)


def test_every_choice_a_run_has_is_among_the_golden_runs():
    assert {read(run.optimizer).name for run in ALL} == set(RULES)
    assert {read(run.schedule).name for run in ALL} == {*SCHEDULES, "plateau"}
    assert {base(run.task) for run in ALL} == set(TASKS)
    assert {find(run.task).norm for run in ALL} - {None} == set(KINDS)
    assert {find(run.task).features for run in ALL} == set(FEATURES)
    assert {read(text).name for run in ALL for text in run.shifts} == {
        *SIGNAL_KNOBS,
        *IMAGE_KNOBS,
        "prior",
        "concept",
    }
    assert {probe for run in ALL for probe in run.probes} == set(PROBES)
    options = {name for run in ALL for name in read(run.task).options}
    assert options == {name for task in TASKS.values() for name in tasks.task._options(task)}
    taken = {Readout.parse(text) for run in ALL for text in run.readouts}
    assert {readout.kind for readout in taken} == set(READOUTS)
    assert {readout.statistics for readout in taken} == set(readouts.STATISTICS)
    assert {f"measure {name}" for name in measures.MEASURES} <= set(written()["probes"])
    assert set(written()) == set(GOLDEN)


# ---- the table notices ---------------------------------------------------------------------------


def changed_rule(name: str, update):
    return lambda patch: patch.setitem(RULES, name, RULES[name]._replace(update=update))


def slower_momentum(theta, grad, state, step, lr, **hyper):
    return RULES_THEN["momentum"].update(theta, grad, state, step, 0.999 * lr, **hyper)


def other_nesterov(theta, grad, state, step, lr, mu=0.9, weight_decay=0.0):
    (velocity,) = state
    velocity = mu * velocity + grad
    return theta - lr * (grad + mu * mu * velocity), (velocity,)


def off_by_one(theta, grad, state, step, lr, **hyper):
    return RULES_THEN["corrected-momentum"].update(theta, grad, state, step + 1, lr, **hyper)


def larger_eps(theta, grad, state, step, lr, **hyper):
    return RULES_THEN["rmsprop"].update(theta, grad, state, step, lr, **hyper | {"eps": 1e-6})


RULES_THEN = dict(RULES)
PLAIN_LINEAR = functions.linear


def scaled(function, factor: float):
    return lambda *given, **named: factor * function(*given, **named)


def hopeful(chunks, diverged):
    scores = evaluation.measure(chunks, diverged)
    return scores._replace(accuracy=np.where(diverged.tolist(), 0.0, scores.accuracy))


def set_to(module, name: str, value):
    return lambda patch: patch.setattr(module, name, value)


CHANGES = {
    "momentum's rate by a thousandth": ("rule momentum", changed_rule("momentum", slower_momentum)),
    "Nesterov's form": ("rule nesterov", changed_rule("nesterov", other_nesterov)),
    "corrected momentum's exponent": (
        "rule corrected-momentum",
        changed_rule("corrected-momentum", off_by_one),
    ),
    "RMSProp's ε": ("rule rmsprop", changed_rule("rmsprop", larger_eps)),
    "linear schedule off by one": (
        "schedules",
        set_to(functions, "linear", lambda total, end=0.0: PLAIN_LINEAR(total + 1, end)),
    ),
    "plateau's monitor": ("schedule plateau", set_to(examples, "MONITOR_EVERY", 5)),
    "plateau's patience": (
        "schedule plateau",
        set_to(schedules.Plateau, "observe", lambda self, state, values: state),
    ),
    "EMA's decay": (
        "readouts",
        set_to(readouts, "decay_for_window", scaled(readouts.decay_for_window, 0.999)),
    ),
    "tail's start": (
        "readouts",
        set_to(
            readouts,
            "tail_weights",
            lambda total, length, then=readouts.tail_weights: then(total, length + 1),
        ),
    ),
    "checkpoints a run": ("readouts", set_to(readouts, "CHECKPOINTS_PER_RUN", 10)),
    "training examples": ("wrong labels", set_to(examples, "TRAIN_EXAMPLES", 400)),
    "curve examples": ("readouts", set_to(examples, "CURVE_EXAMPLES", 1_900)),
    "batch of re-estimated statistics": ("readouts", set_to(view, "STATISTICS_BATCH", 100)),
    "calibration bins": ("readouts", set_to(evaluation, "CALIBRATION_BINS", 16)),
    "tail of losses": ("probes", set_to(losses, "TAIL", 5)),
    "accuracy of a diverged run": ("diverged", set_to(view, "measure", hopeful)),
    "loss of a diverged run": ("diverged", set_to(math, "log", scaled(math.log, 1.01))),
    "batch norm's ε": (
        "norm batch",
        lambda patch: patch.setitem(KINDS, "batch", partial(KINDS["batch"], eps=2e-4)),
    ),
    "groups of group norm": (
        "norm group",
        set_to(stepping, "find", lambda text: find(text.replace("group", "layer"))),
    ),
    "scales of badly scaled features": ("features badly-scaled", set_to(tasks.task, "SHUFFLE", 3)),
    "share of wrong labels": (
        "wrong labels",
        set_to(
            examples,
            "wrong_labels",
            lambda labels, share, seed, then=examples.wrong_labels: then(labels, share / 2, seed),
        ),
    ),
    "the loss": (
        "task mnist1d-cnn",
        lambda patch: patch.setitem(
            TASKS,
            "mnist1d-cnn",
            dataclasses.replace(TASKS["mnist1d-cnn"], loss=scaled(tasks.mean_cross_entropy, 1.001)),
        ),
    ),
    "examples of a prior-shifted set": (
        "shifts",
        set_to(shifted_tests, "PRIOR_EXAMPLES", {"mnist1d": 3_000}),
    ),
    "minibatches of gradient noise": ("probes", set_to(noise, "MINIBATCHES", 15)),
    "examples of the internal shift": ("probes", set_to(internal_shift, "SHIFT_EXAMPLES", 900)),
    "streams of the seeds": (
        "rule sgd",
        set_to(draws, "stream_seed", lambda *name: streams.stream_seed(*name) + 1),
    ),
    "one initial weight": (
        "task saddle",
        set_to(engine, "initial_model", lambda text, seed: tasks.initial_model("ravine", seed)),
    ),
}
COSTLY = {"shifts", "probes"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(name, marks=pytest.mark.slow if stack in COSTLY else ())
        for name, (stack, _) in CHANGES.items()
    ],
)
def test_golden_runs_notice(change, monkeypatch):
    stack, patch = CHANGES[change]
    find.cache_clear()
    readouts._weights.cache_clear()
    try:
        patch(monkeypatch)
        assert departures(stack)
    finally:
        monkeypatch.undo()
        for cached in (find, readouts._weights, stepping.prepared):
            cached.cache_clear()


def test_a_table_that_lacks_a_value_or_has_one_too_many_is_noticed(monkeypatch):
    name = "rule sgd"
    table = {name: {**written()[name], "new": [1.0]}}
    monkeypatch.setattr(golden_runs, "written", lambda: table)
    assert departures(name) == [f"{name}: new"]
    assert by_name.SCHEDULES is SCHEDULES
