"""A sentence names every impossible parameter of a schedule, before anything is built."""

import math

import pytest

from steadydescent import schedules

REFUSED = [
    (lambda: schedules.linear(0), "total must be a whole number of at least 1, got 0"),
    (lambda: schedules.linear(2.5), "total must be a whole number of at least 1, got 2.5"),
    (lambda: schedules.linear(5, end=1.0), r"end must be in \[0, 1\), got 1.0"),
    (lambda: schedules.cosine(True), "total must be a whole number of at least 1, got True"),
    (lambda: schedules.cosine(5, end=-0.1), r"end must be in \[0, 1\), got -0.1"),
    (lambda: schedules.inverse_time(0, 5), "rate must be positive and finite, got 0"),
    (lambda: schedules.inverse_time(math.inf, 5), "rate must be positive and finite, got inf"),
    (lambda: schedules.inverse_time(1, 0), "epoch must be a whole number of at least 1, got 0"),
    (
        lambda: schedules.inverse_time(1, None),
        "epoch, the number of updates in an epoch, must be given",
    ),
    (lambda: schedules.exponential(1.0, 5), r"base must be in \(0, 1\), got 1.0"),
    (lambda: schedules.exponential(0.0, 5), r"base must be in \(0, 1\), got 0.0"),
    (lambda: schedules.inverse_sqrt_epoch(5, k=-1), "k must be positive and finite, got -1"),
    (lambda: schedules.inverse_sqrt_step(k=math.nan), "k must be positive and finite, got nan"),
    (lambda: schedules.steps([], []), "factors must be one for each milestone, got 0 for 0"),
    (lambda: schedules.steps([3, 5], [0.1]), "factors must be one for each milestone, got 1 for 2"),
    (lambda: schedules.steps([5, 5], [0.1, 0.1]), r"milestones must increase, got \[5, 5\]"),
    (lambda: schedules.steps([5, 3], [0.1, 0.1]), r"milestones must increase, got \[5, 3\]"),
    (lambda: schedules.steps([0], [0.1]), "milestones must be a whole number of at least 1, got 0"),
    (lambda: schedules.steps([3], [0.0]), "factors must be positive and finite, got 0.0"),
    (
        lambda: schedules.exp_drop(0, True, 5),
        "first_epoch must be a whole number of at least 1, got 0",
    ),
    (lambda: schedules.exp_drop(1, "once", 5), "every_epoch must be true or false, got 'once'"),
    (lambda: schedules.exp_drop(1, True, -2), "epoch must be a whole number of at least 1, got -2"),
    (lambda: schedules.noam(0, 5), "d_model must be a whole number of at least 1, got 0"),
    (lambda: schedules.noam(4, 0), "warmup must be a whole number of at least 1, got 0"),
    (lambda: schedules.noam(4, 5, scale=0), "scale must be positive and finite, got 0"),
    (lambda: schedules.warm_up(0), "warmup must be a whole number of at least 1, got 0"),
    (
        lambda: schedules.warmup_linear(7, 7),
        "warmup must be less than the 7 updates of the run, got 7",
    ),
    (lambda: schedules.cooldown(7, 0), "length must be a whole number of at least 1, got 0"),
    (lambda: schedules.cooldown(7, 8), "length must be less than the 7 updates of the run, got 8"),
    (lambda: schedules.cooldown(7, 2, power=0), "power must be .* got 0"),
    (lambda: schedules.ramp(0, 1, 5), "low must be positive and finite, got 0"),
    (lambda: schedules.ramp(0.1, 0.1, 5), "high must be above low = 0.1, got 0.1"),
    (lambda: schedules.ramp(0.1, 1, 1), "total must be a whole number of at least 2, got 1"),
    (
        lambda: schedules.linear(5).then(0, schedules.constant()),
        "at must be a whole number of at least 1, got 0",
    ),
    (
        lambda: schedules.linear(5).wrapped(step_start=-1),
        "step_start must be a whole number of at least 0, got -1",
    ),
    (
        lambda: schedules.linear(5).wrapped(step_duration=0),
        "step_duration must be a whole number of at least 1, got 0",
    ),
    (lambda: schedules.linear(5).wrapped(floor=-0.1), r"floor must be in \[0, 1\), got -0.1"),
    (lambda: schedules.linear(5).plot(0), "total must be a whole number of at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_impossible_parameter_is_refused_by_name(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
