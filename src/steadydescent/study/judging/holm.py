"""What Holm's procedure would decide of the rows at hand: shown beside the verdicts, never used.

Its thresholds depend on how the other rows came out, so that a verdict would depend on which other
results are there. Here each row has its place, whatever else is known.
"""

from collections.abc import Sequence

from scipy import stats

from steadydescent.study.judging.rows import in_margins
from steadydescent.study.judging.statistics import student

JUDGED = ("estimate", "ci_low", "ci_high", "null", "margin", "level", "n_seeds", "rule")
"""What of a row its chance follows from."""


def open_chance(
    estimate: float,
    ci_low: float,
    ci_high: float,
    null: float,
    margin: float,
    level: float,
    n_seeds: int,
    rule: str,
) -> float:
    """The largest α at which the row's interval, at level 1 − α, would still be open.

    Its half-width is Student's quantile times the standard error; of the half-widths that decide
    the widest counts. A row is decided at every level below 1 minus this.

    >>> row = {"null": 0.0, "margin": 1.0, "level": 0.95, "n_seeds": 9, "rule": "superiority"}
    >>> round(open_chance(2.0, 0.0, 4.0, **row), 3)  # whose interval just touches 0
    0.05
    """
    value, low, high = (in_margins(end, null, margin) for end in (estimate, ci_low, ci_high))
    widest = {
        "superiority": max(abs(value), 1 - abs(value)),
        "at least": abs(value + 1),
    }.get(rule, abs(abs(value) - 1))
    error = (high - low) / 2 / student(level, n_seeds - 1)
    if error == 0:
        return 0.0 if widest > 0 else 1.0
    return float(2 * stats.t.sf(widest / error, n_seeds - 1))


def rejected(chances: Sequence[float], alpha: float = 0.05) -> list[int]:
    """Which of K hypotheses Holm (1979) rejects: the smallest chance is held to α/K, the next to
    α/(K − 1), and so on, up to the first that fails.

    >>> rejected([0.04, 0.001, 0.02, 0.3])
    [1]
    >>> rejected([0.02, 0.001, 0.04])
    [1, 0, 2]
    """
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    kept = 0
    while kept < len(order) and chances[order[kept]] <= alpha / (len(order) - kept):
        kept += 1
    return order[:kept]
