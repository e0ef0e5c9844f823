"""What holds of every dataset shift: its severities, what it refuses, and Fashion-MNIST."""

from functools import cache

import numpy as np
import pytest
import torch

from shifted_sets import corrupted, moved, pictures, seeded
from steadydescent.dataset_shift import (
    IMAGE_KNOBS,
    MOVES,
    SIGNAL_KNOBS,
    Shifted,
    shifted_concept,
    shifted_images,
    shifted_prior,
    shifted_signals,
)
from steadydescent.engine.data import fashion_mnist


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
    with pytest.raises(
        ValueError, match=r"must (have one entry an example|be int64 class numbers)"
    ):
        Shifted(x, y, rows)


@pytest.mark.parametrize("severity", [-1, 6, 1.5, None])
def test_severities_outside_the_table_are_refused(severity):
    x, y = torch.zeros(20, 784, dtype=torch.uint8), torch.arange(20) % 10
    generator = seeded(3)
    for shift in (
        lambda: shifted_signals("shear", severity, seed=0, count=20),
        lambda: shifted_images(x, y, "brightness", severity, generator=generator),
        lambda: shifted_prior(x, y, severity, classes=10, count=5, generator=generator),
        lambda: shifted_concept(x, y, severity, classes=10, generator=generator),
    ):
        allowed = r"(of at least 0|from 0 .* to 5)"
        sentence = rf"severity must be a whole number {allowed}, got {severity}"
        with pytest.raises(ValueError, match=sentence):
            shift()
    assert torch.equal(generator.get_state(), seeded(3).get_state())


def test_unknown_knobs_are_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=f"knob must be one of {', '.join(SIGNAL_KNOBS)}; got 'blur'"
    ):
        shifted_signals("blur", 1, seed=0, count=20)
    with pytest.raises(
        ValueError, match=f"knob must be one of {', '.join(IMAGE_KNOBS)}; got 'shear'"
    ):
        shifted_images(pictures().x, pictures().y, "shear", 1, generator=seeded())


@pytest.mark.parametrize("knobs", [SIGNAL_KNOBS, IMAGE_KNOBS])
def test_every_table_has_six_different_values_in_order(knobs):
    for knob in knobs.values():
        assert len(knob.values) == 6
        assert list(knob.values) in (
            sorted(set(knob.values)),
            sorted(set(knob.values), reverse=True),
        )


@cache
def fashion_test_set(folder):
    files = fashion_mnist.read_folder(folder)
    images, labels = (
        fashion_mnist.parse_idx(files[f"t10k-{name}"])
        for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return torch.from_numpy(images.copy()).flatten(1), torch.from_numpy(labels.astype(np.int64))


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
