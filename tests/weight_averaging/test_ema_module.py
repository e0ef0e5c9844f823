"""EMA as a module: its copy, swapping, training left alone, resuming, and what it refuses."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from noisy_training import assert_close, assert_equal_bits, fill, network, state, train
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Ramped,
    Started,
    TailMean,
)

# The copy


def test_calling_the_ema_evaluates_the_averaged_weights():
    model = network()
    ema = EMA(model, 0.9)
    for _ in train(model, 13):
        ema.update(model)
    plain = network(seed=5)
    plain.load_state_dict(ema.module.state_dict())
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.equal(ema(x), plain.eval()(x))


def test_the_copy_stays_in_inference_and_asks_for_no_gradients():
    model = network()
    model[0].weight.requires_grad_(False)
    parent = nn.ModuleList([EMA(model, 0.9)]).train()
    ema = parent[0]
    assert not any(module.training for module in ema.modules())
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert model[3].weight.requires_grad and model.training


def test_frozen_weights_stay_what_they_are():
    model = network(dtype=torch.float32)
    model[0].requires_grad_(False)
    ema = EMA(model, 0.9)
    for _ in train(model, 31):
        ema.update(model)
    assert torch.equal(ema.module[0].weight, model[0].weight)
    assert not torch.equal(ema.module[3].weight, model[3].weight)


class Tied(nn.Module):
    """Input and output embedding are one tensor."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embed = nn.Embedding(7, 5, dtype=dtype)
        self.head = nn.Linear(5, 7, bias=False, dtype=dtype)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_stay_tied_and_are_averaged_once(dtype):
    model = Tied(dtype)
    fill(model, 1.0)
    ema = EMA(model, 0.75)
    fill(model, 5.0)
    ema.update(model)
    assert ema.module.head.weight is ema.module.embed.weight
    assert ema.module.head.weight.unique().item() == 2.0
    with ema.swapped(model):
        assert model.head.weight is model.embed.weight and model.embed.weight.unique().item() == 2.0
    assert model.head.weight.unique().item() == 5.0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_averaged_in_single_where_its_own_precision_would_stand_still(half):
    model = nn.Linear(3, 2).to(half)
    fill(model, 1.0)
    ours, own = EMA(model, 0.9999), EMA(model, 0.9999, dtype=half)
    fill(model, 1.5)
    for _ in range(1000):
        ours.update(model)
        own.update(model)
    assert ours.module.weight.dtype == torch.float32
    torch.testing.assert_close(
        ours.module.weight.mean().item(), 1.5 - 0.5 * 0.9999**1000, rtol=1e-4, atol=0
    )
    assert own.module.weight.unique().item() == 1.0  # 0.0001·0.5 is below its resolution at 1
    with ours.swapped(model):
        assert model.weight.dtype == half and torch.equal(model.weight, ours.module.weight.to(half))


def test_dtype_of_the_average_may_be_chosen_and_leaves_integers_alone():
    model = network(dtype=torch.float32)
    ema = EMA(model, 0.9, dtype=torch.float64)
    for _ in train(model, 5):
        ema.update(model)
    assert ema.module[1].running_var.dtype == ema.module[0].weight.dtype == torch.float64
    assert ema.module[1].num_batches_tracked.dtype == torch.int64
    assert EMA(network(), 0.9).module[0].weight.dtype == torch.float64


def test_complex_weights_are_averaged_with_their_imaginary_part():
    model = nn.Linear(3, 2, dtype=torch.complex64)
    fill(model, 1 + 1j)
    ema = EMA(model, 0.75, dtype=torch.float64)
    fill(model, 5 - 3j)
    ema.update(model)
    assert (
        torch.equal(ema.module.weight, torch.full((2, 3), 2 + 0j))
        and ema.module.weight.dtype == torch.complex64
    )


def test_device_is_where_the_average_is_kept():
    model = network()
    ema, plain = EMA(model, 0.9, device="cpu"), EMA(model, 0.9)
    for _ in train(model, 7):
        ema.update(model)
        plain.update(model)
    assert_equal_bits(state(ema), state(plain))
    with pytest.raises(
        ValueError, match=r"'0.weight' in the average is on the meta device and holds no values"
    ):
        EMA(model, 0.9, device="meta")


@pytest.mark.gpu
def test_average_on_the_cpu_of_a_model_on_the_gpu_equals_that_on_the_gpu():
    model = network().cuda()
    ours, there = EMA(model, 0.9, device="cpu"), EMA(model, 0.9)
    for _ in train(model, 31, device="cuda"):
        ours.update(model)
        there.update(model)
    assert {tensor.device.type for tensor in ours.parameters()} == {"cpu"}
    assert_close(state(ours.module), state(there.module.cpu()))
    before = state(model)
    with ours.swapped(model):
        assert model[0].weight.is_cuda and torch.equal(model[0].weight.cpu(), ours.module[0].weight)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_weights_that_are_not_finite_stay_in_the_average_until_it_forgets_all():
    model = nn.Linear(3, 2)
    ema, tail = EMA(model, 0.5), EMA(model, TailMean(3))
    fill(model, torch.inf)
    ema.update(model)
    tail.update(model)
    fill(model, 1.0)
    for _ in range(5):
        ema.update(model)
        tail.update(model)
    assert not ema.module.weight.isfinite().any()
    assert tail.module.weight.unique().item() == 1.0


# Swapping


@given(
    st.integers(1, 4),
    st.lists(st.floats(width=32), min_size=24, max_size=24),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_swapping_is_an_exact_involution(width, values, seed):
    """Bitwise for any weights: NaN, infinities and −0 included."""
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    ema = EMA(model, 0.9)
    with torch.no_grad():
        weights = torch.tensor(values, dtype=torch.float32)
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.copy_(weights[: tensor.numel()].view(tensor.shape))
    ema.update(network_like(model, seed))
    weights_before, average_before = state(model), state(ema)
    with ema.swapped(model):
        assert_equal_bits(state(model), state(ema.module))
    assert_equal_bits(state(model), weights_before)
    assert_equal_bits(state(ema), average_before)


def network_like(model, seed):
    other = deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(generator=generator)
    return other


def test_training_while_swapped_corrupts_neither_the_average_nor_the_kept_weights():
    model = network()
    ema = EMA(model, 0.9)
    for _ in train(model, 13):
        ema.update(model)
    weights, average = state(model), state(ema)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    with ema.swapped(model):
        list(train(model, 5))
        assert not torch.equal(model[0].weight, ema.module[0].weight)
        assert_equal_bits(state(ema), average)
    assert_equal_bits(state(model), weights)
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]


def test_weights_come_back_after_an_exception_and_the_average_can_be_swapped_in_again():
    model = network()
    ema = EMA(model, 0.9)
    list(train(model, 3))
    weights = state(model)
    with pytest.raises(ZeroDivisionError), ema.swapped(model):
        raise ZeroDivisionError
    assert_equal_bits(state(model), weights)
    with ema.swapped(model) as swapped:
        assert swapped is model
    assert_equal_bits(state(model), weights)


def test_a_buffer_that_the_module_replaced_while_swapped_comes_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.tensor(0.0))

        def forward(self, x):
            self.calls = self.calls + 1
            return x

    model = Counting()
    ema = EMA(model, 0.9)
    model(0)
    with ema.swapped(model):
        model(model(0))
        assert model.calls == 2
    assert model.calls == 1
    model(0)
    named = EMA(model, 0.9, average_buffers=["calls"])
    model(0)
    ema.update(model)
    named.update(model)
    assert ema.module.calls.item() == 3.0  # a count has no mean, unless somebody says so
    assert named.module.calls.item() == pytest.approx(2.1)


def test_nested_swapping_and_updating_while_swapped_are_refused_and_change_nothing():
    model = network()
    ema = EMA(model, 0.9)
    list(train(model, 3))
    weights, average = state(model), state(ema)
    with ema.swapped(model):
        with pytest.raises(RuntimeError, match="swapped into a model already"), ema.swapped(model):
            pass
        with pytest.raises(RuntimeError, match="mixed with itself"):
            ema.update(model)
        with pytest.raises(RuntimeError, match="mixed with itself"):
            ema.set(model)
        assert_equal_bits(state(model), state(ema.module))
    assert_equal_bits(state(model), weights)
    assert_equal_bits(state(ema), average)


def test_autograd_refuses_a_backward_pass_across_the_swap():
    """Its weights would be those of the other side; copying in place lets autograd see it."""
    model = network()
    ema = EMA(model, 0.9)
    loss = model(torch.ones(11, 7, dtype=torch.float64)).sum()
    with ema.swapped(model), pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


# Training is not touched; runs can be interrupted


@pytest.mark.claim("ema-smooths-training")
def test_training_is_bitwise_the_same_with_and_without_ema():
    """Only the readout differs: EMA steadies no step of training."""

    def trained(with_ema):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = nn.Sequential(
                nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 3)
            )
            ema, states = EMA(model, 0.9) if with_ema else None, []
            for step, _ in enumerate(train(model)):
                states.append(state(model))
                if ema is None:
                    continue
                ema.update(model)
                if step % 10 == 0:
                    with ema.swapped(model):
                        # in training mode: it even moves the statistics
                        model[:2](torch.ones(11, 7))
        return states, ema

    (plain, _), (averaged, ema) = trained(False), trained(True)
    for ours, theirs in zip(plain, averaged, strict=True):
        assert_equal_bits(ours, theirs)
    assert not torch.equal(ema.module[0].weight, plain[-1]["0.weight"])


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.sampled_from([0.9, Debiased(0.9), Ramped(), TailMean(5)]),
)
@settings(max_examples=15, deadline=None)
def test_any_split_of_a_run_gives_the_same_average_bitwise(lengths, mixing):
    whole_model, model = network(dtype=torch.float32), network(dtype=torch.float32)
    whole, ema = EMA(whole_model, mixing), EMA(model, mixing)
    steps = train(whole_model, sum(lengths))
    for _ in steps:
        whole.update(whole_model)
    steps = train(model, sum(lengths))
    for length in lengths:
        for _ in range(length):
            next(steps)
            ema.update(model)
        saved = {name: value.clone() for name, value in ema.state_dict().items()}
        ema = EMA(network(seed=9, dtype=torch.float32), mixing)
        ema.load_state_dict(saved)
    assert ema.updates == sum(lengths)
    assert_equal_bits(state(ema), state(whole))


def test_a_deep_copy_goes_its_own_way():
    model = network()
    ema = EMA(model, Ramped())
    for _ in train(model, 5):
        ema.update(model)
    copy, before = deepcopy(ema), state(ema)
    for _ in train(model, 5):
        copy.update(model)
    assert (copy.updates, ema.updates) == (10, 5)
    assert_equal_bits(state(ema), before)
    assert not torch.equal(copy.module[0].weight, ema.module[0].weight)


# Refusals


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EMA(network(), 1.0), r"mixing must be in \[0, 1\), got 1.0"),
        (lambda: EMA(network(), -0.1), r"mixing must be in \[0, 1\), got -0.1"),
        (lambda: EMA(network(), float("nan")), r"mixing must be in \[0, 1\), got nan"),
        (lambda: Started(1.5), "beta must be"),
        (lambda: Debiased(1.0), "beta must be"),
        (lambda: Ramped(1.0), r"cap must be in \[0, 1\), got 1.0"),
        (lambda: TailMean(0), "start must be a whole number of at least 1, got 0"),
        (
            lambda: EMA(network(), 0.9, dtype=torch.int64),
            "dtype must be floating-point, of 16 bits or more, got torch.int64",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            lambda: nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)),
            r"'3.weight' has shape \(3, 5\) in the average but \(2, 5\) in the model",
        ),
        (
            lambda: nn.Sequential(*network(), nn.Linear(3, 3)),
            "'4.bias' is in the model but not in the average",
        ),
        (lambda: nn.Sequential(*network()[:3]), "'3.bias' is in the average but not in the model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_name_and_nothing_changes(other, sentence):
    ema, other = EMA(network(), 0.9), other()
    before, theirs = state(ema), state(other)
    for use in (ema.update, ema.set, lambda model: ema.swapped(model).__enter__()):
        with pytest.raises(ValueError, match=sentence):
            use(other)
    assert_equal_bits(state(ema), before)
    assert_equal_bits(state(other), theirs)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_mixing_weight_outside_0_to_1_is_refused_and_nothing_changes(weight):
    model = network()
    ema = EMA(model, lambda step: weight if step == 2 else 0.5)
    ema.update(model)
    before = state(ema)
    with pytest.raises(ValueError, match=rf"weights in \[0, 1\], got {weight} at update 2"):
        ema.update(model)
    assert_equal_bits(state(ema), before)
