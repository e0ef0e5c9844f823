"""What the book shows of the benchmarks: saved rows, targets and whether they are met, a figure.
Measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study import yaml_files
from steadydescent.study.book.chapter_figures import not_run
from steadydescent.study.book.figures import figure
from steadydescent.study.paths import PUBLISHED, ROOT
from steadydescent.study.results import published

TARGETS = ROOT / "benchmarks" / "targets.yml"
TRAIN, AFTER = "train ", ", one EMA"


def parts(device: str, folder: Path = PUBLISHED) -> list[dict[str, Any]]:
    """What `steady bench --save` kept on a kind of device: a list of rows with their receipt; empty
    without a file.
    """
    return published.parsed(f"bench-{device}.json", folder, otherwise=[])


def rows(device: str, folder: Path = PUBLISHED) -> pd.DataFrame:
    """All saved rows of a kind of device, `kind` being P0 … P3 where the peer is one of these."""
    table = pd.DataFrame([row for part in parts(device, folder) for row in part["rows"]])
    return (
        table
        if table.empty
        else table.assign(kind=table.peer_name.str.extract(r"^(P\d)", expand=False).fillna(""))
    )


def targets(device: str) -> list[dict[str, Any]]:
    """The targets of a kind of device."""
    return [target for target in yaml_files.read(TARGETS).content if target["device"] == device]


def outcome(value: float, target: dict[str, Any]) -> str:
    """`met`, or by how much it is missed.

    >>> outcome(1.9, {"at_least": 2}), outcome(1.5, {"at_most": 1.5})
    ('missed by 5 %', 'met')
    """
    if "at_least" in target:
        short = 1 - value / target["at_least"]
    else:
        short = value / target["at_most"] - 1
    return "met" if short <= 0 else f"missed by {100 * short:.3g} %"


def judged(device: str, folder: Path = PUBLISHED) -> pd.DataFrame:
    """A row a target: what was measured and whether that meets it; `not measured` where no row is
    saved.
    """
    found, table = rows(device, folder), []
    for target in targets(device):
        line = {
            "case": target["case"],
            "against": target["peer"],
            "target": _said(target),
            "outcome": "not measured",
        }
        if not found.empty:
            match = found[
                (found.case == target["case"]) & found.peer_name.str.startswith(target["peer"])
            ]
            for row in match.itertuples():
                line["against"] = row.kind or row.peer_name
                line["measured"] = (
                    f"{row.ours:.3g} {row.unit}" if target.get("of") else interval(row)
                )
                line["outcome"] = outcome(row.ours if target.get("of") else row.ratio, target)
        line["why"] = target.get("why", "") if line["outcome"].startswith("missed") else ""
        table.append(line)
    columns = ["case", "against", "measured", "target", "outcome", "why"]
    return without_empty(pd.DataFrame(table).reindex(columns=columns).fillna("–"), ["why"])


def without_empty(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table less those of these columns that say nothing."""
    return table.drop(columns=[name for name in columns if table[name].isin(["", "–"]).all()])


def _said(target: dict[str, Any]) -> str:
    sign, value = ("≥", target["at_least"]) if "at_least" in target else ("≤", target["at_most"])
    return f"{sign} {value:g}"


def interval(row: Any) -> str:
    """A ratio with its interval."""
    return f"{row.ratio:.3g} [{row.ratio_low:.3g}, {row.ratio_high:.3g}]"


def count(device: str, folder: Path = PUBLISHED) -> str:
    """How many targets are met, in words."""
    table = judged(device, folder)
    measured = table[table.outcome != "not measured"]
    if measured.empty:
        return f"none of {len(table)} targets is measured yet"
    rest = (
        f"; {left} {'is' if left == 1 else 'are'} not measured"
        if (left := len(table) - len(measured))
        else ""
    )
    return f"{(measured.outcome == 'met').sum()} of {len(measured)} targets are met{rest}"


def shown(device: str, pattern: str, folder: Path = PUBLISHED) -> pd.DataFrame:
    """Rows whose case matches a regular expression, as a reader wants them."""
    found = rows(device, folder)
    found = found[found.case.str.contains(pattern)] if len(found) else found
    if found.empty:
        return pd.DataFrame({"case": [f"not measured on {device} yet"]})
    table = pd.DataFrame(
        {
            "case": found.case,
            "against": found.peer_name,
            "ours": found.ours.map("{:.4g}".format),
            "theirs": found.peer.map("{:.4g}".format),
            "unit": found.unit,
            "ours / theirs": [interval(row) for row in found.itertuples()],
            "after the same updates": [_agreement(row) for row in found.itertuples()],
            "warm-up, s": [_warm_up(row) for row in found.itertuples()],
        }
    )
    return without_empty(table, ["after the same updates", "warm-up, s"])


def _agreement(row: Any) -> str:
    if pd.isna(row.losses_agree):
        return "–"
    return f"{row.our_loss:.4g} and {row.peer_loss:.4g}" + (
        "" if row.losses_agree else ", which differ"
    )


def _warm_up(row: Any) -> str:
    return "–" if pd.isna(row.our_warm_up) else f"{row.our_warm_up:.1f} and {row.peer_warm_up:.1f}"


def origins(device: str, folder: Path = PUBLISHED) -> list[tuple[str, str]]:
    """Where the numbers come from: each command, and the rest of a sentence about it."""
    return [
        (
            r["command"],
            f"{r['device']}, torch {r['packages']['torch']}, {r['date']}, commit {r['commit']}, "
            f"{r['minutes']:g} minutes.",
        )
        for r in (part["receipt"] for part in parts(device, folder))
    ]


def draw_training(ax: Axes, table: pd.DataFrame) -> None:
    """Ratios of training rates, a line of points a task, a colour a peer; right of 1 the engine is
    faster.
    """
    tasks = list(dict.fromkeys(table.task))
    for place, (kind, group) in enumerate(table.groupby("kind")):
        at = [len(tasks) - 1 - tasks.index(task) + 0.15 * (1.5 - place) for task in group.task]
        reach = [group.ratio - group.ratio_low, group.ratio_high - group.ratio]
        ax.errorbar(group.ratio, at, xerr=reach, fmt="o", capsize=2, label=kind)
    ax.axvline(1, linestyle="--", linewidth=1, color="grey")
    ax.set(
        xscale="log",
        xlabel="times the peer's rate",
        yticks=range(len(tasks)),
        yticklabels=tasks[::-1],
    )
    for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis("{x:g}")
    ax.legend(title="ours against", loc="center left", bbox_to_anchor=(1.0, 0.5))


def training_figure(name: str, device: str) -> None:
    """The engine's training rate over that of P0 to P3, on all tasks measured."""
    found = rows(device)
    table = found[found.case.str.startswith(TRAIN)] if len(found) else found
    if table.empty:
        not_run(name)
        return
    table = table.assign(task=table.case.str.removeprefix(TRAIN).str.removesuffix(AFTER))
    least, most = table.loc[table.ratio.idxmin()], table.loc[table.ratio.idxmax()]
    said = (
        f"from {least.ratio:.2g} ({least.task} against {least.kind}) to {most.ratio:.2g} times "
        f"({most.task} against {most.kind})"
    )
    columns = [
        "task",
        "kind",
        "peer_name",
        "ours",
        "peer",
        "ratio",
        "ratio_low",
        "ratio_high",
        "rounds",
    ]
    figure(
        name,
        lambda ax: draw_training(ax, table),
        data=table[columns],
        size=(7.6, 1.2 + 0.6 * table.task.nunique()),
        alt=f"Training rate of the engine over that of {table.kind.nunique()} other loops on {table.task.nunique()} "
        f"tasks: {said}.",
        caption=f"Training with one EMA on {device}: the engine's rate over that of each peer, {said}. Points are "
        f"medians over {table.rounds.min()} rounds, bars 95 % intervals.",
    )
