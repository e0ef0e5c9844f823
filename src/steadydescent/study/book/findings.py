"""Findings: every number, verdict and file that the book may show, computed from results."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from steadydescent import verified
from steadydescent.checks import check_choice
from steadydescent.files import DamagedFile, completed, write_atomically
from steadydescent.study.judging.claims import load_claims, place
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.judge import (
    all_rows,
    evidence_of,
    judge_all,
    judged,
)
from steadydescent.study.judging.statistics import Estimate, overall, paired, tuned
from steadydescent.study.paths import EXPERIMENTS, GENERATED, PACKAGE, PUBLISHED, REPRODUCED, ROOT
from steadydescent.study.planning import PROFILES, load_study
from steadydescent.study.results import published
from steadydescent.study.results.provenance import packages
from steadydescent.study.results.receipts import untrue
from steadydescent.study.results.store import RECEIPT, Result, read_folder
from steadydescent.study.results.up_to_date import digest


def folder(source: str, profile: str | None) -> Path:
    """The folder that holds results: what was published, or one's own of a profile."""
    check_choice(source, ("published", "reproduced"), "source")
    if source == "published" and profile is None:
        return PUBLISHED
    check_choice(profile, PROFILES, "profile")
    return PUBLISHED if source == "published" else REPRODUCED / str(profile)


def results(root: Path) -> Iterator[tuple[str, str, Path, Result, dict[str, Any]]]:
    """Experiment, task, folder, tables and receipt of every result below `root`, verified.

    Raises: DamagedFile: for a file that is altered, stands in another's place, or is gone though it
        was made or published.
    """
    homes = list(_homes(root))
    if root == PUBLISHED:
        published.check(root)
        _refuse_strangers(root, {f"{name}/{task}" for name, task, _ in homes})
    for name, task, home in homes:
        if os.path.lexists(home):
            yield name, task, home, *_result(root, name, task)
        elif (root / "notebooks" / f"{name}-{task}.made-from").exists():
            raise DamagedFile(
                f"{home} is gone, though a run had finished it; {_again(root, name, task)}"
            )


def _homes(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Experiment, task and the folder below `root` for its result; a move that was cut short is
    finished first.
    """
    for name, experiment in load_study().items():
        for task in experiment.rates:
            yield name, task, completed(root / name / task)


def _refuse_strangers(root: Path, known: set[str]) -> None:
    """Refuse a published result that no experiment of the study owns: it would not be shown, nor
    missed.
    """
    owned = {
        place.rpartition("/")[0]
        for place in published.listed(root)
        if place.endswith(f"/{RECEIPT}")
    }
    if strangers := sorted(owned - known):
        raise DamagedFile(
            f"{root / strangers[0]} is refused: experiments/study.yml has no rates for it; put them back, "
            "or remove the result and its lines in the manifest"
        )


def _again(root: Path, name: str, task: str) -> str:
    """What makes a result anew."""
    return (
        published.MEND
        if root == PUBLISHED
        else f"`steady run --profile {root.name} --only {name}/{task}` makes it"
    )


def _result(root: Path, name: str, task: str) -> tuple[Result, dict[str, Any]]:
    """A result whose files are whole, and whose receipt is true of this place and of these tables."""
    home = root / name / task
    try:
        verified.check_inside(home, root)
        result, receipt = read_folder(home, Result)
    except DamagedFile as error:
        raise DamagedFile(f"{error}; {_again(root, name, task)}") from error
    if wrong := untrue(name, task, None if root == PUBLISHED else root.name, result, receipt):
        raise DamagedFile(f"{home / RECEIPT} is refused: {wrong}; {_again(root, name, task)}")
    size = load_study()[name].profiles.get(receipt["profile"], {}).get(task)
    if (
        size is None or size.steps != receipt["updates"]
    ):  # none of its runs would be found, and nobody would miss them
        asks = f"{size.steps} updates" if size else "nothing of the kind"
        raise ValueError(
            f"{home} was made in profile {receipt['profile']!r} with {receipt['updates']} updates, and "
            f"experiments/study.yml now asks for {asks}; take that change back, or run and publish it again"
        )
    return result, receipt


def rows(root: Path) -> list[dict[str, Any]]:
    """Every claim's rows: from the results below `root`, from arithmetic, and those that were not
    run.
    """
    told = [
        row
        for name, task, _, result, receipt in results(root)
        for row in judge_all(name, result, receipt, task)
    ]
    return all_rows(told)


def rows_kept(source: str, profile: str | None) -> list[dict[str, Any]]:
    """`rows`, kept beside one's own results, where these can be written, as long as nothing they
    rest on changes.

    What is kept holds the digest of its sources and of itself; damaged or older, it is computed
    again.
    """
    root = folder(source, profile)
    homes = [home for *_, home in _homes(root)]
    if root == PUBLISHED:
        published.check(root)
    sources = [PACKAGE, ROOT / "tests", EXPERIMENTS, *homes]
    made_from = digest(
        sources, [path.relative_to(root) for path in sorted(root.glob("*/*"))], packages()
    )
    kept = REPRODUCED / (
        "verdicts-published.json" if root == PUBLISHED else f"verdicts-{source}-{profile}.json"
    )
    with suppress(FileNotFoundError, DamagedFile):
        found = verified.read_sealed(kept)
        if found.get("made from") == made_from:
            return found["rows"]
    found = {"made from": made_from, "rows": verified.plain(rows(root))}
    with suppress(OSError):  # verdicts can be read where nothing can be written
        write_atomically(kept, verified.sealed(found))
    return found["rows"]


def findings(source: str, profile: str | None = None) -> dict[str, Any]:
    """What the book reads: origin, results, claims with their rows, files (see
    `steadydescent.study.book.sphinx`).
    """
    root = folder(source, profile)
    numbers: dict[str, dict[str, Any]] = {}
    files, receipts, told = {}, [], []
    for name, task, home, result, receipt in results(root):
        receipts.append(receipt)
        files[receipt["result"]] = _files(home, receipt)
        evidence = evidence_of(name, result, receipt, task)
        numbers |= _numbers(evidence, f"{name}/{task}") | _design(f"{name}/{task}", receipt)
        told += judged(evidence, receipt)
    if not receipts:
        raise FileNotFoundError(
            f"no results in {root}; run `make reproduce` first, or build the published book"
        )
    found = all_rows(told)
    for row in found:
        if row["estimate"] is not None:
            numbers[f"claim/{row['id']}/{row['task']}/{row['condition']}"] = _of_row(row)
    numbers |= _totals(receipts)
    return {
        "origin": _origin(source, receipts),
        "results": numbers,
        "claims": _claims(found),
        "files": files,
    }


def _number(value: float | str, unit: str = "", digits: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "value": value if isinstance(value, str) else float(value),
        "unit": unit,
        "digits": digits,
        **more,
    }


def _of_row(row: dict[str, Any]) -> dict[str, Any]:
    ends = {} if row["ci_low"] is None else {"low": row["ci_low"], "high": row["ci_high"]}
    return _number(
        row["estimate"],
        f" {row['unit']}".rstrip(),
        digits_for(row),
        signed=row["null"] == 0.0,
        **ends,
    )


def digits_for(row: dict[str, Any]) -> int:
    """Digits behind the point that show a row's margin and estimate as more than zero: 2, or more
    for small ones.
    """
    smallest = min(abs(x) for x in (row["margin"] or 1.0, 1.0))
    return 2 if smallest >= 0.05 else 3 if smallest >= 0.005 else 4


def _contrast(found: Estimate, unit: str) -> dict[str, Any]:
    return _number(found.value, unit, 2 if unit else 4, low=found.low, high=found.high, signed=True)


def _numbers(evidence: Evidence, prefix: str) -> dict[str, dict[str, Any]]:
    """Numbers of every arm at its tuned rate, and of the pairs that the experiment shows without a
    verdict.
    """
    out: dict[str, dict[str, Any]] = {}
    plan = evidence.plan
    for condition in plan.conditions:
        for arm in (arm for arm in plan.arms_in(condition) if evidence.reported(condition, arm)):
            out |= _of_arm(evidence, condition, arm, f"{prefix}/{condition}/{arm}")
    for pair in plan.experiment.secondary:
        for condition in plan.conditions if "@" not in "".join(pair) else ("",):
            places = [place(name, condition) for name in pair]
            if all(
                c in plan.conditions and a in plan.arms_in(c) and evidence.reported(c, a)
                for c, a in places
            ):
                name = (
                    f"{prefix}/{condition}/{pair[0]}-{pair[1]}"
                    if condition
                    else f"{prefix}/{pair[0]}-{pair[1]}"
                )
                out |= _of_pair(evidence, places, name)
    return out


def _of_arm(evidence: Evidence, condition: str, arm: str, prefix: str) -> dict[str, dict[str, Any]]:
    main = evidence.main_measure
    side = evidence.candidates(condition, arm, main)
    chosen, score = (
        side.chosen,
        lambda measure: _chosen_scores(evidence, condition, arm, measure, side),
    )
    out = {
        f"{prefix}/rate": _number(f"{chosen.lr:g}"),
        f"{prefix}/readout": _number(chosen.readout),
        f"{prefix}/diverged": _number(
            f"{evidence.diverged(condition, arm, chosen.lr)} of {len(side.scores.report)}"
        ),
    }
    if main == "height":
        height = paired(score("height"), 0.95)
        return out | {
            f"{prefix}/height": _number(height.value, "", 4, low=height.low, high=height.high)
        }
    accuracy = paired(score("accuracy"), 0.95)
    gap = paired(score("training accuracy") - score("accuracy"), 0.95)
    return out | {
        f"{prefix}/accuracy": _number(
            accuracy.value, " %", 2, low=accuracy.low, high=accuracy.high
        ),
        f"{prefix}/seed-sd": _number(accuracy.sd, " pp", 2),
        f"{prefix}/gap": _number(gap.value, " pp", 2, low=gap.low, high=gap.high),
        f"{prefix}/loss": _number(score("loss").mean(), "", 3),
        f"{prefix}/calibration": _number(score("calibration error").mean(), " pp", 1),
    }


def _chosen_scores(
    evidence: Evidence, condition: str, arm: str, measure: str, side: Candidates
) -> np.ndarray:
    """Report scores in a measure, `[S]`, of the candidate that tuning chose."""
    return evidence.report(condition, arm, measure)[side.chosen.lr, side.chosen.readout].to_numpy()


def _of_pair(
    evidence: Evidence, places: list[tuple[str, str]], name: str
) -> dict[str, dict[str, Any]]:
    """Their difference as tuned, and at the rate that suits the second, so that nothing else
    differs.
    """
    main = evidence.main_measure
    unit = "" if main == "height" else " pp"
    arm, against = (evidence.candidates(*where, main) for where in places)
    out = {f"{name}/tuned": _contrast(tuned(arm.scores, against.scores, 0.95), unit)}
    lr = against.chosen.lr
    if lr in {label.lr for label in arm.labels}:
        ours, theirs = (
            side.only(label.lr == lr for label in side.labels).scores for side in (arm, against)
        )
        out[f"{name}/same-rate"] = _contrast(tuned(ours, theirs, 0.95), unit)
    return out


def _design(prefix: str, receipt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    target = receipt.get("target")
    return ({} if target is None else {f"{prefix}/target": _number(target, "", 2)}) | {
        f"{prefix}/updates": _number(f"{receipt['updates']:,}".replace(",", " ")),
        f"{prefix}/networks": _number(f"{receipt['networks']:,}".replace(",", " ")),
        f"{prefix}/tuning-seeds": _number(str(receipt["seeds"]["tuning"])),
        f"{prefix}/report-seeds": _number(str(receipt["seeds"]["report"])),
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
        "device": "; ".join(
            sorted({kind for receipt in receipts for kind in receipt["trained_on"]})
        ),
        "minutes": round(sum(receipt["seconds"] for receipt in receipts) / 60, 1),
        "date": newest["date"][:10],
        "commit": newest["commit"],
        "command": newest["command"],
    }


def _claims(found: list[dict[str, Any]]) -> dict[str, Any]:
    out = {}
    for claim in load_claims().values():
        mine = [row for row in found if row["id"] == claim.id]
        words = [row["verdict"] for row in mine if row["verdict"] != "not run"]
        out[claim.id] = {
            "title": claim.title,
            "source": ", ".join(claim.source),
            "sentence": claim.sentence,
            "scope": claim.scope,
            "test": claim.test,
            "experiment": claim.experiment,
            "rows": mine,
            "verdict": conjunction(words) if claim.needs == "all" else overall(words),
        }
    return out


def conjunction(verdicts: list[str]) -> str:
    """The verdict on a claim that needs every row: refuted as soon as one row refutes it or finds
    no difference.

    >>> conjunction(["supported", "no difference"]), conjunction(["supported", "inconclusive"]), conjunction([])
    ('refuted', 'inconclusive', 'not run')
    """
    if not verdicts or set(verdicts) == {"supported"}:
        return overall(verdicts)
    return "refuted" if {"refuted", "no difference"} & set(verdicts) else "inconclusive"


def _files(place: Path, receipt: dict[str, Any]) -> dict[str, str]:
    relative = lambda name: str((place / name).relative_to(ROOT))
    return {
        "bibtex": bibtex(receipt),
        "receipt": relative("receipt.json"),
        **{kind: relative(f"{kind}.parquet") for kind in Result._fields},
    }


def _generated() -> dict[str, Any]:
    return verified.read_sealed(GENERATED / "findings.json")


def rows_shown(experiment: str = "") -> list[dict[str, Any]]:
    """Rows with an estimate, of an experiment's claims or of all, in the book being built; for its
    pages' cells.
    """
    claims = _generated()["claims"].values()
    rows = [
        row | {"title": c["title"]}
        for c in claims
        if experiment in ("", c["experiment"])
        for row in c["rows"]
    ]
    return [row for row in rows if row["estimate"] is not None]


def numbers_shown() -> dict[str, dict[str, Any]]:
    """Result numbers of the book being built, by key."""
    return _generated()["results"]


class Shown(NamedTuple):
    """One result as the pages of a book use it."""

    evidence: Evidence
    receipt: dict[str, Any]

    @property
    def id(self) -> str:
        return self.receipt["result"]


def shown(experiment: str) -> dict[str, Shown]:
    """Task → what the book being built shows of an experiment; for the cells of its pages."""
    found = {}
    for name, entry in _generated()["files"].items():
        home = (ROOT / entry["receipt"]).parent
        if home.parent.name == experiment:
            result, receipt = _result(home.parents[1], experiment, home.name)
            if receipt["result"] != name:
                raise DamagedFile(
                    f"{home} is {receipt['result']}, but the book is being built of {name}; build it anew"
                )
            found[home.name] = Shown(evidence_of(experiment, result, receipt, home.name), receipt)
    return found


def verdict_table(found: dict[str, Any]) -> str:
    """Every claim's verdict as a Markdown table."""
    lines = ["| claim | said by | verdict | rows |", "|---" * 4 + "|"]
    for claim in found.values():
        counted = Counter(row["verdict"] for row in claim["rows"])
        rows = ", ".join(f"{number} {word}" for word, number in counted.items())
        lines.append(f"| {claim['title']} | {claim['source']} | **{claim['verdict']}** | {rows} |")
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
    """Write findings as sealed JSON, for the book to read."""
    write_atomically(path, verified.sealed(found))
