"""Exact claims: rows against closed forms, and no verdict that would survive other arithmetic."""

import ast
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steadydescent.averages import debias
from steadydescent.normalization import KINDS
from steadydescent.optimizers.rules import RULES
from steadydescent.schedules import Schedule, exponential, noam
from steadydescent.study.judging.exact import (
    EXACT,
    Exact,
    averages,
    batches,
    marked_tests,
    momentum,
    networks,
    rates,
)
from steadydescent.study.paths import ROOT
from steadydescent.weight_averaging import EMA, tail_weights

TOO_SMALL = Exact("t = 1", "a difference", 0.0, 1.0, "%", "superiority").verdict
"""The word for a difference that is there and does not matter."""
KNOWN = {
    "lr-small-precise": {"supported"},
    "batch-noise": {"supported"},
    "batch-memory": {"supported"},
    "bn-bias-redundant": {"supported"},
    "averages-smooth": {"supported"},
    "ewa-bias-correction-early": {"supported"},
    "bias-correction-reduces-noise": {"refuted"},
    "momentum-correction-10-steps": {"refuted"},
    "momentum-small-batches": {TOO_SMALL, "supported"},
    "decay-formulas": {"supported", "refuted"},
    "noam-warmup": {"supported"},
    "noam-scale": {"supported"},
    "noam-start": {"supported"},
    "noam-duration": {"supported"},
    "ema-window": {"refuted"},
    "ema-decay-values": {"supported", "refuted"},
    "ema-outlier": {"supported"},
    "ema-smooths-training": {"refuted"},
}
SIZES, MARGINS = st.floats(-1e6, 1e6), st.floats(0, 1e6)


def row(estimate: float, margin: float, rule: str) -> Exact:
    return Exact("t = 1", "a difference", estimate, margin, "%", rule)


def verdicts(claim: str) -> set[str]:
    return {row.verdict for row in EXACT[claim]()}


# The rules


@given(SIZES, MARGINS)
def test_a_superiority_read_backwards_turns_its_verdict(estimate, margin):
    turned = {"supported": "refuted", "refuted": "supported", TOO_SMALL: TOO_SMALL}
    assert (
        row(-estimate, margin, "superiority").verdict
        == turned[row(estimate, margin, "superiority").verdict]
    )


@given(SIZES, MARGINS)
def test_a_difference_is_supported_where_an_equivalence_is_refuted(estimate, margin):
    both = {row(estimate, margin, rule).verdict for rule in ("difference", "equivalence")}
    assert both == {"supported", "refuted"}


@given(st.floats(1e-6, 1e6))
def test_every_rule_turns_where_the_estimate_crosses_the_margin(margin):
    inside, outside = margin, np.nextafter(margin, math.inf)
    expected = {
        "superiority": (TOO_SMALL, "supported", TOO_SMALL, "refuted"),
        "equivalence": ("supported", "refuted", "supported", "refuted"),
        "difference": ("refuted", "supported", "refuted", "supported"),
    }
    for rule, words in expected.items():
        assert (
            tuple(row(x, margin, rule).verdict for x in (inside, outside, -inside, -outside))
            == words
        )


def test_bitwise_equality_refutes_a_difference_at_margin_zero_and_the_least_number_supports_it():
    assert row(0.0, 0.0, "difference").verdict == "refuted"
    assert row(5e-324, 0.0, "difference").verdict == "supported"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((math.nan, 1.0, "equivalence"), "estimate must be finite, got nan for 'a difference'"),
        ((-math.inf, 1.0, "superiority"), "estimate must be finite, got -inf"),
        ((1.0, -1.0, "difference"), "margin must be at least 0 and finite, got -1.0"),
        ((1.0, math.inf, "equivalence"), "margin must be at least 0 and finite, got inf"),
        ((1.0, 1.0, "inferiority"), "rule 'inferiority' is unknown; did you mean 'superiority'"),
    ],
)
def test_a_row_that_could_bear_no_verdict_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        row(*fields)


# The rows


@pytest.mark.parametrize("claim", sorted(KNOWN))
def test_the_rows_of_a_claim_give_the_known_verdicts(claim):
    assert verdicts(claim) == KNOWN[claim]


def test_there_are_rows_for_all_known_claims_and_each_row_is_told_apart():
    assert EXACT.keys() == KNOWN.keys()
    for compute in EXACT.values():
        named = [(row.condition, row.measure) for row in compute()]
        assert len(named) == len(set(named)) >= 2


# Other arithmetic, another verdict


class MeddlingEMA(EMA):
    """An EMA that moves a trained weight by one rounding."""

    def update(self, model: nn.Module) -> None:
        super().update(model)
        with torch.no_grad():
            next(model.parameters()).mul_(1 + 2**-52)


def swap_warm_up(d_model: int, warmup: int, scale: float):
    """Noam as if a longer warm-up were the steeper one."""
    return noam(d_model, round(8000**2 / warmup), scale)


WRAPPED = Schedule.wrapped


def without(option: str):
    """OpenNMT-tf's wrapper as if it did not heed an option."""

    def wrapped(self, **options):
        return WRAPPED(self, **{name: value for name, value in options.items() if name != option})

    return wrapped


UNLIKE = {
    "lr-small-precise": (batches, "stationary_variance", lambda lr, h, v: 1.0, TOO_SMALL),
    "batch-noise": (batches, "noise_factor", lambda m, n, *, replacement: 1.0, TOO_SMALL),
    "batch-memory": (
        batches,
        "SPLIT_SIZES",
        {source: {"train": 1} for source in ("mnist1d", "fashion-mnist")},
        TOO_SMALL,
    ),
    "averages-smooth": (averages, "ema_weights", lambda t, beta: np.ones(t), TOO_SMALL),
    "momentum-small-batches": (
        momentum,
        "stationary_variance",
        lambda lr, h, v, mu=0.0: np.float64(lr * v),
        "supported",
    ),
    "decay-formulas": (
        rates,
        "exponential",
        lambda base, epoch: exponential(base**10, epoch),
        "supported",
    ),
    "noam-scale": (rates, "noam", lambda d, warmup, scale: noam(d, warmup, 2), TOO_SMALL),
    "noam-start": (Schedule, "wrapped", without("step_start"), "refuted"),
    "noam-duration": (Schedule, "wrapped", without("step_duration"), TOO_SMALL),
    "ema-decay-values": (
        averages,
        "debias",
        lambda average, beta, step: debias(average, beta, 100 * step),
        "supported",
    ),
    "bn-bias-redundant": (KINDS, "batch", lambda channels: nn.GroupNorm(1, channels), "refuted"),
    "ewa-bias-correction-early": (
        averages,
        "debias",
        lambda average, beta, step: average,
        TOO_SMALL,
    ),
    "bias-correction-reduces-noise": (
        averages,
        "debias",
        lambda average, beta, step: average / 2,
        "supported",
    ),
    "momentum-correction-10-steps": (
        RULES,
        "corrected-momentum",
        RULES["averaged-momentum"],
        "supported",
    ),
    "noam-warmup": (rates, "noam", swap_warm_up, "refuted"),
    "ema-window": (
        averages,
        "ema_weights",
        lambda t, beta: tail_weights(t, round(1 / (1 - beta))),
        "supported",
    ),
    "ema-outlier": (averages, "ewa", lambda average, value, beta: (average + value) / 2, "refuted"),
    "ema-smooths-training": (networks, "EMA", MeddlingEMA, "supported"),
}


@pytest.mark.parametrize("claim", sorted(EXACT))
def test_other_arithmetic_gives_another_verdict(claim, monkeypatch):
    where, name, other, word = UNLIKE[claim]
    known = [row.verdict for row in EXACT[claim]()]
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, name, other)
    found = [row.verdict for row in EXACT[claim]()]
    assert any(new == word != old for old, new in zip(known, found, strict=True))


# The tests that stand behind them


@pytest.mark.parametrize("claim", sorted(EXACT))
def test_every_exact_claim_has_a_test_outside_this_folder(claim):
    found = [
        test
        for test in marked_tests.tests_of(claim)
        if not test.startswith("tests/study/judging/exact/")
    ]
    assert found, f"mark the test that decides it with @pytest.mark.claim({claim!r})"
    for test in marked_tests.tests_of(claim):
        path, _, name = test.partition("::")
        functions = [
            node
            for node in ast.parse((ROOT / path).read_text()).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert name in {function.name for function in functions}


def test_every_marked_test_decides_an_exact_claim():
    assert {claim for claim, _ in marked_tests._marked_tests()} <= EXACT.keys()


def test_a_mark_is_read_among_others_and_looked_for_in_test_files_alone(tmp_path, monkeypatch):
    marks = '@pytest.mark.slip(1)\n@pytest.mark.claim("a")\n@pytest.mark.claim("b")\n'
    source = marks + 'def test_x():\n    "claim(c)"\n'
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_y.py").write_text(source + "def test_z(): ...\n")
    (tmp_path / "tests" / "oracle.py").write_text(source)
    monkeypatch.setattr(marked_tests, "ROOT", tmp_path)
    marked_tests._marked_tests.cache_clear()
    found = [marked_tests.tests_of(claim) for claim in "abc"]
    marked_tests._marked_tests.cache_clear()
    assert found == [["tests/test_y.py::test_x"], ["tests/test_y.py::test_x"], []]
