"""Internal shift against closed forms and plain loops with hooks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from probed import LAST, advanced, half_square, lonely, readings, shift_of
from steadydescent.engine.probes import InternalShift
from steadydescent.engine.tasks import find
from steadydescent.normalization import BatchNorm
from test_engine import run


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
    found = {
        name: value.item()
        for name, value in readings(
            InternalShift(), lonely(module, x, a * x, half_square, rate)
        ).items()
    }

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
    still, single = (
        readings(InternalShift(), lonely(deep, x, y, cross_entropy, 0.0)),
        readings(InternalShift(), lonely(flat, x, y, cross_entropy, 0.1)),
    )
    assert still["gradient-cosine"].item() == pytest.approx(1)
    for name in ("input-shift", "gradient-shift", "loss-variation", "gradient-predictiveness"):
        assert still[name].item() == 0
    assert all(
        single[name].isnan() for name in ("input-shift", "gradient-shift", "gradient-cosine")
    )
    assert single["loss-variation"] > 0 and single["gradient-predictiveness"] > 0


def test_batch_norm_lets_layer_inputs_shift_by_its_bias_alone_however_far_the_weights_below_move():
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
    found = readings(InternalShift(), lonely(module, x, y, cross_entropy, rate))[
        "input-shift"
    ].item()
    assert found == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_internal_shift_is_what_a_plain_loop_with_hooks_finds(norm):
    """A batch of all training examples, so that the draw does not matter; heavy-ball's step is
    α/(1−μ).
    """
    task = f"mnist1d-mlp(norm={norm})"
    stack = advanced(
        [run(task=task, lr=0.02, seed=seed, batch_size=4_000, readouts=LAST) for seed in (5, 2)],
        (1, 4),
    )
    found, rate = shift_of(stack), 0.02 / (1 - 0.9)
    for place, seat in enumerate(stack.examples.lane.tolist()):
        model = find(task).build()
        model.load_state_dict(
            stack.flat.named(stack.view.theta[place], stack.flat.parameters),
            strict=False,
        )
        rows = stack.data.train[seat]
        x, y = (
            (stack.examples.pool[rows] - stack.examples.mean[place]) / stack.examples.std[place],
            stack.examples.labels[rows],
        )
        for name, expected in hooked(model, x, y, rate).items():
            assert found[name][place].item() == pytest.approx(expected, rel=2e-3), name


def hooked(model: nn.Module, x, y, rate: float) -> dict[str, float]:
    """The measures by torch's optimiser and deep copies; x and y are the whole batch, the first 1
    000 are looked at.
    """
    few, labels, linear = (
        x[:1_000],
        y[:1_000],
        [name for name, m in model.named_modules() if isinstance(m, nn.Linear)],
    )

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
            model.get_submodule(name).register_forward_hook(
                lambda m, i, o, name=name: seen.update({name: i[0]})
            )
            for name in linear[1:]
        ]
        model.train()(few)
        [hook.remove() for hook in hooks]
        return {
            name: (values.mean(0), values.std(0, correction=0)) for name, values in seen.items()
        }

    order = [name for name, _ in model.named_parameters()]
    now, after = moments(model), moments(moved(gradient(model, x, y)[1], rate, order))
    shifts = [
        ((now[n][0] - after[n][0]).abs() / now[n][1])[now[n][1] > 0].mean().item() for n in now
    ]
    _, g = gradient(model, few, labels)
    changes = []
    for name in linear[1:]:
        below = order[: order.index(f"{name}.weight")]
        _, other = gradient(moved(g, rate, below), few, labels)
        one, two = g[f"{name}.weight"], other[f"{name}.weight"]
        changes.append(
            (
                ((one - two).norm() / one.norm()).item(),
                ((one * two).sum() / one.norm() / two.norm()).item(),
            )
        )
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
    looked_twice, once = (
        advanced([one], (2, 9), ["internal-shift"]),
        advanced([one], (9,), ["internal-shift"]),
    )
    first, second = (found["input-shift-drift"].item() for found in looked_twice.readings)
    since_start = once.readings[0]["input-shift-drift"].item()
    assert 0 < first < since_start <= first + second * 1.2 and second < since_start
    assert shift_of(once)["input-shift-drift"].item() == 0


def test_conventions_of_momentum_that_train_alike_measure_alike():
    heavy = shift_of(advanced([run(lr=0.02, readouts=LAST)]))
    averaged = shift_of(advanced([run(optimizer="averaged-momentum", lr=0.2, readouts=LAST)]))
    for name, values in heavy.items():
        torch.testing.assert_close(values, averaged[name], rtol=2e-3, atol=0, msg=name)
