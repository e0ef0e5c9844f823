"""What rows say beside their estimate: choices, edges, and runs that miss their target."""

import numpy as np
import pandas as pd
import pytest

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of, peak, steep
from steadydescent.study.judging import measures
from steadydescent.study.judging.evidence import NotAnswerable
from steadydescent.study.judging.remarks import Censored, Remarks

ARMS = {"last": {"readouts": ["last"]}, "ema": {"readouts": ["ema-5", "ema-10", "ema-30"]}}
HITS = {"tune_by": ["accuracy", "steps to target"], "targets": {"mnist1d-mlp": 0.5}}
HITS |= {"curve_points": 2}


def evidence(how, half: int = 2, **fields):
    plan = arms_plan(ARMS, **fields)
    return evidence_of(result(plan, how, half=half), plan)


# ---- choices and edges ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "gain", "share"),
    [(0.1, {"ema-10": 0.1}, 0.0), (0.4, {"ema-10": 0.1}, 1.0), (0.1, {"ema-30": 0.1}, 1.0)],
)
def test_a_row_says_how_much_of_its_redraws_lies_on_an_edge(best, gain, share):
    """Rates 0.025 … 0.4 without noise: all redraws choose one candidate."""
    contrast = contrast_of("tuned", "ema", against="last")
    said = contrast.remarks(evidence(steep(gain, best)), "constant")
    assert said.edge_share == share
    (ours,) = said.choices["ema"]
    assert ours == {"lr": best, "readout": next(iter(gain)), "share": 1.0}
    assert said.choices["last"] == [{"lr": best, "readout": "last", "share": 1.0}]
    assert said.censored_share is None and said.bound == "" and said.decides
    assert said.test_set_sampled is False


def test_rates_that_are_not_chosen_have_no_edge():
    """A tenth of the other side's rate, or a stated one, is nobody's choice."""
    found = evidence(steep({}, best=0.1))
    for rate, more in ((0.025, {}), ("against", {"factor": 0.25})):
        contrast = contrast_of("tuned", "last", against="last", better=False, rate=rate, **more)
        said = contrast.remarks(found, "constant")
        assert said.edge_share == 0.0
        assert [list(said.choices), *said.choices.values()] == [
            ["last", "against last"],
            [{"lr": 0.025, "readout": "last", "share": 1.0}],
            [{"lr": 0.1, "readout": "last", "share": 1.0}],
        ]


def test_candidates_with_less_than_a_twentieth_are_not_listed():
    def how(run, readout, split):
        return peak(run, readout, split) + 0.02 * np.sin(1e3 * run.lr * (run.seed + 1))

    said = contrast_of("tuned", "ema", against="last").remarks(evidence(how), "constant")
    assert all(one["share"] >= 0.05 for mine in said.choices.values() for one in mine)
    assert sum(one["share"] for one in said.choices["last"]) > 0.9


def test_edges_of_an_arm_say_which_side():
    found = evidence(steep({"ema-30": 0.1}, best=0.025))
    assert found.edges("constant", "ema") == {
        "lowest rate": 1.0,
        "highest rate": 0.0,
        "readout": 1.0,
    }


def test_the_best_of_several_arms_stands_where_one_does():
    """The EMA is 10 points above the last weights: the best of both is the EMA."""
    found = evidence(steep({"ema-10": 0.1}))
    several = contrast_of("tuned", ["last", "ema"], against="last")
    one = contrast_of("tuned", "ema", against="last")
    estimates = [contrast.estimate(found, "constant", 0.95) for contrast in (several, one)]
    assert estimates[0] == estimates[1] and estimates[0].value == pytest.approx(10)
    assert list(several.remarks(found, "constant").choices) == ["ema", "last"]
    with pytest.raises(ValueError, match="last"):
        contrast_of("tuned", ["last", "last"], against="ema")


def test_kinds_without_choices_say_nothing():
    assert contrast_of("closed form").remarks(evidence(peak), "constant") == Remarks()


def test_kinds_that_rest_on_test_accuracies_say_so_and_others_do_not():
    """Where predictions are not known the interval is about this test set."""
    searched = {"method": "log-uniform", "than": "uniform", "trials": 3}
    told = {
        "tuned": {"against": "ema"},
        "cost of a wrong choice": {"factor": 0.5, "rules": ["last", "ema"]},
        "search regret": searched,
        "range test": {"suggestion": "middle", "updates": 100},
        "matching window": {"against": ["last", "last"]},
        "decades below": {"limit": 0.1},
        "noise slope": {},
        "closed form": {},
    }
    found, rests = evidence(peak), list(told)[:5]
    for kind, options in told.items():
        said = contrast_of(kind, "last", **options).remarks(found, "constant")
        assert said.test_set_sampled is (False if kind in rests else None), kind


def test_every_kind_that_has_no_answer_says_why():
    """Nothing was timed, probed, ramped or run at the other rate."""
    told = {
        "tuned": {"against": "ema", "rate": "against", "factor": 1.4},
        "cost of a wrong choice": {"factor": 10.0, "rules": ["last", "ema"]},
        "equal loss": {"against": "ema", "better": True},
        "time to target": {"against": "ema", "better": True},
        "range test": {"suggestion": "middle", "updates": 100},
        "range test regimes": {"updates": 100, "part": "rise beyond"},
        "noise slope": {},
        "faster size": {},
    }
    found = evidence(peak)
    for kind, options in told.items():
        contrast = contrast_of(kind, "last", **options)
        assert not contrast.answerable(found, "constant"), kind
        assert contrast.remarks(found, "constant").reason, kind


def test_decades_below_say_how_often_tuning_ends_on_an_edge():
    contrast = contrast_of("decades below", "last", limit=0.1)
    for best, share in ((0.1, 0.0), (0.4, 1.0), (0.025, 1.0)):
        assert contrast.remarks(evidence(steep({}, best)), "constant").edge_share == share


# ---- runs that miss their target -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "against", "value", "faster", "bound", "decides"),
    [
        (0.0, 0.1, 1.0, "arm", "", True),
        (0.0, 0.11, 1.0, "arm", "at least", True),
        (0.11, 0.0, 1.0, "arm", "", False),
        (0.11, 0.5, 1.0, "arm", "", False),
        (0.0, 0.5, -1.0, "arm", "", False),  # found faster
        (0.5, 0.0, -1.0, "arm", "", False),  # claimed faster
        (0.5, 0.0, 1.0, "against", "at least", True),
        (0.0, 0.5, 1.0, "against", "", False),
    ],
)
def test_missed_targets_make_a_ratio_a_bound_or_leave_it_open(
    arm, against, value, faster, bound, decides
):
    said = Censored(arm, against).judged(value, faster)
    assert (said.bound, said.decides) == (bound, decides)
    assert said.censored_share == max(arm, against)
    assert bool(said.reason) != decides


def arriving(missing: dict[str, int]):
    """Runs of the first so many report seeds at a condition never arrive; the others after 20 of 40
    steps at the linear one, and 40 at the constant one.
    """

    def how(run, readout, split):
        lost = run.test and run.seed - 1_000 < missing.get(run.schedule, 0)
        return 0.4 if lost else 0.6 - 0.01 * abs(np.log2(run.lr / 0.1))

    return how


def hits(missing: dict[str, int]):
    conditions = {name: {"schedule": name} for name in ("constant", "linear")}
    plan = arms_plan({"last": {"readouts": ["last"]}}, conditions=conditions, **HITS)
    made = result(plan, arriving(missing), half=1)
    rows = made.measures
    to_target = rows.measure.isin(measures.TO_TARGET)
    slow = rows.run.isin(made.runs[made.runs.schedule == "constant"].run)
    arrived = rows.run.map(rows[rows.measure == measures.ARRIVAL].set_index("run").value) == 1
    late = rows.value.where(~(to_target & slow & arrived), rows.value * 1.5)
    return evidence_of(made._replace(measures=rows.assign(value=late)), plan)


@pytest.mark.parametrize(
    ("missing", "share", "bound", "decides"),
    [
        ({}, 0.0, "", True),
        ({"constant": 1}, 0.2, "at least", True),
        ({"linear": 1}, 0.2, "", False),
    ],
)
def test_a_row_of_updates_counts_the_report_runs_that_arrive(missing, share, bound, decides):
    """Linear decay is claimed, and found, faster than a constant rate."""
    contrast = contrast_of(
        "tuned",
        {"arm": "last", "condition": "linear"},
        against="last",
        measure="steps to target",
    )
    found = hits(missing)
    said = contrast.remarks(found, "constant")
    assert said.censored_share == pytest.approx(share)
    assert (said.bound, said.decides) == (bound, decides)
    assert said.arrivals == {
        "last@linear": pytest.approx(1 - 0.2 * missing.get("linear", 0)),
        "last": pytest.approx(1 - 0.2 * missing.get("constant", 0)),
    }


def test_rates_that_lose_runs_are_no_candidates_for_steps_to_target():
    """One run of eight diverges at the best rate: the next best is chosen by steps, and the best
    by accuracy as before.
    """
    plan = arms_plan({"last": {"readouts": ["last"]}}, **HITS)
    how = lambda run, readout, split: 0.9 - 0.1 * abs(np.log2(run.lr / 0.11))
    lost = lambda run: run.lr == 0.1 and run.seed == 1_001
    found = evidence_of(result(plan, how, half=1, diverged=lost), plan)
    assert found.chosen("constant", "last").lr == 0.1
    assert found.chosen("constant", "last", "steps to target").lr == 0.2
    both = found.candidates("constant", "last", "steps to target")
    assert [label.lr for label in both.labels] == [0.05, 0.1, 0.2]
    assert both.weights[1] == 0 and both.chosen.lr == 0.2
    table = found.lost_rates("constant", "last")
    assert table.excluded.tolist() == [False, True, False]
    assert table.diverged.tolist() == [0, 1, 0] and set(table.runs) == {8}


def test_where_every_rate_loses_runs_there_is_no_answer_and_a_reason():
    plan = arms_plan({"last": {"readouts": ["last"]}}, **HITS)
    found = evidence_of(result(plan, peak, diverged=lambda run: run.seed == 1_001), plan)
    with pytest.raises(NotAnswerable, match="more than 5 % of the runs of 'last'"):
        found.candidates("constant", "last", "steps to target")
    contrast = contrast_of("tuned", against="last", measure="steps to target")
    assert not contrast.answerable(found, "constant")
    assert "diverge or climb too high" in contrast.remarks(found, "constant").reason


def test_results_that_do_not_say_who_arrives_are_read_by_their_updates():
    found = hits({"constant": 2})
    rows = found.result.measures
    before = evidence_of(
        found.result._replace(measures=rows[rows.measure != measures.ARRIVAL]),
        arms_plan({"last": {"readouts": ["last"]}}, **HITS),
    )
    by_length = before.arrivals("linear", "last")
    assert isinstance(by_length, pd.DataFrame) and set(by_length.to_numpy().ravel()) <= {0.0, 1.0}
