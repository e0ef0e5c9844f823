"""What a shift of the test data costs: accuracy lost, with frozen and with re-estimated statistics.

A task's test set is shifted in several ways, at severities 0 to 5; statistics of batch norm are
training's, or re-estimated from all shifted inputs, or from so many that arrive together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures, page
from steadydescent.study.book.chapters.covariate_shift.arms import (
    COLOURS,
    CONDITION,
    NORMED,
    PLAIN,
    same_inputs,
)
from steadydescent.study.book.chapters.results import Results, grid, hide, ids, report_runs
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.measures import SEVERITY
from steadydescent.study.judging.statistics import paired

FROZEN, REESTIMATED, ALL = "frozen", "re-estimated", "all"
KINDS = ("covariate", "prior", "concept")
COLUMNS = ["task", "shift", "severity", "arm", "inputs", "statistics", "drop", "low", "high"]


class Line(NamedTuple):
    """A line of the figures: an arm, and whose statistics it uses."""

    arm: str
    statistics: str

    @property
    def label(self) -> str:
        """What stands in the legend; without norm there are no statistics to name."""
        return f"{self.arm}, {self.statistics}" if self.arm == NORMED else self.arm

    def look(self, joined: bool) -> dict[str, Any]:
        """Marker, colour and dashes."""
        anew = self.statistics == REESTIMATED
        dashes = ("--" if anew else "-") if joined else ""
        colour = COLOURS[self.arm]
        face = "none" if anew else colour
        return {"fmt": ("^" if anew else "o") + dashes, "color": colour, "mfc": face}


LINES = (Line(PLAIN, FROZEN), Line(NORMED, FROZEN), Line(NORMED, REESTIMATED))


def accuracies(evidence: Evidence) -> pd.DataFrame:
    """Accuracy of every run on its test set, shifted and not: columns run, shift, severity,
    statistics, inputs and accuracy.

    `shift` is empty where nothing shifts; `inputs` is how many arrive together, 0 for all.
    """
    finals = evidence.result.finals
    tests = finals[finals.split == "test"]
    columns = {
        "severity": tests.severity.fillna(0).astype(int),
        "statistics": np.where(tests.statistics == "reestimated", REESTIMATED, FROZEN),
        "inputs": tests.batch.fillna(0).astype(int),
    }
    return tests[["run", "shift", "accuracy"]].assign(**columns)


def table_of_losses(results: Results) -> pd.DataFrame:
    """Accuracy lost under each shift, in points, by arm and statistics, at the arm's tuned rate.

    Means over report seeds with 95 % intervals: columns task, shift, severity, arm, inputs (a
    number, or all), statistics, drop, low and high; no rows where nothing was shifted.
    """
    parts = [_losses(shown.evidence) for shown in shifted(results).values()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def shifted(results: Results) -> Results:
    """The tasks whose test data were shifted."""
    return {
        t: shown
        for t, shown in results.items()
        if (shown.evidence.result.finals["shift"].fillna("") != "").any()
    }


def _losses(evidence: Evidence) -> pd.DataFrame:
    table, rows = accuracies(evidence), []
    for arm in same_inputs(evidence):
        lr = evidence.candidates(CONDITION, arm).chosen.lr
        mine = table[table.run.isin(report_runs(evidence, CONDITION, arm, lr).run)]
        plain = mine[mine["shift"] == ""].set_index("run").accuracy
        shifted = mine[mine["shift"] != ""].assign(inputs=lambda t: t.inputs.replace(0, np.inf))
        groups = shifted.groupby(["shift", "inputs", "severity", "statistics"])
        for (shift, inputs, severity, statistics), part in groups:
            after = part.set_index("run").accuracy
            lost = paired(100 * (plain - after).sort_index().to_numpy(), 0.95)
            row = {"task": evidence.task, "shift": shift, "severity": severity, "arm": arm}
            row |= {"inputs": int(inputs) if inputs < np.inf else ALL, "statistics": statistics}
            rows.append(row | {"drop": lost.value, "low": lost.low, "high": lost.high})
    return pd.DataFrame(rows)


def of_line(losses: pd.DataFrame, line: Line) -> pd.DataFrame:
    """The rows of one line of a figure."""
    return losses[(losses.arm == line.arm) & (losses.statistics == line.statistics)]


def at_severity(losses: pd.DataFrame) -> pd.DataFrame:
    """What is lost at the severity that claims ask about, with all inputs at hand."""
    return losses[(losses.severity == SEVERITY) & (losses.inputs == ALL)]


def draw_losses(name: str, results: Results, losses: pd.DataFrame) -> None:
    """Accuracy lost under each shift, a panel a task."""
    lost = at_severity(losses)
    if lost.empty:
        chapter_figures.not_run(name)
        return
    words, results = _gains(lost), shifted(results)
    figures.figure(
        name,
        lambda axes: _loss_panels(axes, lost, results),
        data=lost,
        results=ids(results),
        **grid(len(results), 3.8),
        alt=f"Accuracy lost under {lost['shift'].nunique()} shifts for {len(LINES)} ways on "
        f"{len(results)} tasks. {words}.",
        caption=f"Test accuracy lost when the test data shift (severity {SEVERITY}), each arm at "
        f"its tuned rate, 95 % intervals over seeds. {words}.",
    )


def _gains(lost: pd.DataFrame) -> str:
    """Where statistics taken anew help batch norm most, and where least."""
    normed = lost[lost.arm == NORMED]
    table = normed.pivot(index=["task", "shift"], columns="statistics", values="drop")
    gain = table[FROZEN] - table[REESTIMATED]
    (most_on, most), (least_on, least) = gain.idxmax(), gain.idxmin()
    return (
        f"Taking statistics anew helps batch norm most for {most} on {most_on} "
        f"({gain.max():+.1f} points) and least for {least} on {least_on} ({gain.min():+.1f})"
    )


def _loss_panels(axes: np.ndarray, lost: pd.DataFrame, results: Results) -> None:
    hide(axes, len(results))
    for ax, (task, shown) in zip(axes.flat, results.items(), strict=False):
        # the study's order of shifts is that of the table
        tested = accuracies(shown.evidence)["shift"]
        shifts = [shift for shift in dict.fromkeys(tested) if shift]
        for i, line in enumerate(LINES):
            part = of_line(lost[lost.task == task], line).set_index("shift").reindex(shifts)
            _points(ax, np.arange(len(shifts)) + 0.15 * (i - 1.5), part, line, joined=False)
        ax.set(xticks=range(len(shifts)), ylabel="accuracy lost / pp", title=task)
        labels = [shift.replace("-", "-\n") for shift in shifts]
        ax.set_xticklabels(labels, fontsize="small")
    axes.flat[0].legend(fontsize="small")


def _points(ax: Axes, x: Any, part: pd.DataFrame, line: Line, joined: bool) -> None:
    reach = [part["drop"] - part.low, part.high - part["drop"]]
    ax.errorbar(x, part["drop"], yerr=reach, label=line.label, **line.look(joined))


def table_after_shift(results: Results, losses: pd.DataFrame) -> pd.DataFrame:
    """Accuracy at the tuned rate, percent, without a shift and under each kind of shift.

    Tasks on which some kind was not run have no value there; without shifts there are no rows.
    """
    rows = []
    for task, shown in results.items():
        if task not in set(at_severity(losses).task):
            continue
        for line in LINES:
            if line.arm not in shown.evidence.arms_in(CONDITION):
                continue
            anew = f", {REESTIMATED}" if line.statistics == REESTIMATED else ""
            rows.append(
                {"task": task, "arm": line.arm + anew} | _after(shown.evidence, line.arm, anew)
            )
    return pd.DataFrame(rows)


def _after(evidence: Evidence, arm: str, anew: str) -> dict[str, float]:
    chosen = evidence.candidates(CONDITION, arm).chosen
    measures = {"no shift": "accuracy"}
    measures |= {kind: f"accuracy under {kind} shift{anew}" for kind in KINDS}
    return {
        name: evidence.report(CONDITION, arm, measure)[chosen.lr, chosen.readout].mean()
        for name, measure in measures.items()
        if evidence.holds(measure)
    }


def at_severities(losses: pd.DataFrame) -> pd.DataFrame:
    """What is lost under shifts of more than one severity, with all inputs at hand."""
    whole = losses[(losses.inputs == ALL) & (losses.severity > 0)]
    return whole[whole.groupby(["task", "shift"]).severity.transform("nunique") > 1]


def draw_severities(name: str, results: Results, losses: pd.DataFrame) -> None:
    """Accuracy lost against the severity, a panel a task and shift."""
    table = at_severities(losses)
    if table.empty:
        chapter_figures.not_run(name)
        return
    panels = list(dict.fromkeys(zip(table.task, table["shift"], strict=True)))
    words = "; ".join(_at_five(table, *panel) for panel in panels)
    rows = -(-len(panels) // 2)
    figures.figure(
        name,
        lambda axes: _severity_panels(axes, table, panels),
        data=table,
        results=ids(results),
        size=(8.4, 3.2 * rows),
        nrows=rows,
        ncols=2,
        squeeze=False,
        alt=f"Accuracy lost against severity in {len(panels)} panels, without norm, with batch "
        f"norm, and with statistics taken anew. With batch norm, {words}.",
        caption="The same at other severities, 95 % intervals over seeds; shown, without verdicts "
        f"of their own. With batch norm, {words}.",
    )


def _at_five(table: pd.DataFrame, task: str, shift: str) -> str:
    rows = table[(table.task == task) & (table["shift"] == shift) & (table.severity == 5)]
    drop = rows[rows.arm == NORMED].set_index("statistics")["drop"]
    return (
        f"{shift} on {task}: {drop[FROZEN]:.0f} points at severity 5, "
        f"{drop[REESTIMATED]:.0f} with statistics taken anew"
    )


def _severity_panels(
    axes: np.ndarray, table: pd.DataFrame, panels: Sequence[tuple[str, str]]
) -> None:
    for ax, (task, shift) in zip(axes.flat, panels, strict=False):
        mine = table[(table.task == task) & (table["shift"] == shift)]
        for line in LINES:
            part = of_line(mine, line).sort_values("severity")
            _points(ax, part.severity, part, line, joined=True)
        title = f"{shift}, {task.removesuffix('-mlp')}"
        ax.set(title=title, xlabel="severity", ylabel="accuracy lost / pp")
        ax.title.set_fontsize("small")
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    axes.flat[0].legend(fontsize="small")


def table_of_few_inputs(losses: pd.DataFrame) -> pd.DataFrame:
    """Points lost with batch norm whose statistics come from training, or from so many inputs."""
    few = _few(losses)
    if few.empty:
        return few
    keys = ["task", "shift", "severity"]
    asked = pd.MultiIndex.from_frame(losses[keys]).isin(pd.MultiIndex.from_frame(few[keys]))
    normed = losses[(losses.arm == NORMED) & asked]
    inputs = normed.inputs.astype(str) + " inputs"
    normed = normed.assign(source=inputs.where(normed.statistics == REESTIMATED, "training"))
    table = normed.pivot(index=keys, columns="source", values="drop")
    sources = ["training", "10 inputs", "100 inputs", "all inputs"]
    return table.reindex(columns=sources).reset_index()


def _few(losses: pd.DataFrame) -> pd.DataFrame:
    """Rows of batch norm with the statistics of a few inputs."""
    return losses[(losses.arm == NORMED) & (losses.inputs != ALL)]


def few_inputs_in_words(losses: pd.DataFrame) -> page.Shown | None:
    """What statistics of a few inputs cost where nothing shifts; None where that was not run."""
    few = _few(losses)
    if few.empty:
        return None
    clean = few[few.severity == 0].set_index(["task", "inputs"])
    parts = []
    for task in dict.fromkeys(few.task):
        ten, hundred = clean.loc[(task, 10)], clean.loc[(task, 100)]
        interval = f"{ten.low:.1f} to {ten.high:.1f}"
        parts.append(
            f"{ten['drop']:.1f} points ({interval}) on {task}, of a hundred {hundred['drop']:.1f}"
        )
    words = " and ".join(parts)
    return page.paragraph(
        f"Without any shift, statistics of ten inputs cost {words}: their own noise."
    )
