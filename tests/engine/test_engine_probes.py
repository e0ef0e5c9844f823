"""What a run may be asked for besides: snapshots, measures along the way, predicted classes; it
trains the same.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from oracles import readout
from steadydescent.engine import data
from steadydescent.engine.probes import PROBES
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import numerics
from steadydescent.engine.tasks import find
from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.paths import DATA
from steadydescent.study.results.tables import KEYS, SCHEMAS
from steadydescent.weight_averaging import parse
from test_engine import STEPS, alone, run, trained

LAST = ("last",)
SNAPSHOTS = ("last", "at-50", "at-100", "tail-25")
POINTS = 7


@pytest.fixture(scope="module")
def probed() -> Stack:
    """Two runs and a filler, with every probe there is."""
    runs = [
        run(readouts=SNAPSHOTS, test=True, curve_points=POINTS, probes=tuple(PROBES), seed=s)
        for s in (5, 2)
    ]
    return trained(runs, width=3)


def measured(stack: Stack, measure: str, place: int = 0) -> pd.DataFrame:
    """Rows of one measure of one run."""
    table = stack.history.measures
    return table[(table.measure == measure) & (table.run == stack.wanted[place].key)]


# ---- snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["mnist1d-mlp", "mnist1d-mlp(norm=batch)"])
@pytest.mark.parametrize("percent", [20, 50, 100])
def test_snapshot_is_bit_for_bit_the_last_weights_of_a_run_stopped_there(task, percent):
    stop = round(STEPS * percent / 100)
    whole = trained([run(task=task, readouts=(f"at-{percent}",))])
    short = trained([run(task=task, readouts=LAST, steps=stop)])
    for found, expected in zip(
        whole.view.weights(whole.readouts[0]), short.training.carry.weights, strict=True
    ):
        assert torch.equal(found, expected)


def test_snapshots_are_scored_at_the_end_and_not_on_curves(probed):
    assert set(probed.history.finals.readout) == set(SNAPSHOTS)
    assert set(probed.history.curves.readout) == {"last"}
    ends = probed.history.finals.set_index(["run", "split", "readout"]).accuracy.unstack()
    assert (ends["at-100"] == ends["last"]).all() and (ends["at-50"] != ends["last"]).any()


def test_snapshots_may_take_other_batch_norm_statistics():
    stack = trained([run(task="mnist1d-mlp(norm=batch)", readouts=("at-50", "at-50/copied"))])
    (theta, averaged), (same, copied) = (stack.view.weights(r) for r in stack.readouts)
    assert (
        torch.equal(theta, same)
        and torch.equal(copied, stack.view.buffers)
        and not torch.equal(averaged, copied)
    )


# ---- training is the same ------------------------------------------------------------------------


def test_probes_change_no_bit_of_the_training_nor_of_what_is_scored(probed):
    plain = trained([one.model_copy(update={"probes": ()}) for one in probed.wanted], width=3)
    for one, other in zip(plain.training.carry.weights, probed.training.carry.weights, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(plain.training.losses, probed.training.losses)
    for name in ("finals", "curves"):
        one, other = (getattr(stack.history, name).drop(columns="run") for stack in (plain, probed))
        assert one.equals(other)
    assert set(plain.history.measures.measure) == {"tail-loss-mean", "tail-loss-sd"}
    assert plain.history.predictions.empty


# ---- measures ------------------------------------------------------------------------------------


def test_tables_have_their_schemas_and_rows_of_the_wanted_runs_alone(probed):
    keys = {one.key for one in probed.wanted}
    for name in ("measures", "predictions"):
        table = getattr(probed.history, name)
        assert set(table.columns) == set(SCHEMAS[name].names) and set(table.run) == keys
    assert not probed.history.measures.duplicated(KEYS["measures"]).any()


def test_losses_are_those_of_every_minibatch_and_their_tail_the_last_quarter(probed):
    for place in (0, 1):
        rows = measured(probed, "loss", place)
        assert rows.step.tolist() == list(range(1, STEPS + 1))
        losses = probed.training.losses[:, place].double().numpy()
        assert np.array_equal(rows.value, losses)
        tail = losses[-(STEPS // 4) :]
        assert measured(probed, "tail-loss-mean", place).value.item() == pytest.approx(tail.mean())
        assert measured(probed, "tail-loss-sd", place).value.item() == pytest.approx(
            tail.std(ddof=1)
        )
    assert (
        probed.history.measures[probed.history.measures.measure == "tail-loss-mean"]
        .step.isna()
        .all()
    )


def test_training_loss_is_that_of_the_training_set_at_every_point_of_the_curve(probed):
    one, rows = probed.wanted[0], measured(probed, "training-loss")
    assert rows.step.tolist() == probed.curve_steps and set(rows.readout) == {"last"}
    end = probed.history.finals.query("run == @one.key and split == 'train' and readout == 'last'")
    assert rows.value.iloc[-1] == end.loss.item()
    loaded, model = data.load("mnist1d", [one.seed], DATA), find(one.task).build()
    model.load_state_dict(alone(one)[probed.curve_steps[2]])
    x = ((loaded.pool[loaded.train[0]] - loaded.mean[0]) / loaded.std[0]).float()
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            model(x), loaded.labels[loaded.train[0]]
        ).item()
    assert rows.value.iloc[2] == pytest.approx(expected, rel=1e-4)


def test_orbit_is_how_far_single_weights_lie_from_the_mean_of_the_tail(probed):
    states = alone(probed.wanted[0])
    join = lambda state: torch.cat(
        [state[name].double().flatten() for name in probed.flat.parameters]
    )
    centre = join(readout(states, "tail-25"))
    rows = measured(probed, "distance to the tail mean").set_index("readout").value
    assert set(rows.index) == {"last", "at-50", "at-100"}
    assert (
        rows["last"]
        == rows["at-100"]
        == pytest.approx((join(states[-1]) - centre).norm().item(), rel=1e-3)
    )
    assert rows["at-50"] == pytest.approx(
        (join(states[round(STEPS / 2)]) - centre).norm().item(), rel=1e-3
    )


def test_costly_probes_look_at_a_few_points_of_the_curve(probed):
    for name in ("noise-scale", "gradient-shift"):
        steps = measured(probed, name).step.tolist()
        assert 3 <= len(steps) <= 4 and set(steps) <= set(probed.curve_steps)


def test_predicted_classes_are_those_that_the_accuracy_counts(probed):
    loaded = data.load("mnist1d", [5], DATA)
    for place, one in enumerate(probed.wanted):
        mine = probed.history.predictions.query("run == @one.key").set_index("readout").classes
        assert set(mine.index) == set(SNAPSHOTS) and {len(classes) for classes in mine} == {1_000}
        assert mine["last"] == mine["at-100"] != mine["at-50"]
        rows = loaded.test[:1_000]
        data_of = data.load("mnist1d", [one.seed], DATA)
        x = (data_of.pool[data_of.test[:1_000]] - data_of.mean[0]) / data_of.std[0]
        theta, buffers = probed.view.weights(parse("tail-25", STEPS)[0])
        logits = probed.flat.outputs(theta[place], buffers[place], x)
        agree = np.frombuffer(mine["tail-25"], np.uint8) == logits.argmax(1).numpy()
        assert agree.mean() > 0.998 and len(rows) == 1_000  # other batches round differently


def test_probes_of_a_run_with_a_single_point_look_at_its_end():
    stack = trained([run(readouts=LAST, probes=("training-loss", "gradient-noise"))])
    assert stack.history.curves.empty
    assert (
        set(measured(stack, "training-loss").step)
        == set(measured(stack, "noise-scale").step)
        == {STEPS}
    )


def test_report_run_and_tuning_run_end_with_the_same_validation_scores():
    """So a report run can be judged by what it would have been chosen by."""
    report, tuning = trained([run(test=True, readouts=LAST)]), trained([run(readouts=LAST)])
    ends = report.history.finals.set_index("split")
    assert list(ends.index) == ["validation", "test", "train"]
    assert ends.loss["validation"] == tuning.history.finals.loss.item()


# ---- surfaces and divergence ---------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(SURFACES))
def test_height_of_a_surface_is_its_function_of_each_replicas_weights(task):
    base = {
        "task": task,
        "optimizer": "sgd",
        "schedule": "constant",
        "batch_size": 3,
        "steps": 13,
        "test": True,
    }
    runs = [
        Run(**base, lr=lr, seed=s, readouts=("last", "tail-50"), curve_points=3)
        for lr, s in ((0.01, 1), (0.02, 5))
    ]
    stack, surface = trained(runs), find(task).build()
    finals = stack.history.finals.set_index(["run", "split", "readout"]).loss
    for place, one in enumerate(runs):
        for wanted in stack.readouts:
            height = surface.function(stack.view.weights(wanted)[0][place]).item()
            for split in ("validation", "test", "train"):
                assert finals[one.key, split, wanted.text] == pytest.approx(
                    height, rel=1e-5, abs=1e-7
                )
        end = stack.history.curves.query("run == @one.key and step == 13").loss.item()
        assert end == finals[one.key, "validation", "last"]


def test_ramp_that_diverges_is_still_a_range_test_and_its_neighbour_never_feels_it():
    """Every loss is kept, the infinite ones too, and the rules suggest a rate from before the
    divergence.
    """
    low, high = 1e-4, 1e4
    ramp = {
        "schedule": f"ramp(low={low}, high={high})",
        "lr": 1.0,
        "readouts": LAST,
        "probes": ("losses",),
    }
    wild, calm = run(**ramp), run(**ramp | {"schedule": f"ramp(low={low}, high=0.1)"}, seed=2)
    with numerics(1):
        stack, apart = trained([wild, calm]), trained([calm])
    diverged = stack.history.runs.diverged_at
    assert 1 < diverged[0] < STEPS and diverged.isna()[1]
    losses = measured(stack, "loss")
    assert losses.step.tolist() == list(range(1, STEPS + 1))
    assert np.isfinite(losses.value.iloc[: diverged[0] - 1]).all() and not math.isfinite(
        losses.value.iloc[diverged[0] - 1]
    )
    assert np.array_equal(measured(stack, "loss", 1).value, measured(apart, "loss").value)
    for name, suggest in SUGGESTIONS.items():
        rate = suggest(wild.rates(), losses.value.to_numpy())
        assert low <= rate < wild.rates()[diverged[0] - 1], name
