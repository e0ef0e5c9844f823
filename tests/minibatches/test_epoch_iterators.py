"""Epochs walked over in every way a loop can.

The state is that of the loop, and its rest repeats and drops nothing.

`WAYS` is the table of what may happen between two batches of a loop; each is tried with every kind
of loader. Behind it, the same for several ranks: their shares are the epoch.
"""

import copy
import gc
import pickle

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from steadydescent.minibatches import EpochBatches, updates_per_epoch

M, N = 17, 3  # 6 batches, the last one smaller


def epochs(count, **options):
    batches = EpochBatches(M, N, seed=2, **options)
    return [list(batches) for _ in range(count)]


class Ring:
    """A loader whose iterator is part of a cycle: it lives until the next collection."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        def walk():
            yield from batches

        batches = iter(self.batches)
        cycle = {"walk": walk()}
        cycle["itself"] = cycle
        for batch in cycle["walk"]:  # noqa: UP028 - `yield from` would close it
            yield batch


def of(loader):
    return next(iter(loader))


def walk_over(loader, batches, stop=None):
    for count, _ in enumerate(loader, start=1):
        if count == stop:
            break


def one_after_another(loader, batches):
    walk_over(loader, batches)
    walk_over(loader, batches, 2)
    of(loader)


def failing(loader, batches):
    try:
        for _ in loader:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


WAYS = {
    "nothing": lambda loader, batches: None,
    "a look": lambda loader, batches: of(loader),
    "a look at the sampler": lambda loader, batches: of(batches),
    "two looks": lambda loader, batches: (of(loader), of(loader)),
    "a whole walk": walk_over,
    "a walk that is left": lambda loader, batches: walk_over(loader, batches, 3),
    "a walk that is left at its first batch": lambda loader, batches: walk_over(loader, batches, 1),
    "several of them": one_after_another,
    "a walk that fails": failing,
    "another loader of the same sampler": lambda loader, batches: list(
        DataLoader(range(M), batch_sampler=batches)
    ),
    "an iterator that is never asked": lambda loader, batches: iter(batches),
    "a copy walked over": lambda loader, batches: list(copy.deepcopy(batches)),
}
LOADERS = {
    "the sampler": lambda batches: batches,
    "a loader": lambda batches: DataLoader(
        range(M), batch_sampler=batches, generator=torch.Generator()
    ),
    "a loader in a cycle": Ring,
}


def lists(batch):
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


@pytest.mark.parametrize("counted", [False, True], ids=["plain", "counted"])
@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_rest_of_the_epoch_neither_repeats_nor_drops_an_example(way, kind, counted):
    for at in (2, 5, 6):
        batches, seen = EpochBatches(M, N, seed=2), []
        loader = LOADERS[kind](batches)
        for batch in batches.counted(loader) if counted else loader:
            seen.append(lists(batch))
            if len(seen) == at:
                WAYS[way](loader, batches)
                state = batches.state_dict()
        assert seen == epochs(1)[0] and state["done"] == at, "the loop itself goes on undisturbed"
        resumed = EpochBatches(M, N, seed=2)
        resumed.load_state_dict(state)
        if at < 6:
            assert [*seen[:at], *resumed] == seen
        assert list(resumed) == epochs(2)[1], (
            "the next epoch is whole, and that which would have come"
        )


@pytest.mark.parametrize("counted", [False, True], ids=["plain", "counted"])
def test_state_after_the_loop_was_left_is_the_loops(counted):
    batches, seen = EpochBatches(M, N, seed=2), []
    for batch in batches.counted(batches) if counted else batches:
        seen.append(batch)
        if len(seen) == 4:
            break
    resumed = EpochBatches(M, N, seed=2)
    resumed.load_state_dict(batches.state_dict())
    assert [*seen, *resumed] == epochs(1)[0]


# Where two could be meant


def test_an_iterator_kept_in_a_variable_makes_the_state_unclear_and_counted_clear():
    batches = EpochBatches(M, N, seed=2)
    kept = iter(batches)
    next(kept)  # as tutorials look at a batch before they train
    loops = "the one at batch [26] of its epoch or that at batch 1"
    sentence = f"state_dict must be told which loop is meant, {loops}"
    seen = []
    for batch in batches:
        seen.append(batch)
        if len(seen) == 2:
            with pytest.raises(ValueError, match=sentence):
                batches.state_dict()
    with pytest.raises(ValueError, match=sentence):
        batches.state_dict()
    for number, _ in enumerate(batches.counted(batches), start=1):
        assert batches.state_dict()["done"] == number
    del kept
    gc.collect()
    assert batches.state_dict()["done"] == 6


def test_of_two_counted_loops_the_inner_one_is_meant_while_it_lasts():
    batches = EpochBatches(M, N, seed=2)
    for outer, _ in enumerate(batches.counted(batches), start=1):
        for inner, _ in enumerate(batches.counted(batches), start=1):
            assert batches.state_dict()["done"] == inner
        assert batches.state_dict()["done"] == outer


def test_a_walk_begun_before_a_state_was_loaded_says_nothing_any_more():
    batches, state = EpochBatches(M, N, seed=2), EpochBatches(M, N, seed=2)
    under_way = iter(state)
    first = [next(under_way) for _ in range(4)]
    old = iter(batches)
    next(old)
    batches.load_state_dict(state.state_dict())
    next(old)
    assert batches.state_dict()["done"] == 4
    del old
    assert [*first, *batches] == epochs(1)[0] and batches.state_dict()["done"] == 6


# Resumption


@pytest.mark.parametrize("looks", [1, 2])
def test_a_look_after_a_state_was_loaded_does_not_cost_the_rest_of_its_epoch(looks):
    batches, first = EpochBatches(M, N, seed=2), []
    for batch in batches:
        first.append(batch)
        if len(first) == 2:
            break
    resumed = EpochBatches(M, N, seed=2)
    resumed.load_state_dict(batches.state_dict())
    for _ in range(looks):
        assert of(resumed) == epochs(1)[0][2]
    assert [first + list(resumed), list(resumed)] == epochs(2)


def test_with_workers_looks_and_resumptions_lose_nothing():
    def loop(batches, stop, look):
        loader = DataLoader(
            range(M), batch_sampler=batches, num_workers=2, generator=torch.Generator()
        )
        if look:
            of(loader)
        for count, batch in enumerate(batches.counted(loader), start=1):
            seen.append(batch.tolist())
            if count == 3:
                of(loader)
            if count == stop:
                return batches.state_dict()
        return None

    seen = []
    state = loop(EpochBatches(M, N, seed=2), 1, look=False)
    resumed = EpochBatches(M, N, seed=2)
    resumed.load_state_dict(state)
    assert loop(resumed, None, look=True) is None and seen == epochs(1)[0]


def test_copies_and_pickles_stand_where_the_loop_is():
    batches = EpochBatches(M, N, seed=2)
    for count, _ in enumerate(batches, start=1):
        if count == 4:
            copies = copy.deepcopy(batches), pickle.loads(pickle.dumps(batches))
    for other in copies:
        assert other.state_dict()["done"] == 4 and list(other) == epochs(2)[1]
        assert other.state_dict()["done"] == 6


# Several ranks


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("examples", "batch_size", "world"), [(24, 3, 2), (23, 3, 2), (101, 4, 3), (40, 1, 4)]
)
def test_ranks_share_every_batch_of_the_world_and_their_union_is_the_epoch(
    examples, batch_size, world, drop_last
):
    ranks = [
        EpochBatches(examples, batch_size, seed=5, drop_last=drop_last, rank=rank, world_size=world)
        for rank in range(world)
    ]
    alone = EpochBatches(examples, batch_size * world, seed=5, drop_last=drop_last)
    for _ in range(3):
        shares = [list(batches) for batches in ranks]
        length = updates_per_epoch(examples, batch_size * world, drop_last=drop_last)
        assert {len(share) for share in shares} == {length} == {len(batches) for batches in ranks}
        for together, expected in zip(zip(*shares, strict=True), alone, strict=True):
            assert [index for share in together for index in share] == expected
            counts = {len(share) for share in together}
            assert max(counts) - min(counts) <= 1 and max(counts) <= batch_size
        flat = [index for share in shares for batch in share for index in batch]
        whole = examples - examples % (batch_size * world) if drop_last else examples
        assert len(flat) == len(set(flat)) == whole
    assert ranks[0].state_dict().keys() == {"world_size", *alone.state_dict()}


def test_one_ranks_state_serves_them_all():
    ranks = [EpochBatches(23, 3, seed=5, rank=rank, world_size=2) for rank in range(2)]
    straight = [list(batches) for batches in copy.deepcopy(ranks)]
    walks = [iter(batches) for batches in ranks]
    for walk in walks:
        next(walk), next(walk)
    state = ranks[0].state_dict()
    for rank in range(2):
        resumed = EpochBatches(23, 3, seed=9, rank=rank, world_size=2)
        resumed.load_state_dict(state)
        assert list(resumed) == straight[rank][2:]


def test_states_from_before_there_were_ranks_load_where_there_is_one():
    old = EpochBatches(M, N, seed=2).state_dict()
    assert old.keys() == {"examples", "batch_size", "drop_last", "epoch_start", "done"}
    EpochBatches(M, N, seed=2).load_state_dict({**old, "done": 2})
    EpochBatches(M, N, seed=2, rank=0, world_size=1).load_state_dict(old)
    with pytest.raises(
        ValueError, match=r"the state must be of .*'world_size': 2.*got \{'world_size': 1\}"
    ):
        EpochBatches(M, N, seed=2, rank=0, world_size=2).load_state_dict(old)
    two = EpochBatches(M, N, seed=2, rank=1, world_size=2).state_dict()
    with pytest.raises(ValueError, match=r"the state must be of .*got \{'world_size': 2\}"):
        EpochBatches(M, N, seed=2).load_state_dict(two)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 1}, "rank and world_size must be given together, got 1 and None"),
        ({"world_size": 2}, "rank and world_size must be given together, got None and 2"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size = 2, got 2"),
        ({"rank": -1, "world_size": 2}, "rank must be a whole number of at least 0, got -1"),
        ({"rank": 0, "world_size": 0}, "world_size must be a whole number of at least 1, got 0"),
        ({"rank": "0", "world_size": 2}, "rank must be a whole number of at least 0, got '0'"),
        (
            {"rank": 0, "world_size": 6},
            "batch_size must be at most 2, so that 6 ranks have a batch each of the 17",
        ),
        (
            {"rank": 0, "world_size": 5},
            "each of 5 ranks must get as many batches, but the last one .* has 2 examples",
        ),
    ],
)
def test_ranks_that_do_not_go_up_are_refused(options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        EpochBatches(M, N, seed=2, **options)


def test_in_a_process_group_the_ranks_must_be_given(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(
        ValueError, match=r"each would draw the same batches: rank=dist\.get_rank\(\)"
    ):
        EpochBatches(M, N, seed=2)
    assert (
        list(EpochBatches(M, N, seed=2, rank=0, world_size=1)) == epochs(1, rank=0, world_size=1)[0]
    )


@pytest.mark.parametrize(
    ("examples", "batch_size"), [(1, 1), (2, 1), (2, 2), (4_097, 4_096), (4_097, 4_097)]
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_smallest_and_odd_sizes_are_epochs_too(examples, batch_size, drop_last):
    epoch = list(EpochBatches(examples, batch_size, 0, drop_last=drop_last))
    flat = [index for batch in epoch for index in batch]
    assert (
        len(set(flat))
        == len(flat)
        == (examples // batch_size * batch_size if drop_last else examples)
    )


@pytest.mark.parametrize(("examples", "batch_size"), [(0, 1), (0, 0), (1, 0), (1, 2), (5, 6)])
def test_sizes_that_are_none_are_refused(examples, batch_size):
    with pytest.raises(ValueError, match=r"^(examples|batch_size) must be "):
        EpochBatches(examples, batch_size, 0)
