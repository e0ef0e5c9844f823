"""Tuning goes on past an optimum on the grid's edge, for every arm alike; reports surround the
choices.
"""

import numpy as np
import pytest

from fabricated import stack_receipt, tables
from steadydescent.study.planning import EXTENSIONS, FIRST_REPORT_SEED, FIRST_TUNING_SEED
from steadydescent.study.results.provenance import device_name
from steadydescent.study.results.store import Result, read_folder
from steadydescent.study.training import trial as module
from steadydescent.study.training.trial import Trial
from steadydescent.study.training.trial_tables import result_id
from trials import places, start, study_with


def test_optimum_inside_the_grid_leaves_it_as_planned(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0, "ema-10": 1, "ema-30": 1, "tail-25": -1})
    table = trial.tune()
    assert [places(runs) for runs in asked] == [[-2, -1, 0, 1, 2]] * 2
    assert trial.choices["constant"] == {
        "last": [0],
        "ema": [1],
        "checkpoints": [0],
        "tail": [-1],
        "ramp": [0],
    }
    assert len(table) == 2 * 5 * len(trial.plan.readouts("constant"))
    assert (table.accuracy > 0.6).all()


@pytest.mark.parametrize(
    ("edge", "grid"), [(2, [-2, 3]), (3.2, [-2, 4]), (-2, [-3, 2]), (-4, [-5, 2])]
)
def test_grid_grows_until_the_optimum_of_one_arm_is_inside_it(toy, monkeypatch, edge, grid):
    """Only the tail mean's optimum is at the edge; every arm gets the grown grid."""
    trial, asked = start(monkeypatch, toy, {"": 0, "tail-25": edge})
    trial.tune()
    assert trial.choices["constant"]["tail"] == [round(edge)]
    for schedule in ("constant", "linear"):
        assert (trial.tuned[schedule][0], trial.tuned[schedule][-1]) == tuple(grid)
        last = [runs for runs in asked if runs[0].schedule == schedule][-1]
        assert places(last) == list(range(grid[0], grid[1] + 1))
        assert {run.readouts for run in last} == {trial.plan.readouts(schedule)}


def test_grid_grows_on_both_sides_and_for_one_condition_alone(toy, monkeypatch):
    trial, _ = start(monkeypatch, toy, {"": 0, "constant/last": 3, "constant/tail-25": -3})
    trial.tune()
    assert (trial.tuned["constant"], trial.tuned["linear"]) == (range(-4, 5), range(-2, 3))


@pytest.mark.parametrize(
    ("direction", "end"), [(25, (-2, 2 + EXTENSIONS)), (-25, (-2 - EXTENSIONS, 2))]
)
def test_grid_stops_growing_after_so_many_extensions(toy, monkeypatch, direction, end):
    trial, asked = start(monkeypatch, toy, {"": direction})
    trial.tune()
    assert (trial.tuned["linear"][0], trial.tuned["linear"][-1]) == end
    assert len(asked) == 2 * (1 + EXTENSIONS)
    assert all(chosen == [end[direction > 0]] for chosen in trial.choices["linear"].values())


def test_smoke_never_grows_its_grid(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 9}, profile="smoke")
    trial.tune()
    assert [places(runs) for runs in asked] == [[-1, 0, 1]] * 2


def test_report_covers_every_choice_and_its_neighbours_within_the_tuned_range(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": -1, "linear/last": 2.9, "constant/last": 0})
    trial.tune()
    asked.clear()
    trial.report()
    by_schedule = {runs[0].schedule: runs for runs in asked}
    assert places(by_schedule["constant"]) == [-2, -1, 0, 1]
    assert places(by_schedule["linear"]) == [-2, -1, 0, 2, 3, 4]
    for runs in asked:
        assert all(run.test for run in runs) and {
            run.seed - FIRST_REPORT_SEED for run in runs
        } == set(range(5))


def test_report_at_the_end_of_all_extensions_stays_inside_what_was_tuned(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 25})
    trial.tune()
    asked.clear()
    trial.report()
    assert all(places(runs) == [5, 6] for runs in asked)


def test_tuning_looks_at_validation_data_of_tuning_seeds_alone(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0})
    trial.tune()
    tuning = [run for runs in asked for run in runs]
    assert not any(run.test for run in tuning) and all(
        run.seed >= FIRST_TUNING_SEED for run in tuning
    )
    assert set(trial.store.load([run.key for run in tuning])[0].finals.split) == {"validation"}


def test_saved_result_holds_every_run_of_the_last_grid_and_a_receipt(toy, monkeypatch):
    trial, _ = start(monkeypatch, toy, {"": 0, "tail-25": 2})
    trial.tune()
    reported = trial.report()
    folder = trial.save(toy / "results")
    assert folder == toy / "results" / "laptop" / "toy" / "mnist1d-mlp"
    result, receipt = read_folder(folder, Result)
    assert (
        len(result.runs) == len(reported.runs) == receipt["networks"] == len(set(result.runs.run))
    )
    assert len(result.runs) == 2 * (6 * 3 + 5 * 5)  # grids −2 … 3, reports around 0 and 2: −1 … 3
    assert (
        receipt["profile"] == "laptop"
        and receipt["updates"] == 40
        and receipt["seeds"] == {"tuning": 3, "report": 5}
    )
    assert receipt["result"] == result_id("toy", "mnist1d-mlp", result)
    assert receipt["seconds"] == 2.0 * receipt["stacks"] and receipt["trained_on"] == [
        device_name("cpu")
    ]
    assert receipt["target"] is None


def test_trial_refuses_unknown_words_before_it_trains(toy):
    with pytest.raises(ValueError, match="profile must be one of"):
        Trial("toy", "mnist1d-mlp", "huge", store=toy / "store")
    with pytest.raises(ValueError, match=r"task in 'smoke' .*did you mean 'mnist1d-mlp'"):
        Trial("toy", "fashion-mnist-mlp", "smoke", store=toy / "store")


# ---- arms, rates and measures --------------------------------------------------------------------

APART = {"sgd": {"optimizer": "sgd", "unit": 10}, "adam": {"optimizer": "adam", "unit": 0.05}}


def arm_peaks(optimum: dict[str, float]):
    """Accuracy that falls with the distance, in grid points of its own unit, from each arm's best
    point.
    """

    def score(run, readout: str, split: str) -> float:
        return 0.7 - 0.02 * abs(
            np.log2(run.lr / 0.1 / APART[run.optimizer]["unit"]) - optimum[run.optimizer]
        )

    return score


def indices(trial: Trial, runs, arm: str) -> list[int]:
    """Grid points of an arm's runs, in its own unit."""
    mine = [run for run in runs if run.optimizer == APART[arm]["optimizer"]]
    return sorted({round(np.log2(run.lr / 0.1 / APART[arm]["unit"])) for run in mine})


@pytest.mark.parametrize(
    ("report", "sgd", "adam"),
    [
        ("choices", [-1, 0, 1], [0, 1, 2]),
        ("all-arms", [-1, 0, 1, 2], [-1, 0, 1, 2]),
        ("everything", None, None),
    ],
)
def test_arms_with_runs_of_their_own_report_around_what_the_study_says(
    toy, monkeypatch, report, sgd, adam
):
    """Their own choices, the choices of all arms, or the whole grid; each in its own unit."""
    with study_with(toy, arms=APART, report=report):
        trial, asked = start(monkeypatch, toy, {}, score=arm_peaks({"sgd": 0, "adam": 1}))
        trial.tune()
        assert trial.choices["constant"] == {"sgd": [0], "adam": [1]}
        asked.clear()
        trial.report()
        whole = list(range(-2, 3))
        for runs in asked:
            assert indices(trial, runs, "sgd") == (sgd or whole) and indices(
                trial, runs, "adam"
            ) == (adam or whole)


@pytest.mark.parametrize(
    ("default", "places"), [(0.02, [0, 1, 2]), (0.0012, [-2, 0, 1, 2]), (9.0, [0, 1, 2])]
)
def test_report_seeds_also_run_the_rate_that_people_use_untuned(toy, monkeypatch, default, places):
    """Adam's grid is 0.00125 … 0.02 and 0.01 its choice; the nearest point stands in, its
    neighbours are not run.
    """
    with study_with(toy, arms={"sgd": APART["sgd"], "adam": APART["adam"] | {"default": default}}):
        trial, asked = start(monkeypatch, toy, {}, score=arm_peaks({"sgd": 0, "adam": 1}))
        trial.tune()
        asked.clear()
        trial.report()
        for runs in asked:
            assert (
                indices(trial, runs, "sgd") == [-1, 0, 1] and indices(trial, runs, "adam") == places
            )


def test_grid_that_is_reported_whole_does_not_grow(toy, monkeypatch):
    with study_with(toy, report="everything"):
        trial, asked = start(monkeypatch, toy, {"": 9})
        trial.tune()
        assert [places(runs) for runs in asked] == [[-2, -1, 0, 1, 2]] * 2


def peaked(run, readout: str, split: str) -> float:
    """Accuracy at the end, best at the centre."""
    return 0.7 - 0.02 * abs(np.log2(run.lr / 0.1))


def test_each_way_of_tuning_has_its_choice_and_reports_around_it(toy, monkeypatch):
    """The accuracy at the end is best at grid point 0; the target is passed soonest at 2."""
    by_steps = {
        "tune_by": ["accuracy", "steps to target"],
        "targets": {"mnist1d-mlp": 0.5},
        "curve_points": 4,
    }
    with study_with(toy, arms={"last": {}}, **by_steps):
        trial, asked = start(monkeypatch, toy, {}, score=peaked)
        fast = lambda lr: round(np.log2(lr / 0.1)) == 2

        def sooner(runs, store, device, journal, title):
            asked.append(runs)
            made = tables(runs, peaked)
            lr = made.curves.run.map(made.runs.set_index("run").lr)
            late = (made.curves.step < 40) & ~lr.map(fast)
            made.curves.loc[late, "accuracy"] = 0.1
            store.save(made, stack_receipt(runs))

        monkeypatch.setattr(module, "train", sooner)
        trial.tune()
        assert trial.choices["constant"]["last"] == [0, 2]
        assert (trial.tuned["constant"][0], trial.tuned["constant"][-1]) == (-2, 3)
        asked.clear()
        trial.report()
        assert places(asked[0]) == [-1, 0, 1, 2, 3]
        folder = trial.save(toy / "results")
        found, receipt = read_folder(folder, Result)
        steps = found.measures[found.measures.measure == "steps to target"].set_index("run").value
        by_rate = found.runs.set_index("run").lr[steps.index]
        assert receipt["target"] == 0.5
        assert (steps[by_rate.map(fast)] == 10).all() and (steps[~by_rate.map(fast)] > 30).all()


def test_grid_does_not_grow_where_no_rate_arrives_at_the_target(toy, monkeypatch):
    """All need the same number of updates; the accuracy in the end decides, and its best point is
    inside.
    """
    by_steps = {"tune_by": ["accuracy", "steps to target"], "targets": {"mnist1d-mlp": 0.99}}
    with study_with(toy, arms={"last": {}}, **by_steps):
        trial, asked = start(monkeypatch, toy, {"": 1})
        trial.tune()
        assert trial.choices["constant"]["last"] == [1, 1]
        assert [places(runs) for runs in asked] == [[-2, -1, 0, 1, 2]] * 2


def test_a_rate_that_loses_a_report_run_is_no_longer_chosen_by_steps(toy, monkeypatch):
    """All rates arrive at once, and accuracy settles it: the best rate, until one of its report
    runs diverges; by accuracy it stays.
    """
    fields = {"arms": {"last": {}}, "curve_points": 2, "targets": {"mnist1d-mlp": 0.5}}
    with study_with(toy, tune_by=["accuracy", "steps to target"], **fields):
        lost: list[str] = []
        trial, _ = start(monkeypatch, toy, {"": 0.2}, diverged=lost)
        trial.tune()
        (lost_run, *_) = trial.plan.reporting("constant", "last", [0])
        lost.append(lost_run.key)
        trial.report()
        kept = read_folder(trial.save(toy / "results"), Result)[0].choices
    rates = kept.set_index(["condition", "tuned_by"]).lr
    assert rates["linear"].tolist() == [0.1, 0.1]
    assert rates["constant", "accuracy"] == 0.1
    assert rates["constant", "steps to target"] == 0.2
