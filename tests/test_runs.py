"""Runs: equal data, equal key; what is refused."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from steadydescent import runs
from steadydescent.runs import Run, stream_seed

PLAIN = {"task": "mnist1d-mlp", "optimizer": "momentum", "schedule": "constant", "lr": 0.1, "batch_size": 100}
PLAIN |= {"steps": 100, "seed": 0, "readouts": ("last",)}


def test_key_is_the_same_in_another_process():
    code = f"from steadydescent.runs import Run; print(Run(**{PLAIN!r}).key)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == Run(**PLAIN).key


@pytest.mark.parametrize(
    "change",
    [{"lr": 0.2}, {"seed": 1}, {"steps": 101}, {"batch_size": 99}, {"schedule": "linear"}, {"optimizer": "adam"}]
    + [{"readouts": ("last", "ema-10")}, {"test": True}, {"curve_points": 2}, {"task": "fashion-mnist-mlp"}],
    ids=str,
)
def test_every_setting_changes_the_key(change):
    assert Run(**PLAIN | change).key != Run(**PLAIN).key


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
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(change, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Run(**PLAIN | change)


def test_streams_of_one_seed_differ_by_purpose_and_source():
    pairs = [(source, purpose) for source in ("mnist1d", "fashion-mnist") for purpose in ("weights", "order")]
    assert len({stream_seed(source, 3, purpose) for source, purpose in pairs}) == 4


def test_one_setting_has_one_key_however_it_is_written():
    one, other = (Run(**PLAIN | {"optimizer": text}) for text in ("adam(beta1=0.9, beta2=0.99)", "adam( beta2=0.990 )"))
    assert one.key == other.key and one.optimizer == "adam(beta2=0.99)"
    one, other = (Run(**PLAIN | {"optimizer": text}) for text in ("adam(beta1=0)", "adam(beta1=0.0)"))
    assert one.key == other.key
    one, other = (Run(**PLAIN | {"schedule": f"inverse-time(rate={rate})"}) for rate in ("1", "1.0"))
    assert one.key == other.key
    assert Run(**PLAIN | {"task": "mnist1d-mlp(norm=none)"}).key == Run(**PLAIN).key
    assert Run(**PLAIN | {"task": "mnist1d-mlp(norm=batch)"}).key != Run(**PLAIN).key
