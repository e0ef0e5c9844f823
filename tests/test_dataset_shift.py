"""Dataset shift: what should move moves, what should not stays, and severity 0 is the data as they were.

The corruptions are held to closed forms and to scipy in float64; a result in whole numbers is then right if it lies
within a half of the exact one. MNIST-1D's knobs are held to laws of its generator; counts and tests to slow references.
"""

import random
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import ceil

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steadydescent import data
from steadydescent.data import fashion_mnist, mnist1d
from steadydescent.dataset_shift import (
    IMAGE_KNOBS,
    MOVES,
    SIGNAL_KNOBS,
    Shifted,
    label_permutation,
    largest_remainder,
    prior_proportions,
    prior_shift,
    shifted_concept,
    shifted_images,
    shifted_prior,
    shifted_signals,
    verification,
    verify,
)

SHIFTS = range(1, 6)
ROUNDING = 0.5 + 1e-3  # of a grey level: to the nearest whole number, give or take float32
RANDOM_KNOBS = ["gaussian-noise", "rotation", "translation"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(before, after, columns=slice(None)):
    """Aspect → whether `verify` sees it move; `columns` of x are looked at."""
    before, after = (Shifted(part.x[:, columns], part.y, part.rows) for part in (before, after))
    return verify(before, after).set_index("aspect")["moved"].to_dict()


def spread_apart(first, second):
    """Mean over the features of the Wasserstein distance between two sets of equal size."""
    return (first.double().sort(0).values - second.double().sort(0).values).abs().mean().item()


@cache
def signals(knob="shear", severity=0, count=1000, seed=5):
    return shifted_signals(knob, severity, seed=seed, count=count)


@cache
def pictures(count=331, seed=1):
    """Three classes of synthetic things on black: discs, bars and crosses, each with its own place, size and grey."""
    numbers = np.random.default_rng(seed)
    down, across = np.mgrid[:28, :28] - 13.5
    labels = np.arange(count) % 3
    images = np.empty((count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        v, u = down - numbers.normal(0, 0.3), across - numbers.normal(0, 0.3)
        size, grey = numbers.uniform(5, 9), numbers.uniform(60, 140)
        disc, bar = (u**2 + v**2 < size**2), (abs(u) < size) & (abs(v) < 3)
        cross = bar | (abs(v) < size) & (abs(u) < 3)
        image[:] = np.where((disc, bar, cross)[label], grey + 2 * u + v, 0)
    noisy = images + (images > 0) * numbers.integers(0, 30, images.shape)
    return Shifted(torch.from_numpy(noisy.astype(np.uint8)).flatten(1), torch.from_numpy(labels), torch.arange(count))


def corrupted(knob, severity, seed=0, before=None):
    before = before or pictures()
    return shifted_images(before.x, before.y, knob, severity, seeded(seed))


# ---- what `verify` says of data that nothing, or one thing, was done to ----------------------------------------------


def test_an_unshifted_redraw_of_signals_moves_nothing():
    for count in (1000, 2000):
        again = signals(count=count, seed=6)
        assert moved(signals(count=count), Shifted(again.x, again.y)) == dict.fromkeys(MOVES["prior"], False)


def test_an_unshifted_redraw_of_pictures_moves_nothing():
    assert not any(moved(pictures(), Shifted(pictures(317, seed=2).x, pictures(317, seed=2).y)).values())


def test_false_alarms_are_no_more_frequent_than_the_level():
    """200 pairs of sets from one distribution at level 0.1: at most 20 false alarms, plus 3 standard errors (4.2)."""
    alarms = dict.fromkeys(("p(x)", "p(y)", "p(x|y)"), 0)
    for seed in range(200):
        generator = seeded(seed)
        sets = [
            Shifted(torch.randn(n, 5, generator=generator).exp(), torch.randint(3, (n,), generator=generator))
            for n in (83, 61)
        ]
        found = verify(*sets, level=0.1).set_index("aspect")["moved"]
        for aspect in alarms:
            alarms[aspect] += found[aspect]
    assert max(alarms.values()) <= 20 + 3 * 4.3
    assert sum(alarms.values()) > 0  # the level is not that of a test that never speaks


@pytest.mark.parametrize("change", ["mean", "spread", "dependence"])
def test_a_move_of_one_class_alone_is_found_and_the_class_named(change):
    x, y = torch.randn(1500, 7, generator=seeded()), torch.arange(1500) % 3
    other, of_class = torch.randn(1500, 7, generator=seeded(1)), (y == 2)
    if change == "mean":
        other[of_class, 3] += 0.8
    elif change == "spread":
        other[of_class, 3] *= 1.6
    else:
        other[of_class, 3] = other[of_class, 4]  # no feature moves by itself
    table = verify(Shifted(x, y), Shifted(other, y)).set_index("aspect")
    assert table.moved["p(x|y)"] and table.how["p(x|y)"].endswith("class 2")
    assert not table.moved["p(y)"] and table.moved.isna()["p(y|x)"]


def test_without_common_examples_a_move_of_the_rule_cannot_be_told():
    y = torch.arange(900) % 3
    x = torch.randn(900, 4, generator=seeded()) + y[:, None]
    other = torch.randn(900, 4, generator=seeded(1)) + (y[:, None] + 1) % 3
    table = verify(Shifted(x, y), Shifted(other, y)).set_index("aspect")
    assert table.moved["p(x|y)"] and not table.moved["p(x)"]
    assert table.moved["p(y|x)"] is pd.NA and "cannot be told" in table.how["p(y|x)"]


def test_with_no_class_in_common_p_x_given_y_cannot_be_told():
    x = torch.randn(90, 4, generator=seeded())
    table = verify(Shifted(x, torch.zeros(90).long()), Shifted(x, torch.ones(90).long())).set_index("aspect")
    assert table.moved["p(x|y)"] is pd.NA and table.moved["p(y)"]


@given(st.integers(1, 13), st.integers(1, 11), st.integers(1, 6), st.integers(0, 999))
def test_distances_of_all_columns_at_once_are_those_of_scipy_one_by_one_ties_too(n, m, levels, seed):
    first, second = (torch.randint(levels, (3, size), generator=seeded(seed + size)).double() for size in (n, m))
    expected = [scipy.stats.ks_2samp(a, b, method="exact").statistic for a, b in zip(first, second, strict=True)]
    assert verification._ks_statistics(first, second).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(37, 211), (311, 211)])
def test_p_is_the_smallest_of_scipys_times_the_number_of_tests(n, m):
    x, other = torch.randn(n, 5, generator=seeded()), torch.randn(m, 5, generator=seeded(1)) + 0.3
    x, other = x.double(), other.double()
    table = verify(Shifted(x, torch.zeros(n).long()), Shifted(other, torch.zeros(m).long())).set_index("aspect")
    both = np.concatenate([x, other])
    scores = (both - both.mean(0)) @ np.linalg.svd(both - both.mean(0))[2].T
    sizes = np.stack([np.linalg.norm(both, axis=1), both.min(1), both.max(1)], 1)
    columns = np.concatenate([both, scores, abs(scores), sizes], 1)
    method = "exact" if n < 100 else "asymp"
    tests = [scipy.stats.ks_2samp(column[:n], column[n:], method=method) for column in columns.T]
    assert table.p["p(x)"] == pytest.approx(18 * min(test.pvalue for test in tests), rel=1e-6)
    assert table.statistic["p(x)"] == pytest.approx(max(test.statistic for test in tests))
    assert table.p["p(x|y)"] == table.p["p(x)"]  # one class


def test_statistic_of_the_class_counts_is_pearsons():
    first, second = torch.tensor([0] * 31 + [2] * 17), torch.tensor([0] * 13 + [2] * 29)
    table = verify(Shifted(torch.zeros(48, 2), first), Shifted(torch.zeros(42, 2), second)).set_index("aspect")
    counts = np.array([[31, 17], [13, 29]])
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert table.statistic["p(y)"] == pytest.approx(((counts - expected) ** 2 / expected).sum())


def test_looking_again_gives_the_same_table_and_changes_nothing():
    before, after = signals(count=200), signals("shear", 3, count=200)
    copies = [part.clone() for part in (before.x, before.y, after.x, after.y)]
    pd.testing.assert_frame_equal(verify(before, after), verify(before, after))
    assert all(map(torch.equal, copies, (before.x, before.y, after.x, after.y)))


@pytest.mark.parametrize(
    ("after", "level", "sentence"),
    [
        (Shifted(torch.zeros(3, 4), torch.arange(3)), 0.1, "same features, got 5 and 4"),
        (Shifted(torch.full((3, 5), torch.nan), torch.arange(3)), 0.1, "x must be finite"),
        (Shifted(torch.zeros(1, 5), torch.arange(1), torch.tensor([7])), 0.1, "rows must point to the 7 .* got 7 to 7"),
        (Shifted(torch.zeros(3, 5), torch.arange(3)), 0.0, r"level must be in \(0, 1\), got 0.0"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(after, level, sentence):
    with pytest.raises(ValueError, match=sentence):
        verify(Shifted(torch.zeros(7, 5), torch.arange(7)), after, level)


@pytest.mark.parametrize(
    ("x", "y", "rows"),
    [
        (torch.zeros(3, 2), torch.arange(2), None),
        (torch.zeros(3, 2), torch.arange(3), torch.arange(4)),
        (torch.zeros(3), torch.arange(3), None),
        (torch.zeros(0, 2), torch.arange(0), None),
        (torch.zeros(3, 2), torch.tensor([0, -1, 2]), None),
        (torch.zeros(3, 2), torch.tensor([0.0, 1.0, 2.0]), None),
    ],
)
def test_examples_without_matching_labels_are_refused(x, y, rows):
    with pytest.raises(ValueError, match=r"must (have one entry an example|be int64 class numbers)"):
        Shifted(x, y, rows)


# ---- covariate shift of signals --------------------------------------------------------------------------------------


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
    distances = [spread_apart(signals(count=200).x, signals(knob, s, count=200).x) for s in range(6)]
    assert distances[0] == 0
    assert all(near < far for near, far in pairwise(distances)), distances


@pytest.mark.parametrize("knob", ["iid-noise", "correlated-noise", "scale", "shear"])
def test_draws_are_paired_signals_depend_on_a_knob_along_a_straight_line(knob):
    """x = a + value·b, a and b made of the same random numbers at every value: so are all differences proportional."""
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
    (before, labels), (after, same) = noiseless("translation", 0), noiseless("translation", severity)
    assert np.array_equal(after, np.roll(before, SIGNAL_KNOBS["translation"].values[severity], axis=1))
    assert np.array_equal(labels, same)


def test_fewer_zeros_make_every_pattern_longer_up_to_the_whole_signal():
    lengths = np.stack([(noiseless("padding", severity)[0] != 0).sum(1) for severity in range(6)])
    assert (np.diff(lengths, axis=0) >= 0).all() and (lengths[0] >= 12).all()
    assert lengths[0].max() < 20 and lengths[5].max() == 72  # 72·12/(12+36) = 18 at most, all at no zeros


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
    first, again, other = (shifted_signals("translation", 4, seed=seed, count=70) for seed in (8, 8, 9))
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y) and not torch.equal(first.x, other.x)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("change", [{"noise": 1}, {"shuffle_seq": True}, {"template_len": 13}])
def test_generator_arguments_that_do_not_exist_or_have_no_effect_are_refused(change):
    with pytest.raises(ValueError, match=f"changes must be among .*final_seq_length.*; got {next(iter(change))}"):
        mnist1d.draw(0, 70, change)


# ---- covariate shift of pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SHIFTS)
@pytest.mark.parametrize("knob", IMAGE_KNOBS)
def test_every_corruption_moves_what_a_covariate_shift_moves(knob, severity):
    after = corrupted(knob, severity)
    assert moved(pictures(), after, slice(0, None, 3)) == MOVES["covariate"]
    assert after.x.shape == pictures().x.shape and after.x.dtype == torch.uint8
    assert torch.equal(after.y, pictures().y) and after.rows.equal(torch.arange(331))


@pytest.mark.parametrize("knob", IMAGE_KNOBS)
def test_pictures_move_further_with_every_severity(knob):
    distances = [spread_apart(pictures().x, corrupted(knob, severity).x) for severity in range(6)]
    assert distances[0] == 0
    assert all(near < far for near, far in pairwise(distances)), distances


@pytest.mark.parametrize("knob", IMAGE_KNOBS)
def test_severity_0_of_every_corruption_is_the_pictures_and_draws_nothing(knob):
    generator = seeded(3)
    same = shifted_images(pictures().x, pictures().y, knob, 0, generator)
    assert same.x.numpy().tobytes() == pictures().x.numpy().tobytes()
    assert torch.equal(generator.get_state(), seeded(3).get_state())


@pytest.mark.parametrize("knob", IMAGE_KNOBS)
def test_pictures_follow_from_their_generator_alone(knob):
    original = pictures().x.clone()
    torch.manual_seed(3)
    first = corrupted(knob, 4, seed=8)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again, other = corrupted(knob, 4, seed=8), corrupted(knob, 4, seed=9)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.x, other.x) == (knob not in RANDOM_KNOBS)
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(pictures().x, original)


def exact(knob, severity):
    """Pictures [B, 28, 28] in float64, the value of the knob, and what our corruption made of them."""
    after = corrupted(knob, severity).x.view(-1, 28, 28).double().numpy()
    return pictures().x.view(-1, 28, 28).double().numpy(), IMAGE_KNOBS[knob].values[severity], after


@pytest.mark.parametrize("severity", SHIFTS)
def test_brightness_multiplies_and_cuts_off_at_white(severity):
    x, factor, after = exact("brightness", severity)
    assert abs(after - np.minimum(factor * x, 255)).max() <= ROUNDING


@pytest.mark.parametrize("severity", SHIFTS)
def test_contrast_draws_every_pixel_towards_the_pictures_mean(severity):
    x, factor, after = exact("contrast", severity)
    mean = x.mean((1, 2), keepdims=True)
    assert abs(after - (mean + factor * (x - mean))).max() <= ROUNDING


@pytest.mark.parametrize("severity", SHIFTS)
def test_blur_is_scipys_gaussian_filter_of_three_sigma_mirrored_at_the_edge(severity):
    x, sigma, after = exact("gaussian-blur", severity)
    slow = [scipy.ndimage.gaussian_filter(image, sigma, mode="mirror", radius=ceil(3 * sigma)) for image in x]
    assert abs(after - np.stack(slow)).max() <= ROUNDING


def nearest_way(after, ways):
    """Which of `ways` [W, B, 28, 28] each picture went [B], and how far the farthest is from it."""
    errors = abs(after - ways).max((2, 3))
    return errors.argmin(0), errors.min(0).max()


@pytest.mark.parametrize("severity", SHIFTS)
def test_rotation_is_scipys_about_the_centre_to_the_left_or_to_the_right(severity):
    x, degrees, after = exact("rotation", severity)
    ways = []
    for angle in np.deg2rad([degrees, -degrees]):
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        offset = 13.5 - matrix @ [13.5, 13.5]
        turn = {"offset": offset, "order": 1, "mode": "grid-constant"}
        ways.append([scipy.ndimage.affine_transform(image, matrix, **turn) for image in x])
    chosen, error = nearest_way(after, np.array(ways))
    assert error <= ROUNDING + 0.01  # float32 places points to about 1e-5 of a pixel
    assert np.bincount(chosen, minlength=2).min() > 331 / 2 - 4 * (331 / 4) ** 0.5


@pytest.mark.parametrize("severity", SHIFTS)
def test_translation_moves_the_array_by_whole_pixels_in_four_ways(severity):
    x, pixels, after = exact("translation", severity)
    p = int(pixels)
    padded = np.pad(x, [(0, 0), (p, p), (p, p)])
    corners = [(0, p), (2 * p, p), (p, 0), (p, 2 * p)]
    ways = np.stack([padded[:, down : down + 28, across : across + 28] for down, across in corners])
    chosen, error = nearest_way(after, ways)
    assert error == 0
    assert np.bincount(chosen, minlength=4).min() > 331 / 4 - 4 * (331 * 3 / 16) ** 0.5


def test_noise_is_white_normal_of_the_tables_width_and_the_same_at_every_severity():
    """On mid grey, where nothing is cut off at the smaller widths: noise/σ is one standard normal sample."""
    grey = Shifted(torch.full((211, 784), 127, dtype=torch.uint8), torch.arange(211))
    scaled = []
    for severity in (1, 2):
        sigma = 255 * IMAGE_KNOBS["gaussian-noise"].values[severity]
        scaled.append((corrupted("gaussian-noise", severity, before=grey).x.double() - 127) / sigma)
        assert abs(scaled[-1].std() - 1) < 4 / (2 * 211 * 784) ** 0.5 + 1 / sigma**2  # the rounding adds 1/12
        assert abs(scaled[-1].mean()) < 4 / (211 * 784) ** 0.5
    assert (scaled[0] - scaled[1]).abs().max() < 0.5 / (255 * 0.05) + 0.5 / (255 * 0.1) + 1e-6
    spread = scaled[1] + torch.rand(scaled[1].shape, generator=seeded()) / 25.5 - 0.5 / 25.5  # undo the rounding
    assert scipy.stats.kstest(spread[:20].flatten(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(scaled[1][:, :-1].flatten(), scaled[1][:, 1:].flatten())[0, 1]) < 4 / (211 * 783) ** 0.5


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (torch.zeros(3, 784), torch.arange(3), r"uint8 \[B, 784\], got torch.float32 \[3, 784\]"),
        (
            torch.zeros(3, 28, 28, dtype=torch.uint8),
            torch.arange(3),
            r"uint8 \[B, 784\], got torch.uint8 \[3, 28, 28\]",
        ),
        (torch.zeros(3, 784, dtype=torch.uint8), torch.arange(2), "one entry an example"),
        (torch.zeros(0, 784, dtype=torch.uint8), torch.arange(0), "at least one"),
    ],
)
def test_pictures_that_are_not_such_are_refused(images, labels, sentence):
    generator = seeded(3)
    with pytest.raises(ValueError, match=sentence):
        shifted_images(images, labels, "rotation", 1, generator)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


@pytest.mark.needs_fashion
@pytest.mark.parametrize("knob", IMAGE_KNOBS)
def test_fashion_mnist_moves_at_the_least_severity_already(knob, fashion_mnist):
    x, y = fashion_test_set(fashion_mnist)
    before = Shifted(x[:2000], y[:2000])
    assert moved(before, corrupted(knob, 1, before=before), slice(0, None, 5)) == MOVES["covariate"]


@pytest.mark.needs_fashion
def test_fashion_mnist_allows_every_prior_and_concept_shift(fashion_mnist):
    x, y = fashion_test_set(fashion_mnist)
    before = Shifted(x, y)
    prior = shifted_prior(x, y, 5, classes=10, count=2127, generator=seeded())
    assert moved(before, prior, slice(0, None, 17)) == MOVES["prior"]
    concept = shifted_concept(x, y, 1, classes=10, generator=seeded())
    assert moved(before, concept, slice(0, None, 17)) == MOVES["concept"]


@cache
def fashion_test_set(folder):
    files = fashion_mnist.read_folder(folder)
    images, labels = (
        fashion_mnist.parse_idx(files[f"t10k-{name}"]) for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return torch.from_numpy(images.copy()).flatten(1), torch.from_numpy(labels.astype(np.int64))


# ---- prior shift -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SHIFTS)
def test_prior_shift_of_pictures_moves_the_classes_and_nothing_within_them(severity):
    before = pictures(1500)
    after = shifted_prior(before.x, before.y, severity, classes=3, count=500, generator=seeded())
    assert moved(before, after, slice(0, None, 3)) == MOVES["prior"]
    assert torch.equal(after.x, before.x[after.rows]) and torch.equal(after.y, before.y[after.rows])


@pytest.mark.parametrize("severity", SHIFTS)
def test_prior_shift_of_signals_moves_the_classes_and_nothing_within_them(severity):
    before = signals(count=6000)
    found = moved(before, shifted_prior(before.x, before.y, severity, classes=10, count=1276, generator=seeded()))
    assert found | {"p(x)": True} == MOVES["prior"]
    assert found["p(x)"] or severity == 1  # there it moves too, but less than 1 276 signals show


def test_classes_move_further_with_every_severity():
    """Half the total variation of the class shares, which are equal before."""
    before = signals(count=6000)
    shares = [
        shifted_prior(before.x, before.y, severity, classes=10, count=1270, generator=seeded()).y.bincount(minlength=10)
        for severity in range(6)
    ]
    distances = [(part / 1270 - 0.1).abs().sum().item() for part in shares]
    assert distances[0] < 1e-6
    assert all(near < far for near, far in pairwise(distances))


def test_severity_0_keeps_unequal_classes_as_they_are():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=seeded())]
    x = torch.randn(100, 5, generator=seeded(1))
    half = shifted_prior(x, labels, 0, classes=3, count=50, generator=seeded())
    assert half.y.bincount().tolist() == [30, 15, 5]
    whole = shifted_prior(x, labels, 0, classes=3, count=100, generator=seeded())
    assert whole.x.numpy().tobytes() == x.numpy().tobytes() and torch.equal(whole.y, labels)
    assert whole.rows.equal(torch.arange(100))


@pytest.mark.parametrize(("severity", "ratio"), enumerate([1, 3, 10, 30, 100, 300]))
def test_proportions_fall_geometrically_to_one_over_the_ratio(severity, ratio):
    order = torch.tensor([2, 0, 3, 4, 1])
    shares = prior_proportions(torch.full((5,), 37), severity, order)[order]
    assert shares.sum().item() == pytest.approx(1)
    assert (shares[:-1] / shares[1:]).tolist() == pytest.approx([ratio**0.25] * 4)


def test_proportions_tilt_those_that_are_there():
    tilted = prior_proportions(torch.tensor([30, 10]), 2, torch.tensor([1, 0]))
    assert tilted.tolist() == pytest.approx([3 / 13, 10 / 13])  # 30·1/10 : 10


def test_which_classes_are_favoured_is_drawn_from_the_generator_and_the_same_at_every_severity():
    x, y = torch.zeros(2000, 1), torch.arange(2000) % 10
    favoured = [
        [
            shifted_prior(x, y, s, classes=10, count=400, generator=seeded(seed)).y.bincount().argmax().item()
            for s in SHIFTS
        ]
        for seed in range(20)
    ]
    assert all(len(set(over_severities)) == 1 for over_severities in favoured)
    assert len({over_severities[0] for over_severities in favoured}) > 4


def hamilton(weights, count):
    """Largest remainder in fractions, class by class."""
    quotas = [Fraction(weight, sum(weights)) * count for weight in weights]
    counts = [int(quota) for quota in quotas]
    for _ in range(count - sum(counts)):
        k = max(range(len(quotas)), key=lambda k: (quotas[k] - counts[k], -k))
        counts[k] += 1
    return counts


@example([29, 71], 100)  # 0.29·100 is 28.999… in floats
@example([1, 1, 7], 3)  # a third is left of each, but floats tell them apart
@given(st.lists(st.integers(0, 97), min_size=1, max_size=11).filter(any), st.integers(1, 100_003))
def test_counts_are_those_of_the_largest_remainder_in_fractions(weights, count):
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    assert largest_remainder(shares, count).tolist() == hamilton(weights, count)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(any), st.integers(1, 40), st.integers(0, 99))
def test_rows_are_different_examples_of_the_classes_asked_for(weights, count, seed):
    labels = torch.arange(127) % 3
    rows = prior_shift(labels, torch.tensor(weights, dtype=torch.float64) / sum(weights), count, seeded(seed))
    assert labels[rows].bincount(minlength=3).tolist() == hamilton(weights, count)
    assert rows.dtype == torch.int64 and rows.equal(rows.unique()) and len(rows) == count


def test_every_example_of_a_class_is_as_likely_to_be_taken():
    """Class 1 has 10 examples, 3 are taken, 1 000 times: each 300 times give or take 14.5; 4 standard errors."""
    labels, shares = torch.tensor([0] * 7 + [1] * 10), torch.tensor([0.4, 0.6])
    taken = torch.cat([prior_shift(labels, shares, 5, seeded(seed)) for seed in range(1000)])
    assert (taken.bincount(minlength=17)[7:] - 300).abs().max() < 58


def test_rows_follow_from_the_generator_alone_and_fewer_are_some_of_the_same():
    labels = torch.arange(230) % 2
    state = torch.get_rng_state()
    few, again, many = (prior_shift(labels, torch.tensor([0.5, 0.5]), n, seeded(4)) for n in (62, 62, 106))
    assert torch.equal(few, again) and set(few.tolist()) < set(many.tolist())
    assert not torch.equal(few, prior_shift(labels, torch.tensor([0.5, 0.5]), 62, seeded(5)))
    assert torch.equal(torch.get_rng_state(), state)


def test_more_than_there_are_is_refused_by_class_and_the_generator_left_as_it_was():
    labels = torch.tensor([0] * 7 + [1] * 5 + [2] * 3)
    generator = seeded(3)
    with pytest.raises(ValueError, match="class 1 has 5 of the 6 asked for, class 2 has 3 of the 4 asked for"):
        prior_shift(labels, torch.tensor([0.0, 0.6, 0.4]), 10, generator)
    with pytest.raises(ValueError, match="prior shift to 15 examples needs more than there are"):
        shifted_prior(torch.zeros(15, 2), labels, 5, classes=3, count=15, generator=generator)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


def test_of_ten_equal_classes_the_promised_counts_can_be_had_at_every_severity_and_no_more_at_the_last():
    for each, most in ((1000, 2127), (2000, 4254)):
        shares = [prior_proportions(torch.full((10,), each), severity, torch.arange(10)) for severity in range(6)]
        assert all(largest_remainder(part, most).max() <= each for part in shares)
        assert largest_remainder(shares[5], most + 1).max() > each


@pytest.mark.parametrize(
    ("proportions", "count", "sentence"),
    [
        ([0.5, 0.6], 10, "add up to 1, got"),
        ([1.5, -0.5], 10, "at least 0 and add up to 1"),
        ([], 10, "add up to 1"),
        ([[1.0]], 10, r"must be \[K\]"),
        ([torch.nan, 1.0], 10, "at least 0"),
        ([0.5, 0.5], 0, "count must be a whole number of at least 1 example, got 0"),
        ([0.5, 0.5], -3, "got -3"),
        ([0.5, 0.5], 2.5, "got 2.5"),
        ([1.0], 2, "below the 1 classes of the proportions, got 1"),
    ],
)
def test_impossible_proportions_and_counts_are_refused(proportions, count, sentence):
    with pytest.raises(ValueError, match=sentence):
        prior_shift(torch.arange(20) % 2, torch.tensor(proportions), count, seeded())


@pytest.mark.parametrize("labels", [torch.arange(0), torch.tensor([-1, 0]), torch.rand(3), torch.zeros(2, 2).long()])
def test_labels_that_are_no_class_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be int64 class numbers from 0 on"):
        prior_shift(labels, torch.tensor([0.5, 0.5]), 1, seeded())


@pytest.mark.parametrize(
    ("frequencies", "order", "sentence"),
    [
        ([5], [0], "K ≥ 2"),
        ([5, -1], [0, 1], "at least 0"),
        ([0, 0], [0, 1], "not all 0"),
        ([5, 5], [1, 1], "permutation"),
    ],
)
def test_frequencies_that_cannot_be_tilted_are_refused(frequencies, order, sentence):
    with pytest.raises(ValueError, match=sentence):
        prior_proportions(torch.tensor(frequencies), 1, torch.tensor(order))


# ---- concept shift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", SHIFTS)
def test_concept_shift_moves_the_rule_and_not_a_byte_of_x(severity):
    before = signals(count=2000)
    content = before.x.numpy().tobytes()
    after = shifted_concept(before.x, before.y, severity, classes=10, generator=seeded())
    table = verify(before, after).set_index("aspect")
    assert table.moved.to_dict() == MOVES["concept"]
    assert table.statistic["p(y|x)"] == pytest.approx(severity / 5)  # of equally frequent classes
    assert table.statistic["p(x)"] == table.statistic["p(y)"] == 0
    assert after.x is before.x and after.x.numpy().tobytes() == content and after.rows.equal(torch.arange(2000))


@pytest.mark.parametrize("severity", range(6))
@pytest.mark.parametrize("classes", [10, 15])
def test_labels_of_the_taken_classes_pass_on_in_one_circle(severity, classes):
    new = label_permutation(classes, severity, seeded(7)).tolist()
    assert sorted(new) == list(range(classes))
    taken = [k for k in range(classes) if new[k] != k]
    assert len(taken) == severity * classes // 5
    if taken:
        circle, k = [taken[0]], new[taken[0]]
        while k != taken[0]:
            circle.append(k)
            k = new[k]
        assert sorted(circle) == taken


def test_labels_are_exchanged_class_by_class_and_back():
    y = torch.randint(10, (173,), generator=seeded())
    new = label_permutation(10, 3, seeded(2))
    after = shifted_concept(torch.zeros(173, 3), y, 3, classes=10, generator=seeded(2))
    assert after.y.tolist() == [new[label].item() for label in y]
    assert torch.equal(new.argsort()[after.y], y)


def test_a_class_that_is_taken_stays_taken_and_seeds_take_others():
    taken = [
        set((label_permutation(10, s, seeded(5)) != torch.arange(10)).nonzero().flatten().tolist()) for s in range(6)
    ]
    assert all(fewer < more for fewer, more in pairwise(taken)) and taken[0] == set()
    state = torch.get_rng_state()
    assert len({tuple(label_permutation(10, 1, seeded(seed)).tolist()) for seed in range(30)}) > 10
    assert torch.equal(label_permutation(10, 4, seeded(1)), label_permutation(10, 4, seeded(1)))
    assert torch.equal(torch.get_rng_state(), state)


def test_unequal_classes_that_change_labels_move_p_y_too_and_are_seen_to():
    y = torch.tensor([0] * 500 + [1] * 100)
    before = Shifted(torch.randn(600, 3, generator=seeded()), y)
    after = shifted_concept(before.x, y, 5, classes=2, generator=seeded())
    assert after.y.bincount().tolist() == [100, 500]
    assert moved(before, after)["p(y)"]


def test_severity_0_keeps_every_label():
    same = shifted_concept(signals().x, signals().y, 0, classes=10, generator=seeded())
    assert torch.equal(same.y, signals().y) and not any(moved(signals(), same).values())


def test_too_few_classes_to_exchange_are_refused():
    with pytest.raises(ValueError, match="severity 1 would exchange 1 of 4 labels; it takes at least 2"):
        label_permutation(4, 1, seeded())
    with pytest.raises(ValueError, match="labels must be below classes = 10, got 10"):
        shifted_concept(torch.zeros(11, 2), torch.arange(11), 1, classes=10, generator=seeded())


# ---- every shift -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", [-1, 6, 1.5, None])
def test_severities_outside_the_table_are_refused(severity):
    x, y = torch.zeros(20, 784, dtype=torch.uint8), torch.arange(20) % 10
    generator = seeded(3)
    for shift in (
        lambda: shifted_signals("shear", severity, seed=0, count=20),
        lambda: shifted_images(x, y, "brightness", severity, generator),
        lambda: shifted_prior(x, y, severity, classes=10, count=5, generator=generator),
        lambda: shifted_concept(x, y, severity, classes=10, generator=generator),
    ):
        with pytest.raises(ValueError, match=rf"severity must be a whole number from 0 .* to 5, got {severity}"):
            shift()
    assert torch.equal(generator.get_state(), seeded(3).get_state())


def test_unknown_knobs_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=f"knob must be one of {', '.join(SIGNAL_KNOBS)}; got 'blur'"):
        shifted_signals("blur", 1, seed=0, count=20)
    with pytest.raises(ValueError, match=f"knob must be one of {', '.join(IMAGE_KNOBS)}; got 'shear'"):
        shifted_images(pictures().x, pictures().y, "shear", 1, seeded())


@pytest.mark.parametrize("knobs", [SIGNAL_KNOBS, IMAGE_KNOBS])
def test_every_table_has_six_different_values_in_order(knobs):
    for knob in knobs.values():
        assert len(knob.values) == 6
        assert list(knob.values) in (sorted(set(knob.values)), sorted(set(knob.values), reverse=True))
