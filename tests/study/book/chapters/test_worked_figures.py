"""Figures that chapters make on the spot, without any result: their tables against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from steadydescent import verified
from steadydescent.dataset_shift import shifted_signals
from steadydescent.study.book import figures
from steadydescent.study.book.chapters.batch_size import jagged
from steadydescent.study.book.chapters.covariate_shift import examples
from steadydescent.study.book.chapters.weight_averaging import checkpoints, shadow, temperatures


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "GENERATED", tmp_path / "generated")
    return tmp_path / "generated/figures"


# ---- the cost along training ---------------------------------------------------------------------


def test_the_full_batch_never_rises_and_sees_the_cost_of_all_examples():
    table = jagged.table_of_costs()
    whole = table[table.n == jagged.EXAMPLES]
    np.testing.assert_allclose(whole.cost, whole["of all"], rtol=1e-12)
    counts = jagged.rises(table)
    assert counts[jagged.EXAMPLES] == 0 and counts[16] > 10 and counts[1] > 10


def test_costs_of_the_full_batch_are_those_of_gradient_descent_by_its_eigenvalues():
    """cost − its least = ½·Σ h_i·(1 − αh_i)^(2t)·e_i², in the eigenbasis of XᵀX/m."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 5, generator=generator, dtype=torch.float64).numpy()
    y = x.sum(1) + 0.5 * torch.randn(256, generator=generator, dtype=torch.float64).numpy()
    least, (h, basis) = np.linalg.lstsq(x, y, rcond=None)[0], np.linalg.eigh(x.T @ x / 256)
    off, t = basis.T @ least, np.arange(jagged.UPDATES)[:, None]
    closed = (h * (1 - jagged.RATE * h) ** (2 * t) * off**2).sum(1) / 2
    table = jagged.table_of_costs()
    costs = table[table.n == 256].cost - ((x @ least - y) ** 2).mean() / 2
    np.testing.assert_allclose(costs, closed, rtol=1e-9, atol=1e-14)


# ---- temperatures --------------------------------------------------------------------------------


def test_the_slides_days_have_the_slides_temperatures_and_averages():
    table = temperatures.table_of_temperatures().set_index("day")
    assert table.temperature[[1, 2, 3, 180, 181]].tolist() == [40, 49, 45, 60, 56]
    assert table["β = 0.98"][2] == pytest.approx(1.764)
    assert table["β = 0.98, corrected"][2] == pytest.approx(1.764 / 0.0396)


@pytest.mark.parametrize("beta", temperatures.BETAS)
def test_averages_are_weighted_sums_of_the_days_before(beta):
    table = temperatures.table_of_temperatures()
    days = np.arange(len(table))
    shares = np.tril((1 - beta) * beta ** np.maximum(days[:, None] - days, 0.0))
    np.testing.assert_allclose(table[f"β = {beta}"], shares @ table.temperature, rtol=1e-9)


def test_correction_matters_until_beta_to_the_t_is_a_tenth():
    table = temperatures.table_of_temperatures()
    assert temperatures.first_within(table, 10) == np.ceil(np.log(0.1) / np.log(0.98)) == 114


# ---- a weight and its shadow ---------------------------------------------------------------------


def test_averages_of_the_weight_are_running_averages_of_its_path():
    table = shadow.table_of_shadows()
    path, corrected, started, ramp = table.weight.to_numpy(), 0.0, shadow.START, shadow.START
    for t, weight in enumerate(path, start=1):
        started = 0.99 * started + 0.01 * weight
        corrected = 0.99 * corrected + 0.01 * weight
        decay = min(0.9999, (1 + t) / (10 + t))
        ramp = weight if t == 1 else decay * ramp + (1 - decay) * weight
    last = table.iloc[-1]
    assert last["β = 0.99, from the first weight"] == pytest.approx(started)
    assert last["β = 0.99, corrected"] == pytest.approx(corrected / (1 - 0.99 ** len(path)))
    assert last["ramp"] == pytest.approx(ramp)


def test_the_weight_swings_as_far_as_theory_says_and_every_average_less():
    """√(α/(2 − α)) = 0.23 for the weight; 150 correlated values tell it within a half."""
    spreads = shadow.spreads(shadow.table_of_shadows())
    assert spreads["weight"] == pytest.approx((0.1 / 1.9) ** 0.5, rel=0.5)
    assert (spreads.drop("weight") < spreads["weight"]).all()


# ---- checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_holds_each_weight_and_adams_slots_of_its_shape():
    table = checkpoints.contents()
    for of, shape in (("weight", "2×3"), ("bias", "2")):
        own = table[table.of == of].set_index("kind")["shape"]
        assert own.to_dict() == {"weight": shape, "slot m": shape, "slot v": shape, "slot t": ""}


def test_the_mean_is_half_of_both_entry_by_entry_and_slots_have_none():
    table = checkpoints.table_of_mean()
    wide = table.pivot(index=["tensor", "row", "column"], columns="checkpoint", values="value")
    assert (wide["update 1"] - wide["update 2"]).abs().min() > 1e-3
    np.testing.assert_allclose(wide["mean"], (wide["update 1"] + wide["update 2"]) / 2, rtol=1e-6)
    assert set(table.tensor) == {"weight", "bias"}


# ---- a shifted example ---------------------------------------------------------------------------


def test_the_example_is_one_signal_whose_label_stays():
    table = examples.table_of_signals()
    for knob in examples.KNOBS:
        before, after = (
            shifted_signals(knob, severity, seed=0, count=10) for severity in (0, examples.SEVERITY)
        )
        for shifted, severity in ((before, 0), (after, examples.SEVERITY)):
            own = table[table["shift"] == f"{knob}, severity {severity}"].value
            np.testing.assert_allclose(own, shifted.x[0], rtol=1e-6)
        assert before.y[0] == after.y[0] and not torch.equal(before.x[0], after.x[0])


# ---- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (jagged.draw_costs, "0 at n = 256"),
        (temperatures.draw_temperatures, "1.76 without, 44.5 with it"),
        (shadow.draw_shadow, "second half: weight 0.2"),
        (checkpoints.draw_contents, "2 weights and 6 slots of Adam, t, m, v"),
        (checkpoints.draw_mean, "Slots are not averaged"),
        (examples.draw_signals, "the inputs move and the label stays"),
    ],
)
def test_a_figure_says_what_it_shows_and_draws_the_same_twice(generated, draw, words):
    draw("toy")
    picture = (generated / "toy-light.svg").read_bytes()
    text = verified.read_sealed(generated / "toy.json")
    assert words in text["caption"] and text["alt"] and text["results"] == []
    draw("toy")
    assert (generated / "toy-light.svg").read_bytes() == picture
