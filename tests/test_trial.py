"""Tuning goes on past an optimum on the grid's edge, for every arm alike; reports surround the choices."""

import numpy as np
import pytest

from fabricated import SMALL_EXPERIMENT, a_run, experiments_from, tables, write_experiments
from steadydescent import trial as module
from steadydescent.results import Result, read_folder
from steadydescent.study import EXTENSIONS, Plan, load_study
from steadydescent.trial import Trial, quantiles, result_id


@pytest.fixture
def toy(tmp_path):
    """The small experiment in place of the study."""
    write_experiments(tmp_path / "experiments")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path


def peak_at(optimum: dict[str, float]):
    """Accuracy that falls with the distance, in grid points, from each readout's best point; a little noise a seed."""

    def score(run, readout: str, split: str) -> float:
        place = np.log2(run.lr / 0.1)
        best = optimum.get(f"{run.schedule}/{readout}", optimum.get(readout, optimum[""]))
        return 0.7 - 0.02 * abs(place - best) + 1e-4 * (run.seed % 7) + (0.01 if split == "train" else 0)

    return score


def start(monkeypatch, toy, optimum: dict[str, float], profile: str = "laptop") -> tuple[Trial, list]:
    """A trial whose networks are not trained but scored at once; and the lists of runs that it asked for."""
    asked = []

    def pretend(runs, store, device, journal, title):
        asked.append(runs)
        missing = [run for run in runs if run.key not in store.keys()]  # noqa: SIM118  a store is no dict
        if missing:
            store.save(tables(missing, peak_at(optimum)), {"seconds": 2.0, "device": "2 cores"})

    monkeypatch.setattr(module, "train", pretend)
    return Trial("toy", "mnist1d-mlp", profile, "cpu", store=toy / "store"), asked


def places(runs) -> list[int]:
    """Grid points of runs, by rounding the logarithm of their rates."""
    return sorted({round(np.log2(run.lr / 0.1)) for run in runs})


def test_optimum_inside_the_grid_leaves_it_as_planned(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0, "ema-10": 1, "ema-30": 1, "tail-25": -1})
    table = trial.tune()
    assert [places(runs) for runs in asked] == [[-2, -1, 0, 1, 2]] * 2
    assert trial.choices["constant"] == {"last": 0, "ema": 1, "checkpoints": 0, "tail": -1, "ramp": 0}
    assert len(table) == 2 * 5 * len(SMALL_EXPERIMENT["readouts"])
    assert (table.accuracy > 0.6).all()


@pytest.mark.parametrize(("edge", "grid"), [(2, [-2, 3]), (3.2, [-2, 4]), (-2, [-3, 2]), (-4, [-5, 2])])
def test_grid_grows_until_the_optimum_of_one_arm_is_inside_it(toy, monkeypatch, edge, grid):
    """Only the tail mean's optimum is at the edge; every arm gets the grown grid."""
    trial, asked = start(monkeypatch, toy, {"": 0, "tail-25": edge})
    trial.tune()
    assert trial.choices["constant"]["tail"] == round(edge)
    for schedule in ("constant", "linear"):
        assert (trial.tuned[schedule][0], trial.tuned[schedule][-1]) == tuple(grid)
        last = [runs for runs in asked if runs[0].schedule == schedule][-1]
        assert places(last) == list(range(grid[0], grid[1] + 1))
        assert {run.readouts for run in last} == {tuple(SMALL_EXPERIMENT["readouts"])}


def test_grid_grows_on_both_sides_and_for_one_schedule_alone(toy, monkeypatch):
    trial, _ = start(monkeypatch, toy, {"": 0, "constant/last": 3, "constant/tail-25": -3})
    trial.tune()
    assert (trial.tuned["constant"], trial.tuned["linear"]) == (range(-4, 5), range(-2, 3))


@pytest.mark.parametrize(("direction", "end"), [(100, (-2, 2 + EXTENSIONS)), (-100, (-2 - EXTENSIONS, 2))])
def test_grid_stops_growing_after_so_many_extensions(toy, monkeypatch, direction, end):
    trial, asked = start(monkeypatch, toy, {"": direction})
    trial.tune()
    assert (trial.tuned["linear"][0], trial.tuned["linear"][-1]) == end
    assert len(asked) == 2 * (1 + EXTENSIONS)
    assert set(trial.choices["linear"].values()) == {end[direction > 0]}


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
        assert all(run.test for run in runs) and {run.seed for run in runs} == set(range(5))


def test_report_at_the_end_of_all_extensions_stays_inside_what_was_tuned(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 100})
    trial.tune()
    asked.clear()
    trial.report()
    assert all(places(runs) == [5, 6] for runs in asked)


def test_tuning_looks_at_validation_data_of_tuning_seeds_alone(toy, monkeypatch):
    trial, asked = start(monkeypatch, toy, {"": 0})
    trial.tune()
    tuning = [run for runs in asked for run in runs]
    assert not any(run.test for run in tuning) and all(run.seed >= 10_000 for run in tuning)
    assert set(trial.store.load([run.key for run in tuning])[0].finals.split) == {"validation"}


def test_saved_result_holds_every_run_of_the_last_grid_and_a_receipt(toy, monkeypatch):
    trial, _ = start(monkeypatch, toy, {"": 0, "tail-25": 2})
    trial.tune()
    reported = trial.report()
    folder = trial.save(toy / "results")
    assert folder == toy / "results" / "laptop" / "toy" / "mnist1d-mlp"
    result, receipt = read_folder(folder, Result)
    assert len(result.runs) == len(reported.runs) == receipt["networks"] == len(set(result.runs.run))
    assert len(result.runs) == 2 * (6 * 3 + 5 * 5)  # grids −2 … 3, reports around 0 and 2: −1 … 3
    assert (
        receipt["profile"] == "laptop" and receipt["updates"] == 40 and receipt["seeds"] == {"tuning": 3, "report": 5}
    )
    assert receipt["result"] == result_id("toy", "mnist1d-mlp", result)
    assert receipt["seconds"] == 2.0 * receipt["stacks"] and receipt["trained_on"] == ["2 cores"]


def test_trial_refuses_unknown_words_before_it_trains(toy):
    with pytest.raises(ValueError, match="profile must be one of"):
        Trial("toy", "mnist1d-mlp", "huge", store=toy / "store")
    with pytest.raises(ValueError, match="task must be one of"):
        Trial("toy", "fashion-mnist-mlp", "smoke", store=toy / "store")


# ---- what is kept --------------------------------------------------------------------------------------------------


def test_result_id_names_the_content_not_its_order(toy):
    plan = Plan(experiment=load_study()["toy"], task="mnist1d-mlp", profile="smoke")
    made = tables(plan.reporting("constant", [0, 1]), peak_at({"": 0}))
    first = Result(made.runs, made.finals, quantiles(made))
    shuffled = first._replace(finals=first.finals.sample(frac=1, random_state=0))
    assert result_id("toy", "t", first) == result_id("toy", "t", shuffled)
    other = first.finals.copy()
    other.loc[3, "accuracy"] += 0.001
    assert result_id("toy", "t", first) != result_id("toy", "t", first._replace(finals=other))
    name, _, content = result_id("weight_averaging", "mnist1d-mlp", first).partition("@")
    assert name == "weight-averaging/mnist1d-mlp" and len(content) == 8 and int(content, 16) >= 0


def test_quantiles_are_those_over_seeds():
    with_seed = lambda run, readout, split: run.seed / 10
    changes = [{"schedule": schedule, "lr": lr} for schedule in ("constant", "linear") for lr in (0.1, 0.2)]
    made = tables([a_run(seed=seed, curve_points=5, **change) for seed in range(3) for change in changes], with_seed)
    found = quantiles(made)
    assert len(found) == 4 * 2 * 5 and (found.seeds == 3).all()  # (schedule, rate) × readouts × points
    for name, share in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
        assert found[name].to_numpy() == pytest.approx(np.quantile([0.0, 0.1, 0.2], share))
