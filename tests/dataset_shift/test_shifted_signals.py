"""Covariate shift of signals: each knob of MNIST-1D's generator, held to laws of that generator."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from shifted_sets import SHIFTS, moved, signals, spread_apart
from steadydescent.dataset_shift import MOVES, SIGNAL_KNOBS, shifted_signals
from steadydescent.engine import data
from steadydescent.engine.data import mnist1d


def enough(knob, severity):
    """Signals that show the shift: the weakest are seen only in many."""
    if knob in ("scale", "translation", "padding"):
        return 6000 if severity == 1 else 2000
    return 2000 if (knob, severity) == ("shear", 1) else 1000


@pytest.mark.parametrize("severity", SHIFTS)
@pytest.mark.parametrize("knob", SIGNAL_KNOBS)
def test_every_knob_of_the_generator_moves_what_a_covariate_shift_moves(knob, severity):
    count = enough(knob, severity)
    after = signals(knob, severity, count)
    assert moved(signals(count=count), after) == MOVES["covariate"]
    assert torch.equal(after.y, signals(count=count).y)


@pytest.mark.parametrize("knob", SIGNAL_KNOBS)
def test_signals_move_further_with_every_severity(knob):
    distances = [
        spread_apart(signals(count=200).x, signals(knob, s, count=200).x) for s in range(6)
    ]
    assert distances[0] == 0
    assert all(near < far for near, far in pairwise(distances)), distances


@pytest.mark.parametrize("knob", ["iid-noise", "correlated-noise", "scale", "shear"])
def test_draws_are_paired_signals_depend_on_a_knob_along_a_straight_line(knob):
    """x = a + value·b with the same a and b at every value: all differences are proportional."""
    values = SIGNAL_KNOBS[knob].values
    drawn = [signals(knob, severity, count=200).x.double() for severity in range(6)]
    slopes = [(drawn[severity] - drawn[0]) / (values[severity] - values[0]) for severity in SHIFTS]
    for slope in slopes:
        torch.testing.assert_close(slope, slopes[-1], rtol=0, atol=1e-5)
    assert slopes[-1].std() > 0.01


def test_shear_adds_a_straight_line():
    difference = (signals("shear", 5, count=200).x - signals(count=200).x).double()
    assert difference.diff(n=2, dim=1).abs().max() < 1e-5 < difference.diff(dim=1).abs().max()


def noiseless(knob, severity, count=70):
    """The 72 points before noise, shear and subsampling."""
    plain = {"iid_noise_scale": 0, "corr_noise_scale": 0, "shear_scale": 0, "final_seq_length": 72}
    knob = SIGNAL_KNOBS[knob]
    return mnist1d.draw(5, count, plain | knob.changes(knob.values[severity]))


@pytest.mark.parametrize("severity", SHIFTS)
def test_translation_moves_every_pattern_by_the_tables_points_and_nothing_else(severity):
    before, labels = noiseless("translation", 0)
    after, same = noiseless("translation", severity)
    assert np.array_equal(
        after, np.roll(before, SIGNAL_KNOBS["translation"].values[severity], axis=1)
    )
    assert np.array_equal(labels, same)


def test_fewer_zeros_make_every_pattern_longer_up_to_the_whole_signal():
    lengths = np.stack([(noiseless("padding", severity)[0] != 0).sum(1) for severity in range(6)])
    assert (np.diff(lengths, axis=0) >= 0).all() and (lengths[0] >= 12).all()
    # 72·12/(12+36) = 18 at most, all at no zeros
    assert lengths[0].max() < 20 and lengths[5].max() == 72


def test_severity_0_of_every_knob_is_the_generators_own_setting_byte_for_byte():
    x, y = mnist1d.draw(5, 200)
    for knob in SIGNAL_KNOBS:
        same = shifted_signals(knob, 0, seed=5, count=200)
        assert same.x.numpy().tobytes() == x.astype(np.float32).tobytes()
        assert same.y.numpy().tobytes() == y.tobytes()
        assert same.rows.equal(torch.arange(200))


def test_severity_0_of_the_test_sets_seed_is_the_stored_test_set(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist1d, "COUNTS", {"train": 70, "validation": 110, "test": 130})
    stored = data.load("mnist1d", [3], tmp_path, print)
    same = shifted_signals("scale", 0, seed=mnist1d.TEST_SEED, count=130)
    assert torch.equal(same.x, stored.pool[stored.test]) and same.x.dtype == stored.pool.dtype
    assert torch.equal(same.y, stored.labels[stored.test])


def test_signals_follow_from_their_seed_alone():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, again, other = (
        shifted_signals("translation", 4, seed=seed, count=70) for seed in (8, 8, 9)
    )
    assert (
        torch.equal(first.x, again.x)
        and torch.equal(first.y, again.y)
        and not torch.equal(first.x, other.x)
    )
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("change", [{"noise": 1}, {"shuffle_seq": True}, {"template_len": 13}])
def test_generator_arguments_that_do_not_exist_or_have_no_effect_are_refused(change):
    with pytest.raises(
        ValueError, match=f"changes must be among .*final_seq_length.*; got {next(iter(change))}"
    ):
        mnist1d.draw(0, 70, change)
