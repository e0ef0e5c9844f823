"""What the chapter on optimisers computes, against loops by hand and closed forms."""

from statistics import fmean

import numpy as np
import pandas as pd
import pytest
import torch
from published_results import published_result

from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.study.book.chapters.optimizers import correction, rates, surfaces
from steadydescent.study.book.chapters.results import networks, table_of_sweeps

TASK = "mnist1d-mlp"


@pytest.fixture(scope="module")
def results() -> dict:
    return {task: published_result("optimizers", task) for task in (TASK, "saddle")}


# ---- surfaces ------------------------------------------------------------------------------------


def test_path_of_sgd_is_descent_along_the_noisy_gradient():
    """By hand: θ ← θ − α(∇f(θ) + σ·ξ/√n), ξ standard normal, all from seed 0."""
    made, lr, n = SURFACES["saddle"](), 0.5, 25
    theta = made.point.detach().clone().requires_grad_()
    generator, way = torch.Generator().manual_seed(0), [theta.detach().clone()]
    for _ in range(surfaces.UPDATES):
        (gradient,) = torch.autograd.grad(made.function(theta), theta)
        noise = torch.tensor(made.scale) * torch.randn(2, generator=generator) / 5
        theta = (theta - lr * (gradient + noise)).detach().requires_grad_()
        way.append(theta.detach().clone())
    path = surfaces.points("saddle", "sgd", lr, n)
    assert path.shape == (surfaces.UPDATES + 1, 2)
    np.testing.assert_allclose(path, torch.stack(way).numpy(), rtol=1e-5)


def test_arrival_is_where_the_target_is_held_from_to_the_end():
    way = surfaces.points("ravine", "sgd", 0.017, 1)
    heights = SURFACES["ravine"]().function(torch.tensor(way)).tolist()
    target = 1.01 * max(heights[150:])
    held = next(step for step in range(len(heights)) if max(heights[step:]) <= target)
    first = next(step for step, height in enumerate(heights) if height <= target)
    assert surfaces.arrival("ravine", way, target) == held >= first
    assert surfaces.arrival("ravine", way, heights[-1] / 2) is None


def test_paths_are_of_surfaces_that_were_run_at_the_rate_that_is_fastest(results):
    drawn = surfaces.paths(results)
    assert [(path.surface, path.rule) for path in drawn] == [
        ("saddle", rule) for rule in surfaces.DRAWN
    ]
    evidence = results["saddle"].evidence
    assert drawn[0].rate == surfaces.fastest_rate(evidence, "sgd")
    assert surfaces.paths({TASK: results[TASK]}) == []


def test_arrivals_count_report_runs_by_hand(results):
    table = surfaces.table_of_arrivals(results).set_index("rule")
    assert set(table.surface) == {"saddle"}
    shown = results["saddle"]
    runs = shown.evidence.runs("constant", "sgd")
    mine = runs[runs.test & (runs.lr == table.rate["sgd"])]
    measures = shown.evidence.result.measures
    steps = measures[(measures.measure == "steps to target") & measures.run.isin(mine.run)].value
    assert table["updates, mean"]["sgd"] == pytest.approx(fmean(steps))
    early = [step for step in steps if step < shown.receipt["updates"]]
    assert table["hold the target"]["sgd"] == f"{len(early)} of {len(mine)}"


# ---- bias correction -----------------------------------------------------------------------------


def test_factors_are_one_over_what_an_average_has_gathered():
    table = correction.table_of_factors()
    by_hand = [1 / (1 - 0.9**t) for t in range(1, correction.STEPS + 1)]
    assert table.factor.to_list() == pytest.approx(by_hand)


def test_first_step_within_a_share_solves_the_inequality():
    """1/(1 − 0.9ᵗ) ≤ 1 + p is t ≥ ln(p/(1 + p))/ln 0.9."""
    table = correction.table_of_factors()
    for percent in (10, 1):
        share = percent / 100
        bound = np.log(share / (1 + share)) / np.log(0.9)
        assert correction.first_within(table, percent) == np.ceil(bound)


# ---- rates ---------------------------------------------------------------------------------------


def test_ranks_are_means_over_tuning_seeds_at_the_centre_and_at_the_best_rate(results):
    evidence = results[TASK].evidence
    row = rates.table_of_ranks({TASK: results[TASK]}).set_index("rule").loc["adam"]
    runs = evidence.runs("constant", "adam")
    finals = evidence.result.finals[evidence.result.finals.split == "validation"]
    accuracy = dict(zip(finals.run, finals.accuracy, strict=True))
    means = {}
    for run in runs[~runs.test].itertuples():
        means.setdefault(run.lr, []).append(100 * accuracy[run.run])
    means = {lr: fmean(each) for lr, each in means.items()}
    assert row.tuned == pytest.approx(max(means.values()))
    assert row["tuned rate"] == max(means, key=means.get)
    assert row["rate at the centre"] == 0.004 and row.untuned == pytest.approx(means[0.004])


def test_centre_is_that_of_the_grid_as_it_was_laid():
    """On this task tuning extended the grid by three rates at its upper end."""
    evidence = published_result("optimizers", "mnist1d-cnn").evidence
    assert rates.scores(evidence, "sgd").shape[1] == 8
    assert rates.centre(evidence, "sgd") == 0.8


@pytest.mark.parametrize(
    ("tuned", "pairs"), [([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 3), ([2.0, 1.0, 3.0], 1)]
)
def test_changed_pairs_are_those_of_opposite_order(tuned, pairs):
    part = pd.DataFrame({"untuned": [1.0, 2.0, 3.0], "tuned": tuned})
    assert rates.changed_pairs(part) == pairs


def test_best_of_all_rates_is_the_best_and_of_one_the_mean():
    """Without noise every seed is the same, so choosing and scoring agree."""
    row = np.array([50.0, 80.0, 65.0])
    table = rates.best_of_trials(pd.DataFrame(np.tile(row, (4, 1)))).set_index("k").accuracy
    assert table[1] == pytest.approx(row.mean()) and table[3] == pytest.approx(80)
    assert table[2] == pytest.approx(fmean([80, 65, 80]))


def test_close_range_of_a_tent_is_known():
    """A line that loses 4 points a decade stays within 2 points for half a decade to each side."""
    x = np.linspace(-3, 1, 9)
    means = pd.Series(90 - 4 * np.abs(x + 1), index=10**x)
    decades, cut_off = rates.close_range(means)
    assert decades == pytest.approx(1.0, abs=0.01) and not cut_off
    assert rates.close_range(means[x >= -1]) == (pytest.approx(0.5, abs=0.01), True)


# ---- outcomes ------------------------------------------------------------------------------------


def test_sweep_has_networks_of_every_condition_and_no_surface(results):
    table = table_of_sweeps(networks(results))
    assert set(table["where"]) == {f"{TASK}, constant", f"{TASK}, linear"}
    mine = table[(table["where"] == f"{TASK}, constant") & (table.arm == "sgd")]
    scores = rates.scores(results[TASK].evidence, "sgd").mean()
    assert mine.set_index("lr").score.to_dict() == scores.round(2).to_dict()


def test_table_of_rules_shows_published_numbers_in_the_order_of_the_arms(results):
    evidence = results[TASK].evidence
    rules = evidence.arms_in("constant")
    numbers = {
        f"optimizers/{TASK}/constant/{rule}/{what}": {"value": f"{rule} {what}"}
        for rule in rules
        for what in ("rate", "accuracy", "seed-sd", "loss", "gap", "diverged")
    }
    table = rates.table_of_rules(results, numbers)
    assert list(table.rule) == rules and set(table.task) == {TASK}
    assert list(table["gap, pp"]) == [f"{rule} gap" for rule in rules]
