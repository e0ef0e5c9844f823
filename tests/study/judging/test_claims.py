"""The file of claims holds every claim of the sources; what it says of arms, conditions and margins
exists.
"""

import copy
import re
from collections import Counter

import pytest
from pydantic import ValidationError

from fabricated import LAPTOP, SMALL_CLAIM, SMALL_EXPERIMENT, experiments_from, write_experiments
from steadydescent.study.judging import measures
from steadydescent.study.judging.analyses import ANALYSES
from steadydescent.study.judging.claims import (
    Claim,
    Contrast,
    cells,
    contrasts,
    load_claims,
    place,
    planned,
)
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.planning import PROFILES, load_study, plans

TASK = "mnist1d-mlp"
OF_THE_SOURCES = """
lr-too-small-slow lr-too-small-stuck lr-too-large-oscillates lr-never-above-0.1 lr-log-search
lr-coarse-to-fine lr-range-test plateau-momentum momentum-local-minima batch-noise
batch-sgd-misses-minimum batch-noise-better-minima batch-power-of-two batch-small-data-full
sgd-faster norm-inputs-faster bn-faster bn-fixes-internal-covariate-shift bn-fixes-dataset-shift
bn-bias-redundant ewa-bias-correction-early bias-correction-reduces-noise
momentum-correction-10-steps momentum-small-batches rmsprop-stabler rmsprop-general rmsprop-saddle
adam-general decay-helps decay-which noam-warmup ema-better-than-last ema-calibrated
ema-shift-robust ema-label-noise-robust ema-seed-stable ema-window ema-ramp ema-outlier
ema-smooths-training checkpoint-averaging tail-average-convex noise-oscillation
"""


@pytest.fixture
def toy(tmp_path):
    write_experiments(tmp_path)
    with experiments_from(tmp_path):
        yield tmp_path


def every_contrast() -> list[tuple[Claim, Contrast]]:
    return [(claim, contrast) for claim in load_claims().values() for contrast in claim.contrasts]


# ---- the file ------------------------------------------------------------------------------------


def test_claims_are_those_of_the_sources():
    expected = OF_THE_SOURCES.split()
    assert len(set(expected)) == len(expected) == 43
    assert set(load_claims()) == set(expected)


def test_every_claim_has_sources_and_says_what_decides_it():
    for name, claim in load_claims().items():
        assert name == claim.id and claim.source
        assert claim.title and claim.sentence.endswith(".") and claim.test.endswith(".")
        assert ("E" in claim.scope) == (name in EXACT)
        assert (claim.scope == "E") == (not claim.contrasts)
    assert set(EXACT) <= set(load_claims())


def test_accuracy_has_the_margins_of_the_design():
    """Percentage points: 1 on MNIST-1D, 0.3 on Fashion-MNIST, 0.5 on names, for whatever claim."""
    design = {"mnist1d": 1.0, "fashion-mnist": 0.3, "names": 0.5}
    found = [
        (task, margin)
        for _, c in every_contrast()
        if c.measure == "accuracy" and c.analysis is None
        for task, margin in c.margins.items()
    ]
    assert found
    for task, margin in found:
        assert margin == next(value for name, value in design.items() if task.startswith(name)), (
            task
        )


def test_margins_of_ratios_are_factors_above_one():
    for claim, contrast in every_contrast():
        if contrast.analysis is None and measures.find(contrast.measure).ratio:
            assert min(contrast.margins.values()) > 1, claim.id


def test_every_contrast_names_an_analysis_or_a_measure_that_exists():
    for claim, contrast in every_contrast():
        assert contrast.analysis in (None, *ANALYSES), claim.id
        if contrast.analysis is None:
            assert measures.find(contrast.measure).name == contrast.measure
        if contrast.minus is not None:
            assert contrast.minus in load_study()[claim.experiment].conditions


def test_rows_of_a_claim_have_names_of_their_own():
    """A row is found by claim, task and condition; two of one name would hide each other."""
    for experiment in load_study():
        names = Counter(
            (cell.claim.id, cell.task, cell.contrast.named(cell.condition))
            for cell in cells(experiment)
        )
        assert not [name for name, number in names.items() if number > 1]


def test_full_profile_plans_every_row_of_every_claim():
    for experiment in load_study():
        missing = {(c.claim.id, c.task, c.condition) for c in cells(experiment)} - {
            (c.claim.id, c.task, c.condition) for c in planned(experiment, "full")
        }
        assert not missing


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "smoke"])
def test_fixed_rates_lie_on_the_grid_of_their_arm(profile):
    """A default rate that no run has cannot be judged."""
    for claim, contrast in every_contrast():
        for plan in plans(profile, claim.experiment) if isinstance(contrast.rate, float) else []:
            for cell in planned(claim.experiment, profile):
                if cell.contrast == contrast and cell.task == plan.task:
                    condition, arm = place(contrast.arm, cell.condition)
                    half = plan.half(condition)
                    rates = [plan.rate(condition, arm, i) for i in range(-half, half + 1)]
                    assert any(rate == pytest.approx(contrast.rate, rel=1e-3) for rate in rates), (
                        claim.id,
                        plan.task,
                    )


# ---- contrasts -----------------------------------------------------------------------------------


def test_arm_may_name_its_own_condition():
    assert place("last", "constant") == ("constant", "last") and place(
        "last@linear", "constant"
    ) == ("linear", "last")
    assert place("sgd@n = 8, linear decay", "n = 8") == ("n = 8, linear decay", "sgd")


def test_places_are_where_a_contrast_looks():
    contrast = Contrast(arm="a@other", against=("b", "c@third"), margins={TASK: 1.0})
    assert contrast.places("own") == [("other", "a"), ("own", "b"), ("third", "c")]
    contrast = Contrast(arm="a", against=("b", "c"), minus="fourth", margins={TASK: 1.0})
    assert contrast.places("own") == [
        (condition, arm) for condition in ("own", "fourth") for arm in "abc"
    ]
    assert Contrast(arm="a", against="b", margins={TASK: 1.0}).places("own") == [
        ("own", "a"),
        ("own", "b"),
    ]


def test_one_arm_to_stand_against_may_be_written_as_text():
    assert Contrast(arm="a", against="b", margins={TASK: 1}).against == ("b",)
    assert Contrast(arm="a", against=["b", "c"], margins={TASK: 1}).against == ("b", "c")


def test_row_is_named_by_condition_and_label():
    contrast = Contrast(arm="a", against="b", margins={TASK: 1})
    assert contrast.named("linear") == "linear"
    assert contrast.model_copy(update={"label": "tuned"}).named("linear") == "linear, tuned"
    assert contrast.model_copy(update={"label": "tuned"}).named("") == "tuned"


# ---- what a profile plans ------------------------------------------------------------------------


def toy_with(folder, size: dict, *told: dict) -> None:
    """The small study, its laptop profile of another size, with one claim of these contrasts."""
    profiles = {"laptop": {TASK: LAPTOP | size}}
    (usual,) = SMALL_CLAIM["contrasts"]
    asked = [usual | fields for fields in told]
    write_experiments(
        folder, SMALL_EXPERIMENT | {"profiles": profiles}, [SMALL_CLAIM | {"contrasts": asked}]
    )


@pytest.mark.parametrize(
    ("size", "told", "rows"),
    [
        ({}, {}, 2),
        ({}, {"conditions": ["linear"]}, 1),
        ({"conditions": ["constant"]}, {}, 1),
        ({"conditions": ["constant"]}, {"against": "last@linear"}, 0),
        ({"conditions": ["constant"]}, {"minus": "linear", "conditions": ["constant"]}, 0),
        ({}, {"minus": "linear", "conditions": ["constant"]}, 1),
        ({"arms": ["last", "tail"]}, {}, 0),
        ({"arms": ["last", "ema"]}, {"against": ["last", "tail"]}, 0),
        ({}, {"measure": "churn"}, 0),
        ({"curve_points": 5}, {"measure": "validation accuracy at 10 %"}, 0),
        ({"curve_points": 10}, {"measure": "validation accuracy at 10 %"}, 2),
        ({"probes": ["predictions"]}, {"measure": "churn"}, 2),
        ({}, {"measure": "drop under covariate shift"}, 0),
        ({"shifts": ["scale(severity=3)"]}, {"measure": "drop under covariate shift"}, 2),
        (
            {"shifts": ["scale(severity=3)"]},
            {"measure": "drop under covariate shift, re-estimated"},
            0,
        ),
        ({"shifts": ["scale(severity=3)"]}, {"measure": "drop under prior shift"}, 0),
        (
            {"ramps": [100]},
            {"analysis": "range test", "options": {"suggestion": "middle", "updates": 400}},
            0,
        ),
        (
            {"ramps": [100, 400]},
            {"analysis": "range test", "options": {"suggestion": "middle", "updates": 400}},
            2,
        ),
        ({}, {"analysis": "faster size"}, 0),
        ({"timed": [31, 32, 33]}, {"analysis": "faster size"}, 2),
        ({}, {"analysis": "noise slope", "measure": "slope"}, 0),
        ({"probes": ["gradient-noise"]}, {"analysis": "noise slope", "measure": "slope"}, 2),
    ],
)
def test_profile_plans_the_rows_that_it_trains_and_measures(tmp_path, size, told, rows):
    """A second contrast of plain accuracy is always there: the number is that of primary contrasts,
    k.
    """
    toy_with(tmp_path, size, told, {"label": "plain", "arm": "last", "against": "last"})
    with experiments_from(tmp_path):
        plain = len(plans("laptop")[0].conditions)
        assert contrasts("toy", "laptop") == rows + plain == len(planned("toy", "laptop"))
        assert contrasts("toy", "full") == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_planned_rows_look_at_nothing_that_the_profile_leaves_out(profile):
    """By hand: every condition and arm that a planned row looks at has runs in the profile."""
    for experiment in load_study():
        known = {plan.task: plan for plan in plans(profile, experiment)}
        found = planned(experiment, profile)
        assert len(found) == contrasts(experiment, profile)
        for cell in found:
            size = known[cell.task].size
            for condition, arm in cell.contrast.places(cell.condition):
                assert condition in (size.conditions or load_study()[experiment].conditions)
                assert arm in (size.arms or load_study()[experiment].arms)


def test_unknown_experiment_or_profile_is_refused():
    for names, sentence in (
        (("none", "laptop"), "experiment must be one of .*'none'"),
        (("weight_averaging", "huge"), "profile .*'huge'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            contrasts(*names)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"experiment": "none"},
            r"claim 'ema-wins': experiment must be one of \['toy'\], got 'none'",
        ),
        ({"scope": "X"}, "scope.*'E', 'S', 'T', 'E, T' or 'S, T'.*'X'"),
        ({"scope": "E, T"}, "claim 'ema-wins' of scope E, T: exact claims are .*'ema-outlier'"),
        ({"id": "ema-outlier"}, "claim 'ema-outlier' of scope T: exact claims are .*'ema-outlier'"),
        ({"contrasts": []}, "claim 'ema-wins' of scope T has 0 contrasts"),
        ({"id": "ema-outlier", "scope": "E"}, "claim 'ema-outlier' of scope E has 1 contrasts"),
        ({"needs": "most"}, "needs.*'common verdict' or 'all'.*'most'"),
        ({"verdict": "supported"}, "verdict.*Extra inputs are not permitted"),
    ],
)
def test_bad_value_in_a_claim_is_refused_by_name_with_what_is_allowed(toy, change, sentence):
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Claim(**(copy.deepcopy(SMALL_CLAIM) | change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arm": "swa"}, r"claim 'ema-wins': arm must be one of \[.*'ema'.*\], got 'swa'"),
        ({"against": "swa"}, "claim 'ema-wins': arm must be one of .*, got 'swa'"),
        ({"against": ["last", "swa"]}, "claim 'ema-wins': arm must be one of .*, got 'swa'"),
        (
            {"against": "last@none"},
            r"claim 'ema-wins': condition must be one of \['constant', 'linear'\], got 'none'",
        ),
        ({"conditions": ["none"]}, r"claim 'ema-wins': condition must be one of .*, got 'none'"),
        ({"minus": "none"}, r"claim 'ema-wins': condition must be one of .*, got 'none'"),
        ({"against": []}, "claim 'ema-wins': a contrast needs an arm to stand against, got none"),
        ({"measure": "beauty"}, r"must be one of \['accuracy'.*, got 'beauty'"),
        ({"margins": {}}, r"claim 'ema-wins': margins are for some of \['mnist1d-mlp'\], got none"),
        ({"margins": {"cifar": 1.0}}, r"claim 'ema-wins': margins are for some of .*, got .*cifar"),
        ({"margins": {TASK: 0}}, "margins.*greater than 0.*0"),
        ({"margins": {TASK: -1.0}}, "margins.*greater than 0.*-1"),
        ({"rule": "non-inferiority"}, "rule.*'superiority', 'equivalence' or 'at least'"),
        ({"rate": "best"}, "rate.*'tuned' or 'against'.*'best'"),
        ({"rate": 0.0}, "rate.*greater than 0.*0"),
        ({"factor": 0}, "factor.*greater than 0.*0"),
        (
            {"factor": 2},
            "factor multiplies the rate of the other side: say rate: against, got 'tuned'",
        ),
        ({"minus": "linear"}, "claim 'ema-wins': minus must be another condition than 'linear'"),
        (
            {"minus": "linear", "arm": "ema@constant"},
            "minus='linear' takes both arms.*name none.*got 'ema@constant'",
        ),
        (
            {"minus": "linear", "against": "last@constant"},
            "minus='linear' takes both arms.*'last@constant'",
        ),
        ({"minus": "linear", "rate": "against"}, "minus='linear' takes both arms.*at rate against"),
        ({"analysis": "magic"}, r"analysis must be one of \['closed form'.*, got 'magic'"),
        (
            {"analysis": "noise slope", "better": False},
            "'noise slope' says itself what it compares: leave out better",
        ),
        (
            {"analysis": "noise slope", "rate": 0.1},
            "'noise slope' says itself .* leave out better, rate",
        ),
        ({"colour": "red"}, "colour.*Extra inputs are not permitted"),
    ],
)
def test_bad_value_in_a_contrast_is_refused_by_name_with_what_is_allowed(toy, change, sentence):
    contrast = SMALL_CLAIM["contrasts"][0] | change
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Claim(**(SMALL_CLAIM | {"contrasts": [contrast]}))
