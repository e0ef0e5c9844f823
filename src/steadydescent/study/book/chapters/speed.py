"""What the book shows of the benchmarks: saved rows, targets and whether they are met, a figure.

Measures nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study import yaml_files
from steadydescent.study.book import chapter_figures, figures, page
from steadydescent.study.paths import PUBLISHED, ROOT
from steadydescent.study.results import published

TARGETS = ROOT / "benchmarks" / "targets.yml"
TRAIN, AFTER = "train ", ", one EMA"
"""What stands around a task's name in the case of its training."""
DRAWN = ["task", "kind", "peer_name", "ours", "peer", "ratio", "ratio_low", "ratio_high", "rounds"]
"""Columns of a figure's data."""
APART = 0.15
"""Between the points of two peers, where tasks are 1 apart."""
NOT_MEASURED, NOTHING = "not measured", "–"


@dataclass(frozen=True)
class Benchmarks:
    """What `steady bench --save` kept on a kind of device.

    `parts` are lists of rows with their receipts; `rows` has all of them, `kind` being P0 to P4
    where the peer is one of these. Both are empty where nothing is saved.
    """

    device: str
    parts: list[dict[str, Any]]
    rows: pd.DataFrame


def saved(device: str, folder: Path | None = None) -> Benchmarks:
    """Read what is kept of a kind of device, among published results or in another folder."""
    parts = published.parsed(f"bench-{device}.json", folder or PUBLISHED, otherwise=[])
    rows = pd.DataFrame([row for part in parts for row in part["rows"]])
    if len(rows):
        kinds = rows.peer_name.str.extract(r"^(P\d)", expand=False).fillna("")
        rows = rows.assign(kind=kinds)
    return Benchmarks(device, parts, rows)


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


def table_of_targets(benchmarks: Benchmarks) -> pd.DataFrame:
    """A row a target: what was measured and whether that meets it."""
    lines = [_against(target, benchmarks.rows) for target in targets(benchmarks.device)]
    columns = ["case", "against", "measured", "target", "outcome"]
    return pd.DataFrame(lines).reindex(columns=columns).fillna(NOTHING)


def reasons(benchmarks: Benchmarks) -> page.Shown:
    """Why targets are missed, where the reason was found."""
    lines = []
    for target in targets(benchmarks.device):
        line = _against(target, benchmarks.rows)
        if line["outcome"].startswith("missed") and "why" in target:
            about = page.strong(f"{line['case']}, against {line['against']}")
            lines.append((about, f": {target['why']}."))
    return page.bullets(lines) if lines else page.paragraph("No missed target has one.")


def _against(target: dict[str, Any], rows: pd.DataFrame) -> dict[str, str]:
    """A target beside the row that it is about; `not measured` where no row is saved."""
    line = {"case": target["case"], "against": target["peer"], "target": _bound(target)}
    line["outcome"] = NOT_MEASURED
    if not rows.empty:
        same_peer = rows.peer_name.str.startswith(target["peer"])
        for row in rows[(rows.case == target["case"]) & same_peer].itertuples():
            rate = target.get("of")
            line["against"] = row.kind or row.peer_name
            line["measured"] = f"{row.ours:.3g} {row.unit}" if rate else interval(row)
            line["outcome"] = outcome(row.ours if rate else row.ratio, target)
    return line


def without_empty(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table less those of these columns that say nothing."""
    return table.drop(columns=[name for name in columns if table[name].isin(["", NOTHING]).all()])


def _bound(target: dict[str, Any]) -> str:
    sign, value = ("≥", target["at_least"]) if "at_least" in target else ("≤", target["at_most"])
    return f"{sign} {value:g}"


def interval(row: Any) -> str:
    """A ratio with its interval."""
    return f"{row.ratio:.3g} [{row.ratio_low:.3g}, {row.ratio_high:.3g}]"


def targets_in_words(benchmarks: Benchmarks) -> str:
    """How many targets are met."""
    table = table_of_targets(benchmarks)
    measured = table[table.outcome != NOT_MEASURED]
    if measured.empty:
        return f"none of {len(table)} targets is measured yet"
    left = len(table) - len(measured)
    rest = f"; {left} {'is' if left == 1 else 'are'} not measured" if left else ""
    return f"{(measured.outcome == 'met').sum()} of {len(measured)} targets are met{rest}"


def table_of_cases(benchmarks: Benchmarks, pattern: str) -> pd.DataFrame:
    """Rows whose case matches a regular expression, as a reader wants them."""
    rows = benchmarks.rows
    rows = rows[rows.case.str.contains(pattern)] if len(rows) else rows
    if rows.empty:
        return pd.DataFrame({"case": [f"not measured on {benchmarks.device} yet"]})
    each = list(rows.itertuples())
    table = pd.DataFrame(
        {
            "case": rows.case,
            "against": rows.peer_name,
            "ours": rows.ours.map("{:.4g}".format),
            "theirs": rows.peer.map("{:.4g}".format),
            "unit": rows.unit,
            "ours / theirs": [interval(row) for row in each],
            "after the same updates": [_losses(row) for row in each],
            "warm-up, s": [_warm_up(row) for row in each],
        }
    )
    return without_empty(table, ["after the same updates", "warm-up, s"])


def _losses(row: Any) -> str:
    """Both losses after the same updates."""
    if pd.isna(row.losses_agree):
        return NOTHING
    differ = "" if row.losses_agree else ", which differ"
    return f"{row.our_loss:.4g} and {row.peer_loss:.4g}{differ}"


def _warm_up(row: Any) -> str:
    if pd.isna(row.our_warm_up):
        return NOTHING
    return f"{row.our_warm_up:.1f} and {row.peer_warm_up:.1f}"


def origins(benchmarks: Benchmarks) -> list[tuple[str, str]]:
    """Where the numbers come from: each command, and the rest of a sentence about it."""
    receipts = [part["receipt"] for part in benchmarks.parts]
    return [(receipt["command"], _origin(receipt)) for receipt in receipts]


def _origin(receipt: dict[str, Any]) -> str:
    where = f"{receipt['device']}, torch {receipt['packages']['torch']}"
    when = f"{receipt['date']}, commit {receipt['commit']}"
    return f"{where}, {when}, {receipt['minutes']:g} minutes."


def draw_training(name: str, benchmarks: Benchmarks) -> None:
    """The engine's training rate over that of P0 to P4, on all tasks measured."""
    rows = benchmarks.rows
    table = rows[rows.case.str.startswith(TRAIN)] if len(rows) else rows
    if table.empty:
        chapter_figures.not_run(name)
        return
    table = table.assign(task=table.case.str.removeprefix(TRAIN).str.removesuffix(AFTER))
    least, most = table.loc[table.ratio.idxmin()], table.loc[table.ratio.idxmax()]
    ratios = (
        f"from {least.ratio:.2g} ({least.task} against {least.kind}) to {most.ratio:.2g} times "
        f"({most.task} against {most.kind})"
    )
    figures.figure(
        name,
        lambda ax: _training_panel(ax, table),
        data=table[DRAWN],
        size=(7.6, 1.2 + 0.6 * table.task.nunique()),
        alt=f"Training rate of the engine over that of {table.kind.nunique()} other loops on "
        f"{table.task.nunique()} tasks: {ratios}.",
        caption=f"Training with one EMA on {benchmarks.device}: the engine's rate over that of "
        f"each peer, {ratios}. Points are medians over {table.rounds.min()} rounds, bars 95 % "
        "intervals.",
    )


def _training_panel(ax: Axes, table: pd.DataFrame) -> None:
    """A line of points a task, a colour a peer; right of 1 the engine is faster."""
    tasks, kinds = list(dict.fromkeys(table.task)), table.kind.nunique()
    for place, (kind, group) in enumerate(table.groupby("kind")):
        above = APART * ((kinds - 1) / 2 - place)
        at = [len(tasks) - 1 - tasks.index(task) + above for task in group.task]
        reach = [group.ratio - group.ratio_low, group.ratio_high - group.ratio]
        ax.errorbar(group.ratio, at, xerr=reach, fmt="o", capsize=2, label=kind)
    ax.axvline(1, linestyle="--", linewidth=1, color="grey")
    ax.set(xscale="log", xlabel="times the peer's rate")
    ax.set(yticks=range(len(tasks)), yticklabels=tasks[::-1])
    for set_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        set_formatter("{x:g}")
    ax.legend(title="ours against", loc="center left", bbox_to_anchor=(1.0, 0.5))


def answer(cpu: Benchmarks, gpu: Benchmarks) -> page.Shown:
    """The page's first paragraph: targets met, and where the engine is ahead."""
    words: list[page.Part] = [page.strong(targets_in_words(cpu).capitalize()), " on a CPU. "]
    train = cpu.rows[cpu.rows.kind != ""] if len(cpu.rows) else cpu.rows
    if len(train):
        groups = train.groupby("kind")
        ahead = [
            f"{(group.ratio > 1).sum()} of {len(group)} against {kind}" for kind, group in groups
        ]
        tasks = "Counting tasks on which stacked training has the higher rate"
        words.append(f"{tasks}: {', '.join(ahead)}. ")
    none = "No GPU was at hand; what is said of GPUs below is what would be measured."
    words.append(f"On a GPU {targets_in_words(gpu)}." if gpu.parts else none)
    return page.paragraph(*words)


def missing_gpu(gpu: Benchmarks) -> page.Shown:
    """How to measure a GPU, where none was measured."""
    if gpu.parts:
        return page.paragraph()
    return page.paragraph(
        "Not measured: no GPU was at hand. ",
        page.code("make bench DEVICE=cuda SAVE=1"),
        " on a machine with one measures all of this, and this page then shows it.",
    )


def list_of_origins(*benchmarks: Benchmarks) -> page.Shown:
    """The commands that measured the numbers, each with machine, date and commit."""
    lines = [
        (page.code(command), f": {rest}") for one in benchmarks for command, rest in origins(one)
    ]
    return page.bullets(lines) if lines else page.paragraph("Nothing is saved yet.")
