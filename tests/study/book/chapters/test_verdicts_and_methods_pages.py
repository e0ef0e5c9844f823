"""What the pages on verdicts and methods compute, against loops by hand."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy import stats

from fabricated import result
from judged import asked, peak, score, toy_evidence, toy_plan
from page_cells import bill
from steadydescent.study.book import page
from steadydescent.study.book.chapters import attacks, methods, verdicts
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.planning import PROFILES, load_study

# ---- verdicts ------------------------------------------------------------------------------------


def shown(task: str = "mnist1d-mlp", **seeds: int) -> SimpleNamespace:
    design = {"experiment": "toy", "arms": {"a": ["last"]}, "tuned_by": ["accuracy"]}
    design |= {"task": task, "centres": {}, "curve_points": 1}
    return SimpleNamespace(receipt={"seeds": seeds, "networks": 100, "design": design})


def test_the_table_of_rows_spans_the_seeds_of_a_chapters_tasks():
    surface = shown("ravine", tuning=6, report=8)
    results = {"decay_schedules": {"a": shown(tuning=3, report=8), "b": surface}}
    rows = [{"level": 0.99975, "primary": True}] * 2 + [{"level": 0.95, "primary": False}]
    rows.append({"level": None, "primary": True})
    (row,) = verdicts.table_of_levels(results | {"none": {}}, lambda name: rows).to_dict("records")
    assert row == {
        "chapter": "Decay schedules",
        "tasks": 2,
        "primary rows": 2,
        "secondary rows": 1,
        "tuning seeds": "3 to 6",
        "report seeds": "8",
        "networks": 100,
        "points": 100,
    }


def test_an_experiment_that_the_study_has_no_more_is_called_by_its_name():
    assert verdicts.title("decay_schedules") == load_study()["decay_schedules"].title
    assert verdicts.title("gone") == "gone"


def test_halves_share_no_report_seed_and_all_tuning_seeds(tmp_path):
    with asked(tmp_path):
        whole = toy_evidence(result(toy_plan(), score))
        runs = whole.result.runs
        parts = [whole.half(parity).result for parity in (0, 1)]
    for parity, part in enumerate(parts):
        assert set(part.runs[part.runs.test].seed % 2) == {parity}
        assert set(part.runs[~part.runs.test].run) == set(runs[~runs.test].run)
        assert set(part.finals.run) == set(part.runs.run)
    assert sum(len(part.runs[part.runs.test]) for part in parts) == len(runs[runs.test])


def test_same_rates_are_paired_differences_by_hand():
    columns = pd.MultiIndex.from_product([[0.1, 0.2], ["last"]], names=["lr", "readout"])
    flat = pd.DataFrame([[60.0, 50.0], [61.0, 52.0], [62.0, 51.0]], columns=columns)
    falling = flat + pd.DataFrame([[1.0, -1.0], [2.0, -1.5], [3.0, -1.25]], columns=columns)
    chosen = SimpleNamespace(chosen=SimpleNamespace(lr=0.2))
    own = SimpleNamespace(
        conditions=("usual", "longer", "other"),
        arms_in=lambda condition: ["constant", "linear"][: 1 if condition == "other" else 2],
        candidates=lambda condition, arm: chosen,
        report=lambda condition, arm, measure: flat if arm == "constant" else falling,
    )
    table = verdicts.table_of_same_rates({"toy": SimpleNamespace(evidence=own)})
    gains = [1.0, 2.0, 3.0]
    half = stats.t.ppf(0.975, 2) * stdev(gains) / math.sqrt(3)
    text = f"{fmean(gains):+.2f} ({2 - half:+.2f} to {2 + half:+.2f})"
    assert table["linear minus constant, pp"][0] == text
    assert list(table.condition) == ["usual", "usual", "longer", "longer"]
    assert list(table["best when constant"]) == ["", "yes", "", "yes"]
    assert verdicts.table_of_same_rates({}).empty


# ---- attacks -------------------------------------------------------------------------------------


def toy_shown(evidence, seeds: int) -> dict:
    receipt = dict(evidence.receipt, seeds={"tuning": 5, "report": seeds})
    made = Evidence(evidence.result, receipt)
    return {made.experiment: {made.task: SimpleNamespace(evidence=made, receipt=receipt)}}


@pytest.fixture
def attacked(tmp_path, monkeypatch):
    """The toy claim, attacked, as if it had so many report seeds."""
    monkeypatch.setattr(attacks, "CLAIMS", ("ema-wins",))
    with asked(tmp_path, {"conditions": ["constant"]}):
        evidence = toy_evidence(result(toy_plan(), peak))
        yield lambda seeds: attacks.attacks(toy_shown(evidence, seeds))


def test_attacked_rows_are_estimated_from_halves_where_these_have_enough_seeds(attacked):
    for seeds, halves in ((attacks.FEWEST - 1, set()), (attacks.FEWEST, set(attacks.AGAIN[:2]))):
        (found,) = attacked(seeds)
        assert found.question.claim.id == "ema-wins" and found.question.primary
        assert set(found.again) & set(attacks.AGAIN[:2]) == halves
        assert found.agreeing == sum(e.value * found.whole.value > 0 for e in found.again.values())


def test_at_a_neighbouring_rate_the_arm_alone_moves(attacked):
    (found,) = attacked(attacks.FEWEST)
    beside = [found.again[name] for name in attacks.AGAIN[2:4] if name in found.again]
    assert beside and all(other.value != found.whole.value for other in beside)


def test_the_table_of_attacks_has_a_column_a_way_and_the_sentence_counts_them(attacked):
    found = attacked(attacks.FEWEST)
    table = attacks.table_of_attacks(found)
    assert list(table.columns) == ["claim", "task", "verdict", "all seeds", *attacks.AGAIN]
    made = sum(len(attack.again) for attack in found)
    assert f"Of {made} estimates made anew" in attacks.in_words(found).text
    assert attacks.table_of_attacks([]).empty and attacks.in_words([]) == page.NOT_RUN


def test_every_attacked_claim_is_a_claim_with_primary_rows():
    claims = load_claims()
    assert all(claims[name].primary for name in attacks.CLAIMS)


# ---- methods -------------------------------------------------------------------------------------

OURS = {"coverage": [0.95, 0.96], "bias": [0.01, -0.02], "sd": [0.1, 0.1]}
PLAIN = {"coverage": [0.8, 0.94]}


def check(ours: dict, plain: dict, high: float) -> None:
    methods.check_prose(
        pd.DataFrame(OURS | ours), pd.DataFrame(PLAIN | plain), pd.DataFrame({"coverage": [high]})
    )


def test_trials_that_the_prose_describes_are_accepted():
    check({}, {}, 0.999)


@pytest.mark.parametrize(
    ("ours", "plain", "high", "point"),
    [
        ({"coverage": [0.95, 0.93]}, {}, 1.0, "ours nearly holds"),
        ({"coverage": [0.98, 0.99]}, {}, 1.0, "ours nearly holds"),
        ({}, {}, 0.99, "level of primary rows"),
        ({}, {"coverage": [0.8, 0.96]}, 1.0, "the plain interval"),
        ({"bias": [0.01, -0.07]}, {}, 1.0, "the estimate leans"),
        ({"sd": [0.02, 0.05]}, {}, 1.0, "the estimate leans"),
    ],
)
def test_prose_that_the_trials_contradict_fails_the_page(ours, plain, high, point):
    with pytest.raises(ValueError, match=f"is not what the prose .*{point}"):
        check(ours, plain, high)


def trial(**fields) -> dict:
    words = dict.fromkeys(("for", "against", "supported", "too small to matter", "open"), 0.5)
    made = {"world": "alike", "tuning": 3, "report": 8, "level": 0.95, "coverage": 0.95}
    return made | {"effect": 0.0} | words | fields


def test_coverage_is_a_column_an_interval():
    rows = [
        trial(world=world, interval=interval, coverage=share, effect=effect, level=level)
        for world, worst in (("alike", 0.9), ("crashes", 0.8))
        for interval, share in zip(methods.LABELS, (0.95, 0.97, worst), strict=True)
        for effect in (0.0, 1.0)
        for level in (0.95, 0.99975)
    ]
    table = methods.table_of_coverage(methods.with_seeds(pd.DataFrame(rows)))
    assert list(table.columns) == ["world", "seeds", *methods.LABELS.values()]
    assert table.iloc[1].tolist() == ["crashes", "3 + 8", 95.0, 97.0, 80.0]


def test_words_are_means_over_worlds_by_effect():
    rows = [
        trial(world=world, effect=effect, level=0.99975, supported=share)
        for world, share in (("alike", 0.2), ("crashes", 0.4))
        for effect in (0.0, 0.2)
    ]
    table = methods.table_of_words(methods.with_seeds(pd.DataFrame([*rows, trial()])))
    assert table["effect, margins"].tolist() == [0.0, 0.2]
    assert table.supported.tolist() == pytest.approx([30.0, 30.0])
    assert table["for"].tolist() == [50.0, 50.0]


def test_kinds_that_miss_are_named_with_their_shares():
    shares = {"tuned": 0.95, "search": 0.99, "a": 0.93}
    rows = [
        trial(kind=kind, coverage=share if level == 0.95 else 0.999, level=level)
        for kind, share in shares.items()
        for level in (0.95, 0.99975)
    ]
    assert methods.coverage_of_kinds(pd.DataFrame(rows)).text == (
        "Of 3 cells 1 have a coverage of 94 to 97 %, 1 more, 1 less. Less: a, alike (93.0 %). "
        "More: search, alike (99.0 %). At 99.975 % the lowest coverage is 99.90 %."
    )


def test_books_are_summed_up_by_their_worst():
    rows = [
        {"book": "nulls", "seeds": "all", "books": 10, "rows": 55, "false_word": share}
        | {"false_direction": share / 2, "decided": 3.0, "decided_by_holm": 4.0}
        for share in (0.01, 0.02)
    ]
    sentence = methods.book_errors(pd.DataFrame(rows)).text
    assert "at most 2.0 % held any false word and at most 1.0 % any false direction" in sentence
    assert "any false word, % of books" in methods.table_of_books(pd.DataFrame(rows)).text


def test_holm_is_compared_with_places_over_the_rows_that_were_run():
    made = {"primary": True, "level": 0.99975, "ci_low": 1.0, "ci_high": 1.2, "null": 0.0}
    made |= {"margin": 0.5, "rule": "superiority", "n_seeds": 9, "verdict": "supported"}
    rows = [made, made | {"level": None}, made | {"primary": False}]
    assert methods.more_by_holm(rows).text == (
        "Of 1 primary rows that were run, 1 are decided; "
        "Holm's procedure over the same rows would decide 1."
    )


def test_profiles_are_listed_with_what_they_cost():
    table = bill()
    assert list(dict.fromkeys(table.profile)) == list(PROFILES)
    assert ((table.networks > 0) | (table.points > 0)).all() and "minutes, one process" in table
