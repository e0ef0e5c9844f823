"""The plateau schedule is torch's ReduceLROnPlateau, each replica on its own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steadydescent.schedules import Plateau

R, N = 5, 43  # replicas, observations


def torch_factors(plateau, values):
    """What torch's class makes of one replica's values; `eps` is what `Plateau` leaves out."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        plateau.mode,
        plateau.factor,
        plateau.patience,
        plateau.threshold,
        plateau.threshold_mode,
        plateau.cooldown,
        plateau.floor,
        eps=0.0,
    )
    factors = []
    for value in values:
        scheduler.step(value)
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


def factors_of(plateau, values):
    """Factors after each observation, `[N, R]`."""
    state, factors = plateau.init(values.shape[1]), []
    for row in values:
        state = plateau.observe(state, row)
        factors.append(plateau.factors(state))
    return np.array(factors)


plateaus = st.builds(
    Plateau,
    factor=st.floats(0.05, 0.95),
    patience=st.integers(0, 5),
    threshold=st.sampled_from([0.0, 1e-4, 0.05, 0.5]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 4),
    floor=st.sampled_from([0.0, 0.01, 0.3]),
    mode=st.sampled_from(["min", "max"]),
)


def drifting(seed, drift):
    """Random walks, some of them improving, with ties and a few values that are not finite."""
    generator = np.random.default_rng(seed)
    values = np.round(2 + np.cumsum(generator.normal(drift, 0.2, (N, R)), axis=0), 1)
    values[generator.random((N, R)) < 0.05] = math.nan
    return values


@settings(max_examples=150, deadline=None)  # the first use of a torch optimiser is slow
@given(plateau=plateaus, seed=st.integers(0, 2**32 - 1), drift=st.sampled_from([-0.1, 0.0, 0.1]))
def test_every_replica_has_the_rates_of_torchs_class(plateau, seed, drift):
    values = drifting(seed, drift)
    expected = np.stack([torch_factors(plateau, column) for column in values.T], axis=1)
    np.testing.assert_array_equal(factors_of(plateau, values), expected)


def test_the_random_sequences_do_reduce_recover_and_reach_the_floor():
    """A guard on the test above: its sequences must not all be alike."""
    plateau = Plateau(factor=0.5, patience=1, floor=0.01, cooldown=2)
    ends = np.concatenate(
        [
            factors_of(plateau, drifting(seed, drift))[-1]
            for seed in range(9)
            for drift in (-0.1, 0.1)
        ]
    )
    assert ends.min() == 0.01 and len(set(ends)) >= 5


def test_defaults_are_torchs():
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], 1.0))
    for name in ("factor", "patience", "threshold", "threshold_mode", "cooldown", "mode"):
        assert getattr(Plateau(), name) == getattr(scheduler, name)
    assert Plateau().floor == scheduler.min_lrs[0]


@given(plateau=plateaus, seed=st.integers(0, 2**32 - 1))
def test_no_replica_feels_another(plateau, seed):
    values = drifting(seed, 0.0)
    alone = np.concatenate([factors_of(plateau, column[:, None]) for column in values.T], axis=1)
    np.testing.assert_array_equal(factors_of(plateau, values), alone)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_no_improvement(mode, value):
    """torch would take −inf for the best loss there is, and count everything after it as bad."""
    plateau = Plateau(factor=0.5, patience=0, mode=mode)
    state = plateau.observe(plateau.init(1), np.array([0.7]))
    state = plateau.observe(state, np.array([value]))
    assert plateau.factors(state).item() == 0.5 and state.best.item() == 0.7
    better = 0.6 if mode == "min" else 0.8
    assert plateau.factors(plateau.observe(state, np.array([better]))).item() == 0.5


def test_observing_leaves_the_state_as_it_was():
    plateau = Plateau(patience=0)
    state = plateau.observe(plateau.init(3), np.array([0.3, 0.2, 0.1]))
    kept = [array.copy() for array in state]
    plateau.observe(state, np.array([0.4, 0.1, math.nan]))
    assert all((array == copy).all() for array, copy in zip(state, kept, strict=True))


def test_patience_is_the_number_of_bad_observations_forgiven():
    values = np.ones((7, 1))
    assert factors_of(Plateau(factor=0.5, patience=2), values)[:, 0].tolist() == [
        1,
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.25,
    ]
    assert factors_of(Plateau(factor=0.5, patience=2, cooldown=1), values)[:, 0].tolist()[-2:] == [
        0.5,
        0.5,
    ]


def test_values_of_another_number_of_replicas_are_refused():
    with pytest.raises(
        ValueError, match=r"values must have the shape \(3,\), one a replica, got \(2,\)"
    ):
        Plateau().observe(Plateau().init(3), np.zeros(2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"factor": 1.0}, r"factor must be in \(0, 1\), got 1.0"),
        ({"factor": 0.0}, r"factor must be in \(0, 1\), got 0.0"),
        ({"patience": -1}, "patience must be a whole number of at least 0, got -1"),
        ({"patience": 1.5}, "patience must be a whole number of at least 0, got 1.5"),
        ({"cooldown": -1}, "cooldown must be a whole number of at least 0, got -1"),
        ({"floor": -0.1}, r"floor must be in \[0, 1\), got -0.1"),
        ({"threshold": 1.0}, r"threshold must be in \[0, 1\), got 1.0"),
        ({"threshold": -1e-4}, r"threshold must be in \[0, 1\), got -0.0001"),
        (
            {"threshold": -1e-4, "threshold_mode": "abs"},
            "threshold must be at least 0 and finite, got -0.0001",
        ),
        ({"threshold_mode": "relative"}, "threshold_mode must be 'rel' or 'abs', got 'relative'"),
        ({"mode": "least"}, "mode must be 'min' or 'max', got 'least'"),
    ],
)
def test_impossible_parameter_is_refused_by_name(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plateau(**options)


def test_no_replicas_are_refused():
    with pytest.raises(ValueError, match="replicas must be a whole number of at least 1, got 0"):
        Plateau().init(0)
