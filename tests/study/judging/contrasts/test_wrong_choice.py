"""A wrong rate against a wrong rule: planted costs, and plain loops over the same redraws."""

import numpy as np
import pytest

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of, noise
from steadydescent.study.judging.statistics import Scores, Side, combined

ARMS = {"last": {"readouts": ["last"]}, "tail": {"readouts": ["tail-25"]}}
ARMS |= {"ema": {"readouts": ["ema-10"]}}
RULES = ["last", "tail", "ema"]


def planted(run, readout, split) -> float:
    """A factor of two off costs 10 points; the tail is 3 points up, the EMA 2 down."""
    gain = {"tail-25": 0.03, "ema-10": -0.02}.get(readout, 0.0)
    return 0.6 + gain - 0.1 * abs(np.log2(run.lr / 0.1))


def evidence(how, half: int = 2):
    plan = arms_plan(ARMS)
    return evidence_of(result(plan, how, half=half), plan)


def test_the_cost_of_a_rate_stands_beside_that_of_the_worst_rule():
    """Four times the best rate: 20 points; the worst rule, not the best: 5."""
    contrast = contrast_of("cost of a wrong choice", "last", factor=4.0, rules=RULES)
    found = evidence(planted)
    estimate = contrast.estimate(found, "constant", 0.95)
    assert estimate.value == pytest.approx(20 - 5) and contrast.answerable(found, "constant")
    said = contrast.remarks(found, "constant")
    assert said.edge_share == 0.0 and said.test_set_sampled is False
    assert {arm: one[0]["lr"] for arm, one in said.choices.items()} == dict.fromkeys(RULES, 0.1)
    assert list(contrast.choices(found, "constant")) == RULES
    assert contrast.networks(found, "constant") == 5 * (3 + 5)


def test_a_rate_that_the_arm_did_not_run_gives_no_answer():
    contrast = contrast_of("cost of a wrong choice", "last", factor=100.0, rules=RULES)
    found = evidence(planted)
    assert not contrast.answerable(found, "constant")
    assert "ran no rate near 10" in contrast.remarks(found, "constant").reason


@pytest.mark.parametrize(
    "options",
    [{"rules": ["last"]}, {"factor": 1.0}, {"measure": "loss"}, {"measure": "seed spread"}],
)
def test_what_is_no_choice_is_refused(options):
    with pytest.raises(ValueError, match=r"measure must be one|a wrong choice needs"):
        contrast_of("cost of a wrong choice", **({"factor": 10.0, "rules": RULES} | options))


def test_best_and_worst_are_chosen_on_the_same_redraws():
    """Value and variance by plain loops over redraws of seeds, with other draws."""
    how = lambda run, readout, split: (
        planted(run, readout, split) / 4 + 0.4 + 0.02 * noise(run.seed, run.lr, readout, split)
    )
    contrast = contrast_of("cost of a wrong choice", "last", factor=2.0, rules=RULES)
    found = evidence(how)
    estimate = contrast.estimate(found, "constant", 0.95)
    sides = {arm: found.candidates("constant", arm) for arm in RULES}
    known = {a: np.concatenate([s.scores.tuning, s.scores.validation]) for a, s in sides.items()}
    report = {arm: side.scores.report for arm, side in sides.items()}
    rng, drawn, counts, each = np.random.default_rng(5), [], [], []
    for _ in range(6_000):
        seeds = rng.integers(8, size=3)
        best = {arm: int(known[arm][seeds].mean(0).argmax()) for arm in RULES}
        seen = {arm: known[arm][seeds].mean(0).max() for arm in RULES}
        top, bottom = max(RULES, key=seen.get), min(RULES, key=seen.get)
        rates = [label.lr for label in sides["last"].labels]
        off = int(np.abs(np.log(rates) - np.log(2 * rates[best["last"]])).argmin())
        one = report["last"][:, best["last"]] - report["last"][:, off]
        one = one - report[top][:, best[top]] + report[bottom][:, best[bottom]]
        each.append(one)
        drawn.append(one.mean())
        counts.append(np.bincount(seeds, minlength=8))
    value = np.mean(drawn)
    assert estimate.value == pytest.approx(value, abs=0.1)
    own = (np.mean(each, 0) - value) / 5
    pull = (np.array(drawn) - value) @ np.array(counts) / 6_000
    variance = 3 / 2 * (pull[:3] ** 2).sum() + 5 / 4 * ((own**2).sum() + (pull[3:] ** 2).sum())
    variance += 5 / 4 * max(0.0, 2 * (own @ pull[3:]))
    assert estimate.sd / np.sqrt(5) == pytest.approx(np.sqrt(variance), rel=0.05)


def test_the_worst_of_groups_is_the_worst_of_their_best():
    tuning = np.array([[1.0, 5.0, 4.0, 2.0]] * 2)
    report = np.array([[10.0, 20.0, 30.0, 40.0]] * 2) + [[0.0], [1.0]]
    worst = Side(Scores(tuning, report), groups=(0, 0, 1, 1))
    assert combined([worst], 0.95).value == pytest.approx(30.5)
    assert worst.weights.tolist() == [0, 0, 1, 0]
