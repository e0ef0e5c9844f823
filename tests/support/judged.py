"""Made-up results of the small study, and what a slow computation by hand makes of them."""

import zlib
from collections import Counter
from statistics import fmean

import numpy as np

from fabricated import (
    LAPTOP,
    SMALL_CLAIM,
    SMALL_CONTRAST,
    SMALL_EXPERIMENT,
    evidence_of,
    experiments_from,
    receipt,
    result,
    write_experiments,
)
from steadydescent.study.judging.contrasts import CONTRASTS, Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.judge import judge_all
from steadydescent.study.judging.statistics import Estimate
from steadydescent.study.planning import Experiment, Plan, load_study
from steadydescent.study.results.store import Result

TASK = "mnist1d-mlp"
ARMS = {name: arm["readouts"] for name, arm in SMALL_EXPERIMENT["arms"].items()}
NOTE = receipt("laptop", "toy/mnist1d-mlp@12345678")


def asked(folder, *contrasts: dict, size: dict | None = None, **fields):
    """The small study with other fields, and one claim whose rows are all primary, of these
    contrasts, of `ema` against `last` where unsaid.
    """
    told = {"profiles": {"laptop": {TASK: LAPTOP | (size or {})}}} | fields
    everywhere = {"conditions": list(fields.get("conditions", SMALL_EXPERIMENT["conditions"]))}
    made = [SMALL_CONTRAST | everywhere | contrast for contrast in contrasts]
    claims = [SMALL_CLAIM | {"primary": levels(made)}] if made else []
    write_experiments(folder, SMALL_EXPERIMENT | told, claims)
    return experiments_from(folder)


def levels(contrasts: list[dict]) -> list[dict]:
    """Contrasts as primary ones: one for each condition, each with its `when` if they are many."""
    apart = [c | {"conditions": [name]} for c in contrasts for name in c["conditions"]]
    if len(apart) == 1:
        return apart
    return [c | {"when": f"level {number}"} for number, c in enumerate(apart)]


def toy_plan(profile: str = "laptop") -> Plan:
    return Plan(experiment=load_study()["toy"], task=TASK, profile=profile)


def rows_of(how, **more) -> list[dict]:
    """Rows of the toy's claims on a result that is scored so."""
    return rows_on(toy_evidence(result(toy_plan(), how, **more)))


def rows_on(evidence: Evidence) -> list[dict]:
    """Rows of the claims that evidence answers."""
    return [row.as_dict() for row in judge_all(evidence)]


def toy_evidence(made: Result, profile: str = "laptop") -> Evidence:
    """A result of the toy, made in this profile."""
    return evidence_of(made, toy_plan(profile))


def arms_plan(arms: dict, task: str = TASK, **fields) -> Plan:
    """A plan of these arms under a constant rate, on a grid of five rates around 0.1."""
    told = {"arms": arms, "conditions": {"constant": {"schedule": "constant"}}, "secondary": []}
    rates = {"rates": {task: {"center": 0.1, "ratio": 2, "points": 5}}}
    sizes = {"profiles": {"laptop": {task: LAPTOP | {"ramps": [100, 400]}}}}
    experiment = Experiment(name="toy", **(SMALL_EXPERIMENT | told | rates | sizes | fields))
    return Plan(experiment=experiment, task=task, profile="laptop")


def peak(run, readout: str, split: str) -> float:
    """Accuracy falls by 2 points a grid step from 0.1, and by seed a little."""
    return 0.7 - 0.02 * abs(np.log2(run.lr / 0.1)) + 1e-3 * (run.seed % 7)


def contrast_of(kind: str, arm: object = "last", **options) -> Contrast:
    """A contrast of a kind with its options, read as files are, under a constant rate."""
    usual = {"conditions": ["constant"], "margins": {TASK: 1.0}, "measure": "accuracy"}
    usual |= {"rule": "superiority", "registered": "2026-01-02"}
    usual |= {"better": True, "rate": "tuned"} if kind == "tuned" else {}
    return CONTRASTS[kind](**(usual | {"arm": arm} | options))


def estimated(kind: str, evidence: Evidence, arm: str = "last", **options) -> Estimate:
    """What a contrast of a kind estimates under a constant rate, with an interval of 95 %."""
    return contrast_of(kind, arm, **options).estimate(evidence, "constant", 0.95)


def noise(*what: object) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(what).encode())).normal())


def score(run, readout: str, split: str) -> float:
    """Best at the centre of the grid, EMA 3 points above the last weights, a point of noise a seed
    and candidate.
    """
    bonus = {"ema-10": 0.03, "ema-30": 0.02}.get(readout, 0.0)
    place = np.log2(run.lr / 0.1)
    return (
        0.6 + bonus - 0.02 * place**2 + 0.01 * noise(run.seed, run.lr, readout, split, run.schedule)
    )


def steep(gain: dict[str, float], best: float = 0.1):
    """No noise at all: each readout has its gain, and every grid point away from the best rate
    costs 10 points.
    """
    return lambda run, readout, split: (
        0.6 + gain.get(readout, 0.0) - 0.1 * abs(np.log2(run.lr / best))
    )


def planted(gain: float, spread: float):
    """The EMA is the last weights plus a gain; each has a noise of this spread; the margin is 1
    point.
    """

    def made(run, readout, split):
        averaged = readout.startswith("ema-")
        lost = 0.0 if run.lr == 0.1 else 0.1
        return 0.6 - lost + gain * averaged + spread * noise(run.seed, run.lr, averaged, split)

    return made


def table_by_hand(made, schedule: str, split: str, report: bool) -> dict:
    """(rate, readout) → {seed: percent}, row by row."""
    runs = {
        row.run: row
        for row in made.runs.itertuples()
        if row.schedule == schedule and row.test == report
    }
    found = {}
    for row in made.finals.itertuples():
        if row.run in runs and row.split == split:
            found.setdefault((runs[row.run].lr, row.readout), {})[runs[row.run].seed] = (
                100 * row.accuracy
            )
    return found


def row_by_hand(made, schedule: str, draws: int = 6_000) -> dict:
    """Estimate, standard error and choices of ema − last, with plain loops and lists.

    Each draw is another tuning, of as many seeds as tuning had, from those of tuning and of
    reports, which have validation scores too; seeds pull by their own scores and by their part in
    the choice.
    """
    tables = {
        "tuning": ("validation", False),
        "known": ("validation", True),
        "test": ("test", True),
    }
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
    choice = {
        s: fmean((d - value) * count[s] for d, count in zip(drawn, counts, strict=True))
        for s in [*old, *new]
    }
    variance = m / (m - 1) * sum(choice[s] ** 2 for s in old)
    variance += n / (n - 1) * (sum(own[s] ** 2 + choice[s] ** 2 for s in new))
    variance += n / (n - 1) * max(0.0, 2 * sum(own[s] * choice[s] for s in new))
    return {
        "estimate": value,
        "error": variance**0.5,
        "n": n,
        "chosen": {a: best(a, old) for a in candidates},
    }
