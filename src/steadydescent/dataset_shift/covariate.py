"""Covariate shift, p(x) moves: MNIST-1D by another setting of its generator, corrupted pictures.

One knob turns one property. Its table gives the value at severity 0 (unchanged) to 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor

from steadydescent.checks import check_count, check_generator
from steadydescent.dataset_shift.mnist1d_signals import draw
from steadydescent.dataset_shift.shifted import Shifted, check_labels, check_severity, check_tensor
from steadydescent.dataset_shift.torchvision_shim import import_torchvision

SIDE = 28  # pixels
TRANSLATIONS = 48
"""How many the generator chooses from, at every severity, so that it draws the same numbers."""


@dataclass(frozen=True)
class SignalKnob:
    """One property of MNIST-1D's generator: what its values mean, and those of severity 0 to 5.

    `changes` turns a value into the arguments of the generator that it replaces.
    """

    meaning: str
    values: tuple[float, ...]
    changes: Callable[[float], dict[str, Any]]


SIGNAL_KNOBS = {
    "iid-noise": SignalKnob(
        "standard deviation of the white noise",
        (0.02, 0.05, 0.08, 0.11, 0.15, 0.2),
        lambda value: {"iid_noise_scale": value},
    ),
    "correlated-noise": SignalKnob(
        "standard deviation of the noise beside the pattern, "
        "before it is smoothed (σ = 2 points of 72)",
        (0.25, 0.4, 0.55, 0.75, 1.0, 1.4),
        lambda value: {"corr_noise_scale": value},
    ),
    "scale": SignalKnob(
        "the pattern is multiplied by 1 ± half of this, uniformly; below 2 it never changes sign",
        (0.4, 0.9, 1.15, 1.4, 1.65, 1.9),
        lambda value: {"scale_coeff": value},
    ),
    "shear": SignalKnob(
        "slope added over the whole length, uniform within ± half of this",
        (0.75, 1.5, 2.0, 3.0, 4.0, 5.0),
        lambda value: {"shear_scale": value},
    ),
    "translation": SignalKnob(
        "points of 72 that every pattern lies further along than it did; "
        "one that leaves the end enters at the start",
        (0, 8, 12, 16, 20, 24),
        lambda value: {"max_translation": [int(value) + step for step in range(TRANSLATIONS)]},
    ),
    "padding": SignalKnob(
        "fewest zeros after the 12 points of a pattern, up to 60, before both are stretched to 72: "
        "fewer zeros, longer patterns",
        (36, 24, 16, 10, 5, 0),
        lambda value: {"padding": [int(value), 60]},
    ),
}
"""Knobs of `shifted_signals`.

Every other argument of the generator, and every random number, stays what it was.
"""


def shifted_signals(knob: str, severity: int, *, seed: int, count: int) -> Shifted:
    """`count` raw MNIST-1D signals `[B, 40]` with one knob of the generator turned, and labels.

    Signals are float32, labels `[B]` int64. Raw: in the generator's units, before any
    standardisation; standardise with the training data's moments. Severity 0 with the test set's
    seed and size is the stored test set.

    The draw is paired: with the same seed and count, every knob and severity gives the same labels
    in the same order, and each signal is the unshifted one but for its knob (the same pattern, the
    same place, the same noise up to its scale, …), because all take the same random numbers. See
    `steadydescent.dataset_shift.mnist1d_signals.draw` for what that excludes: it is why "padding"
    moves the lower end only, and "translation" the places, not their number.

    The class templates stay, and so does the mechanism that makes x from y. p(y|x) at a given x
    need not: more noise makes classes overlap that did not.

    Raises ValueError for an unknown knob, a severity outside 0 to 5, a seed that is no whole number
    of at least 0, or a count that 10 does not divide.

    >>> shifted = shifted_signals("shear", 3, seed=0, count=30)
    >>> shifted.x.shape, shifted.y.bincount().tolist()
    (torch.Size([30, 40]), [3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    """
    turned = SIGNAL_KNOBS[_checked_knob(knob, SIGNAL_KNOBS)]
    seed, count = check_count(seed, "seed", least=0), check_count(count, "count")
    signals, labels = draw(seed, count, turned.changes(turned.values[check_severity(severity)]))
    return Shifted(torch.from_numpy(signals).float(), torch.from_numpy(labels), torch.arange(count))


@dataclass(frozen=True)
class ImageKnob:
    """One corruption of pictures: what its values mean, and those of severity 0 to 5.

    `apply(pictures, value, generator)` takes and returns float pictures `[B, 1, 28, 28]` from 0 to
    1; what it returns may lie outside and is then cut off.
    """

    meaning: str
    values: tuple[float, ...]
    apply: Callable[[Tensor, float, Generator], Tensor]


def shifted_images(
    images: Tensor, labels: Tensor, knob: str, severity: int, *, generator: Generator
) -> Shifted:
    """Corrupted pictures `[B, 784]` uint8 (28 × 28, grey, on the CPU), labels `[B]` untouched.

    Every corruption is computed in float and rounded to the nearest of 0 to 255 once, at its end.
    What is random (the noise; which way each picture turns or moves) comes from the CPU generator
    `generator` and does not depend on the severity: the same state gives the same noise, larger.
    The kinds follow hendrycks2019benchmarking, the values are ours, for small grey pictures of
    things on black. Severity 0 returns the pictures as they are and draws nothing.

    Raises ValueError for an unknown knob, a severity outside 0 to 5, pictures that are not uint8
    `[B, 784]`, other than one label a picture, or no generator.

    >>> images, labels = torch.full((3, 784), 100, dtype=torch.uint8), torch.tensor([0, 1, 2])
    >>> shifted_images(images, labels, "brightness", 1, generator=torch.Generator()).x[0, 0]
    tensor(125, dtype=torch.uint8)
    """
    corruption = IMAGE_KNOBS[_checked_knob(knob, IMAGE_KNOBS)]
    value = corruption.values[check_severity(severity)]
    check_generator(generator)
    is_bytes = check_tensor(images, "images").dtype == torch.uint8
    if not is_bytes or images.ndim != 2 or images.shape[1] != SIDE**2:
        raise ValueError(
            f"images must be uint8 [B, {SIDE**2}], got {images.dtype} {[*images.shape]}"
        )
    before = Shifted(images, check_labels(labels), torch.arange(len(images)))
    if severity == 0:
        return before
    pictures = corruption.apply(images.view(-1, 1, SIDE, SIDE).float() / 255, value, generator)
    corrupted = (pictures * 255).round().clamp(0, 255).to(torch.uint8).flatten(1)
    return Shifted(corrupted, labels, before.rows)


def _checked_knob(name: str, knobs: dict[str, Any]) -> str:
    if name not in list(knobs):
        raise ValueError(f"knob must be one of {', '.join(knobs)}; got {name!r}")
    return name


def _functional() -> ModuleType:
    import_torchvision()
    # here: it takes seconds, and signals need none of it
    from torchvision.transforms.v2 import functional

    return functional


def _noisy(pictures: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Not torchvision's `gaussian_noise`, which draws from the global generator."""
    return pictures + sigma * torch.randn(pictures.shape, generator=generator)


def _blurred(pictures: Tensor, sigma: float, generator: Generator) -> Tensor:
    kernel = 2 * ceil(3 * sigma) + 1  # three σ to either side
    return _functional().gaussian_blur(pictures, kernel, sigma)


def _brightened(pictures: Tensor, factor: float, generator: Generator) -> Tensor:
    return _functional().adjust_brightness(pictures, factor)


def _flattened(pictures: Tensor, factor: float, generator: Generator) -> Tensor:
    return _functional().adjust_contrast(pictures, factor)  # towards the picture's own mean


def _rotated(pictures: Tensor, degrees: float, generator: Generator) -> Tensor:
    def rotate(part: Tensor, sign: int) -> Tensor:
        return _functional().rotate(part, sign * degrees, interpolation="bilinear", fill=0)

    return _each_its_way(pictures, rotate, [1, -1], generator)


def _translated(pictures: Tensor, pixels: float, generator: Generator) -> Tensor:
    def move(part: Tensor, way: tuple[int, int]) -> Tensor:
        by = [pixels * way[0], pixels * way[1]]
        return _functional().affine(part, angle=0, translate=by, scale=1, shear=[0, 0], fill=0)

    return _each_its_way(pictures, move, [(1, 0), (-1, 0), (0, 1), (0, -1)], generator)


def _each_its_way(
    pictures: Tensor,
    transform: Callable[[Tensor, Any], Tensor],
    ways: list[Any],
    generator: Generator,
) -> Tensor:
    """Every picture transformed in one of several ways, drawn for each; one call a way."""
    choices = torch.randint(len(ways), (len(pictures),), generator=generator)
    result = torch.empty_like(pictures)
    for number, way in enumerate(ways):
        result[choices == number] = transform(pictures[choices == number], way)
    return result


IMAGE_KNOBS = {
    "gaussian-noise": ImageKnob(
        "standard deviation of white noise, white = 1", (0.0, 0.05, 0.1, 0.2, 0.35, 0.5), _noisy
    ),
    "gaussian-blur": ImageKnob(
        "σ of the Gaussian, pixels", (0.0, 0.5, 0.75, 1.0, 1.5, 2.0), _blurred
    ),
    "brightness": ImageKnob("factor on every pixel", (1.0, 1.25, 1.5, 2.0, 3.0, 5.0), _brightened),
    "contrast": ImageKnob(
        "factor on the distance from the picture's mean",
        (1.0, 0.75, 0.5, 0.35, 0.2, 0.1),
        _flattened,
    ),
    "rotation": ImageKnob(
        "degrees, to the left or to the right", (0.0, 5.0, 10.0, 15.0, 22.0, 30.0), _rotated
    ),
    "translation": ImageKnob(
        "pixels, left, right, up or down", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), _translated
    ),
}
"""Knobs of `shifted_images`; what a picture brings in from outside, turned or moved, is black."""
