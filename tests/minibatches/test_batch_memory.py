"""Memory of a batch: bytes counted by hand, and the largest size that fits."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steadydescent.minibatches import activation_bytes, largest_that_fits, memory_bound


def mlp(*widths):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.claim("batch-memory")
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("widths", [(40, 10), (40, 101, 10), (13, 101, 53, 3)])
def test_bytes_kept_by_an_mlp_are_those_of_its_layers_inputs(widths, batch):
    """Every linear layer keeps its input, and ReLU shares the storage: Σ n·d_l·4 bytes."""
    assert activation_bytes(mlp(*widths), torch.zeros(batch, widths[0])) == 4 * batch * sum(
        widths[:-1]
    )
    assert activation_bytes(
        mlp(*widths).double(), torch.zeros(batch, widths[0]).double()
    ) == 8 * batch * sum(widths[:-1])


class WithLoss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return nn.functional.cross_entropy(self.model(x), y)


def test_loss_keeps_log_probabilities_and_labels():
    """Cross-entropy keeps n·K log-probabilities, n labels of 8 bytes, and one number a batch."""
    kept = [
        activation_bytes(
            WithLoss(mlp(13, 53, 3)), torch.zeros(n, 13), torch.zeros(n, dtype=torch.int64)
        )
        for n in (7, 14)
    ]
    assert (kept[1] - kept[0]) / 7 == 4 * (13 + 53 + 3) + 8
    assert kept[0] - (kept[1] - kept[0]) <= 8


def test_bytes_of_a_view_are_its_own():
    everything = torch.zeros(1009, 13)
    assert activation_bytes(mlp(13, 3), everything[:7]) == 4 * 7 * 13


def test_frozen_weights_keep_no_inputs():
    model = mlp(13, 101, 3)
    model[0].requires_grad_(False)
    assert activation_bytes(model, torch.zeros(7, 13)) == 4 * 7 * 101


def test_measuring_changes_neither_module_nor_random_numbers():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():  # counts what training would keep all the same
        assert (
            activation_bytes(model, torch.randn(11, 5, generator=torch.Generator().manual_seed(1)))
            > 4 * 11 * 5
        )
    assert torch.equal(state, torch.get_rng_state()) and all(
        p.grad is None for p in model.parameters()
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_bytes_are_the_same_where_nothing_is_kept_and_inputs_are_of_there(mode):
    model, x = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU()), torch.ones(11, 5)
    usual = activation_bytes(model, x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with mode():
        assert activation_bytes(model, x) == activation_bytes(model, torch.ones(11, 5)) == usual > 0
        assert (
            torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
            and not torch.is_grad_enabled()
        )
    assert activation_bytes(model, x) == usual
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@given(st.integers(0, 999), st.integers(1, 99), st.integers(1, 999))
def test_bound_is_the_last_size_within_the_budget(fixed, each, size):
    for spare in {0, each - 1}:
        assert memory_bound(fixed, each, fixed + size * each + spare) == size


def test_budget_below_one_example_is_refused():
    with pytest.raises(ValueError, match=r"budget must hold one example, 100 \+ 7 bytes, got 106"):
        memory_bound(100, 7, 106)
    with pytest.raises(ValueError, match="bytes_per_example must be positive and finite, got 0"):
        memory_bound(100, 0, 1000)


def allocator_error(n):
    torch.empty(2**62, dtype=torch.uint8)


def raised(error):
    def fail(n):
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        allocator_error,
        raised(MemoryError()),
        raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        raised(RuntimeError("CUDA error: out of memory")),
        raised(
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            )
        ),
        raised(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
        raised(
            RuntimeError(
                "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. "
                "This error may appear if you passed in a non-"
            )
        ),
        raised(RuntimeError("Unable to find a valid cuDNN algorithm to run convolution")),
        raised(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")),
        raised(
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
            )
        ),
        raised(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes")),
    ],
)
def test_running_out_of_memory_is_known_by_its_errors(fail):
    def step(n):
        if n > 3:
            fail(n)

    assert largest_that_fits(step, limit=4) == 3


@pytest.mark.parametrize(
    ("capacity", "limit"), [(1, 13), (37, 100), (64, 65), (300, 300), (301, 1)]
)
def test_largest_size_that_fits_is_found_with_few_tries(capacity, limit):
    tries = []

    def step(n):
        tries.append(n)
        if n > capacity:
            raise MemoryError

    assert largest_that_fits(step, limit) == min(capacity, limit)
    assert len(set(tries)) == len(tries) <= 2 * math.log2(limit) + 2 and max(tries) <= limit


def test_nothing_that_fits_is_an_error_of_memory():
    with pytest.raises(MemoryError, match=r"not even a batch of 1 fits the memory: .*allocate"):
        largest_that_fits(allocator_error, 8)
    with pytest.raises(ValueError, match="limit must be a whole number of at least 1, got 0"):
        largest_that_fits(allocator_error, 0)


def test_other_errors_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        largest_that_fits(lambda n: torch.ones(n, 3) @ torch.ones(2, n), 8)
