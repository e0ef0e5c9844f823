"""Covariate shift of pictures: corruptions against closed forms and scipy in float64.

A result in whole numbers is right if it lies within a half of the exact one.
"""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from shifted_sets import SHIFTS, corrupted, moved, pictures, seeded, spread_apart
from steadydescent.dataset_shift import IMAGE_KNOBS, MOVES, Shifted, shifted_images

ROUNDING = 0.5 + 1e-3  # of a grey level: to the nearest whole number, give or take float32
RANDOM_KNOBS = ["gaussian-noise", "rotation", "translation"]


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
    same = shifted_images(pictures().x, pictures().y, knob, 0, generator=generator)
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
    """Pictures [B, 28, 28] in float64, the knob's value, and what our corruption made of them."""
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
    slow = [
        scipy.ndimage.gaussian_filter(image, sigma, mode="mirror", radius=ceil(3 * sigma))
        for image in x
    ]
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
    """On mid grey, where nothing is cut off: noise/σ is one standard normal sample."""
    grey = Shifted(torch.full((211, 784), 127, dtype=torch.uint8), torch.arange(211))
    scaled = []
    for severity in (1, 2):
        sigma = 255 * IMAGE_KNOBS["gaussian-noise"].values[severity]
        scaled.append((corrupted("gaussian-noise", severity, before=grey).x.double() - 127) / sigma)
        # the rounding adds 1/12
        assert abs(scaled[-1].std() - 1) < 4 / (2 * 211 * 784) ** 0.5 + 1 / sigma**2
        assert abs(scaled[-1].mean()) < 4 / (211 * 784) ** 0.5
    assert (scaled[0] - scaled[1]).abs().max() < 0.5 / (255 * 0.05) + 0.5 / (255 * 0.1) + 1e-6
    # undo the rounding
    spread = scaled[1] + torch.rand(scaled[1].shape, generator=seeded()) / 25.5 - 0.5 / 25.5
    assert scipy.stats.kstest(spread[:20].flatten(), "norm").pvalue > 0.001
    assert (
        abs(np.corrcoef(scaled[1][:, :-1].flatten(), scaled[1][:, 1:].flatten())[0, 1])
        < 4 / (211 * 783) ** 0.5
    )


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
        shifted_images(images, labels, "rotation", 1, generator=generator)
    assert torch.equal(generator.get_state(), seeded(3).get_state())
