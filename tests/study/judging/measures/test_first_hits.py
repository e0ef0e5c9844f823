"""Targets count once they are held, and rates that throw runs across them are no candidates."""

import numpy as np
import pandas as pd
import pytest

from fabricated import a_run, tables
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.study.judging.choosing import lost_rates, tuning_scores
from steadydescent.study.judging.measures import ARRIVAL, HIGHEST_POINT, ceiling, derived
from steadydescent.study.results.store import Tables


def on_curve(run: Run, **columns) -> pd.DataFrame:
    """A curve of the last weights with a point at every update."""
    usual = {"accuracy": np.nan, "loss": np.nan, "calibration_error": np.nan}
    steps = np.arange(1, run.steps + 1)
    return pd.DataFrame({"run": run.key, "readout": "last", "step": steps} | usual | columns)


def of_curves(runs: list[Run], heights: dict[int, list[float]], diverged=()) -> pd.DataFrame:
    """Measures of runs on a surface, by seed, with a target of 0.01."""
    made = tables(runs, diverged=diverged)
    curves = pd.concat([on_curve(run, loss=heights[run.seed]) for run in runs])
    return derived(made._replace(curves=curves), 0.01, by_loss=True)


RAVINE = {"task": "ravine", "batch_size": 1, "steps": 4, "readouts": ("last",)}


def test_a_throw_across_the_target_and_away_is_no_arrival():
    """RMSProp on the ravine: step 1 jumps to (97, −98), step 2 bounces back, step 3 hits, and the
    run ends high up. The first hit would say 3 updates.
    """
    heights = {0: [486_000.0, 4_900.0, 0.004, 1_281.0]}
    run = a_run(**RAVINE)
    found = of_curves([run], heights).set_index("measure").value
    assert found["steps to target"] == 4 and found[ARRIVAL] == 0
    assert found[HIGHEST_POINT] == 486_000


def test_rmsprop_on_the_ravine_does_so_and_its_rate_is_no_candidate(tmp_path):
    """The rate that first hits chose, 9.843, on the real surface with the real rule."""
    points = 400
    runs = [
        a_run(
            task="ravine", optimizer="rmsprop", lr=lr, seed=seed, batch_size=1,
            steps=points, curve_points=points, readouts=("last",),
        )
        for lr in (0.005, 9.843)
        for seed in range(3)
    ]  # fmt: skip
    found = Stack(runs, tmp_path, compile=False).train()
    made = Tables(found.runs, found.finals, found.curves, found.measures, found.predictions)
    first = made.curves[made.curves.loss <= 0.01].groupby("run").step.min()
    found = derived(made, 0.01, by_loss=True)
    fast = {run.key for run in runs if run.lr == 9.843}
    tops = found[(found.measure == HIGHEST_POINT) & found.run.isin(fast)].value
    assert len(first[first.index.isin(fast)]) and (tops > 1e5).all()
    held = found[found.measure == ARRIVAL].set_index("run").value
    assert held[[run.key for run in runs if run.lr == 0.005]].all()
    lost = lost_rates(made.runs, found).set_index("lr")
    assert lost.excluded.to_dict() == {0.005: False, 9.843: True}


def test_a_diverged_run_counts_with_its_whole_length():
    run = a_run(**RAVINE)
    found = of_curves([run], {0: [1.0, 0.005, 0.005, 0.005]}, [run.key]).set_index("measure").value
    assert found["steps to target"] == 4 and found[ARRIVAL] == 0


def test_the_ceiling_is_the_starts_height():
    """By hand: ½·(1 + 100·0.09), ½, ½·¼ − 1/(1 + e⁶), and ¼·9 + 0.2."""
    assert ceiling("ravine") == pytest.approx(5.0, abs=1e-4)
    assert ceiling("saddle") == pytest.approx(0.5, abs=1e-4)
    assert ceiling("plateau") == pytest.approx(0.125 - 1 / (1 + np.exp(6)), abs=1e-4)
    assert ceiling("double-well-slope") == pytest.approx(2.45, abs=1e-4)
    assert ceiling("noisy-quadratic") is None and ceiling("mnist1d-mlp") is None


def test_a_run_may_cross_the_barrier_with_the_noise_that_it_has_across():
    """The barrier of x³ − x = 0.1 by bisection, and ½·(4·0.1)² for the valley's noise."""
    low, high = -0.3, 0.3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**3 - middle - 0.1 > 0 else (low, middle)
    height = (low**2 - 1) ** 2 / 4 - 0.1 * low
    assert ceiling("double-well") == pytest.approx(height + 0.08, abs=1e-4)


@pytest.mark.parametrize(
    ("lost", "seeds", "excluded"), [(1, 20, False), (2, 20, True), (1, 19, True), (0, 5, False)]
)
@pytest.mark.parametrize("how", ["climbs", "diverges"])
def test_a_rate_that_loses_more_than_a_twentieth_is_excluded(lost, seeds, excluded, how):
    """Tuning and report seeds count together; another rate does not."""
    runs = [a_run(**RAVINE, seed=seed, test=seed % 2 == 0) for seed in range(seeds)]
    other = [a_run(**RAVINE, seed=seed, lr=0.01) for seed in range(seeds)]
    top = 6.0 if how == "climbs" else 1.0
    heights = {seed: [top if seed < lost else 1.0, 0.5, 0.005, 0.005] for seed in range(seeds)}
    diverged = [run.key for run in runs[:lost]] if how == "diverges" else []
    found = pd.concat(
        [of_curves(runs, heights, diverged), of_curves(other, {s: [1.0] * 4 for s in range(seeds)})]
    )
    made = tables([*runs, *other], lambda *_: 0.005, diverged)
    table = lost_rates(made.runs, found).set_index("lr")
    assert table.excluded.to_dict() == {0.1: excluded, 0.01: False}
    column = "above" if how == "climbs" else "diverged"
    assert table[column].to_dict() == {0.1: lost, 0.01: 0}
    scores = tuning_scores(made.runs, made.finals, found).merge(made.runs, on="run")
    assert scores[scores.lr == 0.1]["steps to target"].isna().all() == excluded
    assert (
        scores["loss"].notna().all() and scores[scores.lr == 0.01]["steps to target"].notna().all()
    )
