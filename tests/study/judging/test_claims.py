"""The file of claims holds every claim of the sources; what it names exists."""

import copy
import re
from collections import Counter

import pytest

from fabricated import (
    LAPTOP,
    SMALL_CLAIM,
    SMALL_CONTRAST,
    SMALL_EXPERIMENT,
    experiments_from,
    write_experiments,
)
from judged import contrast_of, levels
from steadydescent.study.judging import measures
from steadydescent.study.judging.claims import (
    Claim,
    Question,
    load_claims,
    questions,
    questions_for,
)
from steadydescent.study.judging.contrasts import CONTRASTS, Contrast
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import PRIMARY_PLACES
from steadydescent.study.planning import PROFILES, load_study, plans
from steadydescent.study.planning.claims_fit import check_claim, check_claims

LEVEL = SMALL_CONTRAST | {"conditions": ["constant"]}
TASK, LINEAR = "mnist1d-mlp", {"arm": "last", "condition": "linear"}
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
averages-smooth ema-decay-values lr-small-precise batch-memory decay-formulas noam-scale
noam-start noam-duration momentum-faster adam-faster lr-matters-most lr-range-regimes batch-range
ema-bn-statistics ema-or-checkpoints
"""


@pytest.fixture
def toy(tmp_path):
    write_experiments(tmp_path)
    with experiments_from(tmp_path):
        yield tmp_path


def planned(experiment: str, profile: str) -> list[Question]:
    """The rows that a profile trains for, of all tasks."""
    if not load_study()[experiment].profiles.get(profile):
        return []
    return [row for plan in plans(profile, experiment) for row in questions_for(plan)]


def every_contrast() -> list[tuple[Claim, Contrast]]:
    return [(claim, contrast) for claim in load_claims().values() for contrast in claim.contrasts]


def every_difference() -> list[tuple[Claim, Contrast]]:
    """Contrasts of tuned arms."""
    return [(claim, contrast) for claim, contrast in every_contrast() if contrast.kind == "tuned"]


# ---- the file ------------------------------------------------------------------------------------


def test_claims_are_those_of_the_sources():
    expected = OF_THE_SOURCES.split()
    assert len(set(expected)) == len(expected) == 58
    assert set(load_claims()) == set(expected)


def test_every_claim_has_sources_and_says_what_decides_it():
    for name, claim in load_claims().items():
        assert name == claim.id and claim.source
        assert claim.title and claim.sentence.endswith(".") and claim.test.endswith(".")
        assert ("E" in claim.scope) == (name in EXACT)
        assert (claim.scope == "E") == (not claim.contrasts)
    assert set(EXACT) <= set(load_claims())


def test_accuracy_has_the_margins_of_the_design():
    """Percentage points: 1 on MNIST-1D, 0.5 on Fashion-MNIST, 1 on names, for whatever claim; 1
    everywhere where networks see 200 examples and end far lower.
    """
    design = {"mnist1d": 1.0, "fashion-mnist": 0.5, "names": 1.0}
    margins = [
        (claim.id, *pair)
        for claim, contrast in every_difference()
        if contrast.measure == "accuracy"
        for pair in contrast.margins.items()
    ]
    assert margins
    for claim, task, margin in margins:
        (expected,) = (value for name, value in design.items() if task.startswith(name))
        assert margin == (1.0 if claim == "batch-small-data-full" else expected), (claim, task)


def test_margins_of_ratios_are_factors_above_one():
    for claim, contrast in every_contrast():
        if contrast.ratio:
            assert min(contrast.margins.values()) > 1, claim.id


def test_every_contrast_names_a_kind_and_a_measure_that_exist():
    assert {contrast.kind for _, contrast in every_contrast()} <= set(CONTRASTS)
    for claim, contrast in every_difference():
        assert measures.measure_named(contrast.measure).name == contrast.measure
        if contrast.minus is not None:
            assert contrast.minus in load_study()[claim.experiment].conditions


def test_rows_of_a_claim_have_names_of_their_own():
    """A row is found by claim, task and condition; two of one name would hide each other."""
    for experiment in load_study():
        names = Counter(question.row.key for question in questions(experiment))
        assert not [name for name, number in names.items() if number > 1]


def test_full_profile_plans_every_row_of_every_claim():
    for experiment in load_study():
        asked = {question.row.key for question in questions(experiment)}
        assert asked == {question.row.key for question in planned(experiment, "full")}


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "smoke"])
def test_fixed_rates_lie_on_the_grid_of_their_arm(profile):
    """A default rate that no run has cannot be judged."""
    for plan in plans(profile):
        for question in questions_for(plan):
            fixed = getattr(question.contrast, "rate", None)
            if question.contrast.kind == "tuned" and isinstance(fixed, float):
                place = question.contrast.arm.under(question.condition)
                half = plan.half(place.condition)
                rates = [plan.rate(*place, i) for i in range(-half, half + 1)]
                near = [rate for rate in rates if rate == pytest.approx(fixed, rel=1e-3)]
                assert near, question.row.key


# ---- contrasts -----------------------------------------------------------------------------------


def test_arm_may_name_its_own_condition():
    plain, elsewhere = contrast_of("closed form"), contrast_of("closed form", LINEAR)
    assert plain.places("constant") == [Place("constant", "last")]
    assert elsewhere.places("constant") == [Place("linear", "last")]


def test_places_are_where_a_contrast_looks():
    other, third = {"arm": "a", "condition": "other"}, {"arm": "c", "condition": "third"}
    contrast = contrast_of("tuned", other, against=["b", third])
    assert contrast.places("own") == [("other", "a"), ("own", "b"), ("third", "c")]
    contrast = contrast_of("tuned", "a", against=["b", "c"], minus="fourth")
    everywhere = [(condition, arm) for condition in ("own", "fourth") for arm in "abc"]
    assert contrast.places("own") == everywhere
    contrast = contrast_of("tuned", "a", against="b")
    assert contrast.places("own") == [("own", "a"), ("own", "b")]


def test_one_arm_to_stand_against_may_be_written_as_text():
    one, two = (contrast_of("tuned", "a", against=against) for against in ("b", ["b", "c"]))
    assert [stated.arm for stated in one.against] == ["b"]
    assert [stated.arm for stated in two.against] == ["b", "c"]


def test_a_place_is_named_by_its_condition_where_the_row_is_about_another():
    assert Place("linear", "last").label("linear") == "last"
    assert Place("linear", "last").label("constant") == "last@linear"


def test_row_is_named_by_condition_and_label():
    contrast = contrast_of("tuned", "a", against="b")
    assert contrast.named("linear") == "linear"
    assert contrast.model_copy(update={"label": "tuned"}).named("linear") == "linear, tuned"
    assert contrast.model_copy(update={"label": "tuned"}).named("") == "tuned"


# ---- what a profile plans ------------------------------------------------------------------------


def toy_with(folder, size: dict, *told: dict) -> None:
    """The small study, its laptop profile of another size, with one claim of these contrasts."""
    profiles = {"laptop": {TASK: LAPTOP | size}}
    contrasts = [usual_for(fields) | fields for fields in told]
    claims = [SMALL_CLAIM | {"primary": levels(contrasts)}]
    write_experiments(folder, SMALL_EXPERIMENT | {"profiles": profiles}, claims)


def usual_for(fields: dict) -> dict:
    """What the small claim's contrast says, as far as a kind has such options."""
    schema = CONTRASTS.get(fields.get("kind"), CONTRASTS["tuned"])
    return {name: value for name, value in SMALL_CONTRAST.items() if name in schema.model_fields}


@pytest.mark.parametrize(
    ("size", "told", "rows"),
    [
        ({}, {}, 2),
        ({}, {"conditions": ["linear"]}, 1),
        ({"conditions": ["constant"]}, {}, 1),
        ({"conditions": ["constant"]}, {"against": LINEAR}, 0),
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
            {"kind": "range test", "suggestion": "middle", "updates": 400},
            0,
        ),
        (
            {"ramps": [100, 400]},
            {"kind": "range test", "suggestion": "middle", "updates": 400},
            2,
        ),
        ({}, {"kind": "faster size"}, 0),
        ({"timed": [31, 32, 33]}, {"kind": "faster size"}, 2),
        ({}, {"kind": "noise slope", "measure": "slope"}, 0),
        ({"probes": ["gradient-noise"]}, {"kind": "noise slope", "measure": "slope"}, 2),
    ],
)
def test_profile_plans_the_rows_that_it_trains_and_measures(tmp_path, size, told, rows):
    """A second contrast of plain accuracy is always there."""
    toy_with(tmp_path, size, told, {"label": "plain", "arm": "last", "against": "last"})
    with experiments_from(tmp_path):
        plain = len(plans("laptop")[0].conditions)
        assert len(planned("toy", "laptop")) == rows + plain


@pytest.mark.parametrize("profile", PROFILES)
def test_planned_rows_look_at_nothing_that_the_profile_leaves_out(profile):
    """By hand: every condition and arm that a planned row looks at has runs in the profile."""
    for experiment in load_study():
        if not load_study()[experiment].profiles.get(profile):
            continue
        known = {plan.task: plan for plan in plans(profile, experiment)}
        for cell in planned(experiment, profile):
            size = known[cell.task].size
            for condition, arm in cell.contrast.places(cell.condition):
                assert condition in (size.conditions or load_study()[experiment].conditions)
                assert arm in (size.arms or load_study()[experiment].arms)


# ---- what is refused -----------------------------------------------------------------------------


def stated(fields: dict) -> None:
    """A claim that is read, and then looked at beside the study."""
    check_claim(Claim(**fields), load_study())


def test_what_the_study_has_not_is_refused_by_plans_and_not_by_judging(tmp_path):
    """With its line in the file; an old result is judged by claims that name what it has not."""
    contrasts = levels([SMALL_CONTRAST | {"arm": "swa"}])
    write_experiments(tmp_path, claims=[SMALL_CLAIM | {"primary": contrasts}])
    with experiments_from(tmp_path):
        assert [question.contrast.arm.arm for question in questions("toy")] == ["swa"] * 2
        for ask in (lambda: plans("laptop"), lambda: check_claims(load_study())):
            with pytest.raises(ValueError, match=r"claims\.yml, line 1: .*arm must be one of"):
                ask()


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
        ({"primary": []}, "claim 'ema-wins' of scope T has 0 contrasts"),
        ({"id": "ema-outlier", "scope": "E"}, "claim 'ema-outlier' of scope E has 2 contrasts"),
        ({"contrasts": []}, "contrasts.*Extra inputs are not permitted"),
        ({"verdict": "supported"}, "verdict.*Extra inputs are not permitted"),
        (
            {"primary": [], "secondary": [SMALL_CONTRAST]},
            "claim 'ema-wins' has no primary contrast; only arithmetic decides without one",
        ),
        (
            {"primary": [SMALL_CONTRAST]},
            r"claim 'ema-wins', the primary contrast 'constant, linear': one condition is one "
            r"question, got \['constant', 'linear'\]; state a contrast for each",
        ),
        (
            {"primary": [LEVEL | {"when": "always"}]},
            "primary contrast 'constant': when is stated where .* it has 1, got when 'always'",
        ),
        (
            {"primary": [LEVEL, LEVEL | {"label": "again"}]},
            "primary contrast 'constant': when is stated where .* it has 2, got when ''",
        ),
        (
            {"primary": [LEVEL | {"label": label, "when": "now"} for label in "ab"]},
            "when and task must not be given twice, got 'now on mnist1d-mlp' again",
        ),
        (
            {"secondary": [LEVEL | {"label": "more", "when": "late"}]},
            "secondary contrast 'constant, more': when is stated of primary contrasts alone",
        ),
        (
            {"secondary": [LEVEL]},
            "'ema-wins': a row's task and condition must not be given twice, got "
            "'mnist1d-mlp/constant' again",
        ),
        (
            {"secondary": [LEVEL | {"label": "more", "experiment": "none"}]},
            r"claim 'ema-wins': experiment of a contrast must be one of \['toy'\], got 'none'",
        ),
    ],
)
def test_bad_value_in_a_claim_is_refused_by_name_with_what_is_allowed(toy, change, sentence):
    with pytest.raises(ValueError, match=re.compile(sentence, re.DOTALL)):
        stated(copy.deepcopy(SMALL_CLAIM) | change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arm": "swa"}, r"claim 'ema-wins': arm must be one of \[.*'ema'.*\], got 'swa'"),
        ({"against": "swa"}, "claim 'ema-wins': arm must be one of .*, got 'swa'"),
        ({"against": ["last", "swa"]}, "claim 'ema-wins': arm must be one of .*, got 'swa'"),
        (
            {"against": {"arm": "last", "condition": "none"}},
            r"claim 'ema-wins': condition must be one of \['constant', 'linear'\], got 'none'",
        ),
        ({"conditions": ["none"]}, r"claim 'ema-wins': condition must be one of .*, got 'none'"),
        ({"conditions": []}, "conditions.*at least 1 item"),
        ({"minus": "none"}, r"claim 'ema-wins': condition must be one of .*, got 'none'"),
        ({"against": []}, "against.*a contrast needs an arm to stand against, got none"),
        ({"measure": "beauty"}, r"must be one of \['accuracy'.*, got 'beauty'"),
        ({"margins": {}}, "margins.*at least 1 item"),
        ({"margins": {"cifar": 1.0}}, r"claim 'ema-wins': margins are for some of .*, got .*cifar"),
        ({"margins": {TASK: 0}}, "margins.*greater than 0.*0"),
        ({"margins": {TASK: -1.0}}, "margins.*greater than 0.*-1"),
        (
            {"rule": "non-inferiority"},
            "rule.*'superiority', 'equivalence', 'difference' or 'at least'",
        ),
        ({"rate": "best"}, "rate.*'tuned' or 'against'.*'best'"),
        ({"rate": 0.0}, "rate.*greater than 0.*0"),
        ({"factor": 0}, "factor.*greater than 0.*0"),
        (
            {"factor": 2},
            "factor multiplies the rate of the other side: say rate: against, got 'tuned'",
        ),
        ({"minus": "linear"}, "minus must be another condition than 'linear'"),
        (
            {"minus": "linear", "arm": {"arm": "ema", "condition": "constant"}},
            "minus='linear' takes both arms.*name no condition.*'ema', 'condition': 'constant'",
        ),
        (
            {"minus": "linear", "against": {"arm": "last", "condition": "constant"}},
            "minus='linear' takes both arms.*'last', 'condition': 'constant'",
        ),
        ({"minus": "linear", "rate": "against"}, "minus='linear' takes both arms.*at rate against"),
        ({"against": ["last", "last"]}, "an arm to stand against must not be given twice.*'last'"),
        ({"arm": "last@linear"}, "claim 'ema-wins': arm must be one of .*, got 'last@linear'"),
        ({"arm": {"arm": "last", "under": "linear"}}, "under.*Extra inputs are not permitted"),
        ({"kind": "magic"}, r"kind must be one of \['closed form'.*, got 'magic'"),
        ({"kind": "noise slope"}, "an option of a contrast 'noise slope': 'against' is unknown"),
        ({"colour": "red"}, "an option of a contrast 'tuned': must be one of .*got 'colour'"),
        ({"mesure": "loss"}, "an option of a contrast 'tuned': 'mesure' is unknown; .*'measure'"),
    ],
)
def test_bad_value_in_a_contrast_is_refused_by_name_with_what_is_allowed(toy, change, sentence):
    contrast = SMALL_CONTRAST | {"label": "more"} | change
    with pytest.raises(ValueError, match=re.compile(sentence, re.DOTALL)):
        stated(SMALL_CLAIM | {"secondary": [contrast]})


def test_a_claim_about_shifted_inputs_names_arms_that_are_scored_there(toy):
    contrast = SMALL_CONTRAST | {"label": "more", "measure": "drop under prior shift"}
    claim = Claim(**SMALL_CLAIM | {"secondary": [contrast]})
    experiment = load_study()["toy"]
    check = lambda *arms: check_claim(
        claim, {"toy": experiment.model_copy(update={"shifted": arms})}
    )
    check()
    check("last", "ema")
    with pytest.raises(ValueError, match=r"scores on shifted inputs must be one of.*got 'ema'"):
        check("last")


@pytest.mark.parametrize("day", ["2026-13-01", "yesterday", ""])
def test_a_contrast_is_registered_on_a_day(toy, day):
    with pytest.raises(ValueError, match="registered"):
        stated(SMALL_CLAIM | {"secondary": [SMALL_CONTRAST | {"label": "x", "registered": day}]})
    undated = {name: value for name, value in SMALL_CONTRAST.items() if name != "registered"}
    with pytest.raises(ValueError, match=r"registered.*\n.*Field required"):
        stated(SMALL_CLAIM | {"secondary": [undated]})


def test_more_primary_rows_than_there_are_places_are_refused(tmp_path):
    """Claims of two rows fill all places; one more row is refused. Secondary rows need none."""
    many = [SMALL_CLAIM | {"id": f"claim-{n}"} for n in range(PRIMARY_PLACES // 2)]
    for more in ({}, {"secondary": [SMALL_CONTRAST | {"label": "x"}]}):
        write_experiments(tmp_path, claims=[*many[:-1], many[-1] | more])
        with experiments_from(tmp_path):
            assert len(load_claims()) == len(many)
    write_experiments(tmp_path, claims=[*many, SMALL_CLAIM | {"primary": [LEVEL]}])
    refusal = pytest.raises(
        ValueError, match=rf"share {PRIMARY_PLACES} places.*got {PRIMARY_PLACES + 1}"
    )
    with experiments_from(tmp_path), refusal:
        load_claims()


def test_a_contrast_of_another_experiment_is_asked_of_that_one(tmp_path):
    elsewhere = LEVEL | {"label": "elsewhere", "experiment": "other"}
    write_experiments(tmp_path, claims=[SMALL_CLAIM | {"secondary": [elsewhere]}])
    with experiments_from(tmp_path):
        (question,) = questions("other")
        assert not question.primary and question.claim.id == "ema-wins"
        assert [question.primary for question in questions("toy")] == [True, True]
