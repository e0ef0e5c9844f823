"""Every schedule is copied, pickled and sent to a spawned process.

With equal arguments it is equal.
"""

import copy
import io
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from steadydescent.optimizers import SGD
from steadydescent.schedules import (
    SCHEDULES,
    Plateau,
    Schedule,
    constant,
    cosine,
    exp_drop,
    exponential,
    inverse_sqrt_epoch,
    inverse_sqrt_step,
    inverse_time,
    linear,
    named,
    noam,
    options_of,
    ramp,
    steps,
    warm_up,
    warmup_linear,
)
from test_schedules import EVERY, updates

OPTIONS = {
    "rate": 0.3,
    "base": 0.9,
    "shares": [0.3],
    "factors": [0.1],
    "first_epoch": 2,
    "every_epoch": True,
    "d_model": 4,
    "warmup": 5,
    "warmup_share": 0.2,
    "cooldown_share": 0.2,
    "low": 1e-3,
    "high": 1.0,
}


def by_name(name):
    return named(
        name,
        53,
        5,
        **{option: value for option, value in OPTIONS.items() if option in options_of(name)},
    )


THINGS = {
    **EVERY,
    **{f"{name} wrapped": schedule.wrapped(3, 2, 0.01) for name, schedule in EVERY.items()},
    **{f"{name} by name": by_name(name) for name in SCHEDULES},
    "a product": warm_up(5) * linear(53),
    "one after another": warmup_linear(53, 5).then(20, cosine(9).wrapped(1)) * constant(),
    "of one's own": Schedule(np.sqrt, "root"),
}
COPIES = {
    "a deep copy": copy.deepcopy,
    "a copy": copy.copy,
    "a pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", THINGS)
def test_a_copy_of_every_schedule_is_equal_and_gives_the_same_bits(name, way):
    schedule = THINGS[name]
    other = COPIES[way](schedule)
    assert other == schedule and hash(other) == hash(schedule) and repr(other) == repr(schedule)
    assert other(updates(53)).tobytes() == schedule(updates(53)).tobytes()
    function, theirs = schedule.for_lambda_lr(), COPIES[way](schedule.for_lambda_lr())
    for count in (0, 7, np.int64(52)):
        assert type(theirs(count)) is float and theirs(count) == function(count)


def test_schedules_are_equal_by_their_arguments_and_no_others():

    def made():
        return [
            linear(5),
            linear(6),
            linear(5, 0.1),
            cosine(5),
            constant(),
            inverse_time(1, 5),
            exponential(0.9, 5),
            inverse_sqrt_epoch(5),
            inverse_sqrt_step(),
            inverse_sqrt_step(2),
            steps([3], [0.1]),
            steps([3], [0.2]),
            exp_drop(2, True, 5),
            exp_drop(2, False, 5),
            noam(4, 4),
            noam(4, 5),
            noam(4, 4, 2.0),
            warm_up(3),
            warmup_linear(5, 3),
            ramp(0.1, 1, 5),
            linear(5).wrapped(1),
            linear(5) * cosine(5),
            linear(5).then(2, cosine(5)),
            linear(5).then(3, cosine(5)),
        ]

    first, second = made(), made()
    assert first == second and len(set(first + second)) == len(first)


@pytest.mark.parametrize("way", COPIES)
def test_a_plateau_and_its_state_are_copied(way):
    plateau = Plateau(factor=0.5, patience=0)
    state = plateau.observe(plateau.init(2), np.array([1.0, 2.0]))
    other, there = COPIES[way](plateau), COPIES[way](state)
    assert other == plateau
    for one, two in zip(
        plateau.observe(state, np.ones(2)), other.observe(there, np.ones(2)), strict=True
    ):
        assert one.tobytes() == two.tobytes() and one.dtype == two.dtype


@pytest.mark.parametrize("way", ["a deep copy", "a pickle"])
def test_torchs_scheduler_around_one_is_copied_whole_and_its_state_holds_plain_values(way):
    scheduler = LambdaLR(
        SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), warmup_linear(53, 5).for_lambda_lr()
    )
    other = COPIES[way](scheduler)
    for one in (scheduler, other):
        for _ in range(7):
            one.optimizer.step()
            one.step()
    assert (
        other.get_last_lr() == scheduler.get_last_lr() != [1.0]
        and other.optimizer is not scheduler.optimizer
    )
    state = scheduler.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    resumed = LambdaLR(
        SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), warmup_linear(53, 5).for_lambda_lr()
    )
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    old = LambdaLR(
        SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), warmup_linear(53, 5).for_lambda_lr()
    )
    old.load_state_dict({**state, "lr_lambdas": [None]})  # as states were when it was a lambda
    for one in (scheduler, resumed, old):
        one.optimizer.step()
        one.step()
    assert resumed.get_last_lr() == old.get_last_lr() == scheduler.get_last_lr()


def _asked(pipe, function):
    pipe.send([function(count) for count in range(53)])


@pytest.mark.slow
def test_a_spawned_worker_takes_them():
    spawn = multiprocessing.get_context("spawn")
    function, (here, there) = THINGS["one after another"].for_lambda_lr(), spawn.Pipe()
    worker = spawn.Process(target=_asked, args=(there, function))
    worker.start()
    assert here.poll(60) and here.recv() == [function(count) for count in range(53)]
    worker.join(60)
    assert worker.exitcode == 0
