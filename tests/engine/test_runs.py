"""Runs: equal data, equal key; what is refused."""

import hashlib
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from steadydescent.engine import data, runs
from steadydescent.engine.runs import Run
from steadydescent.engine.streams import stream_seed

PLAIN = {
    "task": "mnist1d-mlp",
    "optimizer": "momentum",
    "schedule": "constant",
    "lr": 0.1,
    "batch_size": 100,
}
PLAIN |= {"steps": 100, "seed": 0, "readouts": ("last",)}


def test_key_is_the_same_in_another_process():
    code = f"from steadydescent.engine.runs import Run; print(Run(**{PLAIN!r}).key)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == Run(**PLAIN).key


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.2},
        {"seed": 1},
        {"steps": 101},
        {"batch_size": 99},
        {"schedule": "linear"},
        {"optimizer": "adam"},
    ]
    + [
        {"readouts": ("last", "ema-10")},
        {"test": True},
        {"curve_points": 2},
        {"task": "fashion-mnist-mlp"},
    ],
    ids=str,
)
def test_every_setting_changes_the_key(change):
    assert Run(**PLAIN | change).key != Run(**PLAIN).key


def test_a_copy_with_a_change_has_a_key_of_its_own():
    run = Run(**PLAIN)
    assert len(run.key) == 64  # computed, so that a copy could carry it along
    assert run.model_copy(update={"seed": 1}).key == Run(**PLAIN | {"seed": 1}).key != run.key
    assert run.model_copy().key == run.key


def test_numerics_version_changes_the_key(monkeypatch):
    before = Run(**PLAIN).key
    monkeypatch.setattr(runs, "NUMERICS_VERSION", runs.NUMERICS_VERSION + 1)
    assert Run(**PLAIN).key != before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "cifar"}, "task must be one of"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"schedule": "zigzag"}, "schedule must be one of"),
        ({"schedule": "inverse-time"}, "needs the options"),
        ({"schedule": "linear(total=7)"}, "has no option"),
        ({"schedule": "plateau(factor=2)"}, "factor must be"),
        ({"optimizer": "adam(beta1=1)"}, "beta1 must be in"),
        ({"optimizer": "sgd(mu=0.9)"}, "unknown hyper-parameter 'mu'"),
        ({"task": "mnist1d-mlp(norm=instance)"}, "norm must be one of"),
        ({"task": "saddle(norm=batch)"}, "has no option"),
        ({"readouts": ("last/frozen",)}, "unknown readout"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": float("nan")}, "finite number"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"readouts": ("last", "last")}, "without repetition"),
        ({"readouts": ("ema-0.5",)}, "window must be at least 1 step"),
        ({"curve_points": 101}, "at most the 100 steps"),
        ({"momentum": 0.9}, "Extra inputs are not permitted"),
        (
            {"task": "mnist1d-mlp(examples=4001)"},
            "examples must be a whole number from 1 to 4000, or 0 for all, got 4001",
        ),
        ({"probes": ("warmth",)}, r"probes must be among .*'orbit'.*, got \['warmth'\]"),
        (
            {"probes": ("predictions",)},
            "looks at test data, which a run with test=False never does",
        ),
        (
            {"probes": ("predictions",), "task": "saddle", "test": True},
            "needs classes, which the surface saddle has not",
        ),
        ({"probes": ("orbit",)}, r"needs a tail mean among the readouts, got \('last',\)"),
        (
            {"probes": ("internal-shift",), "optimizer": "rmsprop"},
            "steps along the gradient, which rmsprop does not; ",
        ),
        (
            {"probes": ("internal-shift",), "optimizer": "adam(beta1=0)"},
            "which adam does not; leave it out, or use sgd",
        ),
        ({"probes": ("internal-shift",), "optimizer": "adamw"}, "which adamw does not"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(change, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Run(**PLAIN | change)


def test_runs_keep_the_key_they_had_before_there_were_probes_and_task_options():
    """What is empty or usual is no part of a key: results in a store stay known."""
    then = {
        "run": PLAIN | {"curve_points": 1, "test": False},
        "data": data.identity("mnist1d"),
        "numerics": 1,
    }
    assert Run(**PLAIN).key == hashlib.sha256(json.dumps(then, sort_keys=True).encode()).hexdigest()
    assert Run(**PLAIN | {"probes": ()}).key == Run(**PLAIN).key
    usual = "mnist1d-mlp(examples=0, wrong_labels=0, features=standardised, norm=none)"
    assert Run(**PLAIN | {"task": usual}).key == Run(**PLAIN).key


def test_runs_with_other_probes_have_other_keys_and_share_no_stack():
    plain, one, other = (
        Run(**PLAIN | {"probes": probes}) for probes in ((), ("losses",), ("training-loss",))
    )
    assert (
        len({run.key for run in (plain, one, other)})
        == len({run.shape for run in (plain, one, other)})
        == 3
    )
    assert (
        one.shape
        == Run(**PLAIN | {"probes": ("losses",), "seed": 4, "lr": 0.7, "schedule": "linear"}).shape
    )
    assert "probes" not in one.row


@pytest.mark.parametrize(
    "optimizer", ["sgd", "momentum", "nesterov", "averaged-momentum", "corrected-momentum"]
)
def test_internal_shift_is_measured_under_rules_that_step_along_the_gradient(optimizer):
    assert Run(**PLAIN | {"optimizer": optimizer, "probes": ("internal-shift",)}).probes == (
        "internal-shift",
    )


def test_an_epoch_of_fewer_examples_has_fewer_updates():
    """The schedules that count epochs see it."""
    small = PLAIN | {"task": "mnist1d-mlp(examples=1000)", "schedule": "exponential(base=0.5)"}
    whole, part = Run(**small | {"task": "mnist1d-mlp"}), Run(**small)
    assert (whole.epoch, part.epoch) == (40, 10)
    assert part.rates()[[0, 9, 10]].tolist() == pytest.approx([0.05, 0.05, 0.025])


def test_streams_of_one_seed_differ_by_purpose_and_source():
    pairs = [
        (source, purpose)
        for source in ("mnist1d", "fashion-mnist")
        for purpose in ("weights", "order")
    ]
    assert len({stream_seed(source, 3, purpose) for source, purpose in pairs}) == 4


def test_one_setting_has_one_key_however_it_is_written():
    one, other = (
        Run(**PLAIN | {"optimizer": text})
        for text in ("adam(beta1=0.9, beta2=0.99)", "adam( beta2=0.990 )")
    )
    assert one.key == other.key and one.optimizer == "adam(beta2=0.99)"
    one, other = (
        Run(**PLAIN | {"optimizer": text}) for text in ("adam(beta1=0)", "adam(beta1=0.0)")
    )
    assert one.key == other.key
    one, other = (
        Run(**PLAIN | {"schedule": f"inverse-time(rate={rate})"}) for rate in ("1", "1.0")
    )
    assert one.key == other.key
    assert Run(**PLAIN | {"task": "mnist1d-mlp(norm=none)"}).key == Run(**PLAIN).key
    assert Run(**PLAIN | {"task": "mnist1d-mlp(norm=batch)"}).key != Run(**PLAIN).key
