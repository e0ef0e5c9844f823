"""What a row says beside its estimate: what was chosen how often, and what that leaves open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.edges import edge_shares
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.statistics import Array, Statistic, paired, pseudo_values

SHOWN = 0.05
"""Candidates that a smaller share of redraws chooses are not listed."""
CHOSEN = 0.1
"""Candidates that a smaller share of redraws chooses do not make a row depend on the choice."""
MOST_CENSORED = 0.1
"""Share of report runs that may miss their target before a ratio of updates is a bound."""


@dataclass(frozen=True)
class Remarks:
    """What a contrast has to say of its row.

    `edge_share` is the largest share of redraws on one edge (`edges`), `choices` what redraws
    choose, by arm: lr, readout and share of each candidate with at least 5 %. `censored_share` is
    the redraw-weighted share of report runs that do not hold their target, the larger of both
    sides, and `arrivals` the share that does, by arm. `bound` says that the estimate is one;
    `decides` is false where the word must be open whatever the interval. `test_set_sampled` says
    whether the interval holds the sampling of the test set, None where there is none. `reason` says
    why a row is not answerable or not decided; `undecided` does where its word is open and no
    number of report seeds says what would decide it.
    """

    edge_share: float | None = None
    censored_share: float | None = None
    bound: Literal["", "at least", "at most"] = ""
    choices: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    test_set_sampled: bool | None = None
    reason: str = ""
    arrivals: Mapping[str, float] = field(default_factory=dict)
    decides: bool = True
    undecided: str = ""


class SideInRow(NamedTuple):
    """One side of a contrast as a row speaks of it: candidates, and arms' names in the row."""

    names: Sequence[str]
    found: Candidates

    @property
    def distribution(self) -> dict[str, list[dict[str, Any]]]:
        """Arm → what redraws choose, most often first."""
        told: dict[str, dict[Candidate, float]] = {}
        for name, label, share in zip(
            self.names, self.found.labels, self.found.weights, strict=True
        ):
            mine = told.setdefault(name, {})
            mine[label] = mine.get(label, 0.0) + float(share)
        return {
            name: [
                {"lr": label.lr, "readout": label.readout, "share": share}
                for label, share in sorted(mine.items(), key=lambda item: -item[1])
                if share >= SHOWN
            ]
            for name, mine in told.items()
        }


def side_in_row(found: Candidates, condition: str) -> SideInRow:
    """A side whose arms have their names in rows about a condition."""
    return SideInRow([label.place.label(condition) for label in found.labels], found)


def choices_of(sides: Sequence[SideInRow]) -> dict[str, list[dict[str, Any]]]:
    """What redraws choose on all sides, by arm; an arm that chooses otherwise on a later side is
    `against …` there, and arms that are never chosen are left out.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    for side in sides:
        for name, chosen in side.distribution.items():
            if chosen:
                other = told.get(name, chosen) != chosen
                told[f"against {name}" if other else name] = chosen
    return told


def apart(side: Candidates, statistic: Statistic) -> float:
    """How far those candidates lie apart that at least a tenth of redraws choose: the largest
    difference of any two, of those that seeds tell apart (95 %); 0 where they tell none.
    """
    often = pseudo_values(side.scores.report[:, side.weights >= CHOSEN], statistic)
    pairs = [
        paired(often[:, i] - often[:, j], 0.95) for i, j in combinations(range(often.shape[1]), 2)
    ]
    return max((abs(pair.value) for pair in pairs if pair.low > 0 or pair.high < 0), default=0.0)


def edge_share_of(sides: Sequence[Candidates]) -> float:
    """The largest share of redraws on one edge of one side."""
    return max(
        (share for side in sides for share in edge_shares(side.scores, side.labels).values()),
        default=0.0,
    )


def arrivals_of(evidence: Evidence, side: Candidates) -> Array:
    """The share of report runs of each candidate that hold their target, `[C]`."""
    tables = {label.place: evidence.arrivals(*label.place) for label in side.labels}
    return np.array(
        [float(tables[label.place][label.lr, label.readout].mean()) for label in side.labels]
    )


def arrivals_by_arm(evidence: Evidence, sides: Sequence[SideInRow]) -> dict[str, float]:
    """Arm → the redraw-weighted share of its report runs that hold their target."""
    told: dict[str, float] = {}
    for names, found in sides:
        arrived, weights = arrivals_of(evidence, found), found.weights
        for name in dict.fromkeys(names):
            mine = [own == name for own in names]
            if (total := float(weights[mine].sum())) > 0:
                told.setdefault(name, float(weights[mine] @ arrived[mine]) / total)
    return told


class Censored(NamedTuple):
    """Shares of report runs that miss their target, of the arm and of what it stands against."""

    arm: float
    against: float

    def judged(self, value: float, claimed_faster: str) -> Remarks:
        """What that does to a ratio that is claimed, and found, faster on one side.

        Where the slower side alone misses more than a tenth of its targets the ratio is a bound;
        where the side does that is claimed or found faster, nothing is decided.

        Args:
            value: the logarithm of the ratio, above 0 as claimed.
            claimed_faster: "arm" or "against".
        """
        shares = self._asdict()
        other = {"arm": "against", "against": "arm"}
        found_faster = claimed_faster if value > 0 else other[claimed_faster]
        missing = {side for side, share in shares.items() if share > MOST_CENSORED}
        words = (
            f"{100 * self.arm:.0f} % of the arm's runs and {100 * self.against:.0f} % of those "
            "against it miss the target"
        )
        if missing & {claimed_faster, found_faster}:
            return Remarks(censored_share=max(self), decides=False, reason=words)
        bound: Literal["", "at least"] = "at least" if missing else ""
        return Remarks(censored_share=max(self), bound=bound)
