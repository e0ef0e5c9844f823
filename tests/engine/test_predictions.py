"""Predicted classes give back the accuracy, and churn is a distance."""

import numpy as np
import pytest

from probed import LAST, advanced
from steadydescent.engine import data
from steadydescent.engine.probes import churn, predicted_classes
from steadydescent.study.paths import DATA
from steadydescent.weight_averaging import Readout
from test_engine import run


def test_accuracy_can_be_counted_from_predicted_classes():
    readouts = ("last", "ema-30")
    runs = [run(lr=lr, test=True, readouts=readouts, steps=300) for lr in (0.05, 1e30)]
    stack = advanced(runs, (300,))
    loaded = data.load("mnist1d", [5], DATA)
    for readout in stack.readouts:
        classes = predicted_classes(stack.view, readout, examples=20_000)
        right = np.frombuffer(classes[0], np.uint8) == loaded.labels[loaded.test].numpy()
        accuracy = stack.view.score(readout, stack.examples.look(stack.examples.test)).accuracy[0]
        assert right.mean() == pytest.approx(accuracy) and accuracy > 0.3
        assert classes[1] == bytes([255]) * 20_000
        assert predicted_classes(stack.view, readout)[0] == classes[0][:1_000]


def test_a_sequence_gives_a_class_for_each_of_its_labels():
    stack = advanced([run(task="names-transformer", lr=0.001, batch_size=7, readouts=LAST)], (1,))
    labels = stack.examples.labels[stack.data.test[:11]]
    assert len(predicted_classes(stack.view, Readout("last"), 11)[0]) == (labels != -100).sum()


def test_classes_that_cannot_be_had_are_refused():
    network, surface = advanced([run(readouts=LAST)]), advanced([run(task="saddle", readouts=LAST)])
    with pytest.raises(ValueError, match="a surface predicts no classes"):
        predicted_classes(surface.view, surface.readouts[0])
    with pytest.raises(ValueError, match="at most the 20000 of the test set, got 20001"):
        predicted_classes(network.view, network.readouts[0], 20_001)


def test_churn_is_a_distance_between_networks_that_did_not_diverge():
    generator = np.random.default_rng(0)
    a, b, c = (generator.integers(3, size=997, dtype=np.uint8).tobytes() for _ in range(3))
    assert (
        churn(a, a) == 0 and churn(a, b) == churn(b, a) and churn(a, c) <= churn(a, b) + churn(b, c)
    )
    assert churn(a, b) == sum(one != other for one, other in zip(a, b, strict=True)) / 997
    lost = bytes([255]) * 997
    assert churn(lost, a) == churn(lost, lost) == 1
    for one, other in ((a, b[:-1]), (b"", b"")):
        with pytest.raises(ValueError, match="of the same examples, at least one"):
            churn(one, other)
