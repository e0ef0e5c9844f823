"""The numbers that prose may quote, each with its unit, its digits and perhaps an interval."""

from typing import Any

import numpy as np

from steadydescent.study.book.words import digits_for, thousands
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Estimate, paired, tuned
from steadydescent.study.results.receipts import run_counts


def _number(value: float | str, unit: str = "", digits: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "value": value if isinstance(value, str) else float(value),
        "unit": unit,
        "digits": digits,
        **more,
    }


def row_number(row: dict[str, Any]) -> dict[str, Any]:
    ends = {} if row["ci_low"] is None else {"low": row["ci_low"], "high": row["ci_high"]}
    return _number(
        row["estimate"],
        f" {row['unit']}".rstrip(),
        digits_for(row),
        signed=row["null"] == 0.0,
        **ends,
    )


def _contrast(estimate: Estimate, unit: str) -> dict[str, Any]:
    low, high = estimate.low, estimate.high
    return _number(estimate.value, unit, 2 if unit else 4, low=low, high=high, signed=True)


def numbers_of(evidence: Evidence, prefix: str) -> dict[str, dict[str, Any]]:
    """Numbers of every arm at its tuned rate, and of the pairs that the experiment shows without a
    verdict.
    """
    out: dict[str, dict[str, Any]] = {}
    for condition in evidence.conditions:
        for arm in evidence.arms_in(condition):
            out |= _of_arm(evidence, condition, arm, f"{prefix}/{condition}/{arm}")
    for pair in evidence.design.secondary:
        # a pair whose arms name their conditions stands once, others under every condition
        for condition in ("",) if any(arm.condition for arm in pair) else evidence.conditions:
            places = [(named.condition or condition, named.arm) for named in pair]
            if all(arm in evidence.arms_in(own) for own, arm in places):
                name = "-".join(named.text for named in pair)
                out |= _of_pair(evidence, places, "/".join(filter(None, (prefix, condition, name))))
    return out


def _of_arm(evidence: Evidence, condition: str, arm: str, prefix: str) -> dict[str, dict[str, Any]]:
    main = evidence.main_measure
    chosen = evidence.chosen(condition, arm, main)
    score = lambda measure: _chosen_scores(evidence, condition, arm, measure, chosen)
    reported = len(evidence.report(condition, arm, main))
    out = {
        f"{prefix}/rate": _number(f"{chosen.lr:g}"),
        f"{prefix}/readout": _number(chosen.readout),
        f"{prefix}/diverged": _number(
            f"{evidence.diverged(condition, arm, chosen.lr)} of {reported}"
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
    evidence: Evidence, condition: str, arm: str, measure: str, chosen: Candidate
) -> np.ndarray:
    """Report scores in a measure, `[S]`, of the candidate that tuning chose."""
    return evidence.report(condition, arm, measure)[chosen.lr, chosen.readout].to_numpy()


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
            side.only((label.lr == lr for label in side.labels), "the rate").scores
            for side in (arm, against)
        )
        out[f"{name}/same-rate"] = _contrast(tuned(ours, theirs, 0.95), unit)
    return out


def design_numbers(prefix: str, receipt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    target = receipt.get("target")
    return ({} if target is None else {f"{prefix}/target": _number(target, "", 2)}) | {
        f"{prefix}/updates": _number(thousands(receipt["updates"])),
        **{f"{prefix}/{kind}": _number(thousands(n)) for kind, n in run_counts([receipt]).items()},
        f"{prefix}/tuning-seeds": _number(str(receipt["seeds"]["tuning"])),
        f"{prefix}/report-seeds": _number(str(receipt["seeds"]["report"])),
    }


def totals(receipts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    counts = run_counts(receipts)
    return {kind: _number(thousands(count)) for kind, count in counts.items()} | {
        "minutes": _number(sum(receipt["seconds"] for receipt in receipts) / 60, " min", 0),
    }
