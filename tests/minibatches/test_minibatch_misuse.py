"""Minibatches in clumsy hands and behind workers: refusals, and resuming with prefetching."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from steadydescent.lr_search import restored
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
from steadydescent.weight_averaging import load_checkpoint, save_checkpoint

NOT_WHOLE = ["1", None, True, 2.5, math.nan, [3], torch.tensor(3)]


def test_indices_of_the_published_runs_never_change():
    """The digests were taken before anything here was checked."""
    for replacement, digest in [(False, "c5e1ae08bf8e6359"), (True, "96f6b90c23a54dc0")]:
        taken = IndexStream(401, 32, 2**63 - 1, replacement=replacement).take(37)
        assert hashlib.sha256(taken.numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", [IndexStream, EpochBatches])
def test_numpy_integers_are_integers(kind):
    plain, numpy = kind(401, 32, 5), kind(np.int64(401), np.int64(32), np.int64(5))
    first = lambda stream: stream.take(13).tolist() if kind is IndexStream else list(stream)
    assert first(plain) == first(numpy)


@pytest.mark.parametrize("kind", [IndexStream, EpochBatches])
def test_sizes_seeds_and_switches_are_refused_by_name(kind):
    good = {"examples": 401, "batch_size": 32, "seed": 0}
    switch = "replacement" if kind is IndexStream else "drop_last"
    for name in good:
        for wrong in [*NOT_WHOLE, -1]:
            with pytest.raises(
                ValueError, match=f"^{name} must be a whole number of at least [01], got"
            ):
                kind(**{**good, name: wrong})
    for wrong in ("no", None, 1, 0.0):
        with pytest.raises(ValueError, match=f"^{switch} must be True or False, got {wrong!r}"):
            kind(**good, **{switch: wrong})
    with pytest.raises(ValueError, match=r"^seed must be below 2\*\*64, got 18446744073709551616"):
        kind(401, 32, 2**64)
    kind(401, 32, 2**64 - 1)


def test_counts_and_noise_are_refused_by_name():
    for wrong in [*NOT_WHOLE, 0]:
        with pytest.raises(
            ValueError, match=r"^examples must be a whole number of at least 1, got"
        ):
            recommended_batch_sizes(wrong)
        for call in (
            lambda examples, size: noise_factor(examples, size, replacement=False),
            lambda examples, size: updates_per_epoch(examples, size, drop_last=True),
        ):
            with pytest.raises(
                ValueError, match=r"^examples must be a whole number of at least 1, got"
            ):
                call(wrong, 1)
            with pytest.raises(
                ValueError, match=r"^batch_size must be a whole number of at least 1, got"
            ):
                call(100, wrong)
    for wrong in ("no", None, 1, math.nan):
        with pytest.raises(ValueError, match=r"^drop_last must be True or False, got"):
            updates_per_epoch(100, 30, drop_last=wrong)
        with pytest.raises(ValueError, match=r"^replacement must be True or False, got"):
            noise_factor(100, 30, replacement=wrong)
    for wrong in NOT_WHOLE:
        with pytest.raises(ValueError, match=r"^steps must be a whole number of at least 0, got"):
            IndexStream(7, 2, 0).take(wrong)


# Memory and cost


def test_largest_size_for_batch_norm_starts_at_two_and_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    optimizer, sizes = torch.optim.Adam(model.parameters()), []
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def step(n):
        sizes.append(n)
        if n > 77:
            raise torch.OutOfMemoryError("CUDA out of memory")
        optimizer.zero_grad()
        model(torch.ones(n, 5)).square().mean().backward()
        optimizer.step()

    with (
        restored(model, optimizer),
        pytest.raises(ValueError, match="more than 1 value per channel"),
    ):
        largest_that_fits(step, 256)
    sizes.clear()
    with restored(model, optimizer):
        assert largest_that_fits(step, 256, smallest=2) == 77
    assert min(sizes) == sizes[0] == 2 and len(set(sizes)) == len(sizes) <= 2 * 8 + 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("smallest", "limit", "capacity"), [(5, 5, 9), (5, 6, 5), (3, 100, 37), (7, 100, 7)]
)
def test_search_stays_between_its_smallest_size_and_its_limit(smallest, limit, capacity):
    sizes = []

    def step(n):
        sizes.append(n)
        if n > capacity:
            raise MemoryError

    assert largest_that_fits(step, limit, smallest) == min(capacity, limit)
    assert smallest <= min(sizes) and max(sizes) <= limit and len(set(sizes)) == len(sizes)


def test_search_for_memory_refuses_before_it_trains():
    never = lambda n: pytest.fail("trained before the arguments were checked")
    for wrong in [*NOT_WHOLE, 0, math.inf]:
        with pytest.raises(ValueError, match=r"^limit must be a whole number of at least 1, got"):
            largest_that_fits(never, wrong)
        with pytest.raises(
            ValueError, match=r"^smallest must be a whole number of at least 1, got"
        ):
            largest_that_fits(never, 8, smallest=wrong)
    with pytest.raises(ValueError, match=r"^limit must be a whole number of at least 9, got 8"):
        largest_that_fits(never, 8, smallest=9)
    with pytest.raises(MemoryError, match="not even a batch of 3 fits the memory"):
        largest_that_fits(lambda n: (_ for _ in ()).throw(MemoryError()), 8, smallest=3)


def test_bounds_on_memory_are_refused_by_name():
    good = {"bytes_fixed": 4000, "bytes_per_example": 900.0, "budget": 10_000}
    for name in good:
        for wrong in ["9", None, True, math.nan, math.inf, -1, torch.tensor(9)]:
            with pytest.raises(ValueError, match=f"^{name} must be "):
                memory_bound(**{**good, name: wrong})
    with pytest.raises(ValueError, match=r"module must be an nn.Module, got <function"):
        activation_bytes(lambda x: x, torch.ones(3))


def test_regularised_cost_says_what_it_takes():
    losses, weights = torch.rand(7), [torch.ones(3, 5)]
    for arguments, reason in [
        (
            (losses.mean(), weights, 1.0, 100),
            r"losses must be \[B\], one for each example \(reduction='none'\), got \(\)",
        ),
        ((losses.view(7, 1), weights, 1.0, 100), r"losses must be \[B\].*got \(7, 1\)"),
        ((losses[:0], weights, 1.0, 100), r"losses must be \[B\].*got \(0,\)"),
        (([1.0, 2.0], weights, 1.0, 100), r"losses must be \[B\].*got \[1.0, 2.0\]"),
        ((losses, [], 1.0, 100), r"weights must be tensors, at least one, got \[\]"),
        (
            (losses, nn.Linear(2, 1).named_parameters(), 1.0, 100),
            r"weights must be tensors.*got \['tuple', 'tuple'\]",
        ),
        ((losses, weights, math.nan, 100), "strength must be at least 0 and finite, got nan"),
        ((losses, weights, math.inf, 100), "strength must be at least 0 and finite, got inf"),
        ((losses, weights, "1", 100), "strength must be a number, got '1'"),
        ((losses, weights, 1.0, "100"), "examples must be a whole number of at least 1, got '100'"),
        ((losses, weights, 1.0, 100.5), "examples must be a whole number of at least 1, got 100.5"),
    ]:
        with pytest.raises(ValueError, match=reason):
            regularised_cost(*arguments)


# Resumption


def test_broken_state_of_batches_is_refused_and_changes_nothing():
    batches, good = EpochBatches(17, 3, seed=2), EpochBatches(17, 3, seed=2).state_dict()
    for wrong, reason in [
        (
            {},
            "a dict as state_dict.. gives it, got one without "
            "examples, batch_size, drop_last, epoch_start, done",
        ),
        (None, "a dict as state_dict.. gives it, got one None"),
        ({name: good[name] for name in good if name != "done"}, "got one without done"),
        ({**good, "done": 99}, "done must be between 0 and the 6 batches of an epoch, got 99"),
        ({**good, "done": -1}, "done must be a whole number of at least 0, got -1"),
        ({**good, "done": 1.5}, "done must be a whole number of at least 0, got 1.5"),
        ({**good, "epoch_start": "a"}, "epoch_start must be the state of a torch.Generator"),
        (
            {**good, "epoch_start": torch.zeros(5, dtype=torch.uint8)},
            "epoch_start must be the state of a",
        ),
    ]:
        with pytest.raises(ValueError, match=reason):
            batches.load_state_dict(wrong)
    for wrong in [w for w in NOT_WHOLE if w is not None]:
        with pytest.raises(ValueError, match="done must be a whole number of at least 0, got"):
            batches.state_dict(done=wrong)
    assert list(batches) == list(EpochBatches(17, 3, seed=2))


def epochs(number):
    batches = EpochBatches(17, 3, seed=2)
    return [batch for _ in range(number) for batch in batches]


def prefetched(batches, ahead):
    """A loader as workers make it: it asks for batches ahead of the loop."""
    queue = []
    for batch in batches:
        queue.append(batch)
        if len(queue) > ahead:
            yield queue.pop(0)
    yield from queue


@pytest.mark.parametrize("ahead", [0, 1, 4, 9])
@pytest.mark.parametrize("stops", [(2,), (6,), (1, 3), (4, 2, 3)])
def test_stopped_again_and_again_no_prefetched_batch_is_lost(ahead, stops):
    seen, state = [], EpochBatches(17, 3, seed=2).state_dict()
    for stop in stops:
        batches = EpochBatches(17, 3, seed=2)
        batches.load_state_dict(state)
        for count, batch in enumerate(batches.counted(prefetched(batches, ahead)), start=1):
            seen.append(batch)
            state = batches.state_dict()
            if count == stop:
                break
    resumed = EpochBatches(17, 3, seed=2)
    resumed.load_state_dict(state)
    assert [*seen, *resumed, *resumed] == epochs(4)[: len(seen) + len(resumed) * 2 - len(seen) % 6]


def test_a_new_epoch_forgets_the_count_of_the_last():
    batches = EpochBatches(17, 3, seed=2)
    list(batches.counted(prefetched(batches, 4)))
    assert batches.state_dict()["done"] == 6
    plain = iter(batches)
    next(plain)
    assert batches.state_dict()["done"] == 1


def test_checkpoint_behind_two_workers_resumes_at_the_batch_the_loop_had(tmp_path):
    def run(model, batches, stop=None):
        loader = DataLoader(
            range(17), batch_sampler=batches, num_workers=2, generator=torch.Generator()
        )
        for done, batch in enumerate(batches.counted(loader), start=1):
            seen.append(batch.tolist())
            if done == stop:
                save_checkpoint(tmp_path / "run.safetensors", model, None, done, batches=batches)
                return

    seen, model = [], nn.Linear(2, 1)
    run(model, EpochBatches(17, 3, seed=2), stop=1)
    resumed = EpochBatches(17, 3, seed=2)
    load_checkpoint(tmp_path / "run.safetensors", model, batches=resumed)
    run(model, resumed)
    assert seen == epochs(1)


def test_loader_of_another_sampler_is_refused():
    batches = EpochBatches(17, 3, seed=2)
    with pytest.raises(ValueError, match="the loader must take its batches from this sampler"):
        next(batches.counted(DataLoader(range(17), batch_size=3, generator=torch.Generator())))


def test_a_loader_with_its_own_generator_leaves_dropouts_numbers_alone():
    """iter(DataLoader) draws from the global generator unless it has its own.

    That is the other half of resuming bitwise.
    """
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(
        DataLoader(
            range(17), batch_sampler=EpochBatches(17, 3, seed=2), generator=torch.Generator()
        )
    )
    assert torch.equal(before, torch.get_rng_state())
    list(DataLoader(range(17), batch_sampler=EpochBatches(17, 3, seed=2)))
    assert not torch.equal(before, torch.get_rng_state())
