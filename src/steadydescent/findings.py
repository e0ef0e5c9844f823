"""Findings: every number, verdict and file that the book may show, computed from results."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steadydescent.claims import Arms, Claim, judge_all, load_claims
from steadydescent.paths import GENERATED, PUBLISHED, REPRODUCED, ROOT
from steadydescent.results import Result, read_folder
from steadydescent.statistics import Estimate, overall, paired, tuned
from steadydescent.study import PROFILES, load_study

SECONDARY = [("checkpoints", "ema"), ("tail", "ema"), ("ramp", "ema")]
"""Contrasts that are shown and bear no verdict."""


def folder(source: str, profile: str | None) -> Path:
    """The folder that holds results: what was published, or one's own of a profile."""
    if source == "published":
        return PUBLISHED
    if source != "reproduced":
        raise ValueError(f"source must be published or reproduced, got {source!r}")
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")
    return REPRODUCED / profile


def results(root: Path) -> Iterator[tuple[str, str, Path, Result, dict[str, Any]]]:
    """Experiment, task, folder, tables and receipt of every result below `root`, verified."""
    for name, experiment in load_study().items():
        for task in experiment.rates:
            if (root / name / task / "receipt.json").exists():
                yield name, task, root / name / task, *read_folder(root / name / task, Result)


def rows(root: Path) -> list[dict[str, Any]]:
    """Every claim's rows from the results below `root`."""
    found = []
    for name, task, _, result, receipt in results(root):
        found += judge_all(name, result, receipt, task)
    order = list(load_claims())
    return sorted(found, key=lambda row: order.index(row["id"]))


def findings(source: str, profile: str | None = None) -> dict[str, Any]:
    """What the book reads: origin, results, claims with their rows, files (see `steadydescent.book`)."""
    root = folder(source, profile)
    numbers: dict[str, dict[str, Any]] = {}
    files, receipts = {}, []
    for name, task, place, result, receipt in results(root):
        receipts.append(receipt)
        files[receipt["result"]] = _files(place, receipt)
        for schedule in load_study()[name].schedules:
            numbers |= _numbers(Arms(result, load_study()[name], schedule), f"{task}/{schedule}")
        numbers |= _across(result, name, task)
        numbers |= _design(task, receipt)
    if not receipts:
        raise FileNotFoundError(f"no results in {root}; run `make reproduce` first, or build the published book")
    judged = rows(root)
    for row in judged:
        numbers[f"claim/{row['id']}/{row['task']}/{row['condition']}"] = _number(
            row["estimate"], " pp", 2, low=row["ci_low"], high=row["ci_high"], signed=True
        )
    numbers |= _totals(receipts)
    if source == "reproduced":  # what the prose quotes and this profile did not run
        missing = set(findings("published")["results"]) - set(numbers) if any(results(PUBLISHED)) else set()
        numbers |= {key: {"value": None} for key in missing}
    return {"origin": _origin(source, receipts), "results": numbers, "claims": _claims(judged), "files": files}


def _number(value: float | str, unit: str = "", digits: int = 2, **more: Any) -> dict[str, Any]:
    return {"value": value if isinstance(value, str) else float(value), "unit": unit, "digits": digits, **more}


def _contrast(found: Estimate) -> dict[str, Any]:
    return _number(found.value, " pp", 2, low=found.low, high=found.high, signed=True)


def _numbers(arms: Arms, prefix: str) -> dict[str, dict[str, Any]]:
    """Numbers of every arm at its tuned rate, and of every arm against another."""
    out: dict[str, dict[str, Any]] = {}
    for arm in arms.experiment.arms:
        lr, readout = arms.chosen(arm)
        test, train = arms.scores(arm), arms.scores(arm, split="train")
        pick = test.chosen()
        accuracy = paired(test.report[:, pick], 0.95)
        gap = paired(train.report[:, pick] - test.report[:, pick], 0.95)
        out |= {
            f"{prefix}/{arm}/rate": _number(f"{lr:g}"),
            f"{prefix}/{arm}/readout": _number(readout),
            f"{prefix}/{arm}/accuracy": _number(accuracy.value, " %", 2, low=accuracy.low, high=accuracy.high),
            f"{prefix}/{arm}/seed-sd": _number(accuracy.sd, " pp", 2),
            f"{prefix}/{arm}/gap": _number(gap.value, " pp", 2, low=gap.low, high=gap.high),
            f"{prefix}/{arm}/loss": _number(arms.scores(arm, "loss").report[:, pick].mean(), "", 3),
            f"{prefix}/{arm}/calibration": _number(
                arms.scores(arm, "calibration_error").report[:, pick].mean(), " pp", 1
            ),
            f"{prefix}/{arm}/diverged": _number(f"{arms.diverged(lr)} of {accuracy.n}"),
        }
    last, rate = arms.scores("last"), arms.chosen("last")[0]
    for arm in set(arms.experiment.arms) - {"last"}:
        # at the rate that suits the last weights, so that only the readout differs
        same = tuned(arms.scores(arm, lr=rate), arms.scores("last", lr=rate), 0.95)
        out[f"{prefix}/{arm}-last/same-rate"] = _contrast(same)
        out[f"{prefix}/{arm}-last/tuned"] = _contrast(tuned(arms.scores(arm), last, 0.95))
    for arm, other in SECONDARY:
        out[f"{prefix}/{arm}-{other}/tuned"] = _contrast(tuned(arms.scores(arm), arms.scores(other), 0.95))
    return out


def _across(result: Result, name: str, task: str) -> dict[str, dict[str, Any]]:
    """How much decay an average replaces: constant rate with EMA, or alone, against linear decay alone."""
    experiment = load_study()[name]
    constant, linear = (Arms(result, experiment, schedule) for schedule in ("constant", "linear"))
    decayed = linear.scores("last")
    return {
        f"{task}/constant-{arm}-linear-last": _contrast(tuned(constant.scores(arm), decayed, 0.95))
        for arm in ("ema", "last")
    }


def _design(task: str, receipt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{task}/updates": _number(f"{receipt['updates']:,}".replace(",", " ")),
        f"{task}/networks": _number(f"{receipt['networks']:,}".replace(",", " ")),
        f"{task}/tuning-seeds": _number(str(receipt["seeds"]["tuning"])),
        f"{task}/report-seeds": _number(str(receipt["seeds"]["report"])),
    }


def _totals(receipts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    networks = sum(receipt["networks"] for receipt in receipts)
    return {
        "networks": _number(f"{networks:,}".replace(",", " ")),
        "minutes": _number(sum(receipt["seconds"] for receipt in receipts) / 60, " min", 0),
    }


def _origin(source: str, receipts: list[dict[str, Any]]) -> dict[str, Any]:
    newest = max(receipts, key=lambda receipt: receipt["date"])
    profiles = sorted({receipt["profile"] for receipt in receipts}, key=PROFILES.index)
    return {
        "source": source,
        "profile": profiles[0] if len(profiles) == 1 else ", ".join(profiles),
        "networks": int(np.sum([receipt["networks"] for receipt in receipts])),
        "device": "; ".join(sorted({kind for receipt in receipts for kind in receipt["trained_on"]})),
        "minutes": round(sum(receipt["seconds"] for receipt in receipts) / 60, 1),
        "date": newest["date"][:10],
        "commit": newest["commit"],
        "command": newest["command"],
    }


def _claims(found: list[dict[str, Any]]) -> dict[str, Any]:
    out = {}
    for claim in load_claims().values():
        mine = [row for row in found if row["id"] == claim.id]
        verdict = overall([row["verdict"] for row in mine])
        mine += _not_run(claim, {(row["task"], row["condition"]) for row in mine})
        out[claim.id] = {
            "title": claim.title, "source": ", ".join(claim.source), "sentence": claim.sentence, "scope": claim.scope,
            "test": claim.test, "verdict": verdict, "rows": mine,
        }  # fmt: skip
    return out


def _not_run(claim: Claim, have: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows that say of a task and schedule that these results do not hold it."""
    empty = dict.fromkeys(("estimate", "ci_low", "ci_high", "n_seeds", "diverged", "seeds_needed", "result", "level"))
    return [
        empty | {"id": claim.id, "scope": claim.scope, "task": task, "condition": schedule, "measure": claim.measure,
                 "verdict": "not run", "unit": "pp", "margin": margin, "rates": {}, "readouts": {}}
        for task, margin in claim.margins.items()
        for schedule in load_study()[claim.experiment].schedules
        if (task, schedule) not in have
    ]  # fmt: skip


def _files(place: Path, receipt: dict[str, Any]) -> dict[str, str]:
    relative = lambda name: str((place / name).relative_to(ROOT))
    return {
        "bibtex": bibtex(receipt),
        "receipt": relative("receipt.json"),
        **{kind: relative(f"{kind}.parquet") for kind in Result._fields},
    }


def _generated() -> dict[str, Any]:
    return json.loads((GENERATED / "findings.json").read_text(encoding="utf-8"))


def rows_shown() -> list[dict[str, Any]]:
    """Rows of every claim in the book being built that have an estimate, for the cells of its pages."""
    return [row for claim in _generated()["claims"].values() for row in claim["rows"] if row["estimate"] is not None]


def numbers_shown() -> dict[str, dict[str, Any]]:
    """Result numbers of the book being built, by key."""
    return _generated()["results"]


def shown(experiment: str) -> dict[str, tuple[Result, dict[str, Any]]]:
    """Task → result and receipt of what the book being built shows; for the cells of its pages."""
    places = [ROOT / entry["receipt"] for entry in _generated()["files"].values()]
    return {p.parent.name: read_folder(p.parent, Result) for p in places if p.parent.parent.name == experiment}


def verdict_table(found: list[dict[str, Any]]) -> str:
    """The claims' rows as a Markdown table, for README."""
    lines = ["| claim | task | rate | difference, interval | margin | seeds | verdict |", "|---" * 7 + "|"]
    for row in found:
        interval = f"{row['estimate']:+.2f} pp, {row['ci_low']:+.2f} to {row['ci_high']:+.2f}"
        cells = [load_claims()[row["id"]].title, row["task"], row["condition"], interval.replace("-", "−")]
        cells += [f"±{row['margin']:g}", str(row["n_seeds"]), f"**{row['verdict']}**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bibtex(receipt: dict[str, Any]) -> str:
    """A BibTeX entry for one result."""
    name = receipt["result"]
    key = name.replace("/", "-").replace("@", "-")
    return (
        f"@misc{{steadydescent-{key},\n"
        f"  author = {{{{The Steady Descent contributors}}}},\n"
        f"  title  = {{Steady Descent, result {name}}},\n"
        f"  year   = {{{receipt['date'][:4]}}},\n"
        f"  note   = {{Profile {receipt['profile']}, {receipt['networks']} networks, commit {receipt['commit']}}}\n"
        "}"
    )


def write(path: Path, found: dict[str, Any]) -> None:
    """Write findings as JSON, for the book to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
