"""Timing by a fake clock: what is timed when, and that only sizes of one round are compared."""

import math
from itertools import chain, islice

import numpy as np
import pytest
import torch
from pandas import DataFrame
from torch import nn

from steadydescent.study.training import timing
from steadydescent.study.training.timing import (
    INPUTS,
    power_of_two_gain,
    time_per_example,
    training,
)

SIZES = [31, 32, 33]


class Clock:
    """Each update takes `cost(size, updates so far)` seconds; `order` is every update's size."""

    def __init__(self, cost):
        self.now, self.order, self.cost, self.threads = 0.0, [], cost, set()

    def __call__(self) -> float:
        return self.now

    def training(self, task, batch_size, device, seed):
        while True:
            self.now += self.cost(batch_size, len(self.order))
            self.order.append(batch_size)
            self.threads.add(torch.get_num_threads())
            yield batch_size


@pytest.fixture
def clock(monkeypatch):
    def install(cost) -> Clock:
        fake = Clock(cost)
        monkeypatch.setattr(timing, "perf_counter", fake)
        monkeypatch.setattr(timing, "training", fake.training)
        return fake

    return install


def timed(times: dict[int, list[float]]) -> DataFrame:
    """A table of times a size, one a round."""
    rows = [(size, number, time) for size, row in times.items() for number, time in enumerate(row)]
    return DataFrame(rows, columns=["batch_size", "round", "seconds_per_example"])


# Time per example


def test_sizes_take_turns_in_every_round_after_a_warm_up_apart(clock):
    """An update of 2^-6 s: 4 of them fill 2^-4 s; 20 and 20 more come before."""
    fake = clock(lambda size, done: 2**-6)
    table = time_per_example("mnist1d-mlp", SIZES, rounds=5, seconds=2**-4)
    warm_up = [size for size in SIZES for _ in range(2 * timing.WARM_UP)]
    assert fake.order == warm_up + 5 * [size for size in SIZES for _ in range(4)]
    assert list(zip(table["round"], table.batch_size, strict=True)) == [
        (r, n) for r in range(5) for n in SIZES
    ]
    assert list(table.columns) == ["batch_size", "round", "seconds_per_example"]


def test_time_per_example_is_time_per_update_over_the_batch_size(clock):
    clock(lambda size, done: 2e-3 + 1e-4 * size)
    table = time_per_example("mnist1d-mlp", [7, 100], rounds=3, seconds=0.05)
    expected = 1e-4 + 2e-3 / table.batch_size
    np.testing.assert_allclose(table.seconds_per_example, expected, rtol=1e-9)


def test_a_slow_first_update_is_no_part_of_the_times(clock):
    clock(lambda size, done: 10.0 if done == 0 else 1e-3)
    table = time_per_example("mnist1d-mlp", [10, 20], rounds=2, seconds=0.01)
    np.testing.assert_allclose(table.seconds_per_example * table.batch_size, 1e-3, rtol=1e-9)


def test_an_update_longer_than_the_time_given_is_still_run_once_a_round(clock):
    fake = clock(lambda size, done: 5.0)
    time_per_example("mnist1d-mlp", [13], rounds=3, seconds=0.1)
    assert len(fake.order) == 2 * timing.WARM_UP + 3


def test_torch_has_the_stated_threads_meanwhile_and_its_own_afterwards(clock):
    before = torch.get_num_threads()
    fake = clock(lambda size, done: 1.0)
    time_per_example("mnist1d-mlp", [13], rounds=1, seconds=1.0, threads=before + 1)
    assert fake.threads == {before + 1} and torch.get_num_threads() == before


@pytest.mark.parametrize("task", sorted(INPUTS))
def test_real_loops_give_a_positive_time_for_every_size_and_round(task):
    table = time_per_example(task, [31, 32], rounds=2, seconds=1e-4)
    assert len(table) == 4 and (table.seconds_per_example > 0).all()


@pytest.mark.gpu
def test_a_gpu_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    table = time_per_example("mnist1d-mlp", [32], rounds=3, seconds=1e-4, device="cuda")
    assert len(table) == 3 and waits == 2 * (2 + 3) * ["cuda"]


class Recorder(nn.Module):
    """Linear, and keeps the first feature of all it is given."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(INPUTS["mnist1d-mlp"], 10), []

    def forward(self, x):
        self.seen += [x[:, 0].tolist()]
        return self.linear(x)


def test_an_epoch_has_whole_batches_of_different_examples_in_a_new_order_and_trains(monkeypatch):
    model = Recorder()
    weights = model.linear.weight.detach().clone()
    monkeypatch.setattr(timing, "EXAMPLES", 11)
    monkeypatch.setattr(timing, "initial_model", lambda task, seed: model)
    assert list(islice(training("mnist1d-mlp", 3, "cpu", seed=0), 6)) == [3] * 6
    first, second = [*chain(*model.seen[:3])], [*chain(*model.seen[3:])]
    assert len(set(first)) == len(set(second)) == 9 and first != second
    assert len(set(first + second)) <= 11
    assert (model.linear.weight - weights).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "names-transformer"},
            "task must be one of .*'mnist1d-mlp'.*, got 'names-transformer'",
        ),
        ({"sizes": []}, "sizes must be one or more, each once"),
        ({"sizes": [32, 32]}, r"each once, got \(32, 32\)"),
        ({"sizes": [0]}, "sizes must be a whole number of at least 1, got 0"),
        ({"sizes": [10_001]}, "sizes must be at most the 10000 examples, got 10001"),
        ({"rounds": 0}, "rounds must be a whole number"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"threads": 0}, "threads must be a whole number"),
    ],
)
def test_what_cannot_be_timed_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        time_per_example(
            **{"task": "mnist1d-mlp", "sizes": [32], "rounds": 1, "seconds": 1e-4, **changes}
        )


# The gain of a power of two


def test_the_gain_is_the_log_ratio_of_the_neighbours_geometric_mean_to_the_power():
    gains = power_of_two_gain(timed({31: [4.0], 32: [3.0], 33: [9.0]}))
    assert gains.gain.tolist() == pytest.approx([100 * math.log(6 / 3)])
    assert power_of_two_gain(
        timed({31: [3.0], 32: [6.0], 33: [12.0]})
    ).gain.tolist() == pytest.approx([0.0])


def test_a_slow_round_slows_all_sizes_and_changes_no_gain(clock):
    """After the warm-up each round is one update a size, each round half as fast; an update of 32
    takes 10 % less.
    """
    slower = lambda done: 2.0 ** max(0, (done - 3 * 2 * timing.WARM_UP) // 3)
    clock(lambda size, done: slower(done) * (0.9 if size == 32 else 1.0))
    table = time_per_example("mnist1d-mlp", SIZES, rounds=4, seconds=1e-6)
    spread = table.groupby("batch_size").seconds_per_example.agg(
        lambda times: times.max() / times.min()
    )
    assert spread.tolist() == pytest.approx([8.0] * 3)
    expected = 100 * (math.log(1 / 0.9) - (math.log(31) + math.log(33)) / 2 + math.log(32))
    assert power_of_two_gain(table).gain.tolist() == pytest.approx([expected] * 4, rel=1e-9)


def test_rounds_are_paired_whatever_the_order_of_rows():
    times = {31: [1.0, 8.0], 32: [1.0, 2.0], 33: [1.0, 8.0]}
    table = timed(times).sample(frac=1, random_state=0)
    gains = power_of_two_gain(table).set_index("round").gain
    assert gains[0] == pytest.approx(0.0) and gains[1] == pytest.approx(100 * math.log(4))


def test_only_powers_with_both_neighbours_are_judged():
    sizes = [31, 32, 33, 63, 64, 99, 100, 101, 127, 128, 129]
    gains = power_of_two_gain(timed({size: [1.0, 2.0] for size in sizes}))
    assert list(gains.columns) == ["batch_size", "round", "gain"]
    assert list(zip(gains.batch_size, gains["round"], strict=True)) == [
        (32, 0),
        (32, 1),
        (128, 0),
        (128, 1),
    ]


@pytest.mark.parametrize("n", [32, 64, 128, 256])
def test_a_cost_that_knows_no_powers_gains_at_most_fifty_over_n_squared_percent(n):
    for a, b in ((1.0, 0.0), (1.0, 0.01), (0.0, 1.0)):
        (gain,) = power_of_two_gain(
            timed({size: [a / size + b] for size in (n - 1, n, n + 1)})
        ).gain
        assert -1e-9 <= gain <= 50 / n**2 * 1.001


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            {31: [1.0], 32: [1.0, 1.0], 33: [1.0, 1.0]},
            r"every round must have every size, missing: \[31\]",
        ),
        (
            {31: [1.0], 32: [1.0], 100: [1.0]},
            r"a power of two with both its neighbours, got \[31, 32, 100\]",
        ),
    ],
)
def test_a_table_without_pairs_is_refused(times, message):
    with pytest.raises(ValueError, match=message):
        power_of_two_gain(timed(times))
