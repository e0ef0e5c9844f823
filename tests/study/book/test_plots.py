"""What plots draw, against loops by hand over the same made-up runs."""

from __future__ import annotations

from statistics import fmean

import pytest

from fabricated import result
from judged import ARMS, asked, score, table_by_hand, toy_evidence, toy_plan
from steadydescent.study.book import plots


@pytest.fixture
def toy(tmp_path):
    """The small study's result with noise, and its evidence."""
    with asked(tmp_path):
        made = result(toy_plan(), score)
        yield made, toy_evidence(made)


def best_by_hand(made, arm: str) -> dict[float, str]:
    """Rate → the readout of the arm with the best mean validation accuracy over tuning seeds."""
    table = table_by_hand(made, "constant", "validation", report=False)
    best: dict[float, str] = {}
    for lr, readout in sorted(table):
        if readout in ARMS[arm]:
            mean = fmean(table[lr, readout].values())
            if lr not in best or mean > fmean(table[lr, best[lr]].values()):
                best[lr] = readout
    return best


@pytest.mark.parametrize("arm", ["ema", "last"])
def test_the_readout_drawn_at_a_rate_is_the_one_that_tuning_chooses_there(toy, arm):
    made, evidence = toy
    chosen = plots.chosen_at_each_rate(evidence, "constant", arm, "accuracy")
    assert {candidate.lr: candidate.readout for candidate in chosen} == best_by_hand(made, arm)


def test_scores_by_rate_are_those_of_report_seeds(toy):
    made, evidence = toy
    table = plots.rate_table(evidence, ["constant"], arms=["ema"])
    scores = table_by_hand(made, "constant", "test", report=True)
    for row in table.itertuples():
        assert row.accuracy == pytest.approx(scores[row.lr, row.readout][row.seed])
    assert len(table) == sum(len(scores[lr, r]) for lr, r in best_by_hand(made, "ema").items())


def test_the_sweep_has_the_mean_of_every_candidate_in_percent(toy):
    made, evidence = toy
    scores = table_by_hand(made, "constant", "validation", report=False)
    sweep = plots.sweep_table(evidence)
    sweep = sweep[sweep.condition == "constant"]
    for row in sweep.itertuples():
        assert row.score == pytest.approx(fmean(scores[row.lr, row.readout].values()), abs=0.005)
    assert {"ema", "last"} <= set(sweep.arm)


def test_a_readout_of_one_step_has_no_memory_to_draw():
    with pytest.raises(ValueError, match="'last' keeps one step alone"):
        plots.memory(["last"], 10, ax=None)
