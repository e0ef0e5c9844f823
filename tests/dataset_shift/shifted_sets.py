"""What the tests of dataset shift share: signals, pictures, how far and in what they moved."""

from functools import cache

import numpy as np
import torch

from steadydescent.dataset_shift import Shifted, shifted_images, shifted_signals, verify

SHIFTS = range(1, 6)


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
    """Three classes of synthetic things on black: discs, bars and crosses, each with its own place,
    size and grey.
    """
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
    return Shifted(
        torch.from_numpy(noisy.astype(np.uint8)).flatten(1),
        torch.from_numpy(labels),
        torch.arange(count),
    )


def corrupted(knob, severity, seed=0, before=None):
    before = before or pictures()
    return shifted_images(before.x, before.y, knob, severity, generator=seeded(seed))
