"""What another test set would give: against plain loops, and in worlds with both drawn anew."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from fabricated import a_run, result_of, tables
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.measures import sampling
from steadydescent.study.judging.measures.sampling import (
    CANDIDATE,
    KnownLabels,
    covariance,
    sampled,
    variance,
)
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import paired
from steadydescent.study.results.store import Result, read_folder, write_folder
from steadydescent.study.results.tables import empty


def centred(right: np.ndarray) -> list[np.ndarray]:
    """Residuals `[E, C]` of every seed from right answers `[S, E, C]`."""
    return [one - one.mean(axis=0) for one in right.astype(float)]


def by_hand(right: np.ndarray, i: int, j: int) -> float:
    """Σ_ij as the two-way analysis of variance has it: by its sums of products."""
    seeds, examples = right.shape[:2]
    y, z = right[..., i].astype(float), right[..., j].astype(float)
    rest = lambda t: t - t.mean(1, keepdims=True) - t.mean(0, keepdims=True) + t.mean()
    between = seeds * sum(
        (y[:, e].mean() - y.mean()) * (z[:, e].mean() - z.mean()) for e in range(examples)
    )
    left = (rest(y) * rest(z)).sum()
    products = between / (examples - 1) - left / ((examples - 1) * (seeds - 1))
    return products / seeds


def test_covariance_is_that_of_a_two_way_analysis_of_variance():
    right = np.random.default_rng(0).random((4, 30, 3)) < 0.7
    found = covariance(iter(centred(right)))
    for i, j in itertools.product(range(3), repeat=2):
        assert found[i, j] == pytest.approx(by_hand(right, i, j))


def test_one_seed_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        covariance(iter(centred(np.ones((1, 5, 2)))))


def world(generator, seeds: int, images: int, gain: float) -> np.ndarray:
    """Right answers `[S, E, 2]` of two arms: images are hard or easy for both and a little for each
    alone, seeds are good or bad for both and for each.
    """
    draw = lambda *shape: generator.normal(size=shape)
    image = 2.0 * draw(images, 1) + 0.8 * draw(images, 2)
    seed = 0.15 * draw(seeds, 1, 1) + 0.1 * draw(seeds, 1, 2)
    return generator.random((seeds, images, 2)) < expit(image + seed + [1.0, 1.0 + gain])


def test_an_interval_with_both_parts_covers_what_new_images_and_new_seeds_would_give():
    """95 % intervals for a difference of accuracies; the truth from half a million images.

    Without the part of the images they hold it in seven worlds of eight.
    """
    generator, trials, images = np.random.default_rng(1), 1_500, 200
    many = [world(generator, 20, 50_000, gain=0.3).mean(axis=(0, 1)) for _ in range(10)]
    truth = np.diff(np.mean(many, axis=0))[0]
    inside = plainly = 0
    for _ in range(trials):
        right = world(generator, 10, images, gain=0.3)
        matrix = covariance(iter(centred(right)))
        w = np.array([-1.0, 1.0])
        plain = paired(np.diff(right.mean(axis=1))[:, 0], 0.95)
        more = plain.widened(max(0.0, w @ matrix @ w) / images, images - 1, 0.95)
        plainly += plain.low <= truth <= plain.high
        inside += more.low <= truth <= more.high
    assert 0.94 <= inside / trials <= 0.97
    assert plainly / trials < 0.9


# ---- from predictions to a result ----------------------------------------------------------------

LABELS = np.array([1, 2, 3, 4, 5, 6])
RUNS = [
    a_run(seed=seed, lr=lr, readouts=("last",), curve_points=2)
    for seed in (3, 1, 2)
    for lr in (0.2, 0.1)
]


def predicted(run, readout) -> bytes:
    """Wrong on other images for other seeds and rates."""
    wrong = np.random.default_rng([run.seed, round(100 * run.lr)]).random(len(LABELS)) < 0.4
    return bytes(np.where(wrong, 9, LABELS).astype(np.uint8))


@pytest.fixture
def known(monkeypatch):
    """A test set of 60 images, of whose first six the predictions are known."""
    whole = KnownLabels(np.tile(LABELS, 10), np.arange(60), 60)
    monkeypatch.setattr(sampling, "labels_of_test_set", lambda task, root: whole)


def test_what_a_result_keeps_is_the_covariance_of_its_candidates(known):
    found = sampled(tables(RUNS, predicted=predicted))
    assert found.lr.tolist() == [0.1, 0.2]
    assert set(found.examples) == {60} and set(found.predicted) == {6}
    right = np.array(
        [
            [np.frombuffer(predicted(run, "last"), np.uint8) == LABELS
             for run in RUNS if run.seed == seed and run.lr == lr]
            for seed in (1, 2, 3) for lr in (0.1, 0.2)
        ]
    ).reshape(3, 2, 6).transpose(0, 2, 1)  # fmt: skip
    matrix = np.array([np.frombuffer(row, "<f4") for row in found.covariance])
    assert matrix == pytest.approx(
        np.array([[by_hand(right, i, j) for j in (0, 1)] for i in (0, 1)])
    )
    index = pd.MultiIndex.from_frame(found[CANDIDATE])
    w = pd.Series([-1.0, 1.0], index)
    spread, freedom = variance(found, w)
    by_sum = by_hand(np.diff(right.astype(float)), 0, 0)
    assert spread == pytest.approx(max(0.0, by_sum) / 60, abs=1e-6) and freedom == 5


def test_without_predictions_or_common_seeds_nothing_is_kept(known):
    assert sampled(tables(RUNS)).empty
    apart = [a_run(seed=seed, lr=0.1 * seed) for seed in (1, 2)]
    assert sampled(tables(apart, predicted=predicted)).empty


def test_a_candidate_that_left_no_predictions_has_no_variance(known):
    found = sampled(tables(RUNS, predicted=predicted))
    other = pd.MultiIndex.from_frame(found[CANDIDATE].assign(lr=[0.1, 0.7]))
    assert variance(found, pd.Series([-1.0, 1.0], other)) is None
    assert variance(empty("sampling"), pd.Series([-1.0, 1.0], other)) is None


def test_labels_of_a_sequence_are_one_example(monkeypatch):
    """Two sequences of one and three labels: right labels over the accuracy's due, by hand."""
    whole = KnownLabels(np.array([1, 2, 3, 4]), np.array([0, 1, 1, 1]), 2)
    found = sampling._correct(pd.Series([bytes([1, 2, 9, 9])]), whole)
    assert found[:, 0] == pytest.approx([(1 - 0.5) / 2, (1 - 1.5) / 2])
    with pytest.raises(ValueError, match="whole test examples, 4 labels at most, got 2"):
        whole.first(2)
    assert whole.first(1).labels.tolist() == [1]


def test_labels_are_those_of_the_tasks_test_set():
    found = sampling.labels_of_test_set("mnist1d-mlp")
    assert found.examples == len(found.labels) == 20_000
    assert set(found.labels) == set(range(10))


def test_results_of_before_are_read_without_it(tmp_path):
    made = result_of(tables(RUNS))
    write_folder(tmp_path / "new", made, {})
    assert read_folder(tmp_path / "new", Result)[0].sampling.empty


def test_evidence_gives_the_variance_in_percent(known):
    made = tables(RUNS, predicted=predicted)
    whole = result_of(made)._replace(sampling=sampled(made))
    design = {
        "experiment": "e", "task": "mnist1d-mlp", "arms": {"last": ["last"]},
        "tuned_by": ["accuracy"], "centres": {"constant": {"last": 0.1}}, "curve_points": 1,
    }  # fmt: skip
    evidence = Evidence(whole, {"design": design})
    labels = [Candidate(lr, "last", Place("constant", "last")) for lr in (0.1, 0.2)]
    matrix = np.array([np.frombuffer(row, "<f4") for row in whole.sampling.covariance], float)
    spread, freedom = evidence.test_set({labels[0]: 1.0, labels[1]: 0.5})
    by_hand_too = matrix[0, 0] + matrix[0, 1] + matrix[1, 1] / 4
    assert spread == pytest.approx(max(0, by_hand_too) / 60 * 1e4) and freedom == 5
    assert evidence.test_set({labels[0]._replace(lr=0.3): 1.0}) is None
