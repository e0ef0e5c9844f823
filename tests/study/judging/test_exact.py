"""Exact claims: rows against closed forms, and no verdict that would survive other arithmetic."""

import ast
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steadydescent.normalization import KINDS
from steadydescent.optimizers.rules import RULES
from steadydescent.schedules import noam
from steadydescent.study.judging import exact
from steadydescent.study.judging.exact import EXACT, Exact
from steadydescent.study.paths import ROOT
from steadydescent.weight_averaging import EMA, tail_weights

KNOWN = {
    "bn-bias-redundant": {"supported"},
    "ewa-bias-correction-early": {"supported"},
    "bias-correction-reduces-noise": {"refuted"},
    "momentum-correction-10-steps": {"refuted"},
    "noam-warmup": {"supported"},
    "ema-window": {"refuted"},
    "ema-outlier": {"supported"},
    "ema-smooths-training": {"refuted"},
}
SIZES, MARGINS = st.floats(-1e6, 1e6), st.floats(0, 1e6)


def row(estimate: float, margin: float, rule: str) -> Exact:
    return Exact("t = 1", "a difference", estimate, margin, "%", rule)


def verdicts(claim: str) -> set[str]:
    return {row.verdict for row in EXACT[claim]()}


def value(name: str, text: str) -> float:
    """The number that a condition gives after `name`."""
    return float(re.search(rf"{name} ([\d.]+)", text)[1])


# The rules


@given(SIZES, MARGINS)
def test_a_superiority_read_backwards_turns_its_verdict(estimate, margin):
    small = "too small to matter"
    turned = {"supported": "refuted", "refuted": "supported", small: small}
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
        "superiority": ("too small to matter", "supported", "too small to matter", "refuted"),
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
def test_the_rows_of_a_claim_agree_and_give_the_known_verdict(claim):
    assert verdicts(claim) == KNOWN[claim]


def test_there_are_rows_for_all_known_claims_and_each_row_is_told_apart():
    assert EXACT.keys() == KNOWN.keys()
    for compute in EXACT.values():
        named = [(row.condition, row.measure) for row in compute()]
        assert len(named) == len(set(named)) >= 2


@pytest.mark.claim("ewa-bias-correction-early")
def test_the_correction_exceeds_one_by_the_closed_form():
    """1/(1 − β^t) − 1 = β^t/(1 − β^t)."""
    for row in EXACT["ewa-bias-correction-early"]():
        left = value("β =", row.condition) ** value("t =", row.condition)
        assert row.estimate == pytest.approx(100 * left / (1 - left), rel=1e-9)


@pytest.mark.claim("bias-correction-reduces-noise")
def test_the_correction_raises_noise_by_as_much_as_it_exceeds_one():
    for row in EXACT["bias-correction-reduces-noise"]():
        left = value("β =", row.condition) ** value("t =", row.condition)
        assert row.estimate == pytest.approx(-100 * left / (1 - left), rel=1e-9)


@pytest.mark.claim("momentum-correction-10-steps")
def test_ten_steps_leave_54_percent_and_a_share_s_is_met_at_the_logarithm_of_s_over_one_plus_s():
    excess, ten, one = (row.estimate for row in EXACT["momentum-correction-10-steps"]())
    assert excess == pytest.approx(100 * 0.9**10 / (1 - 0.9**10)) and excess == pytest.approx(
        53.5, abs=0.05
    )
    assert (
        [ten, one]
        == [math.ceil(math.log(s / (1 + s)) / math.log(0.9)) for s in (0.1, 0.01)]
        == [23, 44]
    )


@pytest.mark.claim("noam-warmup")
def test_the_slope_of_a_warm_up_goes_with_its_length_to_the_power_of_minus_three_halves():
    for row in EXACT["noam-warmup"]():
        warmup = value("warm-up", row.condition)
        assert row.estimate == pytest.approx(100 * ((8000 / warmup) ** 1.5 - 1), rel=1e-9)


@pytest.mark.claim("ema-window")
def test_an_ema_lags_twice_as_far_as_the_mean_over_its_window_and_varies_less():
    for row in EXACT["ema-window"]():
        beta = value("β =", row.condition)
        off = 100 if row.measure.startswith("lag") else -100 * beta / (1 + beta)
        expected = (
            off if row.rule == "equivalence" else -abs(off)
        )  # the mean of (1+β)/(1−β) values is not off at all
        assert row.estimate == pytest.approx(expected, rel=1e-6)


@pytest.mark.claim("ema-outlier")
def test_an_outlier_moves_the_average_by_one_minus_beta_of_itself():
    shares = {value("β =", row.condition): row.estimate for row in EXACT["ema-outlier"]()}
    assert shares == pytest.approx(
        {beta: 100 * (1 - beta) for beta in (0.9, 0.99, 0.999)}, rel=1e-9
    )


def test_what_equals_by_algebra_differs_by_rounding_alone_and_what_is_not_touched_not_at_all():
    assert all(0 < row.estimate < 1e-12 for row in EXACT["bn-bias-redundant"]())
    assert all(row.estimate == 0 for row in EXACT["ema-smooths-training"]())


def test_the_networks_do_train_and_the_biases_are_felt_without_batch_norm(monkeypatch):
    """Rows of zeros from weights that never moved, or from biases of zero, would prove nothing."""
    path = exact._train(exact._pair(0)[0])
    assert path.shape[0] == exact.TRAINED_UPDATES and (path.diff(dim=0).abs().amax(1) > 1e-3).all()
    monkeypatch.setitem(KINDS, "batch", lambda channels: nn.Identity())
    assert exact._distance(*exact._pair(0)) > 0.1


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


UNLIKE = {
    "bn-bias-redundant": (KINDS, "batch", lambda channels: nn.GroupNorm(1, channels), "refuted"),
    "ewa-bias-correction-early": (
        exact,
        "debias",
        lambda average, beta, step: average,
        "too small to matter",
    ),
    "bias-correction-reduces-noise": (
        exact,
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
    "noam-warmup": (exact, "noam", swap_warm_up, "refuted"),
    "ema-window": (
        exact,
        "ema_weights",
        lambda t, beta: tail_weights(t, round(1 / (1 - beta))),
        "supported",
    ),
    "ema-outlier": (exact, "ewa", lambda average, value, beta: (average + value) / 2, "refuted"),
    "ema-smooths-training": (exact, "EMA", MeddlingEMA, "supported"),
}


@pytest.mark.parametrize("claim", sorted(EXACT))
def test_other_arithmetic_gives_another_verdict(claim, monkeypatch):
    where, name, other, word = UNLIKE[claim]
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, name, other)
    assert word in verdicts(claim) and word not in KNOWN[claim]


# The tests that stand behind them


@pytest.mark.parametrize("claim", sorted(EXACT))
def test_every_exact_claim_has_a_test_outside_this_file(claim):
    found = [
        test
        for test in exact.tests_of(claim)
        if not test.startswith("tests/study/judging/test_exact.py")
    ]
    assert found, f"mark the test that decides it with @pytest.mark.claim({claim!r})"
    for test in exact.tests_of(claim):
        path, _, name = test.partition("::")
        functions = [
            node
            for node in ast.parse((ROOT / path).read_text()).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert name in {function.name for function in functions}


def test_every_marked_test_decides_an_exact_claim():
    assert {claim for claim, _ in exact._marked_tests()} <= EXACT.keys()


def test_a_mark_is_read_among_others_and_looked_for_in_test_files_alone(tmp_path, monkeypatch):
    marks = '@pytest.mark.slip(1)\n@pytest.mark.claim("a")\n@pytest.mark.claim("b")\n'
    source = marks + 'def test_x():\n    "claim(c)"\n'
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_y.py").write_text(source + "def test_z(): ...\n")
    (tmp_path / "tests" / "oracle.py").write_text(source)
    monkeypatch.setattr(exact, "ROOT", tmp_path)
    exact._marked_tests.cache_clear()
    found = [exact.tests_of(claim) for claim in "abc"]
    exact._marked_tests.cache_clear()
    assert found == [["tests/test_y.py::test_x"], ["tests/test_y.py::test_x"], []]
