"""Probes against closed forms and plain loops; they leave no trace in the training, nor neighbours in them."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy

from steadydescent import data
from steadydescent.engine import Stack
from steadydescent.normalization import BatchNorm
from steadydescent.paths import DATA
from steadydescent.probes import PROBES, SIZES, churn, predicted_classes
from steadydescent.runs import Run
from steadydescent.stepping import Flat, can_compile, numerics
from steadydescent.tasks import Task, find
from steadydescent.weight_averaging import Readout
from test_engine import run

LAST = ("last",)
SHIFT, NOISE = PROBES["internal-shift"], PROBES["gradient-noise"]


def advanced(runs: list[Run], stops=(4,), probes=(), **options) -> Stack:
    """A stack trained up to the last stop, looked at by probes at every stop; `found` keeps what they saw."""
    with numerics(1), torch.no_grad():
        stack = Stack(runs, DATA, **({"compile": False} | options))
        stack.done, stack.found = 0, []
        for stop in stops:
            stack.advance(stack.done, stop)
            stack.done = stop
            stack.found += [PROBES[probe](stack) for probe in probes]
    return stack


def lonely(module: nn.Module, x, y, loss, rate: float, optimizer: str = "sgd"):
    """The stack of one network, as far as probes look at it, on data of the test's own."""
    flat = Flat(module, len(x))
    theta, buffers = (part[None] for part in flat.pack(module))
    return Stub(
        task=Task("test", lambda: module, loss=loss, tokens=True),
        runs=[SimpleNamespace(seed=0)],
        wanted=[None],
        first=SimpleNamespace(optimizer=optimizer, batch_size=len(x)),
        carry=SimpleNamespace(theta=theta, buffers=buffers, survived=torch.tensor([1])),
        done=1,
        start=(theta, buffers),
        lane=torch.tensor([0]),
        data=SimpleNamespace(train=torch.arange(len(x))[None]),
        pool=x,
        labels=y,
        wrong=[],
        mean=torch.zeros(1, 1, 1),
        std=torch.ones(1, 1, 1),
        device="cpu",
        flat=flat,
        _rates=lambda start, stop: np.array([[rate]]),
    )


class Stub(SimpleNamespace):
    """Unlike a plain namespace, the same as itself alone, as a stack is."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def half_square(outputs, targets):
    return (outputs - targets).square().mean() / 2


def test_shift_of_a_linear_network_of_two_weights_is_its_closed_form():
    """f = v·u·x, L = ½(vu − a)²·mean x²: all of definition 2.1 and of the line by hand."""
    torch.manual_seed(3)
    u, v, a, rate = 0.7, -1.3, 0.4, 0.05
    x = torch.randn(997, 1, dtype=torch.float64) + 0.5
    power, mean, std = x.square().mean().item(), x.mean().item(), x.std(correction=0).item()
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.fill_(u)
        module[1].weight.fill_(v)
    found = {name: value.item() for name, value in SHIFT(lonely(module, x, a * x, half_square, rate)).items()}

    loss = lambda u, v: (v * u - a) ** 2 * power / 2
    slopes = lambda u, v: ((v * u - a) * v * power, (v * u - a) * u * power)
    du, dv = slopes(u, v)
    moved = u - rate * du
    after = slopes(moved, v)[1]
    line = [(u - c * rate * du, v - c * rate * dv) for c in np.linspace(0.5, 4, 8)]
    heights = [loss(*point) for point in line]
    assert found["input-shift"] == pytest.approx(abs(moved - u) * abs(mean) / (abs(u) * std))
    assert found["input-shift-drift"] == 0
    assert found["gradient-shift"] == pytest.approx(abs(dv - after) / abs(dv))
    assert found["gradient-cosine"] == pytest.approx(math.copysign(1, dv * after))
    assert found["loss-variation"] == pytest.approx(max(heights) - min(heights))
    changes = [math.dist(slopes(*point), (du, dv)) for point in line]
    assert found["gradient-predictiveness"] == pytest.approx(max(changes))


def test_nothing_shifts_without_a_rate_and_a_single_layer_has_nothing_below_it():
    x, y = torch.randn(53, 3, generator=torch.Generator().manual_seed(0)), torch.arange(53) % 2
    deep, flat = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), nn.Linear(3, 2)
    still, single = SHIFT(lonely(deep, x, y, cross_entropy, 0.0)), SHIFT(lonely(flat, x, y, cross_entropy, 0.1))
    assert still["gradient-cosine"].item() == pytest.approx(1)
    for name in ("input-shift", "gradient-shift", "loss-variation", "gradient-predictiveness"):
        assert still[name].item() == 0
    assert all(single[name].isnan() for name in ("input-shift", "gradient-shift", "gradient-cosine"))
    assert single["loss-variation"] > 0 and single["gradient-predictiveness"] > 0


def test_batch_norm_lets_layer_inputs_shift_by_its_own_bias_alone_however_far_the_weights_below_move():
    """Without a ReLU between, a unit's mean is β and its deviation |γ|·σ/√(σ² + ε)."""
    torch.manual_seed(1)
    rate, module = 0.3, nn.Sequential(nn.Linear(3, 5, bias=False), BatchNorm(5), nn.Linear(5, 2))
    with torch.no_grad():
        module[1].weight.uniform_(0.5, 2)
        module[1].bias.uniform_(-1, 1)
    x, y = torch.randn(101, 3), torch.arange(101) % 2
    cross_entropy(module.train()(x), y).backward()
    var = module[0](x).detach().var(0, correction=0)
    std = module[1].weight.detach().abs() * (var / (var + module[1].eps)).sqrt()
    expected = (rate * module[1].bias.grad.abs() / std).mean()
    assert module[0].weight.grad.norm() > 0.01
    found = SHIFT(lonely(module, x, y, cross_entropy, rate))["input-shift"].item()
    assert found == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_internal_shift_is_what_a_plain_loop_with_hooks_finds(norm):
    """A batch of all training examples, so that the draw does not matter; heavy-ball's step is α/(1−μ)."""
    task = f"mnist1d-mlp(norm={norm})"
    stack = advanced([run(task=task, lr=0.02, seed=seed, batch_size=4_000, readouts=LAST) for seed in (5, 2)], (1, 4))
    found, rate = SHIFT(stack), 0.02 / (1 - 0.9)
    for place, seat in enumerate(stack.lane.tolist()):
        model = find(task).build()
        model.load_state_dict(stack.flat._unpack(stack.carry.theta[place], stack.flat.parameters), strict=False)
        rows = stack.data.train[seat]
        x, y = (stack.pool[rows] - stack.mean[place]) / stack.std[place], stack.labels[rows]
        for name, expected in hooked(model, x, y, rate).items():
            assert found[name][place].item() == pytest.approx(expected, rel=2e-3), name


def hooked(model: nn.Module, x, y, rate: float) -> dict[str, float]:
    """The measures by torch's optimiser and deep copies; x and y are the whole batch, the first 1 000 are looked at."""
    few, labels, linear = x[:1_000], y[:1_000], [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]

    def gradient(model, x, y):
        model.zero_grad()
        loss = cross_entropy(model.train()(x), y)
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}

    def moved(gradients, step, names):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                if name in names:
                    parameter -= step * gradients[name]
        return other

    def moments(model):
        seen = {}
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: i[0]}))
            for name in linear[1:]
        ]
        model.train()(few)
        [hook.remove() for hook in hooks]
        return {name: (values.mean(0), values.std(0, correction=0)) for name, values in seen.items()}

    order = [name for name, _ in model.named_parameters()]
    now, after = moments(model), moments(moved(gradient(model, x, y)[1], rate, order))
    shifts = [((now[n][0] - after[n][0]).abs() / now[n][1])[now[n][1] > 0].mean().item() for n in now]
    _, g = gradient(model, few, labels)
    changes = []
    for name in linear[1:]:
        below = order[: order.index(f"{name}.weight")]
        _, other = gradient(moved(g, rate, below), few, labels)
        one, two = g[f"{name}.weight"], other[f"{name}.weight"]
        changes.append((((one - two).norm() / one.norm()).item(), ((one * two).sum() / one.norm() / two.norm()).item()))
    line = [gradient(moved(g, c * rate, order), few, labels) for c in np.linspace(0.5, 4, 8)]
    apart = [math.sqrt(sum((h[n] - g[n]).square().sum().item() for n in order)) for _, h in line]
    heights = [loss for loss, _ in line]
    return {
        "input-shift": np.mean(shifts),
        "gradient-shift": np.mean([change for change, _ in changes]),
        "gradient-cosine": np.mean([cosine for _, cosine in changes]),
        "loss-variation": max(heights) - min(heights),
        "gradient-predictiveness": max(apart),
    }


def test_drift_is_the_shift_from_the_last_look_or_the_start():
    one = run(readouts=LAST, lr=0.05)
    looked_twice, once = advanced([one], (2, 9), ["internal-shift"]), advanced([one], (9,), ["internal-shift"])
    first, second = (found["input-shift-drift"].item() for found in looked_twice.found)
    since_start = once.found[0]["input-shift-drift"].item()
    assert 0 < first < since_start <= first + second * 1.2 and second < since_start
    assert SHIFT(once)["input-shift-drift"].item() == 0


def test_conventions_of_momentum_that_train_alike_measure_alike():
    heavy = SHIFT(advanced([run(lr=0.02, readouts=LAST)]))
    averaged = SHIFT(advanced([run(optimizer="averaged-momentum", lr=0.2, readouts=LAST)]))
    for name, values in heavy.items():
        torch.testing.assert_close(values, averaged[name], rtol=2e-3, atol=0, msg=name)


def test_gradient_noise_of_a_surface_falls_as_one_over_the_root_of_n_from_its_known_value():
    """On the noisy quadratic at its start, tr Σ = Σ 1/i and |G|² = Σ 1/i², i = 1 … 100."""
    base = {"task": "noisy-quadratic", "optimizer": "sgd", "schedule": "constant", "lr": 1e-6, "batch_size": 2}
    stack = advanced([Run(**base, steps=9, seed=seed, readouts=LAST) for seed in range(100)], (1,))
    found, (trace, signal) = NOISE(stack), (sum(1 / i**k for i in range(1, 101)) for k in (1, 2))
    mean_square = []
    for n in SIZES:
        variance = found[f"gradient-noise/{n}"] ** 2
        assert variance.mean().item() == pytest.approx(trace / n, abs=4 * variance.std().item() / 10), n
        mean_square.append(variance.mean().item())
    slope = np.polyfit(np.log(SIZES), 0.5 * np.log(mean_square), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.02)
    for name, expected in (("noise-trace", trace), ("gradient-square", signal)):
        assert found[name].mean().item() == pytest.approx(expected, abs=4 * found[name].std().item() / 10), name
    assert found["noise-trace"].mean() / found["gradient-square"].mean() == pytest.approx(trace / signal, rel=0.1)
    torch.testing.assert_close(found["noise-scale"], found["noise-trace"] / found["gradient-square"])
    stack.carry = stack.carry._replace(theta=torch.zeros_like(stack.carry.theta))  # at the minimum, G = 0
    found = NOISE(stack)
    for name, expected in (("noise-trace", trace), ("gradient-square", 0)):
        assert found[name].mean().item() == pytest.approx(expected, abs=4 * found[name].std().item() / 10), name


def test_gradient_noise_of_a_network_is_that_of_its_single_examples():
    """Σ from the gradients of all 4 000 examples one by one, in a loop; 16 minibatches of a size leave some error."""
    seeds = range(6)
    stack = advanced([run(seed=seed, readouts=LAST) for seed in seeds])
    found, traces, squares = NOISE(stack), [], []
    for place in seeds:
        model = find("mnist1d-mlp").build()
        model.load_state_dict(stack.flat._unpack(stack.carry.theta[place], stack.flat.parameters))
        x = (stack.pool[stack.data.train[place]] - stack.mean[place]) / stack.std[place]
        y, total, square = stack.labels[stack.data.train[place]], 0, 0
        for one in zip(x[:1_500], y[:1_500], strict=True):
            grads = torch.autograd.grad(cross_entropy(model(one[0]), one[1]), list(model.parameters()))
            square += sum(g.square().sum().item() for g in grads)
        whole = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        total = sum(g.square().sum().item() for g in whole)
        traces.append(square / 1_500 - total)
        squares.append(total)
    for n in SIZES:
        ratio = found[f"gradient-noise/{n}"].square() * n / torch.tensor(traces)
        assert ratio.mean().item() == pytest.approx(1, abs=0.25), n
    assert (found["noise-trace"] / torch.tensor(traces)).mean().item() == pytest.approx(1, abs=0.15)
    assert (found["gradient-square"] / torch.tensor(squares)).mean().item() == pytest.approx(1, abs=0.25)


def test_probes_leave_no_trace_in_the_training():
    noisy = run(task="mnist1d-mlp(norm='noisy-batch')", batch_size=50, readouts=("last", "ema-30"))
    for one in (run(task="mnist1d-mlp(norm=batch)", readouts=LAST), noisy):
        quiet, state = advanced([one], (3, 8)), torch.get_rng_state()
        watched = advanced([one], (3, 8), PROBES)
        for ours, theirs in zip(leaves(watched.carry), leaves(quiet.carry), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(layer._forward_pre_hooks for layer in watched.flat.module.modules())


def leaves(carry):
    return [leaf for part in carry for leaf in (part if isinstance(part, tuple) else (part,))]


@pytest.mark.skipif(can_compile("cpu") is not None, reason=f"cannot compile: {can_compile('cpu')}")
def test_a_compiled_step_is_not_compiled_anew_after_probes():
    one = run(task="mnist1d-mlp(norm=batch)", batch_size=29, readouts=LAST)
    stack = advanced([one], (3,), PROBES, compile=True)
    graphs = counters["stats"]["unique_graphs"]
    with numerics(1), torch.no_grad():
        stack.advance(3, 6)
    assert graphs == counters["stats"]["unique_graphs"] > 0


def test_results_depend_on_neither_companions_nor_fillers_and_differ_between_steps():
    a, b, c = (run(lr=0.03, seed=seed, readouts=LAST) for seed in (5, 2, 9))
    many, few = advanced([a, b, c], (4, 6), PROBES), advanced([c, a], (4, 6), PROBES, width=3)
    for full, part in zip(many.found, few.found, strict=True):
        for name, values in full.items():
            torch.testing.assert_close(part[name][:2], values[[2, 0]], rtol=1e-3, atol=1e-7, msg=name)
            assert values.dtype == torch.float64 and values.shape == (3,) and part[name][2].isnan()
    seen = NOISE(many)["gradient-noise/8"]
    many.done, many.carry = many.done + 1, many.carry._replace(survived=many.carry.survived + 1)
    assert not torch.equal(seen, NOISE(many)["gradient-noise/8"])
    wild = advanced([a, run(lr=1e30, readouts=LAST)], (6,), PROBES)
    for found in wild.found:
        assert all(values[1].isnan() and values[0].isfinite() for values in found.values())


def test_sizes_that_batch_norm_does_not_take_are_left_out():
    finite = lambda norm: {
        n for n in SIZES if NOISE(advanced([run(task=task(norm), batch_size=50)]))[f"gradient-noise/{n}"].isfinite()
    }
    task = lambda norm: f"mnist1d-mlp(norm={norm})"
    assert finite("layer") == set(SIZES) and finite("batch") == set(SIZES) - {1} and not finite("ghost")


def test_noise_in_the_layers_shows_in_the_shift_of_inputs_and_in_the_gradient():
    found = {}
    for norm in ("batch", "noisy-batch"):
        stack = advanced(
            [run(task=f"mnist1d-mlp(norm='{norm}')", seed=seed, lr=1e-4, readouts=LAST) for seed in range(4)]
        )
        found[norm] = {**SHIFT(stack), **NOISE(stack)}
    quiet, noisy = found["batch"], found["noisy-batch"]
    assert (noisy["input-shift"] > 100 * quiet["input-shift"]).all() and (noisy["gradient-shift"] < 0.1).all()
    assert (noisy["gradient-noise/256"] > quiet["gradient-noise/256"]).all()


def test_wrong_labels_are_measured_as_they_are_trained_on():
    one = run(task="mnist1d-mlp(wrong_labels=0.5)", lr=0.1, batch_size=4_000, readouts=LAST)
    stack = advanced([one], (20,))
    seen = NOISE(stack)["gradient-square"].item()
    theta, x = stack.flat._unpack(stack.carry.theta[0], stack.flat.parameters), stack.pool[stack.data.train[0]]
    model = find(one.task).build()
    model.load_state_dict(theta)
    square = {}
    for name, y in (("wrong", stack.wrong[0]), ("right", stack.labels[stack.data.train[0]])):
        loss = cross_entropy(model((x - stack.mean[0]) / stack.std[0]), y)
        square[name] = sum(g.square().sum().item() for g in torch.autograd.grad(loss, list(model.parameters())))
    assert abs(math.log(seen / square["wrong"])) < abs(math.log(seen / square["right"])) / 3


def test_rules_that_scale_weight_by_weight_are_refused():
    with pytest.raises(ValueError, match="adam does not; use sgd or a kind of momentum"):
        SHIFT(advanced([run(optimizer="adam", lr=0.001, readouts=LAST)]))


@pytest.mark.parametrize("task", ["mnist1d-cnn(norm=batch)", "saddle"])
def test_probes_take_convolutions_and_surfaces(task):
    stack = advanced([run(task=task, lr=0.005, seed=seed, readouts=LAST) for seed in (5, 2)])
    found = {**SHIFT(stack), **NOISE(stack)}
    layered = ("input-shift", "input-shift-drift", "gradient-shift", "gradient-cosine")
    for name, values in found.items():
        empty = name in layered if task == "saddle" else name == "gradient-noise/1"
        assert (values.isnan() if empty else values.isfinite()).all(), name


def test_accuracy_can_be_counted_from_predicted_classes():
    readouts = ("last", "ema-30")
    runs = [run(lr=lr, test=True, readouts=readouts, steps=300) for lr in (0.05, 1e30)]
    stack = advanced(runs, (300,))
    loaded = data.load("mnist1d", [5], DATA)
    for readout in stack.readouts:
        classes = predicted_classes(stack, readout, examples=20_000)
        right = np.frombuffer(classes[0], np.uint8) == loaded.labels[loaded.test].numpy()
        accuracy = stack.evaluate(readout, stack.look(stack.data.test.expand(2, -1))).accuracy[0]
        assert right.mean() == pytest.approx(accuracy) and accuracy > 0.3
        assert classes[1] == bytes([255]) * 20_000
        assert predicted_classes(stack, readout)[0] == classes[0][:1_000]


def test_a_sequence_gives_a_class_for_each_of_its_labels():
    stack = advanced([run(task="names-transformer", lr=0.001, batch_size=7, readouts=LAST)], (1,))
    labels = stack.labels[stack.data.test[:11]]
    assert len(predicted_classes(stack, Readout("last", "last"), 11)[0]) == (labels != -100).sum()


def test_classes_that_cannot_be_had_are_refused():
    network, surface = advanced([run(readouts=LAST)]), advanced([run(task="saddle", readouts=LAST)])
    with pytest.raises(ValueError, match="saddle is a surface, it predicts no classes"):
        predicted_classes(surface, surface.readouts[0])
    with pytest.raises(ValueError, match="at most the 20000 of the test set, got 20001"):
        predicted_classes(network, network.readouts[0], 20_001)


def test_churn_is_a_distance_between_networks_that_did_not_diverge():
    generator = np.random.default_rng(0)
    a, b, c = (generator.integers(3, size=997, dtype=np.uint8).tobytes() for _ in range(3))
    assert churn(a, a) == 0 and churn(a, b) == churn(b, a) and churn(a, c) <= churn(a, b) + churn(b, c)
    assert churn(a, b) == sum(one != other for one, other in zip(a, b, strict=True)) / 997
    lost = bytes([255]) * 997
    assert churn(lost, a) == churn(lost, lost) == 1
    for one, other in ((a, b[:-1]), (b"", b"")):
        with pytest.raises(ValueError, match="of the same examples, at least one"):
            churn(one, other)
