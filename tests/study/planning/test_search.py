"""Trials of a search: drawn once, by their laws, as many for every rule; a rate names its trial."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from steadydescent.optimizers import RULES
from steadydescent.study.planning import plan_of
from steadydescent.study.planning.search import Law, drawn_trials, near
from trials import start, study_with

LAWS = {"beta2": Law(one_minus=(1e-4, 0.1)), "eps": Law(log=(1e-8, 1e-2))}
ARMS = {
    "sgd": {"optimizer": "sgd", "unit": 10, "search": {}},
    "adam": {"optimizer": "adam", "unit": 0.05, "search": {"beta1": {"one_minus": [0.01, 1.0]}}},
}
SEARCH = {
    "arms": ARMS,
    "report": "everything",
    "conditions": {"constant": {"schedule": "constant"}},
}
SEARCHED = {"size": {"trials": 7}, **SEARCH}


def test_rates_and_options_are_even_in_the_logarithm_their_law_names():
    made = drawn_trials(LAWS, 0.01, 10.0, 2_000)
    for shares in (
        np.log10([trial.lr for trial in made]) / 3 + 2 / 3,
        (np.log10([1 - trial.options["beta2"] for trial in made]) + 4) / 3,
        (np.log10([trial.options["eps"] for trial in made]) + 8) / 6,
    ):
        assert 0 <= shares.min() < 0.01 and 0.99 < shares.max() <= 1.0001
        assert np.abs(np.sort(shares) - np.linspace(0, 1, 2_000)).max() < 0.05
    assert abs(np.corrcoef([t.lr for t in made], [t.options["eps"] for t in made])[0, 1]) < 0.1


def test_trials_are_drawn_once_fewer_are_the_first_of_more_and_rates_name_them():
    many, few = drawn_trials(LAWS, 0.01, 0.0102, 20), drawn_trials({}, 0.01, 0.0102, 5)
    assert many == drawn_trials(LAWS, 0.01, 0.0102, 20)
    assert [trial.lr for trial in many][:5] == [trial.lr for trial in few]
    assert len({trial.lr for trial in many}) == 20  # of 21 that four digits have there


def test_trials_near_the_usual_options_are_counted():
    made = drawn_trials(LAWS, 0.01, 10.0, 500)
    chance = (math.log(9) / math.log(1_000)) * (math.log(3) / math.log(1e6))
    assert near(LAWS, RULES["adam"].hyper, made) == pytest.approx(500 * chance, rel=0.4)
    assert near({}, {}, drawn_trials({}, 0.01, 10.0, 5)) == 5


@pytest.mark.parametrize(
    "law", [{}, {"log": [1, 2], "one_minus": [0.1, 1]}, {"log": [2, 1]}, {"one_minus": [0.1, 2]}]
)
def test_a_law_is_one_range_that_rises(law):
    with pytest.raises(ValidationError, match=r"one of log and one_minus|ends must rise"):
        Law(**law)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arms": ARMS | {"plain": {}}}, r"all arms or none, not for \['plain'\]"),
        ({"report": "choices"}, "report must be 'everything' where arms are searched"),
        ({"size": {}}, "trials must be stated for 'constant' in laptop/mnist1d-mlp"),
    ],
)
def test_a_search_that_is_unfair_or_unstated_is_refused(toy, change, sentence):
    with pytest.raises(ValueError, match=sentence), study_with(toy, **SEARCHED | change):
        plan_of("toy", "mnist1d-mlp", "laptop")


def test_every_rule_has_as_many_trials_each_with_tuning_and_report_seeds(toy):
    with study_with(toy, **SEARCHED):
        plan = plan_of("toy", "mnist1d-mlp", "laptop")
        plan.check()
        size = plan.size
        assert len(plan.expected) == 2 * 7 * (size.tuning + size.report)
        for arm, unit in (("sgd", 10), ("adam", 0.05)):
            runs = plan.tuning("constant", arm, plan.grid_points("constant"))
            found = {(run.lr, run.optimizer) for run in runs}
            assert len(found) == len({lr for lr, _ in found}) == 7
            assert all(0.025 <= lr / unit <= 0.4 for lr, _ in found)
            assert len({optimizer for _, optimizer in found}) == (1 if arm == "sgd" else 7)
        assert plan.trajectory("constant", "adam").optimizer == "adam"
        assert plan.cost("cpu")["networks"] == len(plan.expected)


def test_a_search_is_tuned_saved_and_judged_trial_by_trial(toy, monkeypatch):
    """The best β₁ wins, whatever its rate; evidence names the options at the chosen rate."""

    def score(run, readout, split):
        beta = float(run.optimizer.partition("beta1=")[2].rstrip(")") or 0.9)
        return 0.7 - 0.1 * abs(math.log10(1 - beta) + 1) - 1e-3 * abs(math.log10(run.lr))

    with study_with(toy, **SEARCHED):
        trial, asked = start(monkeypatch, toy, {}, score=score)
        trial.tune()
        trial.report()
        evidence = trial._evidence("constant", trial.plan.arms_in("constant"))
        folder = trial.save(toy / "results")
        made = trial.plan.trials("constant", "adam")
        best = min(made, key=lambda one: abs(math.log10(1 - one.options["beta1"]) + 1))
        chosen = evidence.chosen("constant", "adam")
        assert chosen.lr == best.lr and len(asked) == 2 and folder.exists()
        text = evidence.settings("constant", "adam", chosen.lr).optimizer
        assert text == f"adam(beta1={best.options['beta1']})"
        assert evidence.settings("constant", "adam").optimizer == "adam"
        candidates = evidence.candidates("constant", "adam")
        assert {label.lr for label in candidates.labels} == {one.lr for one in made}
