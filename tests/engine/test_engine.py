"""A replica in a stack is the same network trained alone; neighbours, order and interruptions leave
no trace.
"""

import math

import pytest
import torch

from oracles import readout, stream_seed, train_alone
from steadydescent.engine import data
from steadydescent.engine.runs import NUMERICS_VERSION, Run
from steadydescent.engine.stack import Stack, initial_weights
from steadydescent.engine.stepping import Flat, can_compile, numerics
from steadydescent.engine.tasks import find
from steadydescent.engine.tasks.models import image_convnet
from steadydescent.study.paths import DATA

READOUTS = (
    "last",
    "ema-10",
    "ema-30",
    "ema-start-30",
    "ema-ramp",
    "tail-25",
    "checkpoints-2",
    "checkpoints-5",
)
STEPS = 43
# Both sides do the same float32 arithmetic in another order. One update's rounding is about 1e-7 of
# the weights; 43 updates at these rates amplify it to a few 1e-6. A wrong batch, rate or readout is
# off by 1e-2.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def run(**changes) -> Run:
    base = {
        "task": "mnist1d-mlp",
        "optimizer": "momentum",
        "schedule": "constant",
        "lr": 0.03,
        "batch_size": 23,
    }
    return Run(
        **(
            base
            | {"steps": STEPS, "seed": 5, "readouts": READOUTS, "curve_points": 1, "test": False}
            | changes
        )
    )


def trained(runs: list[Run], compile: bool = False, width: int = 0) -> Stack:
    with numerics(1):
        stack = Stack(runs, DATA, compile=compile, lanes=width)
        stack.history = stack.train()
    return stack


FACTORS = {"constant": lambda t: 1.0, "linear": lambda t: 1 - (t - 1) / STEPS}


def alone(one: Run, rate=None) -> list[dict]:
    """The same run by a plain loop; `rate(t, model)` in place of its schedule's."""
    task = find(one.task)
    loaded = data.load(task.source, [one.seed], DATA)
    x, y = loaded.pool[loaded.train[0]], loaded.labels[loaded.train[0]]
    if not task.tokens:
        x = ((x - loaded.mean[0]) / loaded.std[0]).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(task.source, one.seed, "weights"))
        model = task.build()
    order = stream_seed(task.source, one.seed, "order")
    rate = rate or (lambda t, model: one.lr * FACTORS[one.schedule](t))
    return train_alone(model, x, y, one.optimizer, rate, one.batch_size, one.steps, order)


def assert_replica_is(stack: Stack, place: int, states: list[dict]) -> None:
    for wanted in stack.readouts:
        theta, buffers = stack.view.weights(wanted)
        expected = readout(states, wanted.text)
        names = {**stack.flat.parameters, **stack.flat.buffers}
        found = stack.flat.named(theta[place], stack.flat.parameters)
        found |= stack.flat.named(buffers[place], stack.flat.buffers)
        for name in names:
            torch.testing.assert_close(
                found[name].double(), expected[name], **CLOSE, msg=lambda m, w=wanted: f"{w}: {m}"
            )


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("schedule", list(FACTORS))
def test_replica_in_a_stack_equals_the_same_run_alone(optimizer, schedule):
    lr = 0.003 if optimizer == "adam" else 0.03
    runs = [
        run(optimizer=optimizer, schedule=schedule, lr=lr * 1.7**i, seed=seed)
        for i, seed in enumerate((5, 2, 5))
    ]
    stack = trained(runs)
    for place in (0, 1, 2):
        assert_replica_is(stack, place, alone(runs[place]))


@pytest.mark.needs_fashion
@pytest.mark.parametrize(
    "task",
    [
        *("fashion-mnist-mlp", "fashion-mnist-cnn", "fashion-mnist-deep-mlp"),
        *("fashion-mnist-deep-mlp(norm=batch)", "fashion-mnist-deep-mlp(norm=group)"),
    ],
)
def test_replica_with_buffers_equals_the_same_run_alone(task):
    """Small rates: at larger ones rounding soon flips a ReLU of the constant background, which
    moves 1e-4 at once.
    """
    runs = [
        run(task=task, lr=lr, seed=seed, batch_size=11, steps=21)
        for lr, seed in ((0.001, 3), (0.002, 4))
    ]
    stack = trained(runs)
    for place in (0, 1):
        assert_replica_is(stack, place, alone(runs[place]))


@pytest.mark.skipif(can_compile("cpu") is not None, reason=f"cannot compile: {can_compile('cpu')}")
def test_compiled_and_padded_stack_equals_the_same_run_alone():
    runs = [run(lr=0.03), run(lr=0.05, seed=2)]
    stack = trained(runs, compile=True, width=3)
    assert_replica_is(stack, 1, alone(runs[1]))
    assert list(stack.history.runs.run) == [one.key for one in runs]


def test_diverged_replica_is_marked_and_counted_as_guessing_and_its_neighbour_never_feels_it():
    quiet, wild = run(lr=0.03), run(lr=1e30)
    together, apart = trained([quiet, wild]), trained([quiet], width=2)
    history = together.history
    assert history.runs.diverged_at.isna().tolist() == [True, False]
    assert 1 < history.runs.diverged_at[1] < STEPS
    lost = history.finals[history.finals.run == wild.key]
    assert (lost.accuracy == 0.1).all() and (lost.loss == math.log(10)).all()
    assert together.training.survived.tolist() == [STEPS, history.runs.diverged_at[1] - 1]
    for one, other in zip(together.view.start, together.training.carry.weights, strict=True):
        assert one.shape == other.shape
    assert torch.equal(together.view.theta[0], apart.view.theta[0])


def test_evaluating_along_the_way_does_not_touch_the_trajectory():
    once, often = trained([run()]), trained([run(curve_points=7, test=True)])
    assert torch.equal(once.view.theta, often.view.theta)
    assert sorted(often.history.curves.step.unique()) == [round(STEPS * i / 7) for i in range(1, 8)]
    assert set(often.history.finals.split) == {"validation", "test", "train"}
    validation = (
        often.history.finals.query("split == 'validation'")
        .drop(columns="run")
        .reset_index(drop=True)
    )
    assert validation.equals(
        once.history.finals.drop(columns="run")
    )  # a report run ends with what tuning would see


def test_readouts_do_not_touch_the_trajectory():
    """Averaging changes what is read, never what is trained: the claim `ema-smooths-training`,
    refuted as worded.
    """
    weights_of = lambda readouts: trained([run(readouts=readouts)]).view.theta
    assert torch.equal(weights_of(("last",)), weights_of(READOUTS))


def test_same_stack_gives_the_same_bits():
    assert trained([run(), run(seed=2)]).history.finals.equals(
        trained([run(), run(seed=2)]).history.finals
    )


def test_measures_equal_a_plain_evaluation():
    stack = trained([run(test=True)])
    loaded = data.load("mnist1d", [5], DATA)
    x, y = (loaded.pool[loaded.test] - loaded.mean[0]) / loaded.std[0], loaded.labels[loaded.test]
    logits = torch.stack(
        [
            stack.flat.outputs(stack.view.theta[0], stack.view.buffers[0], part)
            for part in x.split(500)
        ]
    )
    probability, guess = logits.flatten(0, 1).softmax(1).max(1)
    right = guess == y
    row = stack.history.finals.query("split == 'test' and readout == 'last'").iloc[0]
    assert row.accuracy == pytest.approx(right.double().mean().item(), abs=1e-4)
    assert row.loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), y).item(), rel=1e-5
    )
    error = 0.0
    for low in range(15):
        inside = (probability >= low / 15) & (probability < (low + 1) / 15)
        if inside.any():
            error += (
                inside.double().mean()
                * (probability[inside].double().mean() - right[inside].double().mean()).abs()
            )
    assert row.calibration_error == pytest.approx(float(error), abs=1e-3)


def test_initial_weights_leave_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    initial_weights("mnist1d-mlp", 3)
    assert torch.equal(before, torch.get_rng_state())


def test_flat_refuses_integer_buffers_by_name():
    model = image_convnet()
    model.register_buffer("seen", torch.tensor(0))
    with pytest.raises(ValueError, match="seen"):
        Flat(model, 7)


def test_stack_refuses_runs_of_different_shape():
    with pytest.raises(ValueError, match="agree"):
        Stack([run(), run(steps=44)], DATA, compile=False)


def test_golden_losses_hold_for_this_numerics_version():
    """Losses of published runs; when this fails and the change is meant, write the new ones down
    and say so.
    """
    golden = {1: {"sgd": 2.2790136, "momentum": 2.1299752, "adam": 1.7988634}}
    for optimizer, expected in golden[NUMERICS_VERSION].items():
        finals = trained([run(optimizer=optimizer, lr=0.01, readouts=("last",))]).history.finals
        assert finals.loss[0] == pytest.approx(expected, rel=2e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_replica_on_a_gpu_equals_the_same_run_alone_on_a_cpu(compile):
    runs = [run(lr=0.03), run(lr=0.05, seed=2)]
    with numerics():
        stack = Stack(runs, DATA, device="cuda", compile=compile)
        stack.train()
    states = alone(runs[1])
    theta = stack.view.theta[1].cpu()
    for name, found in stack.flat.named(theta, stack.flat.parameters).items():
        torch.testing.assert_close(found, states[-1][name], rtol=2e-3, atol=2e-4)
