"""The optimisers by torch's functions do what the rules say; where none fits, the rules do."""

import copy

import pytest
import torch
from torch import nn

from facade_training import FACADES, assert_same, every_facade, feed, parameters, walk
from steadydescent.optimizers import RULES, Adam, Momentum, Rule, RuleOptimizer, updates
from torch_twins import EXACT

BIT = {"rtol": 0, "atol": 0}


def assert_follows_its_rule(name, ours, steps=40, strided_grad=False, tolerance=EXACT, **hyper):
    optimizer, theta = FACADES[name]([ours], 0.03, **hyper), ours.detach().clone()
    state = RULES[name].init(theta)
    for step in range(1, steps + 1):
        feed([ours], step)
        if strided_grad:
            ours.grad = ours.grad.t().contiguous().t()
        grad = ours.grad.clone()
        optimizer.step()
        theta, state = RULES[name].update(theta, grad, state, step, 0.03, **hyper)
        assert_same([ours], [theta], **tolerance)
        assert torch.equal(ours.grad, grad)
    kept = optimizer.state[ours]
    assert kept["step"] == steps and set(kept) == {"step", *optimizer.state_names}
    assert_same([kept[key] for key in optimizer.state_names], state, **tolerance)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", FACADES)
def test_torchs_functions_take_their_rules_steps(name, weight_decay, threads, monkeypatch):
    """As one thread goes, by a fused kernel, and as several, which SGD's would wake for nothing."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(updates, "_by_rule", None)
    assert_follows_its_rule(name, *parameters(shapes=[(3, 11)]), weight_decay=weight_decay)


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_are_not_woken_for_small_tensors(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    params = [nn.Parameter(torch.zeros(size)) for size in (3, updates.GRAIN - 1, updates.GRAIN)]
    columns = [params, [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]]
    ways = {
        way: [p.numel() for p in alike[0]]
        for way, alike in updates._by_way(form("momentum"), columns)
    }
    little, large = [3, updates.GRAIN - 1], [updates.GRAIN]
    assert ways == (
        {"fused": little + large} if threads == 1 else {"foreach": little, "fused": large}
    )


def form(name):
    return updates._form(RULES[name].update, 0.1, {})


@pytest.mark.parametrize("name", FACADES)
def test_tensors_that_lie_otherwise_in_memory_take_their_rules_steps(name):
    """A kernel would pair their elements in the order of memory."""
    (plain,) = parameters(shapes=[(11, 3)])
    assert_follows_its_rule(name, nn.Parameter(plain.detach().t()), weight_decay=0.1)
    assert_follows_its_rule(name, plain, strided_grad=True, weight_decay=0.1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("momentum", "mu"),
        ("nesterov", "mu"),
        *((name, "beta") for name in FACADES if "beta" in RULES[name].hyper),
    ],
)
def test_without_memory_the_state_is_that_of_the_rule(name, memory, threads, monkeypatch):
    """torch's SGD would leave it as it was, which shows as soon as the memory is raised."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    (ours,) = parameters(shapes=[(3, 11)])
    assert_follows_its_rule(name, ours, **{memory: 0.0})
    assert_follows_its_rule(name, ours, weight_decay=0.1, **{memory: 0.0})
    assert_follows_its_rule(name, nn.Parameter(ours.detach().t()), **{memory: 0.0})


@every_facade
def test_the_default_device_need_not_be_that_of_the_weights(facade):
    for size in (5, updates.GRAIN + 1):
        one, other = parameters(torch.float32, [(size,)]), parameters(torch.float32, [(size,)])
        with torch.device("meta"):
            optimizer = facade(one, 0.1)
        plain = facade(other, 0.1)
        for step in range(3):
            feed(one, step)
            feed(other, step)
            with torch.device("meta"):
                optimizer.step()
            plain.step()
        assert_same(one, other)


@every_facade
def test_autograd_sees_the_update(facade):
    """A backward pass through weights that have changed since is refused.

    After torch's fused step it would run.
    """
    params = parameters()
    loss = (params[0] ** 2).sum()
    walk(facade(params, 0.1), params, [0])
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


@every_facade
def test_a_loaded_state_is_a_copy(facade):
    """Updates are in place: two that go on from one state would move each other's."""
    ours, theirs = parameters(), parameters()
    optimizer, other = facade(ours, 0.1), facade(theirs, 0.1)
    walk(other, theirs, range(3))
    state = copy.deepcopy(other.state_dict())
    optimizer.load_state_dict(other.state_dict())
    walk(optimizer, ours, range(5))
    for number, kept in state["state"].items():
        now = other.state[theirs[number]]
        assert_same(
            [kept[name] for name in other.state_names], [now[name] for name in other.state_names]
        )


def test_parameters_of_several_dtypes_and_steps_share_a_group():
    mixed = [*parameters(torch.float64), *parameters(torch.float32), *parameters(torch.bfloat16)]
    alone = [nn.Parameter(param.detach().clone()) for param in mixed]
    together, apart = Adam(mixed, 0.01), [Adam([param], 0.01) for param in alone]
    for step in range(7):
        feed(mixed, step)
        feed(alone, step)
        late = 2 * (step % 3)
        mixed[late].grad = alone[late].grad = None
        together.step()
        for optimizer in apart:
            optimizer.step()
        assert_same(mixed, alone)
    assert [together.state[param]["step"] for param in mixed] == [4, 7, 5, 7, 5, 7]


def test_a_rate_or_a_memory_that_torchs_functions_do_not_take_is_left_to_the_rule():
    assert form("momentum") is not None
    assert (
        updates._form(Momentum.rule.update, torch.tensor(0.1, device="meta"), {"mu": 0.9}) is None
    )
    assert updates._form(lambda theta: theta, 0.1, {}) is None


def test_a_rule_of_ones_own_is_computed_as_it_is():
    def signs(theta, grad, state, step, lr, weight_decay=0.0):
        return theta - lr * grad.sign() / step, (state[0] + 1,)

    class Signs(RuleOptimizer):
        rule = Rule(lambda theta: (torch.zeros_like(theta),), signs, {"weight_decay": 0.0})
        state_names = ("count",)

    param = nn.Parameter(torch.zeros(3))
    optimizer = Signs([param], 1.0)
    walk(optimizer, [param], range(1))
    param.grad = torch.ones(3)
    optimizer.step()
    assert (
        optimizer.state[param]["count"].tolist() == [2.0] * 3
        and optimizer.state[param]["step"] == 2
    )
    other = Signs([param], 1.0)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[param]["step"] == 2
