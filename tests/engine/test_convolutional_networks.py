"""Both convolutional networks, with and without batch norm: probed, read out, shifted."""

import pytest

from steadydescent.engine.stack import Stack
from test_engine import run, trained

READOUTS = (
    *("last", "ema-100", "ema-1", "checkpoints-16", "at-85", "at-90", "at-95"),
    *("ema-10", "ema-10/copied", "ema-10/reestimated", "checkpoints-16/copied"),
)
PROBES = ("internal-shift", "training-loss", "predictions", "gradient-noise", "update-cosine")
CLASSES = 10
SETTINGS = {"readouts": READOUTS, "probes": PROBES, "batch_size": 50, "steps": 100, "test": True}


def stack_of(task: str, knob: str, **changes) -> Stack:
    shifts = (f"{knob}(severity=3)", f"{knob}(severity=3, statistics=reestimated)")
    return trained([run(task=task, shifts=shifts, **SETTINGS | {"lr": 0.05} | changes)])


@pytest.mark.parametrize(
    ("task", "knob"),
    [
        ("mnist1d-cnn(norm=batch)", "shear"),
        pytest.param("mnist1d-cnn", "shear", marks=pytest.mark.slow),
        *(
            pytest.param(task, "contrast", marks=[pytest.mark.needs_fashion, pytest.mark.slow])
            for task in ("fashion-mnist-cnn", "fashion-mnist-cnn(norm=none)")
        ),
    ],
)
def test_networks_are_trained_probed_read_out_and_tested_after_a_shift(task, knob):
    stack = stack_of(task, knob)
    finals = stack.history.finals.set_index(["shift", "statistics", "split", "readout"]).accuracy
    plain, normed = finals.loc["", ""].unstack("split"), "batch" in stack.task.norm
    assert set(plain.index) == set(READOUTS) and (plain.test > 1.2 / CLASSES).all()
    assert (plain.loc["ema-1"] == plain.loc["last"]).all()  # a window of one update
    for treatment in ("ema-10/copied", "ema-10/reestimated"):
        assert (plain.loc[treatment] != plain.loc["ema-10"]).any() == normed
    moved = finals.loc[knob].droplevel("split").unstack("statistics")
    assert (moved.frozen < plain.test).all()
    assert (moved.frozen != moved.reestimated).any() == normed
    values = stack.history.measures.set_index("measure").value
    assert {"input-shift", "training-loss", "noise-scale", "update-cosine"} <= set(values.index)
    lost = values[values.isna()]
    assert set(lost.index) == ({"gradient-noise"} if normed else set())  # of single examples
    assert set(stack.history.predictions.readout) == set(READOUTS)
