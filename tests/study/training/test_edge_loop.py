"""Report seeds run further rates while tuning, done afresh, would often choose the outermost."""

import numpy as np
import pytest

from steadydescent.study.planning import EXTENSIONS
from steadydescent.study.training.edge_sides import crowded_sides
from steadydescent.study.training.trial import Trial
from trials import places, start, study_with


def hill(top: float, noise: float):
    """Accuracy that rises up to a grid point and stays, with noise of each seed at each rate."""

    def score(run, readout: str, split: str) -> float:
        place = round(np.log2(run.lr / 0.1))
        drawn = np.random.default_rng([run.seed, place + 50]).normal()
        return 0.7 - 0.02 * max(0.0, top - place) + noise * drawn

    return score


def crowded(trial: Trial) -> dict[tuple[str, str, int], bool]:
    """Condition, arm and side where redraws crowd → whether a further rate was allowed there."""
    found = {}
    for condition in trial.plan.conditions:
        arms, allowed = trial.plan.arms_in(condition), trial._allowed(condition)
        evidence = trial._evidence(condition, arms)
        for arm in arms:
            reported = trial.reported[condition, arm]
            ends = {-1: min(reported) - 1, 1: max(reported) + 1}
            for side in crowded_sides(evidence, condition, arm):
                found[condition, arm, side] = ends[side] in allowed
    return found


@pytest.mark.parametrize("top", [1, 2])
def test_rates_are_reported_until_redraws_end_inside_or_the_grid_does(toy, monkeypatch, top):
    """Above its top the hill is flat: any rate may be chosen, those below hardly ever."""
    with study_with(toy, arms={"last": {}}):
        trial, asked = start(monkeypatch, toy, {}, score=hill(top, 0.004))
        trial.tune()
        chosen = trial.choices["constant"]["last"][0]
        trial.report()
        reported = trial.reported["constant", "last"]
        assert reported == set(range(min(reported), max(reported) + 1))
        assert max(reported) > chosen + 1  # more than its neighbours
        assert not any(crowded(trial).values())
        assert all(set(trial.tuned[own]) >= trial.reported[own, "last"] for own in trial.tuned)
        assert places([run for runs in asked for run in runs])[-1] <= 2 + EXTENSIONS


def test_a_steep_hill_has_its_neighbours_reported_alone(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0})
    trial.tune()
    asked.clear()
    trial.report()
    assert [places(runs) for runs in asked] == [[-1, 0, 1]] * 2 and not crowded(trial)


def test_a_grid_that_one_arm_makes_grow_grows_for_every_arm(toy, monkeypatch):
    """The schedules are arms here; the constant rate is flat upwards, the linear one has a top."""
    flat, steep = hill(1, 0.004), hill(0, 0.0)

    def score(run, readout, split):
        place = round(np.log2(run.lr / 0.1))
        if run.schedule == "constant":
            return flat(run, readout, split)
        return steep(run, readout, split) - 0.02 * max(0, place)

    arms = {name: {"schedule": name} for name in ("constant", "linear")}
    with study_with(toy, arms=arms, conditions={"both": {}}):
        trial, _ = start(monkeypatch, toy, {}, score=score)
        trial.tune()
        trial.report()
        assert trial.reported["both", "linear"] == {-1, 0, 1}
        assert max(trial.reported["both", "constant"]) > 2
        keys = trial.served["both", "linear"]["tuning"]
        tuned = {trial.runs[key].lr for key in keys}
        assert len(tuned) == len(trial.tuned["both"]) and trial.tuned["both"][-1] > 2


def test_smoke_and_whole_grids_are_left_as_they_are(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {}, profile="smoke", score=hill(1, 0.004))
    trial.tune()
    trial.report()
    assert places([run for runs in asked for run in runs]) == [-1, 0, 1]
    with study_with(toy, arms={"last": {}}, report="everything"):
        trial, asked = start(monkeypatch, toy, {}, score=hill(1, 0.004))
        trial.tune()
        trial.report()
        assert places([run for runs in asked for run in runs]) == [-2, -1, 0, 1, 2]
