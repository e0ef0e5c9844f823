"""What the chapter on finding the rate says, against loops by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steadydescent.study.book.chapters.learning_rate_search import (
    along,
    range_curves,
    regimes,
    searches,
)
from steadydescent.study.judging.regret import Sweep

RATES = [0.001, 0.01, 0.1, 1.0, 10.0]
SCORES = [40.0, 69.0, 70.0, 68.5, 10.0]


def sweep(scores=SCORES, seeds: int = 3) -> Sweep:
    """No noise at all: every seed has the same scores."""
    return Sweep(RATES, tuning=[scores] * seeds, report=[scores] * seeds)


@pytest.fixture
def results(monkeypatch):
    """A task whose sweep is `sweep()`, and whose range tests suggest 0.1 or 1."""
    rows = [(seed, "middle", 100, rate) for seed, rate in enumerate((0.1, 0.1, 1.0))]
    table = pd.DataFrame(rows, columns=["seed", "rule", "length", "rate"])
    monkeypatch.setattr(regimes.regret, "dense_sweep", lambda *_: sweep())
    monkeypatch.setattr(searches, "suggestions", lambda *_: table)
    own = SimpleNamespace(main_measure="accuracy")
    return {"toy": SimpleNamespace(evidence=own, id="toy@1")}


def test_right_is_what_comes_within_two_points_and_the_rest_lies_on_a_side():
    wanted = ["too small", "right", "right", "right", "too large"]
    assert list(regimes.regimes(sweep())) == wanted
    assert list(regimes.right_rates(sweep())) == [0.01, 0.1, 1.0]


def test_a_rate_between_two_hills_lies_on_the_side_of_the_best():
    assert list(regimes.regimes(sweep([69.5, 10.0, 70.0, 20.0, 69.0]))) == [
        *("right", "too small", "right", "too large", "right")
    ]


def test_regimes_are_a_table_of_every_rate(results):
    table = regimes.table_of_regimes(results)
    assert list(table.rate) == RATES and list(table.accuracy) == SCORES


@pytest.mark.parametrize(("factor", "rate"), [(0.01, 0.001), (0.05, 0.01), (1, 0.1), (1000, 10.0)])
def test_a_multiple_of_the_best_rate_is_the_nearest_of_the_sweep(factor, rate):
    assert along.near(sweep(), factor) == rate


def test_a_task_with_fewer_rates_stops_at_its_last():
    table = pd.DataFrame({"task": ["long", "long", "short"], "place": [0, 30, 14]})
    assert along._picked(table) == (
        'datum.task == pick_task && datum.place == min(pick, datum.task == "long" ? 30 : 14)'
    )


def test_nine_in_ten_uniform_draws_lie_in_the_last_decade_and_logarithms_share_evenly():
    table = searches.table_of_decades().set_index("decade")
    uniform, log = table["uniform on [0, 1], %"], table["log-uniform, %"]
    assert uniform["0.1 to 1"] == pytest.approx(90, abs=0.5)
    np.testing.assert_allclose(log, 20, atol=0.5)
    assert uniform.sum() == pytest.approx(100, abs=0.01) and log.sum() == pytest.approx(100)


def test_regrets_are_below_zero_for_no_search_where_scores_have_no_noise(results):
    table = searches.table_of_regrets(results, draws=20)
    assert set(table.task) == {"toy"} and (table.regret >= 0).all()


def test_what_a_suggestion_gives_away_is_its_distance_from_the_best(results):
    (row,) = searches.table_of_losses(results).to_dict("records")
    assert row["regret, pp"] == pytest.approx((0 + 0 + 1.5) / 3)
    where = [row[name] for name in ("task", "rule", "ramp, updates", "tests")]
    assert where == ["toy", "middle", 100, 3]
    assert searches.table_of_losses({}).empty


def test_suggestions_are_shown_by_their_quantiles_over_seeds(results):
    (row,) = searches.suggested(results).to_dict("records")
    assert [row[q] for q in (0.1, 0.5, 0.9)] == pytest.approx(
        list(np.quantile([0.1, 0.1, 1.0], [0.1, 0.5, 0.9]))
    )


def test_a_descent_starts_where_a_tenth_of_the_fall_lies_behind_and_ends_at_the_lowest_loss():
    losses = [2.0, 2.0, 1.95, 1.5, 0.7, 1.0, np.nan]
    curve = pd.DataFrame({"rate": np.geomspace(1e-4, 1e2, 7), "median": losses})
    start, end = range_curves.regimes(curve)
    assert (start, end) == pytest.approx((1e-2, 1.0))
