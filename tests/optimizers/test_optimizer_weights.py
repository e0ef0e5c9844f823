"""Every rule, dtype, size, layout and thread count against an fp64 loop.

No weight stays where it is in silence.
"""

import itertools

import pytest
import torch
from torch import nn

from facade_training import FACADES, assert_unchanged, every_facade, snapshot
from steadydescent.optimizers import RULES, updates
from torch_twins import TWINS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SIZES = [
    (),
    (0,),
    (1,),
    (7,),
    (8,),
    (15,),
    (16,),
    (17,),
    (31,),
    (32,),
    (33,),
    (4097,),
    (updates.GRAIN + 1,),
]
"""One below, at and above the blocks of vector units, and of what torch shares among threads."""
LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3).contiguous().transpose(0, 3),
    "permuted": lambda t: t.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
    "part of a larger one": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "a column": lambda t: torch.stack([t, t], -1)[..., 0],
    "offset": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
}
SLOPES = {
    "alike": lambda g, p: torch.empty_like(p).copy_(g),
    "contiguous": lambda g, p: g.contiguous(),
    "expanded": lambda g, p: g.flatten()[:1].expand(p.shape) if g.numel() else g,
    "strided": lambda g, p: torch.stack([g, g], -1)[..., 0],
    "negated lazily": lambda g, p: torch._neg_view(-g),
}
UNIT = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}


def gradient(shape, step, dtype):
    """Away from 0: in float16 the square of a small gradient is 0.

    No optimiser survives that which keeps it so.
    """
    drawn = numbers(shape, step, dtype)
    return drawn + drawn.sign() / 2


class Other(nn.Parameter):
    """A parameter of a class of one's own."""


def numbers(shape, seed, dtype):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def assert_moves_as_its_rule(
    name, param, give=lambda slope, param: slope, steps=3, lr=0.05, **hyper
):
    """Against the rule in fp64 from the same weights and gradients.

    They differ by a few roundings of the weights' dtype.
    """
    optimizer, theta = FACADES[name]([param], lr, **hyper), param.detach().double().clone()
    start, state, bound = theta.clone(), RULES[name].init(theta), torch.zeros_like(theta)
    for step in range(1, steps + 1):
        param.grad = give(gradient(param.shape, step, param.dtype).to(param.device), param)
        before, given = theta, param.grad.detach().double().clone()
        theta, state = RULES[name].update(theta, given, state, step, lr, **hyper)
        optimizer.step()
        bound += UNIT[param.dtype] * (before.abs() + 4 * (theta - before).abs() + 1e-3)
        assert torch.equal(param.grad.double(), given)
    assert ((param.detach().double() - theta).abs() <= bound).all()
    assert optimizer.state[param]["step"] == steps
    for kept in (optimizer.state[param][key] for key in optimizer.state_names):
        assert kept.dtype == param.dtype and kept.shape == param.shape
    return theta - start


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACADES)
def test_weights_of_every_size_move(name, dtype):
    for weight_decay, shape in itertools.product((0.0, 0.1), SIZES):
        param = nn.Parameter(numbers(shape, 0, dtype))
        assert_moves_as_its_rule(name, param, weight_decay=weight_decay)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACADES)
def test_weights_move_by_several_threads(name, dtype):
    for weight_decay, size in [(0.0, 33), (0.1, updates.GRAIN + 1)]:
        param = nn.Parameter(numbers((size,), 0, dtype))
        assert_moves_as_its_rule(name, param, weight_decay=weight_decay)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACADES)
def test_weights_and_gradients_of_every_layout_move(name, dtype):
    for (lay, put), (_, give), shape in itertools.product(
        LAYOUTS.items(), SLOPES.items(), [(4, 3, 5, 2), (1, 8, 1, 2), (2, 0, 3, 1)]
    ):
        param = nn.Parameter(put(numbers(shape, 0, dtype)))
        assert (
            lay == "contiguous"
            or 0 in shape
            or shape[0] == 1
            or lay == "offset"
            or not param.is_contiguous()
        )
        assert_moves_as_its_rule(name, param, give)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACADES)
def test_many_weights_of_all_kinds_in_one_group_move_as_each_does_alone(name, dtype):
    """Little and large, of several layouts and classes, with gradient or none, late and early."""

    def made():
        return [
            *(nn.Parameter(put(numbers((4, 3, 5, 2), 0, dtype))) for put in LAYOUTS.values()),
            Other(numbers((33,), 1, dtype)),
            nn.Parameter(numbers((updates.GRAIN + 3,), 2, dtype)),
            nn.Parameter(numbers((5,), 3, torch.float32)),
            *(nn.Parameter(numbers((9,), n, dtype)) for n in range(70)),
        ]

    together, alone = made(), made()
    optimizer = FACADES[name](together, 0.05)
    others = [FACADES[name]([param], 0.05) for param in alone]
    for step in range(4):
        for number, (one, other) in enumerate(zip(together, alone, strict=True)):
            slope = (
                None
                if (number + step) % 5 == 0
                else gradient(one.shape, 100 * step + number, one.dtype)
            )
            one.grad, other.grad = slope, slope
        optimizer.step()
        for other in others:
            other.step()
    for one, other, made_alone in zip(together, alone, others, strict=True):
        torch.testing.assert_close(one, other, rtol=UNIT[one.dtype], atol=UNIT[one.dtype])
        assert optimizer.state[one]["step"] == made_alone.state[other]["step"]
        assert not torch.equal(one, torch.zeros_like(one))


@pytest.mark.parametrize("name", FACADES)
def test_where_torch_is_right_half_precision_is_as_good_as_torchs_own(name):
    """After 20 steps the mean distance from fp64 is at most a little above torch's own class's."""
    for dtype in (torch.bfloat16, torch.float16):
        start = numbers((4097,), 0, dtype)
        ours, theirs, exact = (
            nn.Parameter(t) for t in (start.clone(), start.clone(), start.double())
        )
        hyper = dict(RULES[name].hyper)
        made = (
            FACADES[name]([ours], 0.01),
            TWINS[name]([theirs], 0.01, **hyper),
            TWINS[name]([exact], 0.01, **hyper),
        )
        for step in range(20):
            slope = gradient(start.shape, step, dtype)
            for param, optimizer in zip((ours, theirs, exact), made, strict=True):
                param.grad = slope.to(param.dtype)
                optimizer.step()
        off, torchs = ((param.double() - exact).abs().mean() for param in (ours, theirs))
        assert off <= 1.1 * torchs


def test_in_float16_a_gradient_whose_square_is_zero_does_not_make_weights_infinite():
    for name in ("rmsprop", "adam", "adamw"):
        for put in LAYOUTS.values():
            param = nn.Parameter(put(torch.ones(2, 3, 5, 2, dtype=torch.float16)))
            optimizer = FACADES[name]([param], 1e-3)
            param.grad = torch.zeros_like(param)
            optimizer.step()
            assert param.isfinite().all()


@every_facade
def test_a_parameter_class_of_ones_own_and_a_meta_parameter(facade):
    for param in (Other(torch.ones(33)), nn.Parameter(torch.ones(33, device="meta"))):
        optimizer = facade([param], 0.1)
        param.grad = torch.ones_like(param)
        optimizer.step()
        assert optimizer.state[param]["step"] == 1
        assert param.is_meta or (param < 1).all()


STRANGE = {
    "complex": (lambda: torch.ones(3, dtype=torch.complex64), "is complex"),
    "float8": (
        lambda: torch.ones(3).to(torch.float8_e4m3fn),
        "float8_e4m3fn, its gradient float8_e4m3fn: cast it",
    ),
    "float8 of the other kind": (lambda: torch.ones(3).to(torch.float8_e5m2), "float8_e5m2"),
    "expanded": (lambda: torch.ones(1).expand(3), "share memory: give it a clone"),
    "windows": (lambda: torch.ones(7).unfold(0, 3, 1), "share memory: give it a clone"),
}


@pytest.mark.parametrize(("make", "says"), STRANGE.values(), ids=STRANGE)
@every_facade
def test_weights_that_cannot_be_updated_are_refused_by_name_before_anything_changes(
    facade, make, says
):
    first, strange = nn.Parameter(torch.ones(5)), nn.Parameter(make())
    optimizer = facade([{"params": [first]}, {"params": [("head.weight", strange)][:1]}][:1], 0.1)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2)), strange]})
    first.grad, strange.grad = torch.ones(5), make().clone()
    before = snapshot(optimizer) if "float8" not in says else None
    with pytest.raises(ValueError, match=f"parameter 1 of group 1 .*{says}"):
        optimizer.step()
    assert not optimizer.state[first] and torch.equal(first, torch.ones(5))
    if before:
        optimizer.state.clear()
        assert_unchanged(optimizer, before)


def test_overlap_is_told_from_strides():
    base = torch.zeros(6, 8)
    apart = [
        base,
        base.t(),
        base[:, ::3],
        base[1::2, 2:5],
        torch.zeros(3, 0).expand(3, 0),
        torch.zeros(()),
        base[:1],
    ]
    shared = [
        base[:1].expand(2, 8),
        base.flatten().unfold(0, 3, 2),
        torch.as_strided(base, (2, 3), (1, 1)),
    ]
    assert [*map(updates.overlaps, apart)] == [False] * len(apart)
    assert [*map(updates.overlaps, shared)] == [True] * len(shared)


@every_facade
def test_a_step_that_raises_half_way_is_not_counted_where_it_was_not_made(facade, monkeypatch):
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    optimizer = facade([{"params": [param]} for param in params], 0.1)
    calls, real = [], updates.update_in_place

    def second_fails(*given):
        calls.append(given)
        if len(calls) == 2:
            raise MemoryError
        real(*given)

    monkeypatch.setattr("steadydescent.optimizers.rule_optimizer.update_in_place", second_fails)
    for param in params:
        param.grad = torch.ones(3)
    with pytest.raises(MemoryError):
        optimizer.step()
    assert [optimizer.state[param].get("step", 0) for param in params] == [1, 0]
    assert torch.equal(params[1], torch.ones(3)) and not torch.equal(params[0], params[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FACADES)
def test_weights_on_a_gpu_move(name, dtype):
    for shape in [*SIZES, (4, 3, 5, 2)]:
        for put in LAYOUTS.values() if len(shape) == 4 else [lambda t: t]:
            param = nn.Parameter(put(numbers(shape, 0, dtype).cuda()))
            assert_moves_as_its_rule(name, param)
