"""Probes leave no trace in the training, nor neighbours in them; gradient noise has its known
value.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

from probed import LAST, advanced, noise_of, shift_of
from steadydescent.engine.probes import ALWAYS, PROBES, InternalShift, probe_of, quantities
from steadydescent.engine.probes.noise import SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import can_compile, numerics
from steadydescent.engine.tasks import find
from test_engine import run, trained

COSTLY = ("gradient-noise", "internal-shift")


def test_every_probe_goes_by_its_own_name_and_leaves_quantities_of_its_own():
    assert {name: probe.name for name, probe in PROBES.items()} == {name: name for name in PROBES}
    names = [quantity.name for quantity in quantities()]
    claims = [quantity.claim for quantity in quantities() if quantity.claim]
    assert len(set(names)) == len(names) > 10 and len(set(claims)) == len(claims) > 3
    assert {name for name in PROBES if PROBES[name].when == "few points"} == set(COSTLY)
    for probe in (*ALWAYS, *PROBES.values()):
        for quantity in probe.quantities:
            assert probe_of(quantity.name) == (None if probe in ALWAYS else probe.name)
    with pytest.raises(ValueError, match="one that a probe leaves, got 'warmth'; there are"):
        probe_of("warmth")


def test_every_probe_leaves_the_quantities_that_it_names_and_no_other():
    readouts = ("last", "at-50", "tail-50")
    one = run(readouts=readouts, test=True, probes=tuple(PROBES), curve_points=3)
    table = trained([one]).history.measures
    assert set(table.measure) == {quantity.name for quantity in quantities()}
    assert set(table[table.measure == "gradient-noise"].batch_size) == set(SIZES)
    assert table[table.measure != "gradient-noise"].batch_size.isna().all()


def test_gradient_noise_of_a_surface_falls_as_one_over_the_root_of_n_from_its_known_value():
    """On the noisy quadratic at its start, tr Σ = Σ 1/i and |G|² = Σ 1/i², i = 1 … 100."""
    base = {
        "task": "noisy-quadratic",
        "optimizer": "sgd",
        "schedule": "constant",
        "lr": 1e-6,
        "batch_size": 2,
    }
    stack = advanced([Run(**base, steps=9, seed=seed, readouts=LAST) for seed in range(100)], (1,))
    found, (trace, signal) = noise_of(stack), (sum(1 / i**k for i in range(1, 101)) for k in (1, 2))
    mean_square = []
    for n in SIZES:
        variance = found["gradient-noise", n] ** 2
        assert variance.mean().item() == pytest.approx(
            trace / n, abs=4 * variance.std().item() / 10
        ), n
        mean_square.append(variance.mean().item())
    slope = np.polyfit(np.log(SIZES), 0.5 * np.log(mean_square), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.02)
    for name, expected in (("noise-trace", trace), ("gradient-square", signal)):
        assert found[name].mean().item() == pytest.approx(
            expected, abs=4 * found[name].std().item() / 10
        ), name
    assert found["noise-trace"].mean() / found["gradient-square"].mean() == pytest.approx(
        trace / signal, rel=0.1
    )
    torch.testing.assert_close(
        found["noise-scale"], found["noise-trace"] / found["gradient-square"]
    )
    for weights in stack.training.carry.parameters:
        weights.zero_()  # at the minimum, G = 0
    found = noise_of(stack)
    for name, expected in (("noise-trace", trace), ("gradient-square", 0)):
        assert found[name].mean().item() == pytest.approx(
            expected, abs=4 * found[name].std().item() / 10
        ), name


def weights_of(stack: Stack, place: int) -> dict[str, torch.Tensor]:
    """The weights of one replica by their names."""
    mine = stack.training.carry.lanes(slice(place, place + 1)).parameters
    return dict(zip(stack.flat.parameters, mine, strict=True))


def test_gradient_noise_of_a_network_is_that_of_its_single_examples():
    """Σ from the gradients of all 4 000 examples one by one, in a loop; 16 minibatches of a size
    leave some error.
    """
    seeds = range(6)
    stack = advanced([run(seed=seed, readouts=LAST) for seed in seeds])
    found, traces, squares = noise_of(stack), [], []
    for place in seeds:
        model = find("mnist1d-mlp").build()
        model.load_state_dict(weights_of(stack, place))
        x = (
            stack.examples.pool[stack.data.train[place]] - stack.examples.mean[place]
        ) / stack.examples.std[place]
        y, total, square = stack.examples.labels[stack.data.train[place]], 0, 0
        for one in zip(x[:1_500], y[:1_500], strict=True):
            grads = torch.autograd.grad(
                cross_entropy(model(one[0]), one[1]), list(model.parameters())
            )
            square += sum(g.square().sum().item() for g in grads)
        whole = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        total = sum(g.square().sum().item() for g in whole)
        traces.append(square / 1_500 - total)
        squares.append(total)
    for n in SIZES:
        ratio = found["gradient-noise", n].square() * n / torch.tensor(traces)
        assert ratio.mean().item() == pytest.approx(1, abs=0.25), n
    assert (found["noise-trace"] / torch.tensor(traces)).mean().item() == pytest.approx(1, abs=0.15)
    assert (found["gradient-square"] / torch.tensor(squares)).mean().item() == pytest.approx(
        1, abs=0.25
    )


def test_probes_leave_no_trace_in_the_training():
    noisy = run(task="mnist1d-mlp(norm='noisy-batch')", batch_size=50, readouts=("last", "ema-30"))
    for one in (run(task="mnist1d-mlp(norm=batch)", readouts=LAST), noisy):
        quiet, state = advanced([one], (3, 8)), torch.get_rng_state()
        watched = advanced([one], (3, 8), (*COSTLY, "training-loss", "losses"))
        for ours, theirs in zip(
            tree_leaves(watched.training.carry), tree_leaves(quiet.training.carry), strict=True
        ):
            assert torch.equal(ours, theirs)
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(layer._forward_pre_hooks for layer in watched.flat.module.modules())


@pytest.mark.skipif(can_compile("cpu") is not None, reason=f"cannot compile: {can_compile('cpu')}")
def test_a_compiled_step_is_not_compiled_anew_after_probes():
    one = run(task="mnist1d-mlp(norm=batch)", batch_size=29, readouts=LAST)
    stack = advanced([one], (3,), COSTLY, compile=True)
    graphs = len(stack.step.graphs)
    with numerics(1), torch.no_grad():
        stack.training.advance(6)
    assert graphs == len(stack.step.graphs) > 0


def test_results_depend_on_neither_companions_nor_fillers_and_differ_between_steps():
    a, b, c = (run(lr=0.03, seed=seed, readouts=LAST) for seed in (5, 2, 9))
    many, few = advanced([a, b, c], (4, 6), COSTLY), advanced([c, a], (4, 6), COSTLY, lanes=3)
    for full, part in zip(many.readings, few.readings, strict=True):
        for name, values in full.items():
            torch.testing.assert_close(
                part[name][:2], values[[2, 0]], rtol=1e-3, atol=1e-7, msg=name
            )
            assert values.dtype == torch.float64 and values.shape == (3,) and part[name][2].isnan()
    seen = noise_of(many)["gradient-noise", 8]
    training = many.training
    training.done += 1
    training.survived += 1
    assert not torch.equal(seen, noise_of(many)["gradient-noise", 8])
    wild = advanced([a, run(lr=1e30, readouts=LAST)], (6,), COSTLY)
    for found in wild.readings:
        assert all(values[1].isnan() and values[0].isfinite() for values in found.values())


def test_sizes_that_batch_norm_does_not_take_are_left_out():
    finite = lambda norm: {
        n
        for n in SIZES
        if noise_of(advanced([run(task=task(norm), batch_size=50)]))["gradient-noise", n].isfinite()
    }
    task = lambda norm: f"mnist1d-mlp(norm={norm})"
    assert (
        finite("layer") == set(SIZES)
        and finite("batch") == set(SIZES) - {1}
        and not finite("ghost")
    )


def test_noise_in_the_layers_shows_in_the_shift_of_inputs_and_in_the_gradient():
    found = {}
    for norm in ("batch", "noisy-batch"):
        stack = advanced(
            [
                run(task=f"mnist1d-mlp(norm='{norm}')", seed=seed, lr=1e-4, readouts=LAST)
                for seed in range(4)
            ]
        )
        found[norm] = {**shift_of(stack), **noise_of(stack)}
    quiet, noisy = found["batch"], found["noisy-batch"]
    assert (noisy["input-shift"] > 100 * quiet["input-shift"]).all() and (
        noisy["gradient-shift"] < 0.1
    ).all()
    assert (noisy["gradient-noise", 256] > quiet["gradient-noise", 256]).all()


def test_wrong_labels_are_measured_as_they_are_trained_on():
    one = run(task="mnist1d-mlp(wrong_labels=0.5)", lr=0.1, batch_size=4_000, readouts=LAST)
    stack = advanced([one], (20,))
    seen = noise_of(stack)["gradient-square"].item()
    theta, x = (
        weights_of(stack, 0),
        stack.examples.pool[stack.data.train[0]],
    )
    model = find(one.task).build()
    model.load_state_dict(theta)
    square = {}
    for name, y in (
        ("wrong", stack.examples.train_labels[0]),
        ("right", stack.examples.labels[stack.data.train[0]]),
    ):
        loss = cross_entropy(model((x - stack.examples.mean[0]) / stack.examples.std[0]), y)
        square[name] = sum(
            g.square().sum().item() for g in torch.autograd.grad(loss, list(model.parameters()))
        )
    assert abs(math.log(seen / square["wrong"])) < abs(math.log(seen / square["right"])) / 3


def test_rules_that_scale_weight_by_weight_are_refused():
    with pytest.raises(ValueError, match="which adam does not; leave it out, or use sgd"):
        InternalShift.check(run(optimizer="adam", lr=0.001, readouts=LAST))


@pytest.mark.parametrize("task", ["mnist1d-cnn(norm=batch)", "saddle"])
def test_probes_take_convolutions_and_surfaces(task):
    stack = advanced([run(task=task, lr=0.005, seed=seed, readouts=LAST) for seed in (5, 2)])
    found = {**shift_of(stack), **noise_of(stack)}
    layered = ("input-shift", "input-shift-drift", "gradient-shift", "gradient-cosine")
    for name, values in found.items():
        empty = name in layered if task == "saddle" else name == ("gradient-noise", 1)
        assert (values.isnan() if empty else values.isfinite()).all(), name
