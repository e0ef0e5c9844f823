"""What the page on methods computes: how intervals fared on simulated runs, what profiles run."""

import pandas as pd

from steadydescent.study.book import page
from steadydescent.study.planning import PROFILES, plans
from steadydescent.study.results import published

USED = "tuned"
"""The interval that decides claims."""
LABELS = {
    USED: "tuned",
    "tuned, tuning seeds only": "no validation on report seeds",
    "paired t": "paired t, choice ignored",
}
"""Interval → its head on the page."""
SHARES = {"coverage": "coverage, %", "false": "false, %", "found": "found, %"}
"""Column of shares → its head on the page."""
COSTS = ["profile", "experiment", "task", "networks", "points", "replica_steps", "minutes"]
COSTS += ["memory_gib"]
HEADS = {
    "replica_steps": "updates",
    "minutes": "minutes, one process",
    "memory_gib": "memory, GiB",
}


def with_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers of seeds in words: ``3 + 8``, tuning and report."""
    return table.assign(seeds=table.tuning.astype(str) + " + " + table.report.astype(str))


def intervals() -> pd.DataFrame:
    """Coverage and false verdicts of three intervals by world, seeds and contrasts a chapter."""
    return with_seeds(published.table("intervals.csv"))


def coverage(trials: pd.DataFrame) -> page.Shown:
    """How often intervals held the truth, in words.

    Raises:
        ValueError: where the trials are no longer what the prose around this sentence says.
    """
    single = trials[trials.contrasts == 1].set_index("interval")
    ours, plain = single.loc[USED], single.loc["paired t"]
    alarms = trials[(trials.interval == USED) & (trials.contrasts > 1)]
    few = alarms[alarms.contrasts < 40].chapter_false_verdict.max()
    check_prose(ours, plain, float(few))
    error = (0.05 * 0.95 / ours.replications.min()) ** 0.5
    return page.paragraph(
        f"Intervals of 95 % held the truth in {100 * ours.coverage.min():.1f} to "
        f"{100 * ours.coverage.max():.1f} % of trials; the plain paired t interval at the chosen "
        f"candidates in {100 * plain.coverage.min():.0f} to {100 * plain.coverage.max():.0f} %. "
        f"Where the best rates score alike, at most {100 * few:.1f} % of chapters of 4 or 12 "
        "contrasts held a false verdict, of 40 contrasts "
        f"{100 * alarms.chapter_false_verdict.max():.1f} %. Simulated shares carry an error of "
        f"about {100 * error:.1f} points; the share for 40 contrasts, which multiplies rare "
        "misses, one of about a point."
    )


def check_prose(ours: pd.DataFrame, plain: pd.DataFrame, few: float) -> None:
    """Refuse trials that the page's prose does not describe.

    Args:
        ours: trials of the interval that decides, columns coverage, bias, error.
        plain: trials of the paired t interval.
        few: the largest share of false verdicts in chapters of few contrasts.

    Raises:
        ValueError: naming what does not hold.
    """
    bias = ours.bias.abs()
    points = {
        "ours nearly holds, and errs too wide": ours.coverage.min() > 0.94
        and ours.coverage.mean() < 0.97,
        "few chapters have a false verdict": few < 0.05,
        "the plain interval is too short": plain.coverage.max() < 0.95,
        "the estimate leans little": bias.max() < 0.05 and (bias / ours.error).max() < 0.3,
    }
    if wrong := [name for name, holds in points.items() if not holds]:
        raise ValueError(f"intervals.csv is not what the prose of this section says: {wrong}")


def table_of_coverage(trials: pd.DataFrame) -> pd.DataFrame:
    """Coverage in percent by world and seeds, a column an interval."""
    single = trials[trials.contrasts == 1]
    single = single.assign(interval=single.interval.map(LABELS))
    wide = single.pivot(index=["world", "seeds"], columns="interval", values="coverage")
    return (100 * wide[list(LABELS.values())]).reset_index()


def kinds() -> pd.DataFrame:
    """Coverage and verdicts of the other kinds of contrast by world and seeds."""
    return with_seeds(published.table("intervals-kinds.csv"))


def coverage_of_kinds(trials: pd.DataFrame) -> page.Shown:
    """In how many cells the intervals hold what they promise, and which do not, in words."""
    off = trials[~trials.coverage.between(0.94, 0.96)]
    wide, short = off[off.coverage > 0.96], off[off.coverage < 0.94]
    parts = [
        f"Of {len(trials)} cells {len(trials) - len(off)} have a coverage of 94 to 96 %, "
        f"{len(wide)} more, {len(short)} less",
        f". Less: {_cells(short)}" if len(short) else "",
        f". More: {_cells(wide)}" if len(wide) else "",
        f". False verdicts at the level of one claim: at most {100 * trials.false.max():.1f} %.",
    ]
    return page.paragraph("".join(parts))


def _cells(trials: pd.DataFrame) -> str:
    """Kind and world with their coverages."""
    names = []
    for (kind, world), part in trials.groupby(["kind", "world"], sort=False):
        shares = ", ".join(f"{100 * share:.1f}" for share in part.coverage)
        names.append(f"{kind}, {world} ({shares} %)")
    return "; ".join(names)


def table_of_kinds(trials: pd.DataFrame) -> page.Shown:
    """Every cell: coverage, false and right verdicts in percent, truth, bias, sd."""
    columns = ["kind", "world", "seeds", *SHARES, "truth", "bias", "sd"]
    table = trials[columns].assign(**{name: 100 * trials[name] for name in SHARES})
    formats = dict.fromkeys(SHARES.values(), "{:.1f}")
    return page.table(table.rename(columns=SHARES), precision=3, formats=formats)


def table_of_profiles() -> pd.DataFrame:
    """What each profile runs and costs on a CPU."""
    rows = [plan.cost("cpu") for profile in PROFILES for plan in plans(profile)]
    return pd.DataFrame(rows)[COSTS].rename(columns=HEADS)
