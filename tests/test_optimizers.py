"""Update rules against torch's own classes, step by step over hundreds of steps with odd shapes; reductions."""

import pytest
import torch

from steadydescent.optimizers.rules import RULES, adam, momentum

STEPS, SHAPE = 307, (3, 11)
PEERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "adam": lambda p, lr: torch.optim.Adam(p, lr, eps=1e-8),
}


def gradients():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(STEPS, *SHAPE, generator=generator, dtype=torch.float64)


def follow(update, init, lr):
    theta = torch.ones(SHAPE, dtype=torch.float64)
    state, path = init(theta), []
    for step, grad in enumerate(gradients(), start=1):
        theta, state = update(theta, grad, state, torch.tensor(step), lr)
        path.append(theta)
    return torch.stack(path)


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_equals_torchs_optimizer_at_every_step(name):
    lr = 0.01
    ours = follow(RULES[name].update, RULES[name].init, torch.tensor(lr, dtype=torch.float64))
    theta = torch.nn.Parameter(torch.ones(SHAPE, dtype=torch.float64))
    peer = PEERS[name]([theta], lr)
    for step, grad in enumerate(gradients()):
        theta.grad = grad.clone()
        peer.step()
        torch.testing.assert_close(ours[step], theta.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(RULES))
def test_each_replica_follows_its_own_rate(name):
    lr = torch.tensor([[0.1], [0.01], [0.001]], dtype=torch.float64)
    together = follow(RULES[name].update, RULES[name].init, lr)
    for r in range(3):
        torch.testing.assert_close(together[:, r], follow(RULES[name].update, RULES[name].init, lr[r])[:, r])


def test_averaged_momentum_with_ten_times_the_rate_is_heavy_ball():
    """uit-slides average the gradient, v ← β·v + (1−β)·g; at the rate α/(1−β) that is torch's heavy ball."""
    heavy = follow(lambda *a: momentum(*a, mu=0.9), RULES["momentum"].init, torch.tensor(0.01, dtype=torch.float64))
    theta, v = torch.ones(SHAPE, dtype=torch.float64), torch.zeros(SHAPE, dtype=torch.float64)
    for step, grad in enumerate(gradients()):
        v = 0.9 * v + 0.1 * grad
        theta = theta - 0.1 * v
        torch.testing.assert_close(heavy[step], theta, rtol=1e-10, atol=1e-10)


def test_momentum_without_memory_is_sgd():
    lr = torch.tensor(0.03, dtype=torch.float64)
    without = follow(lambda *a: momentum(*a, mu=0.0), RULES["momentum"].init, lr)
    assert torch.equal(without, follow(RULES["sgd"].update, RULES["sgd"].init, lr))


def test_adams_first_step_is_the_rate_whatever_the_gradients_size():
    """Bias correction makes the first update α·g/(|g| + ε)."""
    theta = torch.zeros(5, dtype=torch.float64)
    grad = torch.tensor([1e-3, -2.0, 40.0, -1e4, 7.0], dtype=torch.float64)
    moved, _ = adam(theta, grad, (theta, theta), torch.tensor(1), torch.tensor(0.1, dtype=torch.float64))
    torch.testing.assert_close(moved, -0.1 * grad.sign(), rtol=1e-4, atol=1e-6)
