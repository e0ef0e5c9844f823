"""A claim's rows are what a slow computation by hand gives; what cannot bear a verdict bears none."""

import zlib
from collections import Counter
from functools import cache
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from fabricated import LAPTOP, SMALL_CLAIM, SMALL_EXPERIMENT, experiments_from, receipt, result, write_experiments
from fabricated import write_result as keep
from steadydescent import findings, judging
from steadydescent.claims import Contrast, cells, contrasts, load_claims, planned
from steadydescent.exact import EXACT
from steadydescent.judging import Evidence, all_rows, estimate, exact_rows, judge_all, sides
from steadydescent.plots import rate_table, sweep_table
from steadydescent.statistics import overall
from steadydescent.study import Plan, load_study

TASK = "mnist1d-mlp"
ARMS = {name: arm["readouts"] for name, arm in SMALL_EXPERIMENT["arms"].items()}
NOTE = receipt("laptop", "toy/mnist1d-mlp@12345678")


@pytest.fixture
def toy(tmp_path):
    write_experiments(tmp_path / "experiments")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path


def asked(folder, *contrasts: dict, size: dict | None = None, needs: str = "common verdict", **fields):
    """The small study with other fields, and one claim of these contrasts, of `ema` against `last` where unsaid."""
    told = {"profiles": {"laptop": {TASK: LAPTOP | (size or {})}}} | fields
    made = [SMALL_CLAIM["contrasts"][0] | contrast for contrast in contrasts]
    write_experiments(folder, SMALL_EXPERIMENT | told, [SMALL_CLAIM | {"contrasts": made, "needs": needs}])
    return experiments_from(folder)


def toy_plan(profile: str = "laptop") -> Plan:
    return Plan(experiment=load_study()["toy"], task=TASK, profile=profile)


def rows_of(how, **more) -> list[dict]:
    """Rows of the toy's claims on a result that is scored so."""
    return judge_all("toy", result(toy_plan(), how, **more), NOTE, TASK)


def noise(*what: object) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(what).encode())).normal())


def score(run, readout: str, split: str) -> float:
    """Best at the centre of the grid, EMA 3 points above the last weights, a point of noise a seed and candidate."""
    bonus = {"ema-10": 0.03, "ema-30": 0.02}.get(readout, 0.0)
    place = np.log2(run.lr / 0.1)
    return 0.6 + bonus - 0.02 * place**2 + 0.01 * noise(run.seed, run.lr, readout, split, run.schedule)


def steep(gain: dict[str, float], best: float = 0.1):
    """No noise at all: each readout has its gain, and every grid point away from the best rate costs 10 points."""
    return lambda run, readout, split: 0.6 + gain.get(readout, 0.0) - 0.1 * abs(np.log2(run.lr / best))


# ---- slow reference ------------------------------------------------------------------------------------------------


def table_by_hand(made, schedule: str, split: str, report: bool) -> dict:
    """(rate, readout) → {seed: percent}, row by row."""
    runs = {row.run: row for row in made.runs.itertuples() if row.schedule == schedule and row.test == report}
    found = {}
    for row in made.finals.itertuples():
        if row.run in runs and row.split == split:
            found.setdefault((runs[row.run].lr, row.readout), {})[runs[row.run].seed] = 100 * row.accuracy
    return found


def row_by_hand(made, schedule: str, draws: int = 6_000) -> dict:
    """Estimate, standard error and choices of ema − last, with plain loops and lists.

    Each draw is another tuning, of as many seeds as tuning had, from those of tuning and of reports, which have
    validation scores too; seeds pull by their own scores and by their part in the choice.
    """
    tables = {"tuning": ("validation", False), "known": ("validation", True), "test": ("test", True)}
    tuning, known, test = (table_by_hand(made, schedule, *how) for how in tables.values())
    candidates = {arm: [c for c in sorted(tuning) if c[1] in ARMS[arm]] for arm in ("ema", "last")}
    old, new = sorted(tuning[candidates["last"][0]]), sorted(test[candidates["last"][0]])
    seen = lambda c, seed: tuning[c][seed] if seed in tuning[c] else known[c][seed]
    best = lambda arm, seeds: max(candidates[arm], key=lambda c: sum(seen(c, s) for s in seeds))
    rng, drawn, counts, each = np.random.default_rng(99), [], [], {s: [] for s in new}
    for _ in range(draws):
        seeds = rng.choice([*old, *new], len(old)).tolist()
        ema, last = best("ema", seeds), best("last", seeds)
        for s in new:
            each[s].append(test[ema][s] - test[last][s])
        drawn.append(fmean(test[ema][s] - test[last][s] for s in new))
        counts.append(Counter(seeds))
    value, n, m = fmean(drawn), len(new), len(old)
    own = {s: (fmean(each[s]) - value) / n for s in new}
    choice = {s: fmean((d - value) * count[s] for d, count in zip(drawn, counts, strict=True)) for s in [*old, *new]}
    variance = m / (m - 1) * sum(choice[s] ** 2 for s in old)
    variance += n / (n - 1) * (sum(own[s] ** 2 + choice[s] ** 2 for s in new))
    variance += n / (n - 1) * max(0.0, 2 * sum(own[s] * choice[s] for s in new))
    return {"estimate": value, "error": variance**0.5, "n": n, "chosen": {a: best(a, old) for a in candidates}}


def test_rows_are_what_a_slow_computation_by_hand_gives(toy):
    made = result(toy_plan(), score)
    rows = judge_all("toy", made, NOTE, TASK)
    assert [row["condition"] for row in rows] == ["constant", "linear"]
    for row in rows:
        expected = row_by_hand(made, row["condition"])
        # one contrast × one task × two conditions share 5 %
        half = stats.t.ppf(1 - 0.05 / 2 / 2, expected["n"] - 1) * expected["error"]
        assert row["estimate"] == pytest.approx(expected["estimate"], abs=0.05 * half)
        assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(half, rel=0.05)
        for arm in ("ema", "last"):
            assert (row["rates"][arm], row["readouts"][arm]) == expected["chosen"][arm]
        plain = {"id": "ema-wins", "scope": "T", "task": TASK, "measure": "accuracy", "unit": "pp", "margin": 1.0,
                 "rule": "superiority", "n_seeds": 5, "diverged": 0, "profile": "laptop", "level": 0.975, "null": 0.0,
                 "result": "toy/mnist1d-mlp@12345678", "networks": 3 * (3 + 5)}  # fmt: skip
        assert {name: row[name] for name in plain} == pytest.approx(plain) and row["tests"] == []


def test_validation_scores_of_report_seeds_inform_the_choice(toy):
    """Without them the pool is the three tuning seeds alone, and the interval another."""
    made = result(toy_plan(), score)
    report = set(made.runs[made.runs.test].run)
    older = made._replace(finals=made.finals[~(made.finals.run.isin(report) & (made.finals.split == "validation"))])
    (new, *_), (old, *_) = (judge_all("toy", one, NOTE, TASK) for one in (made, older))
    side = Evidence(older, toy_plan()).candidates("constant", "ema")
    assert side.scores.validation.shape[0] == 0 and side.scores.tuning.shape == (3, 6)
    assert (old["ci_low"], old["ci_high"]) != (new["ci_low"], new["ci_high"])


# ---- verdicts ------------------------------------------------------------------------------------------------------


def planted(gain: float, spread: float):
    """The EMA is the last weights plus a gain; each has a noise of this spread; the margin is 1 point."""

    def made(run, readout, split):
        averaged = readout.startswith("ema-")
        lost = 0.0 if run.lr == 0.1 else 0.1
        return 0.6 - lost + gain * averaged + spread * noise(run.seed, run.lr, averaged, split)

    return made


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (0.05, 0.002, "supported"),
        (-0.05, 0.002, "refuted"),
        (0.0, 0.002, "no difference"),
        (0.009, 0.03, "inconclusive"),
    ],
)
def test_verdict_follows_the_planted_gain(toy, gain, spread, verdict):
    row = rows_of(planted(gain, spread))[0]
    assert row["verdict"] == verdict
    assert (row["seeds_needed"] is None) == (verdict != "inconclusive")
    assert row["seeds_needed"] is None or row["seeds_needed"] > row["n_seeds"]


@pytest.mark.parametrize(
    ("rule", "gain", "verdict"),
    [
        ("at least", 0.05, "supported"),
        ("at least", 0.0, "supported"),
        ("at least", -0.05, "refuted"),
        ("equivalence", 0.05, "refuted"),
        ("equivalence", 0.0, "supported"),
        ("equivalence", -0.05, "refuted"),
    ],
)
def test_rules_of_claims_that_arms_are_alike_or_no_worse(tmp_path, rule, gain, verdict):
    with asked(tmp_path, {"rule": rule}):
        assert {row["verdict"] for row in rows_of(planted(gain, 0.002))} == {verdict}


def test_smoke_gives_no_verdict_however_clear_the_numbers(toy):
    clear = lambda run, readout, split: 0.9 if readout.startswith("ema") else 0.1
    for profile, word in (("smoke", "inconclusive"), ("laptop", "supported")):
        rows = judge_all("toy", result(toy_plan(profile), clear), receipt(profile, "x"), TASK)
        assert {row["verdict"] for row in rows} == {word}


def test_source_that_says_worse_has_its_signs_turned(tmp_path):
    """The same numbers with `better: false`: the estimate and its interval change sign, and the verdict turns."""
    with asked(tmp_path, {"label": "better"}, {"label": "worse", "better": False}):
        better, worse = [row for row in rows_of(score) if row["condition"].startswith("constant")]
    assert (better["estimate"], better["ci_low"], better["ci_high"]) == (
        -worse["estimate"],
        -worse["ci_high"],
        -worse["ci_low"],
    )
    assert (better["verdict"], worse["verdict"]) == ("supported", "refuted")


def test_measure_that_is_better_when_smaller_is_turned_round(tmp_path):
    """The EMA has 5 points more accuracy, so 0.1 nats less loss: both say that it is better, `better: false` not."""
    told = [{"measure": "loss", "label": "better"}, {"measure": "loss", "label": "worse", "better": False}]
    with asked(tmp_path, *told, {"measure": "training accuracy", "label": "training"}):
        loss, worse, training = [row for row in rows_of(steep({"ema-10": 0.05})) if row["condition"][:3] == "con"]
    assert (loss["estimate"], worse["estimate"]) == pytest.approx((0.1, -0.1))
    assert (loss["unit"], training["unit"]) == ("nats", "pp") and training["estimate"] == pytest.approx(5)


# ---- where an arm stands -------------------------------------------------------------------------------------------


def test_arm_of_another_condition_is_taken_from_there(tmp_path):
    """Linear decay gains 7 points; `last@linear` against `last` at a constant rate is that gain."""
    how = lambda run, readout, split: steep({})(run, readout, split) + 0.07 * (run.schedule == "linear")
    with asked(tmp_path, {"arm": "last@linear", "conditions": ["constant"]}):
        (row,) = rows_of(how)
    assert row["estimate"] == pytest.approx(7) and row["verdict"] == "supported"
    assert row["networks"] == 2 * 3 * (3 + 5)


def test_arms_of_one_name_in_two_conditions_are_told_apart(tmp_path):
    """Their rates differ, one diverges and one lies on the edge: the row says so of the right one."""

    def how(run, readout, split):
        return steep({}, best=0.2 if run.schedule == "linear" else 0.1)(run, readout, split)

    lost = lambda run: run.schedule == "linear" and run.lr == 0.2 and run.seed in (1, 2)
    with asked(tmp_path, {"arm": "last@linear", "conditions": ["constant"]}):
        (row,) = rows_of(how, diverged=lost)
    assert row["rates"] == {"last@linear": 0.2, "last": 0.1}
    assert row["diverged"] == 2 and row["on_edge"]


def test_several_arms_to_stand_against_are_the_best_of_them(tmp_path):
    """Tail and ramp are 2 and 4 points above the last weights, the EMA 5: one point above the best."""
    gains = {"ema-10": 0.05, "tail-25": 0.02, "ema-ramp": 0.04}
    with asked(tmp_path, {"against": ["last", "tail", "ramp"]}, {"against": ["last"], "label": "last alone"}):
        rows = rows_of(steep(gains))
    assert [row["estimate"] for row in rows] == pytest.approx([1, 1, 5, 5])
    assert rows[0]["rates"] == {"ema": 0.1, "ramp": 0.1} and rows[0]["readouts"]["ramp"] == "ema-ramp"


def test_arm_against_itself_and_others_is_never_better_than_their_best(tmp_path):
    with asked(tmp_path, {"arm": "last", "against": ["last", "ema", "tail"], "rule": "at least"}):
        for how, word in ((steep({"ema-10": 0.05}), "refuted"), (steep({}), "supported")):
            rows = rows_of(how)
            assert all(row["estimate"] <= 1e-9 for row in rows) and {row["verdict"] for row in rows} == {word}


@pytest.mark.parametrize(("factor", "lost"), [(1.0, 10), (0.5, 20), (2.0, 0), (4.0, 0), (1.2, 10), (0.85, 10)])
def test_rate_of_the_other_side_times_a_factor(tmp_path, factor, lost):
    """The EMA's best rate is 0.2 and the last weights' 0.1; at the latter's, times a factor, the EMA loses.

    Between grid points the nearest stands in, if it is near.
    """

    def how(run, readout, split):
        averaged = readout.startswith("ema")
        return 0.6 + 0.3 * averaged - 0.1 * abs(np.log2(run.lr / (0.2 if averaged else 0.1)))

    with asked(tmp_path, {"rate": "against", "factor": factor}, {"label": "tuned"}):
        rows = rows_of(how)
    assert rows[0]["estimate"] == pytest.approx(30 - lost) and rows[-1]["estimate"] == pytest.approx(30)


def test_contrast_at_a_rate_that_was_not_run_is_no_row(tmp_path):
    """A grid has factors of 2: at 1.4 times the other side's rate there is nothing to compare."""
    with asked(tmp_path, {"rate": "against", "factor": 1.4}, {"label": "tuned"}):
        rows = rows_of(lambda run, readout, split: 0.6 - 0.1 * abs(np.log2(run.lr / 0.1)))
    assert [row["condition"] for row in rows] == ["constant, tuned", "linear, tuned"]


def test_an_arm_at_the_rate_of_the_other_is_chosen_as_the_other_is(tmp_path):
    """Whatever the arm's own tuning scores say, its candidates follow those it is compared with."""
    with asked(tmp_path, {"rate": "against"}):
        evidence = Evidence(result(toy_plan(), score), toy_plan())
        (cell, *_) = cells("toy")
        arm, against = sides(cell.contrast, evidence, "constant")
    assert [label.lr for label in arm.labels] == [label.lr for label in against.labels]
    assert (arm.scores.tuning == against.scores.tuning).all()
    assert (arm.scores.validation == against.scores.validation).all()


def test_fixed_rate_is_neither_tuned_nor_chosen(tmp_path):
    with asked(tmp_path, {"rate": 0.05}):
        rows = rows_of(steep({"ema-10": 0.05}))
    assert rows[0]["rates"] == {"ema": 0.05, "last": 0.1} and rows[0]["estimate"] == pytest.approx(5 - 10)


def test_fixed_rate_that_no_run_had_is_refused_with_those_that_were_run(tmp_path):
    with asked(tmp_path, {"rate": 0.003}), pytest.raises(ValueError, match=r"none of the rates \[0\.05, 0\.1, 0\.2\]"):
        rows_of(score)


def test_difference_of_differences_takes_the_same_contrast_elsewhere_away(tmp_path):
    """The EMA gains 8 points at a constant rate and 3 with decay."""
    gain = {"constant": 0.08, "linear": 0.03}
    how = lambda run, readout, split: steep({"ema-10": gain[run.schedule]})(run, readout, split)
    with asked(tmp_path, {"conditions": ["constant"], "minus": "linear"}):
        (row,) = rows_of(how)
        assert row["estimate"] == pytest.approx(5) and row["networks"] == 2 * 3 * (3 + 5)
        contrast = next(cells("toy")).contrast
        evidence = Evidence(result(toy_plan(), score), toy_plan())
        plain = contrast.model_copy(update={"minus": None})
        here, there = (estimate(plain, evidence, condition, 0.95) for condition in gain)
        both = estimate(contrast, evidence, "constant", 0.95)
    assert both.value == pytest.approx(here.value - there.value)
    squares = [(found.high - found.low) ** 2 for found in (here, there, both)]
    assert squares[0] + squares[1] == pytest.approx(squares[2])


# ---- ratios and other tunings --------------------------------------------------------------------------------------


def test_ratio_is_shown_as_a_factor_with_null_one(tmp_path):
    """EMA runs spread 2 points around their mean, last weights 4: half the spread is a factor of 2."""

    def how(run, readout, split):
        lost = 0.1 * abs(np.log2(run.lr / 0.1))
        return 0.6 - lost + (0.02 if readout.startswith("ema-") else 0.04) * ((run.seed % 5) - 2) / 2

    with asked(tmp_path, {"measure": "seed spread", "margins": {TASK: 1.15}}):
        rows = rows_of(how)
        assert rows[0]["estimate"] == pytest.approx(2) and rows[0]["null"] == 1.0 and rows[0]["unit"] == "×"
        assert 0 < rows[0]["ci_low"] <= rows[0]["estimate"] <= rows[0]["ci_high"]
        made = result(toy_plan(), how)
        found = estimate(next(cells("toy")).contrast, Evidence(made, toy_plan()), "constant", rows[0]["level"])
    assert (np.log(rows[0]["ci_low"]), np.log(rows[0]["ci_high"])) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "supported"), (1 / 1.5, "refuted"), (1.05, "no difference")])
def test_margin_of_a_ratio_is_a_factor_both_ways(tmp_path, factor, verdict):
    """Mean distances stand in this ratio, with hardly any noise; margin 1.15 times."""

    def orbit(run):
        for readout in ("last", "tail-25"):
            value = 3.0 * (factor if readout == "last" else 1.0) * (1 + 1e-4 * noise(run.seed, readout))
            yield readout, "distance to the tail mean", None, value

    told = {"arm": "tail", "measure": "distance to the tail mean", "margins": {TASK: 1.15}}
    with asked(tmp_path, told, size={"probes": ["orbit"]}):
        rows = rows_of(steep({}), probed=orbit)
    assert {row["verdict"] for row in rows} == {verdict}
    assert rows[0]["estimate"] == pytest.approx(factor, rel=1e-3)


def test_steps_to_a_target_are_tuned_by_themselves_and_compared_as_ratios(tmp_path):
    """Accuracy is best at the centre; the target is reached soonest at twice that rate, in half the updates there."""

    def at_target(run):
        for readout in ("last",):
            place = round(np.log2(run.lr / 0.1))
            yield readout, "steps to target", None, (30 - 10 * place) / (2 if run.optimizer == "adam" else 1)

    arms = {"momentum": {}, "adam": {"optimizer": "adam"}}
    told = {"arm": "adam", "against": "momentum", "measure": "steps to target", "margins": {TASK: 1.15}}
    fields = {"arms": arms, "tune_by": ["accuracy", "steps to target"], "targets": {TASK: 0.99}, "secondary": []}
    with asked(tmp_path, told, {**told, "measure": "accuracy", "label": "accuracy", "margins": {TASK: 1}}, **fields):
        made = result(toy_plan(), steep({}), probed=at_target)
        ours = made.measures.drop_duplicates(["run", "readout", "measure"])  # the probe's, not the curve's
        rows = judge_all("toy", made._replace(measures=ours), NOTE, TASK)
    steps, accuracy = rows[0], rows[2]
    assert steps["rates"] == {"adam": 0.2, "momentum": 0.2} and steps["estimate"] == pytest.approx(2)
    assert accuracy["rates"] == {"adam": 0.1, "momentum": 0.1} and accuracy["estimate"] == pytest.approx(0)


# ---- what a row says besides ---------------------------------------------------------------------------------------


def test_diverged_report_runs_at_the_chosen_rates_are_counted_once_each(toy):
    """Seeds 0 and 3 diverge at every rate; tuning runs that diverge, or other rates, are not counted."""
    lost = lambda run: run.seed in (0, 3) or run.seed == 10_000
    apart = lambda run, readout, split: 0.6 - 0.02 * (np.log2(run.lr / 0.1) - readout.startswith("ema-")) ** 2
    for how, counted in ((score, 4), (apart, 4)):  # the arms choose one rate, or two
        rows = rows_of(how, diverged=lost)
        assert [row["diverged"] for row in rows] == [counted, counted]


def test_choice_on_the_edge_of_what_was_tried_is_marked(toy):
    rising = lambda run, readout, split: 0.5 + 0.05 * np.log2(run.lr / 0.1)
    assert all(row["on_edge"] for row in rows_of(rising))
    assert not any(row["on_edge"] for row in rows_of(score))


def test_better_test_scores_of_another_candidate_change_no_choice(toy):
    """Choosing looks at validation data of tuning seeds; the test score of a rate not chosen may be anything."""
    tempting = lambda run, readout, split: 0.99 if split == "test" and run.lr > 0.1 else score(run, readout, split)
    for how in (score, tempting):
        row = rows_of(how)[0]
        assert row["rates"] == {"ema": 0.1, "last": 0.1}


def test_result_without_report_runs_is_refused(toy):
    made = result(toy_plan(), score)
    tuning = made._replace(runs=made.runs[~made.runs.test])
    with pytest.raises(ValueError, match="no report runs of 'last' under 'linear'"):
        Evidence(tuning, toy_plan()).candidates("linear", "last")


def test_ties_go_to_the_lower_rate(toy):
    flat = lambda run, readout, split: 0.5
    assert Evidence(result(toy_plan(), flat), toy_plan()).candidates("constant", "last").chosen.lr == 0.05


def test_candidates_are_an_arms_own_readouts_at_rates_that_report_seeds_ran(toy):
    made = result(toy_plan(), score, half=2)
    lost = made.runs.test & (made.runs.lr > 0.2)
    evidence = Evidence(made._replace(runs=made.runs[~lost]), toy_plan())
    found = evidence.candidates("constant", "ema")
    assert {(c.lr, c.readout) for c in found.labels} == {
        (lr, name) for lr in (0.025, 0.05, 0.1, 0.2) for name in ARMS["ema"]
    }
    assert found.scores.report.shape == (5, 8) and found.scores.tuning.shape == (3, 8)


def test_rate_table_takes_each_arms_best_readout_per_rate_on_validation(toy):
    made = result(toy_plan(), score)
    table = rate_table(Evidence(made, toy_plan()), ["linear"])
    tuning, test = (table_by_hand(made, "linear", *how) for how in (("validation", False), ("test", True)))
    for lr in (0.05, 0.1, 0.2):
        best = max(("ema-10", "ema-30"), key=lambda name: fmean(tuning[lr, name].values()))
        part = table[(table.condition == "linear") & (table.lr == lr) & (table.arm == "ema")]
        assert set(part.readout) == {best}
        assert dict(zip(part.seed, part.accuracy, strict=True)) == pytest.approx(test[lr, best])


def test_sweep_table_holds_the_mean_of_every_candidate_over_tuning_seeds(toy):
    made = result(toy_plan(), score)
    table = sweep_table(Evidence(made, toy_plan())).set_index(["condition", "arm", "lr", "readout"]).score
    for schedule in ("constant", "linear"):
        for (lr, readout), seeds in table_by_hand(made, schedule, "validation", False).items():
            (arm,) = [name for name, readouts in ARMS.items() if readout in readouts]
            assert table[schedule, arm, lr, readout] == pytest.approx(fmean(seeds.values()), abs=0.006)


# ---- rows that arithmetic decides, or nothing yet ------------------------------------------------------------------


@cache
def exact(claim: str) -> list[dict]:
    return exact_rows(load_claims()[claim])


def test_exact_rows_say_what_arithmetic_gives_and_which_tests_hold_it():
    for claim in EXACT:
        rows = exact(claim)
        assert rows and len({row["condition"] for row in rows}) == len(rows), claim
        for row in rows:
            assert row["id"] == claim and row["task"] == "arithmetic"
            assert row["verdict"] in ("supported", "refuted", "no difference") and np.isfinite(row["estimate"])
            assert row["tests"], f"no test is marked with {claim}"
            assert row["n_seeds"] is row["ci_low"] is row["result"] is row["profile"] is None


def test_rows_that_were_not_run_never_vanish(monkeypatch):
    """With nothing judged, every contrast on every task and condition is there, and says so."""
    monkeypatch.setattr(judging, "EXACT", {})
    rows = all_rows([])
    wanted = [(c.claim.id, c.task, c.contrast.named(c.condition)) for e in load_study() for c in cells(e)]
    assert sorted((row["id"], row["task"], row["condition"]) for row in rows) == sorted(wanted)
    assert {row["verdict"] for row in rows} == {"not run"}
    assert all(row["estimate"] is None and row["margin"] > 0 for row in rows)


def test_judged_rows_stand_among_those_not_run_in_the_order_of_the_claims(tmp_path):
    told = [{"label": "a"}, {"label": "b", "conditions": ["linear"]}, {"label": "c", "measure": "churn"}]
    with asked(tmp_path, *told, size={"conditions": ["linear"]}):
        judged = rows_of(score)
        rows = all_rows(judged[::-1])
    assert [row["condition"] for row in judged] == ["linear, a", "linear, b"]
    assert [row["condition"] for row in rows] == ["constant, a", "linear, a", "linear, b", "constant, c", "linear, c"]
    assert [row["verdict"] == "not run" for row in rows] == [True, False, False, True, True]
    assert set(rows[0]) == set(rows[1])  # both have every column


def test_measure_that_an_older_result_has_not_is_not_judged(tmp_path):
    with asked(tmp_path, {"measure": "churn"}, {"label": "plain"}, size={"probes": ["predictions"]}):
        rows = rows_of(score)
    assert [row["measure"] for row in rows] == ["accuracy", "accuracy"]


def test_level_is_shared_by_all_planned_contrasts_of_a_chapter(tmp_path):
    """Rows whose measure is missing count too: what is primary was fixed before."""
    with asked(tmp_path, {"measure": "churn"}, {"label": "plain"}, size={"probes": ["predictions"]}):
        assert contrasts("toy", "laptop") == len(planned("toy", "laptop")) == 4
        assert {row["level"] for row in rows_of(score)} == {1 - 0.05 / 4}


# ---- what the book is given ----------------------------------------------------------------------------------------


@pytest.fixture
def published(toy, monkeypatch):
    monkeypatch.setattr(findings, "PUBLISHED", toy / "published")
    monkeypatch.setattr(findings, "ROOT", toy)
    return toy / "published"


def test_findings_hold_the_claims_rows_and_the_numbers_they_rest_on(toy, published):
    made = result(toy_plan(), score)
    keep(published / "toy" / TASK, made, "laptop", NOTE["result"])
    found = findings.findings("published")
    claim, rows = found["claims"]["ema-wins"], judge_all("toy", made, NOTE, TASK)
    assert claim["rows"] == rows and claim["source"] == "somewhere"
    assert claim["verdict"] == overall([row["verdict"] for row in rows])
    prefix, numbers = f"toy/{TASK}/constant/ema", found["results"]
    chosen = row_by_hand(made, "constant", draws=1)["chosen"]["ema"]
    test = table_by_hand(made, "constant", "test", True)[chosen]
    number, interval = numbers[f"{prefix}/accuracy"], stats.ttest_1samp(list(test.values()), 0).confidence_interval()
    assert (number["value"], number["low"], number["high"]) == pytest.approx((fmean(test.values()), *interval))
    assert numbers[f"{prefix}/rate"]["value"] == f"{chosen[0]:g}"
    for kind in ("tuned", "same-rate"):
        pair = numbers[f"{prefix}-last/{kind}"]
        assert pair["low"] <= pair["value"] <= pair["high"]
    assert numbers[f"claim/ema-wins/{TASK}/constant"]["value"] == rows[0]["estimate"]
    assert found["origin"]["networks"] == 1234 and found["origin"]["date"] == "2026-02-03"
    for name in ("finals", "runs", "quantiles", "measures", "receipt"):
        assert (toy / found["files"][NOTE["result"]][name]).exists()


@pytest.mark.parametrize(
    ("needs", "gains", "verdict"),
    [
        ("all", (0.05, 0.05), "supported"),
        ("all", (0.05, -0.05), "refuted"),
        ("all", (0.05, 0.0), "refuted"),
        ("common verdict", (0.05, 0.05), "supported"),
        ("common verdict", (0.05, 0.0), "mixed"),
    ],
)
def test_claim_that_needs_all_rows_falls_with_any(tmp_path, needs, gains, verdict):
    gain = dict(zip(("constant", "linear"), gains, strict=True))
    how = lambda run, readout, split: steep({"ema-10": gain[run.schedule], "ema-30": -1.0})(run, readout, split)
    with asked(tmp_path, {}, needs=needs):
        assert findings._claims(all_rows(rows_of(how)))["ema-wins"]["verdict"] == verdict


def test_conjunction_is_undecided_only_where_nothing_refutes():
    words = ("supported", "no difference", "refuted", "inconclusive")
    for one in words:
        for other in words:
            refuting = {"refuted", "no difference"} & {one, other}
            expected = "supported" if {one, other} == {"supported"} else "refuted" if refuting else "inconclusive"
            assert findings.conjunction([one, other]) == findings.conjunction([other, one]) == expected


def test_claim_without_results_is_not_run(toy, published):
    claim = findings._claims(all_rows([]))["ema-wins"]
    assert claim["verdict"] == "not run" and [row["verdict"] for row in claim["rows"]] == ["not run"] * 2
    with pytest.raises(FileNotFoundError, match=r"no results in .*make reproduce"):
        findings.findings("published")


@pytest.mark.parametrize(
    ("source", "profile", "sentence"),
    [
        ("mine", "desk", "source must be published or reproduced, got 'mine'"),
        ("reproduced", None, "profile must be one of .*None"),
    ],
)
def test_unknown_source_of_findings_is_refused(source, profile, sentence):
    with pytest.raises(ValueError, match=sentence):
        findings.folder(source, profile)


def test_contrast_without_a_rate_of_its_own_is_tuned():
    assert Contrast(arm="a", against="b", margins={TASK: 1.0}).rate == "tuned"
