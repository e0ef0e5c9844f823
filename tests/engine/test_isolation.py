"""A replica is what it is in any company: at every width from 2, in every place, beside lanes that
diverge.

Bit for bit, weights and all that is measured. Alone, at width 1, some products are summed in
another order: there the promise is agreement within rounding, as between machines.
"""

import numpy as np
import pytest
import torch

from steadydescent.engine.runs import Run
from steadydescent.engine.stepping import can_compile
from test_engine import run, trained

READOUTS = ("last", "ema-start-30", "tail-25", "checkpoints-2")
PROBES = ("losses", "training-loss", "orbit", "predictions", "gradient-noise")
SETTINGS = {
    "mlp, momentum": {},
    "mlp, adam": {"optimizer": "adam", "lr": 0.003},
    "mlp, rmsprop": {"optimizer": "rmsprop", "lr": 0.001},
    "batch norm": {
        "task": "mnist1d-mlp(norm=batch)",
        "readouts": (*READOUTS, "tail-25/reestimated"),
    },
    "ghost batch norm": {"task": "mnist1d-mlp(norm=ghost)", "batch_size": 50, "lr": 0.1},
    "noisy batch norm": {"task": 'mnist1d-mlp(norm="noisy-batch")'},
    "cnn": {"task": "mnist1d-cnn", "steps": 11},
    "plateau": {"schedule": "plateau(every=5, factor=0.5, patience=0, threshold=0.03)"},
    "surface": {"task": "double-well", "optimizer": "nesterov", "batch_size": 1},
    "wrong labels": {"task": "mnist1d-mlp(examples=500, wrong_labels=0.3)"},
}
QUICK = {"mlp, momentum", "batch norm", "cnn", "surface"}
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS]
WILD = {"inf": 1e30, "NaN": 3e38, "huge": 1e4, "overflows late": 30.0}
"""Rates at which a lane diverges, or its gradients are huge for as long as it lasts."""


def subject(setting: str, **more) -> Run:
    return run(**{"readouts": READOUTS, "steps": 17} | SETTINGS[setting] | more)


def company(one: Run, count: int) -> list[Run]:
    """Runs that may share its stack: other seeds and rates, the same seed at another rate, and the
    same rate.
    """
    others = [{"seed": one.seed + i % 5, "lr": one.lr * (0.5 + i)} for i in range(1, count + 1)]
    return [one.model_copy(update=changes) for changes in others]


def left_by(one: Run, stack) -> list:
    """All that a stack leaves of a run, as bytes and numbers."""
    place = [other.key for other in stack.runs].index(one.key)
    tensors = [
        stack.view.weights(readout)[kind][place] for readout in stack.readouts for kind in (0, 1)
    ]
    tables = [
        stack.history.finals,
        stack.history.curves,
        stack.history.measures,
        stack.history.predictions,
    ]
    rows = [table[table.run == one.key].drop(columns="run").to_numpy().tolist() for table in tables]
    return [[tensor.numpy().tobytes() for tensor in tensors], *map(repr, rows)]


@pytest.mark.parametrize("setting", EVERY)
def test_a_replica_is_the_same_at_any_width_and_place(setting):
    one = subject(setting, curve_points=2)
    expected = left_by(one, trained([one, *company(one, 1)]))
    for width, place in ((3, 2), (17, 8)):
        others = company(one, width - 1)
        assert left_by(one, trained([*others[:place], one, *others[place:]])) == expected, (
            width,
            place,
        )
    assert left_by(one, trained([one], width=4)) == expected  # filled up with copies of itself


@pytest.mark.parametrize("setting", EVERY)
@pytest.mark.parametrize(
    "wild",
    [
        "inf",
        "huge",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("NaN", "overflows late")),
    ],
)
def test_a_replica_is_the_same_beside_lanes_that_diverge(setting, wild):
    one = subject(setting)
    expected = left_by(one, trained([one, *company(one, 1)]))
    lost = [
        one.model_copy(update={"lr": WILD[wild] * factor, "seed": 8 + i})
        for i, factor in enumerate((1, 0.5))
    ]
    stack = trained([lost[0], one, lost[1]])
    assert left_by(one, stack) == expected
    if (
        wild in ("inf", "NaN")
        and "rmsprop" not in setting
        and "adam" not in setting
        and "norm" not in setting
    ):
        assert stack.history.runs.diverged_at.notna()[[0, 2]].all()


@pytest.mark.parametrize("wild", ["inf", "huge"])
def test_what_is_measured_of_a_replica_is_the_same_beside_lanes_that_diverge(wild):
    one = subject(
        "mlp, momentum", probes=PROBES, test=True, shifts=("prior(severity=3)",), curve_points=2
    )
    expected = left_by(one, trained([one, *company(one, 1)]))
    assert (
        left_by(one, trained([one.model_copy(update={"lr": WILD[wild], "seed": 8}), one]))
        == expected
    )


@pytest.mark.parametrize("setting", EVERY)
def test_alone_a_replica_agrees_within_rounding(setting):
    one = subject(setting)
    alone, together = trained([one]), trained([one, *company(one, 1)])
    torch.testing.assert_close(
        alone.training.carry.weights[0][0],
        together.training.carry.weights[0][0],
        rtol=1e-5,
        atol=1e-6,
    )
    finals = [
        table[table.run == one.key] for table in (alone.history.finals, together.history.finals)
    ]
    assert np.allclose(finals[0].loss, finals[1].loss, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(can_compile("cpu") is not None, reason=f"cannot compile: {can_compile('cpu')}")
@pytest.mark.parametrize("setting", ["mlp, momentum", "batch norm"])
def test_a_compiled_replica_is_the_same_in_any_company_of_its_width(setting):
    one = subject(setting)
    expected = left_by(one, trained([one, *company(one, 3)], compile=True))
    lost = one.model_copy(update={"lr": 1e30, "seed": 9})
    assert left_by(one, trained([lost, one], compile=True, width=4)) == expected
