"""The window that an average matches, against losses that were planted."""

import numpy as np
import pytest
from pydantic import ValidationError

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of, estimated, peak
from steadydescent.study.judging.places import Place


@pytest.mark.parametrize(("ema", "apart"), [(0.02, 0.08), (0.06, 0.0), (0.10, -0.08), (0.04, 0.04)])
def test_matching_window_says_whose_loss_is_nearer(ema, apart):
    """Accuracies lie 2 and 10 points below: the nearer one wins by the difference of losses."""
    readouts = {"ema": "ema-10", "short": "tail-10", "long": "tail-20"}
    plan = arms_plan({name: {"readouts": [readout]} for name, readout in readouts.items()})
    below = {"ema-10": ema, "tail-10": 0.02, "tail-20": 0.10}

    def how(run, readout, split):
        return peak(run, "", split) - below[readout]

    evidence = evidence_of(result(plan, how), plan)
    made = estimated("matching window", evidence, "ema", against=["short", "long"])
    expected = 2 * (abs(0.10 - ema) - abs(0.02 - ema))  # a loss is −2 times its accuracy here
    assert made.value == pytest.approx(expected)
    assert np.sign(round(made.value, 9)) == np.sign(apart)


def test_matching_window_looks_at_the_arm_and_at_both_windows():
    contrast = contrast_of("matching window", "a", against=["b", {"arm": "c", "condition": "own"}])
    places = [Place("linear", "a"), Place("linear", "b"), Place("own", "c")]
    assert contrast.places("linear") == places


@pytest.mark.parametrize("against", [["short"], "short", ["a", "b", "c"]])
def test_matching_window_needs_two_windows(against):
    with pytest.raises(ValidationError, match="needs two arms in against, got"):
        contrast_of("matching window", against=against)
