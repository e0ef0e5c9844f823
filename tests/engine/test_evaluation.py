"""Evaluation in one pass says what one network after another says, and looks at nothing twice."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from steadydescent.engine import view as engine
from steadydescent.engine.evaluation import Look, Outputs, measure
from steadydescent.engine.inference import CACHE, CHUNKS, chunk, in_place, inference
from steadydescent.engine.shifted_tests import Shift, shifted_test
from steadydescent.engine.tasks import TASKS, find
from steadydescent.engine.tasks.task import IGNORED
from steadydescent.study.paths import DATA
from steadydescent.weight_averaging import Readout
from test_engine import run, trained

EXAMPLES = 307
READOUTS = ("last", "ema-20", "ema-start-20", "tail-50", "at-50")
NEAR = 1e-5
"""Logits so near to one another that rounding may say which is larger."""
KINDS = [
    "mnist1d-mlp",
    'mnist1d-mlp(norm="group")',
    'mnist1d-mlp(norm="noisy-batch")',
    'mnist1d-mlp(features="badly-scaled")',
    'mnist1d-cnn(norm="batch")',
    *(
        pytest.param(name, marks=pytest.mark.needs_fashion)
        for name in ("fashion-mnist-mlp", "fashion-mnist-cnn", 'fashion-mnist-mlp(features="raw")')
    ),
    pytest.param("names-transformer", marks=pytest.mark.slow),
]


def small_stack(task: str, readouts=READOUTS, width: int = 0, **changes):
    """Two seeds at two rates, and one network that diverges; every second has the same inputs."""
    about = {"task": task, "steps": 12, "readouts": readouts, "batch_size": 20} | changes
    rule = "adam" if find(task).features == "raw" else "sgd"
    one = run(**about | {"optimizer": rule, "lr": 0.01})
    pairs = [(1, 0.01), (2, 0.01), (1, 0.02), (2, 1e30)]
    runs = [one.model_copy(update={"seed": seed, "lr": lr}) for seed, lr in pairs]
    return trained(runs, width=width)


def logits_of(stack, readout: Readout, place: int, rows: torch.Tensor) -> torch.Tensor:
    """A plain module with these weights and buffers, on all examples at once."""
    theta, buffers = (part[place] for part in stack.view.weights(readout))
    module: nn.Module = stack.task.build()
    vector_to_parameters(theta, module.parameters())
    pieces = buffers.split([shape.numel() for shape in stack.flat.buffers.values()])
    for (name, shape), piece in zip(stack.flat.buffers.items(), pieces, strict=True):
        module.get_buffer(name).copy_(piece.view(shape))
    held = stack.examples
    x = stack.task.inputs(held.pool[rows], held.mean[place], held.std[place])
    with torch.no_grad():
        return module.eval()(x)


def scored(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, float, int]:
    """Accuracy, loss and calibration error, written out in float64; and how many labels are so near
    a tie, or a bin's edge, that rounding may decide.
    """
    logits, labels = logits.double().flatten(0, -2), labels.flatten()
    logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]
    confidence, guess = torch.softmax(logits, dim=1).max(dim=1)
    hit = (guess == labels).double()
    error, count = 0.0, len(labels)
    for low in range(15):
        inside = (confidence * 15 >= low) & ((confidence * 15 < low + 1) | (low == 14))
        error += float((confidence[inside] - hit[inside]).sum().abs()) / count
    best = logits.topk(2, dim=1).values
    close = (best[:, 0] - best[:, 1] < NEAR) | ((confidence * 15).frac() - 0.5).abs().gt(0.5 - NEAR)
    return float(hit.mean()), float(cross_entropy(logits, labels)), error, int(close.sum())


def rows_of(stack, kind: str) -> torch.Tensor:
    return getattr(stack.examples, kind)[:, :EXAMPLES]


@pytest.mark.parametrize("task", KINDS)
def test_one_pass_says_what_plain_modules_say_of_all_examples_at_once(task):
    stack = small_stack(task)
    assert stack.view.alive.tolist() == [True, True, True, False]
    for kind in ("validation", "test", "train"):  # training sets differ from seed to seed
        look = stack.examples.look(rows_of(stack, kind))
        for readout, found in zip(
            stack.readouts, stack.view.scores(stack.readouts, look), strict=True
        ):
            for place in range(3):
                logits = logits_of(stack, readout, place, look.rows[place])
                labels = look.targets[place]
                accuracy, loss, error, close = scored(logits, labels)
                count = int((labels != IGNORED).sum())
                assert abs(found.accuracy[place] - accuracy) <= close / count + 1e-12
                assert found.loss[place] == pytest.approx(loss, rel=2e-6)
                assert abs(found.calibration_error[place] - error) <= 2 * close / count + 1e-6
            classes = logits.shape[-1]
            assert found.at(np.array([3])) == (1 / classes, math.log(classes), 0.0)


@pytest.mark.parametrize("task", ["mnist1d-mlp", 'mnist1d-cnn(norm="batch")'])
@pytest.mark.parametrize("batch", [None, 10])
def test_replicas_as_one_say_what_they_say_in_turn(task, batch):
    """A GPU takes the first way, a CPU the second."""
    stack = small_stack(task)
    shift = Shift.parse("shear(severity=2)")
    whole = shifted_test(shift, stack.task, stack.data, [1, 2, 1, 2], DATA)
    look = Look(whole.pool, whole.rows[:, :300], whole.targets[:, :300])
    ways = []
    for batched in (False, True):
        stack.view.batched, stack.view._anew_at = batched, -1
        ways.append(
            [
                *stack.view.scores(stack.readouts, look),
                *stack.view.scores_reestimated(stack.readouts, look, batch),
                *stack.view.scores([Readout.parse("ema-20/reestimated")], look),
            ]
        )
    for one, other in zip(*ways, strict=True):
        np.testing.assert_allclose(one.accuracy, other.accuracy, atol=1.01 / 300)
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
        np.testing.assert_allclose(one.calibration_error, other.calibration_error, atol=0.005)


def test_outputs_are_those_of_every_replica_in_its_place():
    stack = small_stack("mnist1d-mlp")
    look = stack.examples.look(rows_of(stack, "validation"))
    found = stack.view.outputs(stack.readouts[1], look)
    assert found.shape == (4, EXAMPLES, 10)
    for place in range(3):
        expected = logits_of(stack, stack.readouts[1], place, look.rows[place])
        torch.testing.assert_close(found[place], expected, rtol=1e-5, atol=1e-6)


# ---- nothing twice -------------------------------------------------------------------------------


def looked_at(stack, readouts, monkeypatch) -> list[int]:
    """The networks of each chunk."""
    seen: list[int] = []

    def note(chunks, diverged):
        def tap():
            for outputs in chunks:
                seen.extend(outputs.networks)
                yield outputs

        return measure(tap(), diverged)

    monkeypatch.setattr(engine, "measure", note)
    stack.view.scores(readouts, stack.examples.look(rows_of(stack, "validation")))
    return seen


def test_what_diverged_and_what_fills_the_stack_up_is_not_looked_at(monkeypatch):
    stack = small_stack("mnist1d-mlp", readouts=("last",), width=7)
    assert sorted(looked_at(stack, stack.readouts, monkeypatch)) == [0, 1, 2]


def test_fillers_score_what_the_last_run_scores():
    stack = trained([run(seed=1, steps=9, readouts=("last",))], width=3)
    scores = stack.view.score(stack.readouts[0], stack.examples.look(stack.examples.validation))
    assert len(scores.loss) == 3 and len(set(scores.loss)) == 1


def test_where_all_diverged_all_guess():
    stack = small_stack("mnist1d-mlp", readouts=("last",))
    stack.training.survived.zero_()
    (scores,) = stack.view.scores(stack.readouts, stack.examples.look(stack.examples.validation))
    assert scores.accuracy.tolist() == [0.1] * 4 and not scores.calibration_error.any()


@pytest.mark.parametrize(("task", "copies"), [("mnist1d-mlp", 1), ('mnist1d-mlp(norm="batch")', 2)])
def test_readouts_that_are_the_same_weights_are_looked_at_once(task, copies, monkeypatch):
    readouts = ("last", "last/copied", "ema-20", "ema-20/copied", "ema-20/reestimated")
    stack = small_stack(task, readouts=readouts)
    # with batch norm the EMA's statistics tell three apart, those of the last weights none
    distinct = 2 if copies == 1 else 4
    assert len(looked_at(stack, stack.readouts, monkeypatch)) == 3 * distinct


# ---- a pass --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["mnist1d-mlp", 'mnist1d-mlp(norm="batch")', "mnist1d-cnn"])
def test_a_pass_in_place_gives_the_same_bits_and_leaves_its_inputs(task):
    stack = small_stack(task)
    theta, buffers = (part[0].clone() for part in stack.view.weights(stack.readouts[0]))
    x = torch.randn(11, 40)
    before = [tensor.clone() for tensor in (theta, buffers, x)]
    expected = stack.flat.outputs(theta, buffers, x)
    for _ in range(2):
        assert torch.equal(inference(stack.task, False)(theta, buffers, x), expected)
    assert all(map(torch.equal, (theta, buffers, x), before))


def test_in_place_is_recorded_once_for_each_shape():
    calls = []
    double = in_place(lambda x: (calls.append(x.shape), 2 * x)[1])
    for count in (3, 5, 3, 5):
        assert double(torch.ones(count)).tolist() == [2.0] * count
    assert len(calls) == 2


@pytest.mark.parametrize(
    "name", [name for name, task in TASKS.items() if not (task.surface or task.tokens)]
)
def test_a_chunk_stays_in_the_cache_and_is_whole_batches(name):
    task, x = find(name), torch.zeros(1, 40 if "mnist1d" in name else 784)
    size = chunk(task, x)
    assert size in CHUNKS and size * x.nbytes <= CACHE
    assert chunk(task, x, batch=1_000) % 1_000 == 0 and chunk(task, x, batch=16) == 2_000


def test_chunks_of_wide_tensors_are_small():
    assert chunk(find("fashion-mnist-cnn"), torch.zeros(1, 784)) == 200
    assert chunk(find("fashion-mnist-mlp"), torch.zeros(1, 784)) == 500
    assert chunk(find("mnist1d-mlp"), torch.zeros(1, 40)) == 2_000


# ---- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_network_with_a_logit_that_is_not_finite_guesses(value):
    logits = torch.zeros(2, 7, 5)
    logits[:, :, 0] = 1
    logits[1, 3, 2] = value
    scores = measure(
        [Outputs([0, 1], logits, torch.zeros(7, dtype=torch.int64))], logits[:, 0, 0] < 0
    )
    assert scores.accuracy.tolist() == [1.0, 0.2]
    assert scores.loss[1] == pytest.approx(math.log(5)) and scores.calibration_error[1] == 0


def test_scores_do_not_depend_on_how_examples_are_cut():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 101, 7, generator=generator)
    labels = torch.randint(7, (101,), generator=generator)
    alive = torch.zeros(3, dtype=torch.bool)
    whole = measure([Outputs([0, 1, 2], logits, labels)], alive)
    parts = [
        Outputs([place], logits[place : place + 1, part], labels[part])
        for part in (slice(0, 40), slice(40, 101))
        for place in (2, 0, 1)
    ]
    for one, other in zip(whole, measure(parts, alive), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_history_says_what_each_kind_of_look_took():
    changes = {"test": True, "curve_points": 3, "shifts": ("scale(severity=1)",)}
    one = run(steps=12, readouts=("last",), probes=("training-loss",), **changes)
    history = trained([one]).history
    assert set(history.evaluation) == {"curves", "probes", "finals", "shifts"}
    assert min(history.evaluation.values()) > 0
    assert sum(history.evaluation.values()) < history.seconds
