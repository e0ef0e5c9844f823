"""Blocks of updates: however a run is cut, recorded or not, the updates are the same."""

import logging

import pytest
import torch
from torch.utils._pytree import tree_leaves

from steadydescent.engine.blocks import Batches, cloned, one_by_one, recorded, restore
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.study.paths import DATA
from syncs import Syncs

UPDATES = 23


def stack() -> Stack:
    fields = {
        "task": "mnist1d-mlp(norm='noisy-batch')",
        "schedule": "linear",
        "batch_size": 20,
        "steps": UPDATES,
    }
    runs = [
        Run(optimizer="adam", lr=lr, seed=seed, readouts=("last", "ema-10"), **fields)
        for seed in (0, 1)
        for lr in (0.001, 0.01)
    ]
    return Stack(runs, DATA, compile=False)


def ends(made: Stack, block, cuts=(0, UPDATES)) -> list[torch.Tensor]:
    """Everything that a run's updates leave behind, cut here and made by this block."""
    made.training.block = block
    with torch.no_grad():
        for stop in cuts[1:]:
            made.training.advance(stop)
    return [*tree_leaves(made.training.carry), made.training.losses]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(*pair) for pair in zip(one, other, strict=True)
    )


class Tape:
    """In place of a CUDA graph: what was recorded is done again on the same memory, and counted."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, function):
        function()

        def replay() -> None:
            self.replays += 1
            function()

        return replay


@pytest.fixture(scope="module")
def wanted() -> list[torch.Tensor]:
    made = stack()
    return ends(made, made.training.block)


@pytest.mark.parametrize("cuts", [(0, 10, 23), (0, 1, 2, 23), (0, 22, 23)])
def test_cutting_a_run_elsewhere_changes_nothing(wanted, cuts):
    made = stack()
    assert same(ends(made, made.training.block, cuts), wanted)


@pytest.mark.parametrize(
    ("updates", "cuts", "replays"),
    [(5, (0, 23), 4), (5, (0, 12, 23), 4), (7, (0, 3, 23), 2), (30, (0, 23), 0)],
)
def test_a_recording_makes_the_same_updates(wanted, updates, cuts, replays):
    made, tape = stack(), Tape()
    assert same(
        ends(made, recorded(made.training.block, made.training.carry, updates, tape), cuts), wanted
    )
    assert tape.replays == replays


def test_where_recording_fails_updates_are_made_one_by_one(wanted, caplog):
    def refuse(function):
        raise RuntimeError("no graph here")

    made = stack()
    with caplog.at_level(logging.WARNING):
        assert same(
            ends(made, recorded(made.training.block, made.training.carry, 5, refuse)), wanted
        )
    assert [r.message for r in caplog.records] == [
        "Updates could not be recorded as a CUDA graph and are made one by one, slower: "
        "no graph here"
    ]


def test_a_recording_that_gives_other_weights_is_not_used(wanted, caplog):
    made = stack()
    with caplog.at_level(logging.WARNING):
        assert same(
            ends(
                made,
                recorded(
                    made.training.block, made.training.carry, 5, lambda function: lambda: None
                ),
            ),
            wanted,
        )
    assert "gave other weights" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: operation failed due to a previous error during capture"),
    ],
    ids=["memory", "capture"],
)
@pytest.mark.parametrize("when", ["recording", "replaying"])
def test_whatever_ends_a_recording_costs_no_update(wanted, caplog, error, when):
    def record(function):
        if when == "recording":
            function()  # an update is made before it fails
            raise error

        def replay():
            function()
            raise error

        return replay

    made = stack()
    with caplog.at_level(logging.WARNING):
        assert same(
            ends(made, recorded(made.training.block, made.training.carry, 5, record)), wanted
        )
    assert [r.message.partition("slower: ")[2] for r in caplog.records] == [str(error)]


def test_an_error_of_the_updates_themselves_is_not_taken_for_one_of_the_recording():
    def plain(batches):
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = stack()
    with pytest.raises(torch.OutOfMemoryError):
        ends(made, recorded(plain, made.training.carry, 5, Tape()))


@pytest.mark.parametrize("way", ["one by one", "recorded"])
@pytest.mark.parametrize("task", ["mnist1d-mlp(norm='noisy-batch')", "mnist1d-cnn", "saddle"])
def test_nothing_inside_a_block_waits_for_the_gpu(way, task):
    told = {"task": task, "optimizer": "adam", "schedule": "linear", "batch_size": 20}
    told |= {"steps": UPDATES, "readouts": ("last", "ema-10")}
    made = Stack([Run(**told, lr=lr, seed=0) for lr in (0.01, 1e30)], DATA, compile=False)
    block = made.training.block
    if way == "recorded":
        block = recorded(block, made.training.carry, 5, Tape())
    with torch.no_grad():
        block(made.training.batches(7))  # traced, and recorded
        made.training.done = 7
        batches = made.training.batches(UPDATES)
        with Syncs() as seen:
            block(batches)
    assert seen == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x.sum()),
        lambda x: x.cpu(),
        lambda x: x.detach().numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: range(x.long().sum()) if x.sum() else None,
    ],
)
def test_whatever_waits_is_seen(wait):
    with Syncs() as seen:
        wait(torch.ones(3))
    assert seen
    with Syncs() as seen:
        torch.where(torch.ones(3) > 0, torch.ones(3), 2 * torch.ones(3)).sum()
    assert seen == []


def test_a_recording_keeps_the_batches_that_it_was_given():
    """Its memory for them is its own."""
    made = stack()
    batches = made.training.batches(UPDATES)
    before = [part.clone() for part in batches]
    recorded(made.training.block, made.training.carry, 5, Tape())(batches)
    assert same([*batches], before) and isinstance(batches, Batches)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 23), (0, 7, 23), range(UPDATES + 1)])
def test_replicas_that_diverge_stop_where_they_do_however_a_run_is_cut(cuts, lanes):
    """Two go at once, one later, one never; the oracle makes its updates one at a time."""
    fields = {"task": "mnist1d-mlp", "schedule": "constant", "batch_size": 20, "steps": UPDATES}
    runs = [
        Run(optimizer="sgd", lr=lr, seed=1, readouts=("last", "ema-10"), **fields)
        for lr in (1e30, 0.1, 600.0, 1e30)
    ]
    made = Stack(runs, DATA, compile=False, lanes=lanes)
    found = ends(made, made.training.block, cuts)
    one = Stack(runs, DATA, compile=False, lanes=lanes)
    saved, survived = cloned(one.training.carry), [0] * len(runs)
    for step in range(UPDATES):
        batches = one.training.batches(step + 1)
        losses = one.training.block(batches)[0]
        one.training.done += 1
        for r, loss in enumerate(losses.isfinite().tolist()):
            if loss and survived[r] == step:
                survived[r] += 1
                restore(saved, one.training.carry, slice(r, r + 1))
    assert made.training.survived.tolist() == survived
    assert len({0, UPDATES} | set(survived)) > 3 and survived[1] == UPDATES
    assert same(found[:-1], tree_leaves(saved))
    dead = torch.arange(UPDATES)[:, None] > made.training.survived
    assert found[-1][dead].isnan().all() and found[-1][~dead].isfinite().sum() > UPDATES


@pytest.mark.parametrize("readouts", [("last",), ("last", "ema-10"), ("last", "ema-10", "ema-30")])
def test_what_an_update_takes_has_the_same_strides_whatever_the_length(readouts):
    """A compiled step is compiled again for other strides."""
    fields = {
        "task": "mnist1d-mlp",
        "optimizer": "sgd",
        "schedule": "constant",
        "lr": 0.1,
        "batch_size": 20,
        "seed": 0,
    }
    one = Run(steps=99, readouts=readouts, **fields)
    made = Stack([one], DATA, compile=False)
    taken = [made.training.batches(length) for length in (1, 5, 96)]
    strides = [
        [part[0].stride() for part in (batches.steps, batches.lr, batches.weights)]
        for batches in taken
    ]
    assert strides[0] == strides[1] == strides[2]


@pytest.mark.gpu
def test_a_cuda_graph_makes_the_same_updates(caplog):
    one, other = (Stack(stack().wanted, DATA, "cuda", compile=False) for _ in range(2))
    plain = lambda made: one_by_one(made.step, made.groups)
    with caplog.at_level(logging.WARNING):
        graph = recorded(plain(other), other.training.carry, 5)
        found = [ends(one, plain(one)), ends(other, graph)]
    assert not caplog.records
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["one by one", "recorded"])
def test_torch_finds_nothing_in_a_block_that_waits_for_the_gpu(way):
    made = Stack(stack().wanted, DATA, "cuda", compile=False, graph=False)
    block = recorded(made.training.block, 5) if way == "recorded" else made.training.block
    with torch.no_grad():
        carry, _ = block(made.training.carry, made.training.batches(7))
        made.training.done = 7
        batches = made.training.batches(UPDATES)
        torch.cuda.set_sync_debug_mode("error")
        try:
            block(carry, batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
