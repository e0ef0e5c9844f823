"""Minibatches: every epoch a permutation, the same stream however it is taken; their noise, cost and memory."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from oracles import epochs
from steadydescent.minibatches import (
    EpochBatches,
    IndexStream,
    activation_bytes,
    largest_that_fits,
    memory_bound,
    noise_factor,
    recommended_batch_sizes,
    regularised_cost,
    updates_per_epoch,
)

sizes = st.integers(1, 60).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m)))


@given(sizes, st.integers(0, 2**63 - 1))
def test_each_epoch_shows_different_examples_as_many_as_fit(size, seed):
    examples, batch_size = size
    per_epoch = examples // batch_size
    stream = IndexStream(examples, batch_size, seed)
    for _ in range(3):
        seen = stream.take(per_epoch).flatten().tolist()
        assert len(set(seen)) == len(seen) == per_epoch * batch_size
        assert set(seen) <= set(range(examples))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 999))
def test_epoch_that_divides_evenly_is_a_permutation(batches, batch_size, seed):
    examples = batches * batch_size
    stream = IndexStream(examples, batch_size, seed)
    for _ in range(3):
        assert sorted(stream.take(batches).flatten().tolist()) == list(range(examples))


@given(sizes, st.integers(0, 999), st.lists(st.integers(0, 17), max_size=6))
def test_any_split_of_takes_gives_the_same_stream(size, seed, parts):
    pieces, whole = IndexStream(*size, seed), IndexStream(*size, seed)
    taken = [pieces.take(part) for part in parts]
    expected = whole.take(sum(parts))
    assert torch.equal(torch.cat(taken) if taken else expected[:0], expected)
    assert expected.shape == (sum(parts), size[1]) and expected.dtype == torch.int64


def test_stream_is_that_of_a_plain_loop_over_epochs():
    plain, steps = epochs(23, 5, seed=7), 19
    expected = torch.stack([next(plain) for _ in range(steps)])
    assert torch.equal(IndexStream(23, 5, seed=7).take(steps), expected)


def test_epochs_and_seeds_differ_from_one_another():
    orders = [tuple(IndexStream(31, 31, seed).take(1).flatten().tolist()) for seed in range(40)]
    assert len(set(orders)) == 40
    stream = IndexStream(31, 31, seed=0)
    assert not torch.equal(stream.take(1), stream.take(1))


def test_every_example_is_as_likely_to_come_first():
    """500 seeds, 5 examples: each first 100 times give or take 9 (binomial); 4 standard errors."""
    first = torch.tensor([IndexStream(5, 1, seed).take(1).item() for seed in range(500)])
    assert (first.bincount(minlength=5) - 100).abs().max() < 36


def test_streams_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    IndexStream(31, 7, seed=1).take(11)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("batch_size", [0, -1, 8])
def test_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be between 1 and the 7 examples, got {batch_size}"):
        IndexStream(7, batch_size, seed=0)


def test_negative_number_of_minibatches_is_refused_and_takes_nothing():
    stream = IndexStream(7, 2, seed=0)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        stream.take(-1)
    assert torch.equal(stream.take(5), IndexStream(7, 2, seed=0).take(5))


# with replacement


@given(sizes, st.integers(0, 999), st.lists(st.integers(0, 17), max_size=6))
def test_any_split_of_takes_gives_the_same_stream_with_replacement(size, seed, parts):
    pieces, whole = IndexStream(*size, seed, replacement=True), IndexStream(*size, seed, replacement=True)
    taken = [pieces.take(part) for part in parts]
    expected = whole.take(sum(parts))
    assert torch.equal(torch.cat(taken) if taken else expected[:0], expected)
    assert expected.shape == (sum(parts), size[1]) and ((expected >= 0) & (expected < size[0])).all()


def test_draws_with_replacement_are_uniform_and_independent():
    """Pairs of successive draws from 5 examples: each of 25 pairs equally often, repeats too; 4.5 standard errors."""
    draws = IndexStream(5, 2, seed=1, replacement=True).take(25_000)
    counts = (draws[:, 0] * 5 + draws[:, 1]).bincount(minlength=25)
    assert (counts - 1000).abs().max() < 4.5 * math.sqrt(1000 * 24 / 25)
    across = (draws[:-1, 1] * 5 + draws[1:, 0]).bincount(minlength=25)
    assert (across - 1000).abs().max() < 4.5 * math.sqrt(1000 * 24 / 25)


# epochs for one's own loop


@given(sizes, st.integers(0, 999), st.booleans())
def test_every_epoch_shows_each_example_once(size, seed, drop_last):
    examples, batch_size = size
    batches = EpochBatches(examples, batch_size, seed, drop_last=drop_last)
    for _ in range(3):
        epoch = list(batches)
        seen = [index for batch in epoch for index in batch]
        assert len(epoch) == len(batches) == updates_per_epoch(examples, batch_size, drop_last=drop_last)
        assert len(set(seen)) == len(seen) == (examples - examples % batch_size if drop_last else examples)
        assert all(len(batch) == batch_size for batch in epoch[:-1])


@given(sizes, st.integers(0, 999))
def test_epochs_that_drop_the_last_batch_are_the_index_stream(size, seed):
    batches = EpochBatches(*size, seed, drop_last=True)
    taken = torch.tensor([batch for _ in range(3) for batch in batches])
    assert torch.equal(taken, IndexStream(*size, seed).take(3 * len(batches)))


@given(sizes, st.integers(0, 999), st.booleans(), st.integers(0, 2), st.integers(0, 60))
def test_stored_and_loaded_batches_go_on_behind_the_last_one(size, seed, drop_last, whole, part):
    first, second, straight = (EpochBatches(*size, seed, drop_last=drop_last) for _ in range(3))
    batches = [batch for _ in range(whole + 3) for batch in straight]
    for _ in range(whole):
        list(first)
    under_way, part = iter(first), min(part, len(first))
    for _ in range(part):
        next(under_way)
    second.load_state_dict(first.state_dict())
    rest, position = [*second, *second], whole * len(first) + part
    assert rest == batches[position : position + len(rest)]
    assert len(rest) == (2 * len(first) - part % len(first))


def test_loop_over_a_loader_resumes_in_mid_epoch_with_the_same_weights():
    """Two epochs of a DataLoader loop, cut after 4 of 6 batches and resumed from the states: the same bits."""
    data = TensorDataset(torch.randn(17, 5, generator=torch.Generator().manual_seed(1)), torch.arange(17) % 3)

    def run(model, optimizer, batches, epochs, limit=None):
        loader, done = DataLoader(data, batch_sampler=batches), 0
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                done += 1
                if done == limit:
                    return

    def fresh():
        model = nn.Linear(5, 3)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), EpochBatches(17, 3, seed=2)

    straight, interrupted, resumed = fresh(), fresh(), fresh()
    run(*straight, epochs=2)
    run(*interrupted, epochs=1, limit=4)
    for old, new in zip(interrupted, resumed, strict=True):
        new.load_state_dict(old.state_dict())
    run(*resumed, epochs=2)
    assert len(straight[2]) == 6 and torch.equal(straight[0].weight, resumed[0].weight)
    assert not torch.equal(straight[0].weight, interrupted[0].weight)


def test_state_says_how_far_the_loop_is_when_workers_have_run_ahead():
    batches, resumed = EpochBatches(17, 3, seed=2), EpochBatches(17, 3, seed=2)
    epoch = iter(batches)
    ahead = [next(epoch) for _ in range(5)]  # workers asked for five, the loop has finished two
    resumed.load_state_dict(batches.state_dict(done=2))
    assert list(resumed) == [*ahead[2:], *epoch]


def test_a_look_at_the_first_batch_does_not_cut_the_next_epoch_short():
    batches = EpochBatches(17, 3, seed=2)
    next(iter(batches))
    assert sorted(index for batch in batches for index in batch) == list(range(17))


def test_state_that_does_not_fit_is_refused():
    batches = EpochBatches(17, 3, seed=2)
    with pytest.raises(ValueError, match=r"the state must be of .*got \{'batch_size': 5\}"):
        batches.load_state_dict(EpochBatches(17, 5, seed=2).state_dict())
    with pytest.raises(ValueError, match="done must be between 0 and the 6 batches of an epoch, got 7"):
        batches.state_dict(done=7)
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 17 examples, got 18"):
        EpochBatches(17, 18, seed=2)
    assert list(batches) == list(EpochBatches(17, 3, seed=2))


# counts


@pytest.mark.worked("uit-slides")
def test_slides_five_thousand_minibatches_are_one_epoch():
    assert 5000 * 1000 == 5_000_000
    assert updates_per_epoch(5_000_000, 1000, drop_last=False) == 5000
    assert updates_per_epoch(5_000_001, 1000, drop_last=False) == 5001
    assert updates_per_epoch(5_000_001, 1000, drop_last=True) == 5000


@pytest.mark.slip(3)
def test_an_epoch_is_one_pass_over_all_examples_not_one_minibatch():
    """uit-slides: one finished mini-batch is an epoch, N points make N epochs. N updates at n = 1 are one epoch."""
    examples = 101
    assert updates_per_epoch(examples, 1, drop_last=False) == examples
    for batch_size in (1, 7, 101):
        seen = torch.zeros(examples, dtype=torch.int64)
        for batch in EpochBatches(examples, batch_size, seed=0):
            seen[batch] += 1
        assert (seen == 1).all()
    assert IndexStream(examples, 1, seed=0).take(examples).unique().numel() == examples


def test_slides_rule_for_the_batch_size():
    assert recommended_batch_sizes(1) == (1,) and recommended_batch_sizes(200) == (200,)
    assert recommended_batch_sizes(201) == (64, 128) and recommended_batch_sizes(256) == (64, 128, 256)
    assert recommended_batch_sizes(50_000) == (64, 128, 256, 512, 1024)
    with pytest.raises(ValueError, match="examples must be at least 1, got 0"):
        recommended_batch_sizes(0)


# noise


def per_example_gradients(examples=211, features=5):
    """Least squares, ½(x·w − y)² at w = 0: the gradients −y·x, `[m, P]`, centred."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(examples, features, generator=generator, dtype=torch.float64)
    y = x.sum(1) + torch.randn(examples, generator=generator, dtype=torch.float64)
    gradients = -y[:, None] * x
    return gradients - gradients.mean(0)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 13, 53, 208, 211])
def test_noise_of_the_gradient_is_the_closed_form(batch_size, replacement):
    """Mean square over 5 003 minibatches of a least-squares gradient against σ²/n, times (m−n)/(m−1) in epochs."""
    gradients, draws = per_example_gradients(), 5_003
    batches = IndexStream(211, batch_size, seed=3, replacement=replacement).take(draws)
    noise = torch.cat([gradients[part].mean(1) for part in batches.split(500)])
    measured = noise.square().sum(1)
    expected = noise_factor(211, batch_size, replacement=replacement) * gradients.square().sum(1).mean()
    error = (measured.std() / math.sqrt(len(measured))).item()
    assert abs(measured.mean() - expected).item() < 4 * error + 1e-20


def test_noise_of_the_gradient_falls_with_the_root_of_the_batch_size():
    """The law behind `batch-noise`: log-log slope −½ ± 0.02, measured on draws with replacement."""
    gradients, sizes = per_example_gradients(), [1, 2, 4, 8, 16, 32, 64]
    stds = []
    for size in sizes:
        batches = IndexStream(211, size, seed=size, replacement=True).take(6000)
        stds.append(gradients[batches].mean(1).square().sum(1).mean().sqrt().item())
    slope = np.polyfit(np.log(sizes), np.log(stds), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.02)


def test_all_examples_at_once_have_no_noise():
    batch = IndexStream(211, 211, seed=4).take(3)
    assert per_example_gradients()[batch].mean(1).abs().max() < 1e-15
    assert noise_factor(211, 211, replacement=False) == 0 and noise_factor(1, 1, replacement=False) == 0
    assert noise_factor(211, 211, replacement=True) == 1 / 211


@given(sizes)
def test_one_example_has_all_the_variance_and_more_have_less(size):
    examples, batch_size = size
    for replacement in (False, True):
        factor = noise_factor(examples, batch_size, replacement=replacement)
        assert factor <= noise_factor(examples, 1, replacement=replacement) <= 1
    if examples > 1:
        assert noise_factor(examples, 1, replacement=False) == 1


# the slides' cost


def slides_network():
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(3, 5, generator=generator).double(), torch.randn(2, 3, generator=generator).double()]
    return weights, torch.rand(24, generator=generator, dtype=torch.float64)


@pytest.mark.slip(7)
def test_l2_term_belongs_to_the_data_set_not_to_the_minibatch():
    """uit-slides print λ/2n. With λ/2m an epoch's mean cost is the full cost for all n; λ/2n makes it m/n-fold."""
    (weights, losses), strength, examples = slides_network(), 3.0, 24
    squares = sum(weight.square().sum() for weight in weights)
    full = regularised_cost(losses, weights, strength, examples)
    assert full.item() == pytest.approx((losses.sum() / 24 + strength / 48 * squares).item(), rel=1e-14)
    for n in (1, 2, 4, 8, 24):
        parts = losses.split(n)
        mean = torch.stack([regularised_cost(part, weights, strength, examples) for part in parts]).mean()
        printed = torch.stack([regularised_cost(part, weights, strength, examples=n) for part in parts]).mean()
        assert mean.item() == pytest.approx(full.item(), rel=1e-12)
        assert ((printed - losses.mean()) / (full - losses.mean())).item() == pytest.approx(examples / n, rel=1e-12)


@pytest.mark.slip(7)
def test_losses_are_summed_over_examples_and_weights_over_layers():
    """uit-slides sum the losses to L, the number of layers. With 2 layers that sees 2 of 24 examples."""
    (weights, losses), layers = slides_network(), 2
    assert len(weights) == layers
    right = regularised_cost(losses, weights, 0.0, 24)
    assert right.item() == pytest.approx(losses.mean().item(), rel=1e-14)
    assert losses[:layers].sum() / 24 < 0.2 * right


def test_slides_loop_on_the_regularised_cost_is_torchs_weight_decay():
    """Forward, cost, backward, update on each mini-batch: with λ/2m it is SGD with weight_decay λ/m on the matrices."""
    generator = torch.Generator().manual_seed(8)
    x, y = torch.randn(22, 5, generator=generator).double(), torch.randint(3, (22,), generator=generator)
    slides, plain = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    plain.load_state_dict(slides.state_dict())
    optimizer = torch.optim.SGD(
        [{"params": [plain.weight], "weight_decay": 0.7 / 22}, {"params": [plain.bias]}], lr=0.3
    )
    for batch in EpochBatches(22, 4, seed=1):
        losses = nn.functional.cross_entropy(slides(x[batch]), y[batch], reduction="none")
        gradients = torch.autograd.grad(regularised_cost(losses, [slides.weight], 0.7, 22), [*slides.parameters()])
        with torch.no_grad():
            for parameter, gradient in zip(slides.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x[batch]), y[batch]).backward()
        optimizer.step()
    torch.testing.assert_close(slides.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-14)


def test_cost_that_makes_no_sense_is_refused():
    weights, losses = slides_network()
    with pytest.raises(ValueError, match=r"strength must be at least 0, got -1.0"):
        regularised_cost(losses, weights, -1.0, 24)
    with pytest.raises(ValueError, match="at least 24, got 8"):
        regularised_cost(losses, weights, 1.0, 8)


@pytest.mark.slip(10)
def test_saddle_point_is_no_minimum():
    """uit-slides call a saddle a minimum that may not be global. At 0, x² − y² curves up along x and down along y."""
    saddle = lambda point: point[0] ** 2 - point[1] ** 2
    origin = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert (torch.autograd.grad(saddle(origin), origin)[0] == 0).all()
    curvatures = torch.linalg.eigvalsh(torch.autograd.functional.hessian(saddle, origin.detach()))
    assert curvatures.tolist() == [-2.0, 2.0]
    assert saddle(torch.tensor([0.0, 1e-6])) < saddle(torch.zeros(2))


@pytest.mark.slip(10)
def test_a_larger_rate_makes_sgd_swing_more_not_less():
    """uit-slides would cure the oscillation by "more rate". On h·(θ − x_i)²/2 at n = 1 the stationary variance is

    α²h²s²/(1 − (1 − αh)²), with s² the variance of the x_i: it grows with α and vanishes with it. Here h = 2; 4
    standard errors over 4 000 lanes.
    """
    curvature, lanes = 2.0, 4_001
    x = torch.randn(23, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = (x - x.mean()) / x.std(correction=0)
    before = 0.0
    for rate in (0.02, 0.1, 0.4, 0.9):
        steps = math.ceil(12 / (rate * curvature)) if rate * curvature < 1 else 40
        draws = x[IndexStream(23, 1, seed=10, replacement=True).take(steps * lanes)].view(steps, lanes)
        theta = torch.zeros(lanes, dtype=torch.float64)
        for sample in draws:
            theta = theta - rate * curvature * (theta - sample)
        expected = (rate * curvature) ** 2 / (1 - (1 - rate * curvature) ** 2)
        squares = theta.square()
        assert abs(squares.mean() - expected) < 4 * squares.std() / math.sqrt(lanes)
        assert before < expected
        before = expected


# memory


def mlp(*widths):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("widths", [(40, 10), (40, 101, 10), (13, 101, 53, 3)])
def test_bytes_kept_by_an_mlp_are_those_of_its_layers_inputs(widths, batch):
    """Closed form: every linear layer keeps its input for its weight's gradient, ReLU shares the storage: Σ n·d_l·4."""
    assert activation_bytes(mlp(*widths), torch.zeros(batch, widths[0])) == 4 * batch * sum(widths[:-1])
    assert activation_bytes(mlp(*widths).double(), torch.zeros(batch, widths[0]).double()) == 8 * batch * sum(
        widths[:-1]
    )


class WithLoss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return nn.functional.cross_entropy(self.model(x), y)


def test_loss_keeps_log_probabilities_and_labels():
    """Cross-entropy keeps n·K log-probabilities and n labels of 8 bytes, and one number for the batch."""
    kept = [
        activation_bytes(WithLoss(mlp(13, 53, 3)), torch.zeros(n, 13), torch.zeros(n, dtype=torch.int64))
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
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():  # counts what training would keep all the same
        assert activation_bytes(model, torch.randn(11, 5, generator=torch.Generator().manual_seed(1))) > 4 * 11 * 5
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@given(st.integers(0, 999), st.integers(1, 99), st.integers(1, 999))
def test_bound_is_the_last_size_within_the_budget(fixed, each, size):
    for spare in {0, each - 1}:
        assert memory_bound(fixed, each, fixed + size * each + spare) == size


def test_budget_below_one_example_is_refused():
    with pytest.raises(ValueError, match=r"budget must hold one example, 100 \+ 7 bytes, got 106"):
        memory_bound(100, 7, 106)
    with pytest.raises(ValueError, match="bytes_per_example must be positive, got 0"):
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
        raised(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    ],
)
def test_running_out_of_memory_is_known_by_its_errors(fail):
    def step(n):
        if n > 3:
            fail(n)

    assert largest_that_fits(step, limit=4) == 3


@pytest.mark.parametrize(("capacity", "limit"), [(1, 13), (37, 100), (64, 65), (300, 300), (301, 1)])
def test_largest_size_that_fits_is_found_with_few_tries(capacity, limit):
    tries = []

    def step(n):
        tries.append(n)
        if n > capacity:
            raise MemoryError

    assert largest_that_fits(step, limit) == min(capacity, limit)
    assert len(set(tries)) == len(tries) <= 2 * math.log2(limit) + 2 and max(tries) <= limit


def test_nothing_that_fits_is_an_error_of_memory():
    with pytest.raises(MemoryError, match="not even one example fits"):
        largest_that_fits(allocator_error, 8)
    with pytest.raises(ValueError, match="limit must be at least 1 example, got 0"):
        largest_that_fits(allocator_error, 0)


def test_other_errors_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        largest_that_fits(lambda n: torch.ones(n, 3) @ torch.ones(2, n), 8)
