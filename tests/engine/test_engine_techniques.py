"""Every technique inside the engine gives what it gives in a plain loop: rules, schedules, plateau,
norms, readouts.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import update_bn

from oracles import OPTIMIZERS, epochs, readout, stream_seed
from steadydescent.dataset_shift import shifted_concept, shifted_prior, shifted_signals
from steadydescent.engine import data
from steadydescent.engine.data.mnist1d import TEST_SEED
from steadydescent.engine.evaluation import Look
from steadydescent.engine.examples import MONITOR_EVERY, TRAIN_EXAMPLES
from steadydescent.engine.recorder import SCORE_COLUMNS
from steadydescent.engine.runs import Run
from steadydescent.engine.shifted_tests import Shift, shifted_test
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import numerics
from steadydescent.engine.tasks import find, initial_model
from steadydescent.engine.tasks.noisy_quadratic import expected_loss
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.engine.view import STATISTICS_BATCH
from steadydescent.lr_search import coarse_to_fine, range_test, rate_step, steepest
from steadydescent.normalization import noise_shapes
from steadydescent.study.paths import DATA
from steadydescent.weight_averaging import parse
from test_engine import CLOSE, STEPS, alone, assert_replica_is, run, trained

LAST = ("last",)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_rule_and_its_options_equal_torchs_optimizer(optimizer):
    lr = 0.001 if optimizer[:3] in ("ada", "rms") else 0.02
    runs = [
        run(optimizer=optimizer, lr=lr * 1.7**i, seed=seed, readouts=LAST)
        for i, seed in enumerate((5, 2))
    ]
    stack = trained(runs)
    for place in (0, 1):
        assert_replica_is(stack, place, alone(runs[place]))


def test_averaged_momentum_in_the_engine_is_heavy_ball_at_a_tenth_of_its_rate():
    averaged = run(optimizer="averaged-momentum", lr=0.2, readouts=LAST)
    assert_replica_is(trained([averaged]), 0, alone(run(lr=0.02, readouts=LAST)))


def test_corrected_momentum_in_the_engine_is_averaged_momentum_with_a_decaying_rate():
    corrected = run(optimizer="corrected-momentum", lr=0.2, readouts=LAST)
    heavy = alone(run(readouts=LAST), rate=lambda t, model: 0.02 / (1 - 0.9**t))
    assert_replica_is(trained([corrected]), 0, heavy)


EPOCH = 4_000 // 23
SCHEDULES = {
    "inverse-time(rate=1)": lambda t: 1 / (1 + math.ceil(t / EPOCH)),
    "exponential(base=0.95)": lambda t: 0.95 ** math.ceil(t / EPOCH),
    "inverse-sqrt-step": lambda t: t**-0.5,
    "steps(factors=[0.1], shares=[0.5])": lambda t: 1.0 if t <= 22 else 0.1,
    "cosine": lambda t: (1 + math.cos(math.pi * (t - 1) / STEPS)) / 2,
    "noam(d_model=4, warmup=20)": lambda t: 4**-0.5 * min(t**-0.5, t * 20**-1.5),
    "constant(floor=0.5, step_duration=2)": lambda t: 1.0,
}


def test_schedules_of_the_engine_reach_the_updates():
    """Runs under different schedules share a stack."""
    runs = [run(schedule=schedule, readouts=LAST) for schedule in SCHEDULES]
    stack = trained(runs)
    for place, (one, factor) in enumerate(zip(runs, SCHEDULES.values(), strict=True)):
        assert_replica_is(stack, place, alone(one, rate=lambda t, model, f=factor: 0.03 * f(t)))


def test_plateau_in_the_engine_is_torchs_scheduler_on_validation_examples_of_its_own():
    """Observed every 5 updates; a wide threshold makes it cut the rate several times within 43."""
    runs = [
        run(
            schedule="plateau(every=5, factor=0.5, patience=0, threshold=0.03)",
            lr=lr,
            seed=seed,
            readouts=LAST,
        )
        for lr, seed in ((0.3, 5), (0.004, 2))
    ]
    stack = trained(runs)
    for place, one in enumerate(runs):
        loaded = data.load("mnist1d", [one.seed], DATA)
        rows = loaded.validation[0, ::MONITOR_EVERY]
        x, y = ((loaded.pool[rows] - loaded.mean[0]) / loaded.std[0]).float(), loaded.labels[rows]
        holder = torch.optim.SGD([torch.zeros(1, requires_grad=True)], one.lr)
        scheduler = ReduceLROnPlateau(holder, factor=0.5, patience=0, threshold=0.03, eps=0)
        seen = []

        def rate(t, model, holder=holder, scheduler=scheduler, x=x, y=y, seen=seen):
            if t > 1 and (t - 1) % 5 == 0:
                with torch.no_grad():
                    scheduler.step(torch.nn.functional.cross_entropy(model.eval()(x), y).item())
            seen.append(holder.param_groups[0]["lr"])
            return seen[-1]

        assert_replica_is(stack, place, alone(one, rate=rate))
        assert len(set(seen)) > 1, "the plateau never cut the rate, so this test saw nothing"
    assert stack.examples.validation.shape[1] == 3_000 and not set(rows.tolist()) & set(
        stack.examples.validation[1].tolist()
    )


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
@pytest.mark.parametrize("task", ["mnist1d-mlp", "mnist1d-cnn"])
def test_networks_with_any_norm_train_in_the_engine_as_alone(task, norm):
    runs = [
        run(task=f"{task}(norm={norm})", lr=lr, seed=seed, steps=23)
        for lr, seed in ((0.01, 5), (0.02, 2))
    ]
    stack = trained(runs)
    for place in (0, 1):
        assert_replica_is(stack, place, alone(runs[place]))


def test_ghost_batch_norm_trains_in_the_engine_as_alone():
    runs = [
        run(task="mnist1d-mlp(norm=ghost)", batch_size=50, seed=seed, steps=23) for seed in (5, 2)
    ]
    stack = trained(runs)
    assert_replica_is(stack, 1, alone(runs[1]))


def test_arms_that_differ_in_norm_alone_start_from_the_same_weights():
    for task in ("mnist1d-mlp", "mnist1d-cnn", "fashion-mnist-cnn"):
        torch.manual_seed(1)
        plain = find(f"{task}(norm=none)").build().state_dict()
        torch.manual_seed(1)
        normed = find(f"{task}(norm=batch)").build()
        weights = [w for w in normed.parameters() if w.dim() > 1]
        assert [w.shape for w in weights] == [w.shape for w in plain.values() if w.dim() > 1]
        for one, other in zip(weights, [w for w in plain.values() if w.dim() > 1], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "task",
    [
        *("mnist1d-mlp(norm=batch)", "mnist1d-cnn(norm=batch)"),
        pytest.param("fashion-mnist-cnn", marks=[pytest.mark.needs_fashion, pytest.mark.slow]),
    ],
)
def test_readouts_take_batch_norm_statistics_averaged_copied_or_reestimated(task):
    readouts = ("ema-30", "ema-30/copied", "ema-30/reestimated", "last/reestimated")
    one = run(task=task, readouts=readouts, lr=0.0002 if "fashion" in task else 0.05)
    stack, states = trained([one.model_copy(update={"seed": 2}), one]), alone(one)
    averaged = readout(states, "ema-30")
    loaded = data.load(stack.task.source, [one.seed], DATA)
    x = ((loaded.pool[loaded.train[0]] - loaded.mean[0]) / loaded.std[0]).float()[:TRAIN_EXAMPLES]
    for name, weights in (("ema-30", averaged), ("last", states[-1])):
        plain = find(one.task).build()
        plain.load_state_dict(weights)
        _with_torchs_norm(plain)
        update_bn(x.split(STATISTICS_BATCH), plain)
        fresh = [b for b in plain.buffers() if b.is_floating_point()]
        _, found = stack.view.weights(parse(f"{name}/reestimated", STEPS)[0])
        torch.testing.assert_close(
            found[1], torch.cat([b.flatten() for b in fresh]), rtol=1e-4, atol=1e-5
        )
    last = torch.cat([states[-1][name].flatten() for name in stack.flat.buffers])
    theta, copied = stack.view.weights(parse("ema-30/copied", STEPS)[0])
    torch.testing.assert_close(copied[1], last, **CLOSE)
    torch.testing.assert_close(theta, stack.view.weights(parse("ema-30", STEPS)[0])[0])
    losses = stack.history.finals.query("run == @one.key").loss
    assert losses.nunique() == 4


def _with_torchs_norm(model):
    """Put torch's own batch norm, with the weights and statistics of ours, in its place."""
    pictures = any(isinstance(layer, torch.nn.Conv2d) for layer in model.modules())
    kind = torch.nn.BatchNorm2d if pictures else torch.nn.BatchNorm1d
    for sequence in [part for part in model.modules() if isinstance(part, torch.nn.Sequential)]:
        for place, layer in enumerate(sequence):
            if type(layer).__name__ == "BatchNorm":
                sequence[place] = kind(len(layer.weight))
                sequence[place].load_state_dict(layer.state_dict(), strict=False)


def test_losses_along_the_way_are_those_of_the_minibatches():
    one = run(readouts=LAST)
    stack, states = trained([one]), alone(one)
    loaded, model = data.load("mnist1d", [one.seed], DATA), find(one.task).build()
    model.load_state_dict(states[0])

    batch = loaded.train[0][next(epochs(4_000, 23, stream_seed("mnist1d", 5, "order")))]
    x = ((loaded.pool[batch] - loaded.mean[0]) / loaded.std[0]).float()
    first = torch.nn.functional.cross_entropy(model(x), loaded.labels[batch]).item()
    assert stack.training.losses.shape == (STEPS, 1)
    assert stack.training.losses[0].item() == pytest.approx(first, rel=1e-5)


def test_names_transformer_trains_in_the_engine_as_alone():
    """By momentum at small rates: a key's bias has a gradient of zero but for rounding, which Adam
    would blow up to its full step, and at larger rates rounding soon flips a ReLU.
    """
    runs = [
        run(
            task="names-transformer",
            optimizer="momentum",
            lr=lr,
            seed=seed,
            batch_size=7,
            steps=11,
            readouts=("last", "tail-50"),
        )
        for lr, seed in ((0.001, 5), (0.002, 2))
    ]
    stack = trained(runs)
    assert_replica_is(stack, 1, alone(runs[1]))
    row = stack.history.finals.iloc[0]
    assert 0 < row.accuracy < 1 and row.loss < math.log(200)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [("sgd", "constant"), ("momentum", "linear"), ("corrected-momentum", "cosine")],
)
def test_noisy_quadratic_in_the_engine_lies_within_its_error_of_the_closed_form(
    optimizer, schedule
):
    readouts = ("last", "ema-30", "tail-25", "checkpoints-4")
    lr = 0.3 if optimizer == "corrected-momentum" else 0.05
    base = {
        "task": "noisy-quadratic",
        "optimizer": optimizer,
        "schedule": schedule,
        "lr": lr,
        "batch_size": 2,
    }
    runs = [Run(**base, steps=200, seed=seed, readouts=readouts) for seed in range(400)]
    with numerics(1):
        finals = Stack(runs, DATA, compile=False).train().finals
    h = np.array(EIGENVALUES)
    for name in readouts:
        exact = expected_loss(
            optimizer, runs[0].rates(), parse(name, 200)[1], h, h, 1.0, batch_size=2
        )[-1]
        loss = finals[finals.readout == name].loss
        assert loss.mean() == pytest.approx(exact, abs=4 * loss.std() / len(loss) ** 0.5), name


@pytest.mark.parametrize(
    "task",
    ["ravine", "saddle", "plateau", "double-well", "double-well-slope", "double-well-shoulder"],
)
def test_surfaces_train_in_the_engine_and_a_lost_one_counts_as_not_moved(task):
    base = {
        "task": task,
        "optimizer": "momentum",
        "schedule": "constant",
        "batch_size": 3,
        "steps": 50,
        "readouts": LAST,
    }
    calm, wild = Run(**base, lr=0.005, seed=1), Run(**base, lr=1e30, seed=1)
    finals = trained([calm, wild]).history.finals
    surface = find(task).build()
    start = surface.function(surface.point.detach()).item()
    assert finals.accuracy.isna().all()
    assert finals.loss[1] == pytest.approx(start, rel=1e-6)
    if task != "double-well":  # that one starts at the bottom of a well
        assert finals.loss[0] < start


def test_noisy_batch_norm_in_the_engine_is_the_module_fed_the_same_draws():
    """Each seed has its own stream of noise, whatever chunks the engine takes."""
    runs = [
        run(task="mnist1d-mlp(norm='noisy-batch')", seed=seed, steps=13, readouts=LAST)
        for seed in (5, 2)
    ]
    stack, chunked = (
        trained(runs),
        trained([one.model_copy(update={"curve_points": 4}) for one in runs]),
    )
    assert torch.equal(stack.view.theta, chunked.view.theta)
    one = runs[1]
    generator = torch.Generator().manual_seed(stream_seed("mnist1d", one.seed, "noise"))

    def rate(t, model):
        shapes = noise_shapes(model, one.batch_size)
        draws = (
            2 * torch.rand(sum(math.prod(shape) for shape in shapes.values()), generator=generator)
            - 1
        )
        for (name, shape), part in zip(
            shapes.items(), draws.split([math.prod(s) for s in shapes.values()]), strict=True
        ):
            model.get_submodule(name.rpartition(".")[0]).draws = part.view(shape)
        return one.lr

    assert_replica_is(stack, 1, alone(one, rate=rate))


def test_range_test_in_the_engine_is_the_one_in_a_loop_of_ones_own():
    """A run under the `ramp` schedule and its minibatch losses are a range test, many of them in
    one stack.
    """
    low, high = 1e-3, 1.0
    runs = [
        run(schedule=f"ramp(low={low}, high={high})", lr=1.0, seed=seed, readouts=LAST)
        for seed in (5, 2)
    ]
    losses = trained(runs).training.losses[:, 0].double().numpy()
    one, loaded = runs[0], data.load("mnist1d", [5], DATA)
    model = initial_model(one.task, stream_seed("mnist1d", 5, "weights"))
    batches = epochs(4_000, one.batch_size, stream_seed("mnist1d", 5, "order"))

    def loss():
        rows = loaded.train[0][next(batches)]
        x = ((loaded.pool[rows] - loaded.mean[0]) / loaded.std[0]).float()
        return torch.nn.functional.cross_entropy(model(x), loaded.labels[rows])

    step = rate_step(torch.optim.SGD(model.parameters(), low, momentum=0.9), loss)
    alone = range_test(step, low, high, STEPS, divergence=math.inf)
    np.testing.assert_allclose(one.rates(), alone.rates, rtol=1e-12)
    np.testing.assert_allclose(losses[:30], alone.losses[:30], rtol=1e-4)
    assert steepest(one.rates()[:30], losses[:30]) == pytest.approx(
        steepest(alone.rates[:30], alone.losses[:30]), rel=1e-3
    )


def test_coarse_to_fine_search_trains_each_round_as_one_stack():
    def evaluate(rates):
        runs = [run(lr=float(rate), readouts=LAST, steps=30) for rate in rates]
        return trained(runs).history.finals.loss.to_numpy()

    search = coarse_to_fine(
        evaluate, 1e-4, 10, rounds=2, per_round=5, generator=np.random.default_rng(1)
    )
    assert len(search.rate) == 10 and np.isfinite(search.loss).all()
    assert search.low[0] <= search.low[-1] <= search.best <= search.high[-1] <= search.high[0]
    assert evaluate(np.array([search.best]))[0] == pytest.approx(search.loss.min(), rel=1e-3)


def by_part(finals):
    """Final scores by what they were measured on: a split, or the test set after a shift."""
    shifts = finals["shift"] != ""
    texts = [
        Shift(
            row["shift"], row.severity, row.statistics, None if pd.isna(row.batch) else row.batch
        ).text
        for _, row in finals[shifts].iterrows()
    ]
    names = finals.split.copy()
    names[shifts] = texts
    assert (finals.split[shifts] == "test").all()
    return finals.set_axis(names)


def test_shifted_test_sets_are_evaluated_beside_the_unshifted_one():
    """Severity 0 gives the test set's own numbers; a covariate, prior or concept shift those of a
    plain evaluation.
    """
    shifts = (
        "shear(severity=0)",
        "iid-noise(severity=5)",
        "prior(severity=5)",
        "concept(severity=5)",
    )
    one = run(test=True, shifts=shifts, lr=0.1, readouts=LAST)
    stack = trained([one, one.model_copy(update={"seed": 2})])
    finals = by_part(stack.history.finals.query("run == @one.key"))
    assert set(finals.index) == {
        "validation",
        "test",
        "train",
        *one.shifts,
    }
    assert finals.accuracy["shear(severity=0)"] == finals.accuracy["test"]
    assert finals.accuracy["iid-noise(severity=5)"] < finals.accuracy["test"]
    loaded = data.load("mnist1d", [5], DATA)
    x, y = loaded.pool[loaded.test], loaded.labels[loaded.test]
    right = (
        stack.flat.outputs(
            stack.view.theta[0],
            stack.view.buffers[0],
            (x - loaded.mean[0]) / loaded.std[0],
        )
    ).argmax(1)
    generator = lambda kind: torch.Generator().manual_seed(
        stream_seed("mnist1d", 5, f"shift/{kind}")
    )
    prior = shifted_prior(x, y, 5, classes=10, count=4_000, generator=generator("prior"))
    concept = shifted_concept(x, y, 5, classes=10, generator=generator("concept"))
    for name, shifted in (("prior", prior), ("concept", concept)):
        expected = (right[shifted.rows] == shifted.y).double().mean().item()
        assert finals.accuracy[f"{name}(severity=5)"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.needs_fashion
def test_statistics_of_shifted_pictures_can_be_taken_from_them():
    shifts = ("contrast(severity=5)", "contrast(severity=5, statistics=reestimated)")
    base = {
        "task": "fashion-mnist-cnn",
        "optimizer": "momentum",
        "schedule": "constant",
        "lr": 0.05,
        "batch_size": 53,
    }
    one = Run(**base, steps=40, seed=3, readouts=LAST, test=True, shifts=shifts)
    finals = by_part(trained([one]).history.finals).accuracy
    frozen, reestimated = (finals[shift] for shift in one.shifts)
    assert frozen + 0.1 < reestimated <= finals["test"] + 0.02


def test_statistics_can_be_taken_from_a_few_inputs_at_a_time():
    """Each batch is normalised by its own moments: the training mode of torch's batch norm, batch
    after batch.
    """
    shifts = (
        "scale(severity=3, statistics=reestimated, batch=10)",
        "scale(severity=3, statistics=reestimated, batch=2000)",
    )
    stack = trained(
        [run(task='mnist1d-mlp(norm="batch")', test=True, shifts=shifts, readouts=LAST, lr=0.1)]
    )
    finals = by_part(stack.history.finals).accuracy
    after = shifted_signals("scale", 3, seed=TEST_SEED, count=20_000)
    x = (after.x - stack.examples.mean[0].cpu()) / stack.examples.std[0].cpu()
    module = stack.flat.module.train()
    torch.nn.utils.vector_to_parameters(stack.view.theta[0], module.parameters())
    for shift, size in zip(stack.first.shifts, (10, 2000), strict=True):
        guesses = torch.cat([module(part).argmax(1) for part in x.split(size)])
        expected = (guesses == after.y).double().mean().item()
        assert finals[shift] == pytest.approx(expected, abs=2e-4)
    few, many = (finals[shift] for shift in stack.first.shifts)
    assert few + 0.02 < many  # moments of ten inputs are noise


@pytest.mark.parametrize("norm", ["none", "group"])
def test_without_batch_norm_statistics_taken_anew_change_nothing(norm):
    shifts = (
        "scale(severity=3)",
        "scale(severity=3, statistics=reestimated)",
        "shear(severity=3)",
        "scale(severity=3, statistics=reestimated, batch=10)",
    )
    made = trained(
        [
            run(task=f'mnist1d-mlp(norm="{norm}")', test=True, shifts=shifts, seed=seed)
            for seed in (1, 2)
        ]
    )
    tables = {
        name: part[["run", "readout", *SCORE_COLUMNS]].reset_index(drop=True)
        for name, part in by_part(made.history.finals).groupby(level=0)
    }
    plain, anew, other, few = (tables[shift] for shift in made.first.shifts)
    assert plain.equals(anew) and plain.equals(few) and not plain.equals(other)
    look = Look(*shifted_test(Shift.parse(shifts[1]), made.task, made.data, [1, 2], DATA))
    assert (
        made.view.scores_reestimated(made.readouts[:1], look)[0].accuracy.tolist()
        == plain[plain.readout == "last"].accuracy.tolist()
    )


@pytest.mark.parametrize(
    ("task", "shift", "sentence"),
    [
        ("mnist1d-mlp", "shear(severity=1, batch=10)", "add statistics=reestimated"),
        (
            "mnist1d-mlp",
            "shear(severity=1, statistics=reestimated, batch=1)",
            "batch must divide 2000",
        ),
        (
            "mnist1d-mlp",
            "shear(severity=1, statistics=reestimated, batch=30)",
            "batch must divide 2000",
        ),
        (
            "mnist1d-mlp",
            "contrast(severity=1)",
            "shift must be one of .* for mnist1d data, got 'contrast'",
        ),
        ("mnist1d-mlp", "shear(severity=6)", "severity must be a whole number from 0 to 5, got 6"),
        ("mnist1d-mlp", "shear", "severity must be a whole number from 0 to 5, got None"),
        ("mnist1d-mlp", "shear(severity=1, degree=2)", "has no option"),
        ("mnist1d-mlp", "shear(severity=1, statistics=fresh)", "statistics must be one of"),
        ("saddle", "prior(severity=1)", r"shift must be one of \[\] for gaussian-2 data"),
    ],
)
def test_shifts_that_a_task_does_not_have_are_refused(task, shift, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(task=task, test=True, shifts=(shift,))


def test_shifted_readouts_alone_are_scored_after_shifts_and_as_among_all():
    shifts, readouts = ("shear(severity=3)", "prior(severity=3)"), ("last", "tail-50", "ema-10")
    every = run(test=True, shifts=shifts, readouts=readouts, steps=40)
    asked = Run(**every.model_dump() | {"shifted_readouts": ("ema-10", "last")})
    assert asked.key != every.key and asked.shape != every.shape
    whole, part = (trained([one]).history.finals for one in (every, asked))
    left_out = (whole["shift"] != "") & (whole.readout == "tail-50")
    columns = ["readout", "split", "shift", "accuracy", "loss", "calibration_error"]
    in_order = lambda table: table[columns].sort_values(columns[:3]).reset_index(drop=True)
    assert left_out.sum() == len(shifts)
    pd.testing.assert_frame_equal(in_order(part), in_order(whole[~left_out]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shifted_readouts": LAST}, "shifted_readouts need shifts, got .'last'"),
        (
            {"shifts": ("shear(severity=1)",), "shifted_readouts": ("last", "ema-2")},
            "shifted_readouts must be among the readouts, got .'ema-2'",
        ),
    ],
)
def test_shifted_readouts_that_make_no_sense_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(test=True, readouts=("last", "ema-10"), **changes)


def test_shifts_without_test_data_are_refused():
    with pytest.raises(ValueError, match="a run with test=False never looks at"):
        run(shifts=("shear(severity=1)",))
