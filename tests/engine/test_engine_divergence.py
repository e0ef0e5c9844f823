"""A replica that diverges freezes as it was: weights, optimiser state, statistics and averages;
what plans count.
"""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from steadydescent.engine import view as engine
from steadydescent.engine.cost import evaluated
from test_engine import STEPS, run, trained

WILD = {"task": "mnist1d-mlp(norm=batch)", "readouts": ("last", "ema-ramp"), "lr": 1e18}


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_diverged_replica_is_bit_for_bit_what_it_was_before_the_loss_that_was_not_finite(
    optimizer,
):
    """The same run cut short one update before, beside a calm neighbour whose steps go on."""
    wild = run(**WILD, optimizer=optimizer)
    stack = trained([wild, run(**WILD | {"lr": 0.001}, optimizer=optimizer)])
    diverged = int(stack.history.runs.diverged_at[0])
    assert 1 < diverged < STEPS and stack.history.runs.diverged_at.isna()[1]
    before = trained([run(**WILD, optimizer=optimizer, steps=diverged - 1)], width=2)
    exact = {"rtol": 0, "atol": 0, "equal_nan": True}
    now, then = (one.training.carry.lanes(slice(0, 1)) for one in (stack, before))
    for part in ("parameters", "buffers", "state"):
        for here, there in zip(
            tree_leaves(getattr(now, part)), tree_leaves(getattr(then, part)), strict=True
        ):
            torch.testing.assert_close(here, there, **exact)
    for part, frozen in (("averages", then.parameters), ("averaged_buffers", then.buffers)):
        for here, there, last in zip(
            getattr(now, part)[0], getattr(then, part)[0], frozen, strict=True
        ):
            # a frozen infinity makes 0·∞ of its own average, which nobody reads
            finite = torch.isfinite(last)
            torch.testing.assert_close(here[finite], there[finite], **exact)
    assert any(torch.isfinite(weights).any() for weights in then.parameters)


def test_curves_show_what_means_something_in_the_middle_of_a_run():
    names = (
        "last",
        "ema-10",
        "ema-10/copied",
        "last/reestimated",
        "ema-ramp",
        "tail-25",
        "checkpoints-2",
    )
    stack = trained([run(readouts=names, curve_points=2)])
    assert list(stack.history.curves.readout.unique()) == ["last", "ema-10", "ema-ramp"]


PLANNED = [
    {},
    {"curve_points": 5},
    {"test": True, "readouts": ("last", "tail-25", "at-50")},
    {"test": True, "curve_points": 5, "shifts": ("shear(severity=1)", "concept(severity=1)")},
    {"test": True, "shifts": ("shear(severity=1)",), "shifted_readouts": ("tail-25",)},
    {"test": True, "curve_points": 3, "probes": ("training-loss",)},
    {"curve_points": 5, "task": "saddle"},
    {"test": True, "curve_points": 1, "task": "saddle"},
]


@pytest.mark.parametrize("changes", PLANNED, ids=str)
def test_a_plan_counts_every_example_that_evaluations_look_at(changes, monkeypatch):
    """Counted as the engine looks: examples of one replica, or one height of a surface."""
    looked = []
    measure, surface = engine.measure, engine.measure_surface

    def count(chunks):
        for outputs in chunks:
            looked.append(len(outputs.networks) * outputs.labels.shape[-1])
            yield outputs

    monkeypatch.setattr(engine, "measure", lambda chunks, lost: measure(count(chunks), lost))
    monkeypatch.setattr(
        engine, "measure_surface", lambda *given: looked.append(1) or surface(*given)
    )
    one = run(**{"readouts": ("last", "tail-25"), "steps": 20} | changes)
    stack = trained([one])
    validation = stack.examples.validation.shape[1]
    assert evaluated(one, validation, len(stack.data.test)) == sum(looked)
