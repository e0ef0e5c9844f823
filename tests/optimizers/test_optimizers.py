"""Update rules against torch's own classes, step by step over hundreds of steps with odd shapes.

Reductions; slips.
"""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steadydescent.optimizers.rules import (
    RULES,
    adam,
    adamw,
    averaged_momentum,
    corrected_momentum,
    nesterov,
    rmsprop,
    sgd,
)
from torch_twins import CASES, EXACT, TWINS

STEPS, SHAPE = 307, (3, 11)


def gradients(steps=STEPS, shape=SHAPE):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, *shape, generator=generator, dtype=torch.float64)


def follow(name, lr=0.01, grads=None, **hyper):
    """Weights after each update, from ones."""
    grads = gradients() if grads is None else grads
    theta = torch.ones_like(grads[0])
    state, path = RULES[name].init(theta), []
    for step, grad in enumerate(grads, start=1):
        theta, state = RULES[name].update(theta, grad, state, torch.tensor(step), lr, **hyper)
        path.append(theta)
    return torch.stack(path)


def follow_twin(optimizer, theta):
    path = []
    for grad in gradients():
        theta.grad = grad.clone()
        optimizer.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_rule_equals_torchs_optimizer_at_every_step(name, hyper):
    theta = torch.nn.Parameter(torch.ones(SHAPE, dtype=torch.float64))
    twin = TWINS[name]([theta], 0.01, **RULES[name].checked(**hyper))
    ours = follow(name, torch.tensor(0.01, dtype=torch.float64), **hyper)
    torch.testing.assert_close(ours, follow_twin(twin, theta), **EXACT)


def test_defaults_are_those_of_torch_and_of_the_papers():

    def read(optimizer):
        return {key: p.default for key, p in inspect.signature(optimizer).parameters.items()}

    for name, twin in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        ours, theirs = RULES[name].hyper, read(twin)
        assert (ours["beta1"], ours["beta2"]) == theirs["betas"] == (0.9, 0.999)
        assert (ours["eps"], ours["weight_decay"]) == (theirs["eps"], theirs["weight_decay"])
    ours, theirs = RULES["rmsprop"].hyper, read(torch.optim.RMSprop)
    assert (ours["beta"], ours["eps"]) == (theirs["alpha"], theirs["eps"])


# Laws of every rule


@pytest.mark.parametrize("name", sorted(RULES))
def test_each_replica_follows_its_own_rate(name):
    lr = torch.tensor([[0.1], [0.01], [0.001]], dtype=torch.float64)
    together = follow(name, lr)
    for r in range(3):
        torch.testing.assert_close(together[:, r], follow(name, lr[r])[:, r])


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in sorted(RULES) for key in RULES[name].hyper]
)
def test_each_replica_has_its_own_hyper_parameter(name, key):
    """One of them zero, where the logarithm in the bias correction is −∞."""
    values = [0.0, 0.9, 0.5] if key.startswith(("beta", "mu")) else [0.0, 1e-3, 0.2]
    together = follow(name, 0.01, **{key: torch.tensor(values, dtype=torch.float64)[:, None]})
    assert together.isfinite().all()
    for r, value in enumerate(values):
        torch.testing.assert_close(
            together[:, r], follow(name, 0.01, **{key: value})[:, r], **EXACT
        )


@pytest.mark.parametrize("name", sorted(RULES))
def test_mirrored_and_shuffled_gradients_give_mirrored_and_shuffled_steps(name):
    """A rule is odd (but for the start) and elementwise, to the last bit."""
    grads = gradients(41, (13,))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(5))
    moved = follow(name, grads=grads)
    torch.testing.assert_close(follow(name, grads=grads[:, order]), moved[:, order], rtol=0, atol=0)
    theta = torch.zeros(13, dtype=torch.float64)
    state = RULES[name].init(theta)
    there, _ = RULES[name].update(theta, grads[0], state, 1, 0.1)
    back, _ = RULES[name].update(theta, -grads[0], state, 1, 0.1)
    assert torch.equal(there, -back) and there.abs().min() > 0


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_changes_none_of_its_inputs(name):
    theta, grad = torch.ones(5), torch.full((5,), 2.0)
    state = tuple(tensor + 3 for tensor in RULES[name].init(theta))
    copies = [tensor.clone() for tensor in (theta, grad, *state)]
    RULES[name].update(theta, grad, state, 7, 0.1)
    assert all(torch.equal(a, b) for a, b in zip((theta, grad, *state), copies, strict=True))


# Reductions


def test_averaged_momentum_with_ten_times_the_rate_is_heavy_ball():
    """uit-slides average the gradient, v ← β·v + (1−β)·g.

    At the rate α/(1−β) that is torch's heavy ball.
    """
    torch.testing.assert_close(follow("averaged-momentum", 0.1), follow("momentum", 0.01), **EXACT)


def test_averaged_momentum_from_the_first_gradient_is_torchs_dampened_momentum():
    """torch starts from v₁ = g₁: the average of a start v₀ = g₁.

    From zero, ours is behind by β^t·g₁ at every step.
    """
    grads, theta = gradients(), torch.nn.Parameter(torch.ones(SHAPE, dtype=torch.float64))
    twin = torch.optim.SGD([theta], 0.01, momentum=0.9, dampening=0.9)
    ours = torch.ones(SHAPE, dtype=torch.float64)
    warm = (grads[0],)
    cold = RULES["averaged-momentum"].init(theta)
    for step, grad in enumerate(grads, start=1):
        theta.grad = grad.clone()
        twin.step()
        ours, warm = averaged_momentum(ours, grad, warm, step, 0.01)
        _, cold = averaged_momentum(ours, grad, cold, step, 0.01)
        torch.testing.assert_close(ours, theta.detach(), **EXACT)
        ahead = twin.state[theta]["momentum_buffer"] - cold[0]
        torch.testing.assert_close(ahead, 0.9**step * grads[0], **EXACT)


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("momentum", "mu"),
        ("nesterov", "mu"),
        ("averaged-momentum", "beta"),
        ("corrected-momentum", "beta"),
    ],
)
def test_momentum_without_memory_is_sgd(name, memory):
    assert torch.equal(follow(name, 0.03, **{memory: 0.0}), follow("sgd", 0.03))


def test_corrected_momentums_first_step_is_sgds_step():
    torch.testing.assert_close(
        follow("corrected-momentum", 0.03)[0], follow("sgd", 0.03)[0], rtol=1e-15, atol=1e-15
    )


def test_corrected_momentum_is_the_weighted_mean_of_all_gradients():
    """v_t/(1−β^t) = Σ β^(t−k)·g_k / Σ β^(t−k): weights that sum to one at every step."""
    grads, beta = gradients(53), 0.9
    path = torch.cat(
        [
            torch.ones(1, *SHAPE, dtype=torch.float64),
            follow("corrected-momentum", 1.0, grads, beta=beta),
        ]
    )
    for t in (1, 2, 17, 53):
        weights = torch.tensor([beta ** (t - k) for k in range(1, t + 1)], dtype=torch.float64)
        mean = torch.tensordot(weights / weights.sum(), grads[:t], dims=1)
        torch.testing.assert_close(path[t - 1] - path[t], mean, **EXACT)


def test_nesterov_is_the_look_ahead_form_seen_from_the_point_ahead():
    """v ← μ·v − α·∇f(θ + μ·v), θ ← θ + v (sutskever2013importance); ours holds θ + μ·v.

    On f = ½·Σ h·θ².
    """
    h, lr, mu = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64), 0.2, 0.9
    theta, velocity = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    ahead, state = theta, (velocity,)
    for step in range(1, STEPS + 1):
        velocity = mu * velocity - lr * h * (theta + mu * velocity)
        theta = theta + velocity
        ahead, state = nesterov(ahead, h * ahead, state, step, lr, mu)
        torch.testing.assert_close(ahead, theta + mu * velocity, **EXACT)


def test_adam_with_zero_beta1_is_bias_corrected_rmsprop():
    """θ ← θ − α·g/(√(s/(1−β^t)) + ε): RMSProp's step when its rate and ε are scaled by √(1−β^t)."""
    grads, theta = gradients(), torch.ones(SHAPE, dtype=torch.float64)
    state, path = RULES["rmsprop"].init(theta), []
    for step, grad in enumerate(grads, start=1):
        root = math.sqrt(1 - 0.97**step)
        theta, state = rmsprop(theta, grad, state, step, 0.01 * root, beta=0.97, eps=1e-3 * root)
        path.append(theta)
    torch.testing.assert_close(
        follow("adam", 0.01, beta1=0.0, beta2=0.97, eps=1e-3), torch.stack(path), **EXACT
    )


def test_adamw_without_weight_decay_is_adam():
    assert torch.equal(follow("adamw", 0.03, weight_decay=0.0), follow("adam", 0.03))


def test_weight_decay_is_the_gradient_of_the_l2_term_in_all_but_adamw():
    """λ/2·‖θ‖² has the gradient λ·θ.

    AdamW's first step shrinks the weights by α·λ whatever the gradient's size.
    """
    theta, grad = torch.full((7,), 5.0, dtype=torch.float64), gradients(1, (7,))[0]
    for name in sorted(set(RULES) - {"adamw"}):
        state = RULES[name].init(theta)
        decayed, _ = RULES[name].update(theta, grad, state, 1, 0.1, weight_decay=0.3)
        by_hand, _ = RULES[name].update(theta, grad + 0.3 * theta, state, 1, 0.1)
        torch.testing.assert_close(decayed, by_hand, **EXACT)
    zeros = (torch.zeros(7), torch.zeros(7))
    shrunk, _ = adamw(theta, grad, zeros, 1, 0.1, weight_decay=0.3)
    torch.testing.assert_close(shrunk, adam(theta, grad, zeros, 1, 0.1)[0] - 0.03 * theta, **EXACT)


def test_adams_first_step_is_the_rate_whatever_the_gradients_size():
    """Bias correction makes the first update α·g/(|g| + ε)."""
    theta = torch.zeros(5, dtype=torch.float64)
    grad = torch.tensor([1e-3, -2.0, 40.0, -1e4, 7.0], dtype=torch.float64)
    moved, _ = adam(
        theta, grad, (theta, theta), torch.tensor(1), torch.tensor(0.1, dtype=torch.float64)
    )
    torch.testing.assert_close(moved, -0.1 * grad.sign(), rtol=1e-4, atol=1e-6)


@given(st.floats(-6, 6))
@settings(max_examples=20, deadline=None)
def test_adam_without_epsilon_does_not_feel_the_gradients_scale(exponent):
    grads = gradients(29)
    scaled = follow("adam", 0.01, 10**exponent * grads, eps=0.0)
    torch.testing.assert_close(scaled, follow("adam", 0.01, grads, eps=0.0), **EXACT)
    assert not torch.allclose(follow("sgd", 0.01, 11 * grads), follow("sgd", 0.01, grads))


@pytest.mark.parametrize("rate", [0.3, 1.0, 1.9, 2.1])
def test_full_batch_gradient_descent_on_a_quadratic_follows_the_closed_form(rate):
    """f = h/2·θ²: θ_t = (1−αh)^t·θ₀, which shrinks below the rate 2/h and grows above it."""
    h, theta = 0.7, torch.tensor([3.0], dtype=torch.float64)
    for step in range(1, 102):
        theta, _ = sgd(theta, h * theta, (), step, rate / h)
        torch.testing.assert_close(theta.item(), 3 * (1 - rate) ** step, rtol=1e-10, atol=1e-14)
    assert (abs(theta.item()) < 3) == (rate < 2)


# What the slides print, beside what is right


@pytest.mark.claim("momentum-correction-10-steps")
def test_corrected_momentum_is_54_percent_longer_after_ten_steps_and_1_percent_at_step_44():
    """Under a constant gradient the corrected step is 1/(1−β^t) times the other; β = 0.9."""
    grads = torch.ones(101, 1, dtype=torch.float64)
    start = torch.ones(1, 1, dtype=torch.float64)

    def steps(name):
        return torch.cat([start, follow(name, 1.0, grads, beta=0.9)]).diff(dim=0).flatten()

    ratio = steps("corrected-momentum") / steps("averaged-momentum")
    within = lambda share: 1 + next(i for i, x in enumerate(ratio.tolist()) if x <= 1 + share)
    assert ratio[9].item() == pytest.approx(1.535, abs=5e-4)
    assert (within(0.10), within(0.01)) == (23, 44)


@pytest.mark.slip(4)
def test_correction_by_one_minus_beta_to_the_t_is_unbiased_the_printed_square_only_at_step_two():
    """Under the constant gradient 1 a right average is 1 from the first step on."""
    theta = torch.zeros(1, dtype=torch.float64)
    state = (torch.zeros(1, dtype=torch.float64),)
    right = []
    printed = []
    for step in range(1, 102):
        before = theta
        theta, state = corrected_momentum(theta, torch.ones_like(theta), state, step, 1.0, beta=0.9)
        right.append((before - theta).item())
        printed.append(state[0].item() / (1 - 0.9**2))
    assert right == pytest.approx([1.0] * 101, rel=1e-12)
    assert printed[:3] == pytest.approx([0.526, 1.0, 1.426], abs=1e-3)
    assert printed[-1] == pytest.approx(1 / 0.19, rel=1e-4)  # for ever five times too long


def adam_with_epsilon_inside(theta, grads, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Adam as uit-slides print it: θ ← θ − α·m̂/√(ŝ + ε)."""
    mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
    for step, grad in enumerate(grads, start=1):
        mean = beta1 * mean + (1 - beta1) * grad
        square = beta2 * square + (1 - beta2) * grad**2
        theta = theta - lr * (mean / (1 - beta1**step)) / (square / (1 - beta2**step) + eps).sqrt()
    return theta


@pytest.mark.slip(5)
@pytest.mark.parametrize(
    ("size", "outside", "inside"),
    [
        (1e-8, 1 / 2, 1e-4),
        (1e-6, 1 / 1.01, 1e-2),
        (1e-4, 1 / 1.0001, 1 / math.sqrt(2)),
        (1.0, 1.0, 1.0),
    ],
)
def test_epsilon_inside_the_root_stops_gradients_that_epsilon_outside_lets_through(
    size, outside, inside
):
    """The first step over α: |g|/(|g| + ε) against |g|/√(g² + ε), ε = 1e-8.

    Half of it is left at ε and at √ε.
    """
    theta = torch.zeros(3, dtype=torch.float64)
    grads = torch.full((1, 3), size, dtype=torch.float64)
    ours, _ = adam(theta, grads[0], RULES["adam"].init(theta), 1, 1.0)
    assert (-ours).tolist() == pytest.approx([outside] * 3, rel=1e-4)
    assert (-adam_with_epsilon_inside(theta, grads, 1.0)).tolist() == pytest.approx(
        [inside] * 3, rel=1e-4
    )


@pytest.mark.slip(5)
def test_epsilon_inside_or_outside_is_the_same_to_single_precision_for_gradients_near_one():
    """They differ by ε/2 = 5e-9 of a step, less than float32 can hold (6e-8)."""
    grads = gradients().sign() * (1 + gradients().abs().clamp(max=1))
    ours = follow("adam", 0.01, grads)[-1]
    printed = adam_with_epsilon_inside(torch.ones(SHAPE, dtype=torch.float64), grads, 0.01)
    travelled = STEPS * 0.01
    assert 0 < (ours - printed).abs().max() < 6e-8 * travelled


@pytest.mark.slip(6)
def test_rmsprop_without_epsilon_divides_zero_by_zero_where_the_gradient_has_always_been_zero():
    grads = gradients(5, (7,))
    grads[:, 3] = 0
    bare, ours = follow("rmsprop", grads=grads, eps=0.0), follow("rmsprop", grads=grads)
    assert bare[:, 3].isnan().all() and ours[:, 3].eq(1).all()
    others = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(bare[:, others], ours[:, others], rtol=1e-6, atol=0)


# Refusals


@pytest.mark.parametrize(
    ("name", "hyper", "says"),
    [
        ("adam", {"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1.0"),
        ("adam", {"beta2": -0.1}, r"beta2 must be in \[0, 1\), got -0.1"),
        ("rmsprop", {"beta": math.nan}, r"beta must be in \[0, 1\), got nan"),
        ("momentum", {"mu": 1.5}, r"mu must be in \[0, 1\), got 1.5"),
        ("adam", {"eps": -1e-8}, "eps must be at least 0 and finite, got -1e-08"),
        ("sgd", {"weight_decay": math.inf}, "weight_decay must be at least 0 and finite, got inf"),
        ("sgd", {"weight_decay": math.nan}, "weight_decay must be at least 0 and finite, got nan"),
        ("adam", {"eps": "1e-3"}, "eps must be a number, got '1e-3'"),
        ("adam", {"beta1": (0.9, 0.999)}, r"beta1 must be a number, got \(0.9, 0.999\)"),
        ("momentum", {"mu": True}, "mu must be a number, got True"),
        (
            "sgd",
            {"mu": 0.9},
            r"unknown hyper-parameter 'mu' = 0.9; this rule has \['weight_decay'\]",
        ),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused_by_name(name, hyper, says):
    with pytest.raises(ValueError, match=says):
        RULES[name].checked(**hyper)


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_edges_of_the_ranges_are_allowed_and_the_rest_stays_at_its_default(name):
    edges = dict.fromkeys(RULES[name].hyper, 0)
    assert RULES[name].checked(**edges) == edges and RULES[name].checked() == RULES[name].hyper
