"""Minibatches: every epoch a permutation, the same stream however taken, and their number."""

import math

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
    recommended_batch_sizes,
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
    with pytest.raises(
        ValueError, match=rf"batch_size must be (between 1 and|a whole number) .*, got {batch_size}"
    ):
        IndexStream(7, batch_size, seed=0)


def test_negative_number_of_minibatches_is_refused_and_takes_nothing():
    stream = IndexStream(7, 2, seed=0)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0, got -1"):
        stream.take(-1)
    assert torch.equal(stream.take(5), IndexStream(7, 2, seed=0).take(5))


# With replacement


@given(sizes, st.integers(0, 999), st.lists(st.integers(0, 17), max_size=6))
def test_any_split_of_takes_gives_the_same_stream_with_replacement(size, seed, parts):
    pieces = IndexStream(*size, seed, replacement=True)
    whole = IndexStream(*size, seed, replacement=True)
    taken = [pieces.take(part) for part in parts]
    expected = whole.take(sum(parts))
    assert torch.equal(torch.cat(taken) if taken else expected[:0], expected)
    assert (
        expected.shape == (sum(parts), size[1]) and ((expected >= 0) & (expected < size[0])).all()
    )


def test_draws_with_replacement_are_uniform_and_independent():
    """Pairs of successive draws from 5 examples: each of 25 pairs equally often, repeats too.

    4.5 standard errors.
    """
    draws = IndexStream(5, 2, seed=1, replacement=True).take(25_000)
    counts = (draws[:, 0] * 5 + draws[:, 1]).bincount(minlength=25)
    assert (counts - 1000).abs().max() < 4.5 * math.sqrt(1000 * 24 / 25)
    across = (draws[:-1, 1] * 5 + draws[1:, 0]).bincount(minlength=25)
    assert (across - 1000).abs().max() < 4.5 * math.sqrt(1000 * 24 / 25)


# Epochs for one's own loop


@given(sizes, st.integers(0, 999), st.booleans())
def test_every_epoch_shows_each_example_once(size, seed, drop_last):
    examples, batch_size = size
    batches = EpochBatches(examples, batch_size, seed, drop_last=drop_last)
    for _ in range(3):
        epoch = list(batches)
        seen = [index for batch in epoch for index in batch]
        assert (
            len(epoch)
            == len(batches)
            == updates_per_epoch(examples, batch_size, drop_last=drop_last)
        )
        assert (
            len(set(seen))
            == len(seen)
            == (examples - examples % batch_size if drop_last else examples)
        )
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
    """Two epochs of a DataLoader loop, cut after 4 of 6 batches and resumed: the same bits."""
    data = TensorDataset(
        torch.randn(17, 5, generator=torch.Generator().manual_seed(1)), torch.arange(17) % 3
    )

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
        return (
            model,
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            EpochBatches(17, 3, seed=2),
        )

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
    with pytest.raises(
        ValueError, match="done must be between 0 and the 6 batches of an epoch, got 7"
    ):
        batches.state_dict(done=7)
    with pytest.raises(
        ValueError, match="batch_size must be between 1 and the 17 examples, got 18"
    ):
        EpochBatches(17, 18, seed=2)
    assert list(batches) == list(EpochBatches(17, 3, seed=2))


# Counts


@pytest.mark.worked("uit-slides")
def test_slides_five_thousand_minibatches_are_one_epoch():
    assert 5000 * 1000 == 5_000_000
    assert updates_per_epoch(5_000_000, 1000, drop_last=False) == 5000
    assert updates_per_epoch(5_000_001, 1000, drop_last=False) == 5001
    assert updates_per_epoch(5_000_001, 1000, drop_last=True) == 5000


@pytest.mark.slip(3)
def test_an_epoch_is_one_pass_over_all_examples_not_one_minibatch():
    """uit-slides: one finished mini-batch is an epoch, N points make N epochs.

    N updates at n = 1 are one epoch.
    """
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
    assert recommended_batch_sizes(201) == (64, 128) and recommended_batch_sizes(256) == (
        64,
        128,
        256,
    )
    assert recommended_batch_sizes(50_000) == (64, 128, 256, 512, 1024)
    with pytest.raises(ValueError, match="examples must be a whole number of at least 1, got 0"):
        recommended_batch_sizes(0)


@pytest.mark.parametrize("replacement", [False, True])
def test_indices_are_on_the_cpu_whatever_the_default_device(replacement):
    """`meta` stands for an accelerator: what is made there by mistake has no values."""

    def walked():
        stream, batches = IndexStream(7, 3, 0, replacement=replacement), EpochBatches(7, 3, 0)
        first = stream.take(0), stream.take(5), [*batches]
        other = EpochBatches(7, 3, 1)
        other.load_state_dict(batches.state_dict())
        return (
            [part.tolist() for part in first[:2]],
            first[2],
            [*other],
            batches.state_dict()["epoch_start"].tolist(),
        )

    usual = walked()
    with torch.device("meta"):
        assert walked() == usual
        assert IndexStream(7, 3, 0).take(0).device.type == "cpu"
