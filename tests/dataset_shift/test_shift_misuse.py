"""Dataset shift as a newcomer meets it: global generators and wrong kinds are refused."""

import random

import numpy as np
import pytest
import torch

from shifted_sets import pictures, seeded
from steadydescent.dataset_shift import (
    Shifted,
    label_permutation,
    largest_remainder,
    prior_proportions,
    prior_shift,
    shifted_concept,
    shifted_images,
    shifted_prior,
    shifted_signals,
    verify,
)

X, Y = torch.zeros(20, 3), torch.arange(20) % 5
HALVES = torch.tensor([0.5, 0.5])
DRAWING = {
    "shifted_images": lambda generator, severity=3: shifted_images(
        pictures().x, pictures().y, "gaussian-noise", severity, generator=generator
    ),
    "shifted_prior": lambda generator, severity=1: shifted_prior(
        X, Y, severity, classes=5, count=5, generator=generator
    ),
    "shifted_concept": lambda generator, severity=3: shifted_concept(
        X, Y, severity, classes=5, generator=generator
    ),
    "label_permutation": lambda generator, severity=3: label_permutation(
        5, severity, generator=generator
    ),
    "prior_shift": lambda generator: prior_shift(Y % 2, HALVES, 4, generator=generator),
}
SEVERE = {name: shift for name, shift in DRAWING.items() if name != "prior_shift"} | {
    "shifted_signals": lambda generator, severity: shifted_signals(
        "shear", severity, seed=0, count=20
    ),
    "prior_proportions": lambda generator, severity: prior_proportions(
        HALVES, severity, torch.arange(2)
    ),
}


def global_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize(
    "generator", [None, 0, np.random.default_rng(0), torch], ids=["None", "0", "numpy", "torch"]
)
@pytest.mark.parametrize("shift", DRAWING.values(), ids=DRAWING)
def test_without_a_torch_generator_nothing_is_drawn_from_a_global_one(shift, generator):
    before = global_states()
    with pytest.raises(ValueError, match=r"^generator must be a torch\.Generator, got "):
        shift(generator)
    assert global_states() == before


@pytest.mark.parametrize("shift", DRAWING.values(), ids=DRAWING)
def test_with_one_the_global_ones_are_left_alone(shift):
    before = global_states()
    shift(seeded())
    assert global_states() == before


def test_severity_0_draws_nothing_and_asks_for_a_generator_all_the_same():
    with pytest.raises(ValueError, match=r"^generator must be a torch\.Generator, got None"):
        shifted_images(pictures().x, pictures().y, "rotation", 0, generator=None)


@pytest.mark.parametrize(
    "shift",
    [
        lambda: shifted_images(pictures().x, pictures().y, "rotation", 3, seeded()),
        lambda: shifted_prior(X, Y, 1, 5, 5, seeded()),
        lambda: shifted_concept(X, Y, 3, 5, seeded()),
        lambda: label_permutation(5, 3, seeded()),
        lambda: prior_shift(Y % 2, HALVES, 4, seeded()),
        lambda: shifted_signals("shear", 3, 0, 20),
    ],
)
def test_what_is_random_is_given_by_name_everywhere(shift):
    with pytest.raises(TypeError, match="positional argument"):
        shift()


@pytest.mark.parametrize("seed", [None, "0", -1, 2.0, True], ids=repr)
def test_signals_without_a_seed_are_refused(seed):
    """numpy would take a fresh seed for None, and give other signals at each call."""
    before = global_states()
    with pytest.raises(
        ValueError, match=f"^seed must be a whole number of at least 0, got {seed!r}$"
    ):
        shifted_signals("shear", 3, seed=seed, count=20)
    assert global_states() == before


def test_numpys_whole_numbers_are_as_good_as_pythons():
    plain = shifted_signals("shear", 3, seed=7, count=20)
    assert torch.equal(
        plain.x, shifted_signals("shear", np.int64(3), seed=np.int64(7), count=np.int64(20)).x
    )
    plain = shifted_prior(X, Y, 1, classes=5, count=5, generator=seeded())
    again = shifted_prior(
        X, Y, np.int64(1), classes=np.int64(5), count=np.int64(5), generator=seeded()
    )
    assert torch.equal(plain.rows, again.rows)


@pytest.mark.parametrize("severity", [True, 2.0, "2", torch.tensor(2), np.float64(2.0)], ids=repr)
@pytest.mark.parametrize("shift", SEVERE.values(), ids=SEVERE)
def test_a_severity_is_a_whole_number_and_no_truth_value_everywhere(shift, severity):
    generator = seeded(3)
    with pytest.raises(
        ValueError, match=r"^severity must be a whole number of at least 0, got "
    ) as refusal:
        shift(generator, severity)
    assert repr(severity) in str(refusal.value)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


@pytest.mark.parametrize("severity", [3, np.int64(3)], ids=repr)
@pytest.mark.parametrize("name", sorted(set(SEVERE) - {"shifted_prior"}))
def test_a_severity_of_numpys_is_taken_everywhere(name, severity):
    assert SEVERE[name](seeded(), severity) is not None


@pytest.mark.parametrize(
    ("shift", "sentence"),
    [
        (lambda: Shifted([[1.0]], torch.tensor([0])), "x must be a tensor, got list"),
        (lambda: Shifted(np.ones((2, 3)), torch.tensor([0, 1])), "x must be a tensor, got ndarray"),
        (lambda: Shifted(X, Y.tolist()), "y must be a tensor, got list"),
        (lambda: Shifted(X, Y, list(range(20))), "rows must be a tensor, got list"),
        (
            lambda: Shifted(X, Y, torch.arange(20.0)),
            "rows must be int64 row numbers, got torch.float32",
        ),
        (
            lambda: Shifted(X, Y.int()),
            r"labels must be int64 class numbers from 0 on, .* got torch.int32 \[20\]",
        ),
        (
            lambda: shifted_concept(X.tolist(), Y, 3, classes=5, generator=seeded()),
            "x must be a tensor, got list",
        ),
        (
            lambda: shifted_concept(X, Y.tolist(), 3, classes=5, generator=seeded()),
            "labels must be a tensor, got list",
        ),
        (
            lambda: shifted_concept(X, Y.float(), 3, classes=5, generator=seeded()),
            "labels must be int64 class numbers",
        ),
        (
            lambda: shifted_concept(X, Y, 3, classes="5", generator=seeded()),
            "classes must be a whole number of at ",
        ),
        (
            lambda: label_permutation(5.0, 3, generator=seeded()),
            "classes must be a whole number of at least 1, got 5",
        ),
        (
            lambda: shifted_prior(X.numpy(), Y, 1, classes=5, count=5, generator=seeded()),
            "x must be a tensor, got ndarray",
        ),
        (
            lambda: shifted_prior(X, Y, 1, classes=5, count=5.0, generator=seeded()),
            "count must be a whole number of at least 1, got 5.0",
        ),
        (
            lambda: shifted_images(X.tolist(), Y, "rotation", 3, generator=seeded()),
            "images must be a tensor, got list",
        ),
        (
            lambda: shifted_images(
                pictures().x.numpy(), pictures().y, "rotation", 3, generator=seeded()
            ),
            "images must be a tensor, got ndarray; torch.as_tensor makes one",
        ),
        (
            lambda: shifted_images(
                pictures().x, pictures().y.numpy(), "rotation", 3, generator=seeded()
            ),
            "labels must be a tensor, got ndarray",
        ),
        (
            lambda: shifted_images(pictures().x, pictures().y, ["rotation"], 3, generator=seeded()),
            r"knob must be one of .*; got \['rotation'\]",
        ),
        (
            lambda: shifted_signals("shear", 3, seed=0, count="20"),
            "count must be a whole number of at least 1, got '2",
        ),
        (
            lambda: prior_shift([0, 1], HALVES, 2, generator=seeded()),
            "labels must be a tensor, got list",
        ),
        (
            lambda: prior_shift(Y, [0.5, 0.5], 2, generator=seeded()),
            "proportions must be a tensor, got list",
        ),
        (
            lambda: largest_remainder(HALVES, None),
            "count must be a whole number of at least 1, got None",
        ),
        (
            lambda: prior_proportions([5, 5], 1, torch.arange(2)),
            "frequencies must be a tensor, got list",
        ),
        (
            lambda: prior_proportions(torch.ones(2, 2), 1, torch.arange(4)),
            r"frequencies must be \[K\], K ≥ 2",
        ),
        (
            lambda: prior_proportions(torch.tensor(5), 1, torch.arange(1)),
            r"frequencies must be \[K\], K ≥ 2",
        ),
        (lambda: prior_proportions(HALVES, 1, [0, 1]), "order must be a tensor, got list"),
        (lambda: verify((X, Y), Shifted(X, Y)), r"before must be Shifted\(x, y\), got tuple"),
        (lambda: verify(Shifted(X, Y), X), r"after must be Shifted\(x, y\), got Tensor"),
        (lambda: verify(Shifted(X, Y), Shifted(X, Y), "0.1"), "level must be a number, got '0.1'"),
        (lambda: verify(Shifted(X, Y), Shifted(X, Y), True), "level must be a number, got True"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_sentence(shift, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        shift()
