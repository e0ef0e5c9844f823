"""Minibatches: every epoch a permutation, the same stream however it is taken, another for every seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import epochs
from steadydescent.minibatches import IndexStream

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
