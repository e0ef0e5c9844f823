"""Options of a task: fewer examples, wrong labels, badly scaled and raw features; what they touch
and leave alone.
"""

import pytest
import torch

from oracles import epochs, stream_seed, train_alone
from steadydescent.engine import data
from steadydescent.engine.data.task_data import first_examples, wrong_labels
from steadydescent.engine.stack import initial_weights
from steadydescent.engine.tasks import badly_scaled, base, canonical, find
from steadydescent.study.paths import DATA
from test_engine import assert_replica_is, run, trained

LAST = ("last",)
WRONG = "mnist1d-mlp(wrong_labels=0.2)"


@pytest.fixture(scope="module")
def loaded():
    return data.load("mnist1d", [5, 2], DATA)


# ---- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "mnist1d-mlp(wrong_labels=0.20, examples=300)",
            "mnist1d-mlp(examples=300, wrong_labels=0.2)",
        ),
        ("mnist1d-mlp(features='badly-scaled', norm=none)", 'mnist1d-mlp(features="badly-scaled")'),
        ("mnist1d-cnn(examples=0, wrong_labels=0.0, features=standardised)", "mnist1d-cnn"),
        ("fashion-mnist-cnn(norm=batch, examples=1)", "fashion-mnist-cnn(examples=1)"),
    ],
)
def test_one_task_has_one_text(text, expected):
    assert canonical(text) == canonical(expected) == expected
    assert base(text) == expected.partition("(")[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "mnist1d-mlp(examples=4001)",
            "examples must be a whole number from 1 to 4000, or 0 for all, got 4001",
        ),
        ("mnist1d-mlp(examples=-1)", "or 0 for all, got -1"),
        ("mnist1d-mlp(examples=10.0)", "examples must be a whole number .* got 10.0"),
        ("mnist1d-mlp(examples=true)", "examples must be a whole number .* got True"),
        ("mnist1d-mlp(examples=few)", "examples must be a whole number .* got 'few'"),
        (
            "mnist1d-mlp(wrong_labels=1)",
            "wrong_labels must be a share, at least 0 and below 1, got 1",
        ),
        ("mnist1d-mlp(wrong_labels=-0.1)", "at least 0 and below 1, got -0.1"),
        ("mnist1d-mlp(wrong_labels=some)", "wrong_labels must be a share, .* got 'some'"),
        ("mnist1d-mlp(wrong_labels=false)", "wrong_labels must be a share, .* got False"),
        ("mnist1d-mlp(wrong_labels=[0.1])", r"wrong_labels must be a share, .* got \[0.1\]"),
        (
            "mnist1d-mlp(features=rare)",
            r"features must be one of \['badly-scaled', 'raw', 'standardised'\], got 'rare'",
        ),
        ("mnist1d-mlp(features=[raw])", r"features must be one of .* got \['raw'\]"),
        ("names-transformer(features=raw)", r"has no option \['features'\]"),
        (
            "names-transformer(wrong_labels=0.1)",
            r"task names-transformer has no option \['wrong_labels'\]",
        ),
        (
            "saddle(examples=5)",
            r"task saddle has no option \['examples'\], got 'saddle\(examples=5\)'; it has \[\]",
        ),
        (
            "mnist1d-mlp(source=names)",
            "has no option .*it has .'examples', 'features', 'norm', 'wrong_labels'",
        ),
    ],
)
def test_options_that_a_task_cannot_have_are_refused_by_name(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        canonical(text)


def test_found_task_carries_its_options():
    task = find("mnist1d-mlp(examples=300, wrong_labels=0.2, features='badly-scaled', norm=batch)")
    assert (task.examples, task.wrong_labels, task.features, task.norm) == (
        300,
        0.2,
        "badly-scaled",
        "batch",
    )
    assert [type(layer).__name__ for layer in task.build()][:2] == ["Linear", "BatchNorm"]


# ---- fewer examples ------------------------------------------------------------------------------


def test_first_examples_are_the_first_and_standardised_by_themselves_alone(loaded):
    few = first_examples(loaded, 307)
    assert torch.equal(few.train, loaded.train[:, :307])
    for rows, mean, std in zip(few.train, few.mean, few.std, strict=True):
        features = (loaded.pool[rows].double() - mean) / std
        assert (
            features.mean(0).abs().max() < 1e-6
            and (features.std(0, correction=0) - 1).abs().max() < 1e-6
        )
    assert few.mean.dtype == few.std.dtype == torch.float32 and few.mean.shape == loaded.mean.shape
    assert not torch.allclose(few.mean, loaded.mean)


def test_first_examples_leave_validation_and_test_as_they_are(loaded):
    few = first_examples(loaded, 307)
    assert all(
        getattr(few, name) is getattr(loaded, name)
        for name in ("pool", "labels", "validation", "test")
    )


def test_all_examples_are_the_data_themselves(loaded):
    assert first_examples(loaded, 0) is first_examples(loaded, 4_000) is loaded


def test_one_scalar_for_all_pixels_stays_one():
    """Images are standardised by one mean and one deviation, whatever their number."""
    pool = torch.arange(7 * 6, dtype=torch.uint8).view(7, 2, 3)
    rows, one = torch.arange(5)[None], torch.ones(1, 1)
    made = data.TaskData(pool, torch.zeros(7).long(), rows, rows, rows[0], one, one, "")
    few = first_examples(made, 2)
    assert few.mean.tolist() == [[5.5]] and few.std.item() == pytest.approx(
        ((12**2 - 1) / 12) ** 0.5
    )


# ---- wrong labels --------------------------------------------------------------------------------


def test_wrong_labels_are_a_share_and_each_other_class_is_as_likely():
    right = torch.arange(10).repeat(5_003)
    found = wrong_labels(right, 0.3, seed=1)
    changed = found != right
    assert changed.double().mean().item() == pytest.approx(
        0.3, abs=4 * (0.3 * 0.7 / len(right)) ** 0.5
    )
    moved = ((found - right) % 10)[changed].bincount(minlength=10)
    assert moved[0] == 0  # never the right class
    expected = changed.sum().item() / 9
    chi_square = ((moved[1:] - expected) ** 2 / expected).sum().item()
    assert chi_square < 26.1  # the 0.999 quantile with 8 degrees of freedom
    assert found.min() == 0 and found.max() == 9


def test_no_share_leaves_every_label_and_one_seed_gives_the_same_labels():
    right = torch.arange(10).repeat(101)
    assert torch.equal(wrong_labels(right, 0.0, seed=1), right)
    assert torch.equal(wrong_labels(right, 0.2, seed=1), wrong_labels(right, 0.2, seed=1))
    assert not torch.equal(wrong_labels(right, 0.2, seed=1), wrong_labels(right, 0.2, seed=2))


def test_a_larger_share_keeps_the_labels_that_a_smaller_one_changed():
    right = torch.arange(10).repeat(101)
    few, many = (wrong_labels(right, share, seed=3) for share in (0.1, 0.4))
    assert torch.equal(many[few != right], few[few != right])


def test_wrong_labels_do_not_depend_on_companions():
    """Neither on the seeds beside, nor on their order, nor on fillers."""
    alone = trained([run(task=WRONG, seed=2, readouts=LAST, steps=5)])
    company = trained([run(task=WRONG, seed=seed, readouts=LAST, steps=5) for seed in (5, 2, 1)])
    padded = trained([run(task=WRONG, seed=2, readouts=LAST, steps=5)], width=3)
    seat = int(company.examples.lane[1])
    assert torch.equal(
        alone.examples.train_labels[0], company.examples.train_labels[seat]
    ) and torch.equal(alone.examples.train_labels[0], padded.examples.train_labels[0])
    assert not torch.equal(
        alone.examples.train_labels[0], company.examples.train_labels[int(company.examples.lane[0])]
    )
    assert (
        0.15
        < (alone.examples.train_labels[0] != alone.examples.labels[alone.data.train[0]])
        .double()
        .mean()
        < 0.25
    )


def test_only_the_training_loss_sees_wrong_labels():
    """The run is that of a plain loop on wrong labels; every evaluation, of training examples too,
    is by right ones.
    """
    changes = {"readouts": LAST, "test": True, "curve_points": 4}
    stack, plain = trained([run(task=WRONG, **changes)]), trained([run(**changes)])
    assert torch.equal(stack.examples.validation, plain.examples.validation)
    for rows in (stack.data.train[0], stack.data.validation[0], stack.data.test):
        assert torch.equal(stack.examples.labels[rows], plain.examples.labels[rows])
    rows = stack.data.train[0]
    x = ((stack.data.pool[rows] - stack.data.mean[0]) / stack.data.std[0]).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("mnist1d", 5, "weights"))
        model = find("mnist1d-mlp").build()
    order, one = stream_seed("mnist1d", 5, "order"), stack.first
    labels = wrong_labels(
        stack.examples.labels[rows], 0.2, stream_seed("mnist1d", 5, "wrong-labels")
    )
    states = train_alone(
        model, x, labels, one.optimizer, lambda t, m: one.lr, one.batch_size, one.steps, order
    )
    assert_replica_is(stack, 0, states)
    model.load_state_dict(states[-1])
    with torch.no_grad():
        right = torch.nn.functional.cross_entropy(
            model.eval()(x), stack.examples.labels[rows]
        ).item()
    found = stack.history.finals.query("split == 'train'").loss.item()
    assert found == pytest.approx(right, rel=1e-4)
    batch = next(epochs(4_000, one.batch_size, order))
    model.load_state_dict(states[0])
    with torch.no_grad():
        first = torch.nn.functional.cross_entropy(model.train()(x[batch]), labels[batch]).item()
    assert stack.training.losses[0].item() == pytest.approx(first, rel=1e-5)


def test_few_examples_train_as_a_plain_loop_on_them():
    one = run(task="mnist1d-mlp(examples=101)", readouts=LAST)
    stack, loaded = (
        trained([one, one.model_copy(update={"seed": 2})]),
        data.load("mnist1d", [5], DATA),
    )
    rows = loaded.train[0, :101]
    x = loaded.pool[rows]
    x = (x - x.double().mean(0).float()) / x.double().std(0, correction=0).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("mnist1d", 5, "weights"))
        model = find("mnist1d-mlp").build()
    order = stream_seed("mnist1d", 5, "order")
    states = train_alone(
        model,
        x,
        loaded.labels[rows],
        one.optimizer,
        lambda t, m: one.lr,
        one.batch_size,
        one.steps,
        order,
    )
    assert_replica_is(stack, 0, states)


# ---- features ------------------------------------------------------------------------------------


def test_badly_scaled_features_are_spread_over_two_decades_evenly_in_log():
    scaled = badly_scaled(torch.randn(50_021, 40, generator=torch.Generator().manual_seed(0)))
    deviations, means = scaled.std(0), scaled.mean(0)
    expected = 10 ** torch.linspace(-1, 1, 40)
    torch.testing.assert_close(deviations.sort().values, expected, rtol=0.02, atol=0)
    torch.testing.assert_close(means / deviations, torch.ones(40), rtol=0, atol=0.03)
    assert (deviations[1:].log10() - deviations[:-1].log10()).abs().min() > 0.2  # neighbours differ


@pytest.mark.parametrize("features", [1, 7, 14, 28, 40])
def test_badly_scaled_features_lose_none_whatever_their_number(features):
    scaled = badly_scaled(torch.zeros(features))
    torch.testing.assert_close(
        scaled.sort().values, (10 ** torch.linspace(-1, 1, features)).sort().values
    )


def test_badly_scaled_features_are_what_the_network_is_trained_and_evaluated_on():
    """A first layer that undoes the scaling gives the same outputs: W' = W/s, b' = b − Σ W."""
    one = run(task="mnist1d-mlp(features='badly-scaled')", readouts=LAST, steps=3)
    stack, x = trained([one]), torch.randn(11, 40, generator=torch.Generator().manual_seed(2))
    mean, std = torch.zeros(1, 40), torch.ones(1, 40)
    assert torch.equal(stack.task.inputs(x, mean, std), badly_scaled(x))
    torch.manual_seed(4)
    model = find("mnist1d-mlp").build()
    scales = badly_scaled(torch.zeros(40))
    with torch.no_grad():
        expected = model(x)
        model[0].bias -= model[0].weight.sum(1)
        model[0].weight /= scales
        torch.testing.assert_close(model(badly_scaled(x)), expected, rtol=1e-4, atol=1e-5)
    plain = trained([run(readouts=LAST, steps=3)])
    assert stack.training.losses[0].item() != pytest.approx(
        plain.training.losses[0].item(), rel=1e-3
    )


def test_raw_features_are_what_the_network_is_trained_and_evaluated_on():
    """A plain loop over the data as they are drawn gives the same weights and accuracy."""
    one = run(task="mnist1d-mlp(features=raw)", readouts=LAST, steps=3, lr=1e-3, test=True)
    stack = trained([one])
    loaded = data.load("mnist1d", [one.seed], DATA)
    order = stream_seed("mnist1d", one.seed, "order")
    model = initial_weights(one.task, one.seed)
    x, y = loaded.pool[loaded.train[0]], loaded.labels[loaded.train[0]]
    rate = lambda t, model: one.lr
    states = train_alone(model, x, y, one.optimizer, rate, one.batch_size, one.steps, order)
    assert_replica_is(stack, 0, states)
    model.load_state_dict({name: value.float() for name, value in states[-1].items()})
    with torch.no_grad():
        right = model(loaded.pool[loaded.test]).argmax(1) == loaded.labels[loaded.test]
    found = stack.history.finals.query("split == 'test'").accuracy.item()
    assert found == pytest.approx(right.double().mean().item(), abs=2e-4)


@pytest.mark.parametrize("features", ["raw", "standardised"])
def test_pixels_are_bytes_and_raw_ones_go_from_0_to_255(features):
    task, pixels = find(f"fashion-mnist-mlp(features={features})"), torch.arange(256).byte()
    inputs = task.inputs(pixels, torch.tensor(73.0), torch.tensor(90.0))
    moved = (pixels.double() - 73) / 90
    assert inputs.dtype == torch.float32
    assert inputs.tolist() == pytest.approx((pixels if features == "raw" else moved).tolist())
