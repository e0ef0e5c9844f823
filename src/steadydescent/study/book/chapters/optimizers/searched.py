"""All hyperparameters of every rule searched: what a budget of trials buys, and what won."""

import numpy as np
import pandas as pd

from steadydescent.engine.settings import read
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results, grid, hide, ids, networks
from steadydescent.study.judging import regret
from steadydescent.study.judging.evidence import Evidence

EXPERIMENT, CONDITION, READOUT = "optimizer_search", "constant", "last"
GREEK = {"mu": "μ", "beta": "β", "beta1": "β₁", "beta2": "β₂", "eps": "ε", "weight_decay": "λ"}
"""Option of a rule → its letter."""
BUDGETS = (1, 4)
"""Budgets whose leaders the caption names, besides the largest."""


def best_of(evidence: Evidence, rule: str) -> pd.DataFrame:
    """Expected test accuracy of the best of k trials, in percent: columns k, score and sd.

    The trial is chosen by its mean validation accuracy over tuning seeds and scored on report
    seeds.
    """
    tuning = evidence.tuning(CONDITION, rule, "accuracy").xs(READOUT, axis=1, level="readout")
    report = evidence.report(CONDITION, rule, "accuracy").xs(READOUT, axis=1, level="readout")
    both = tuning.columns.intersection(report.columns)
    scores = (100 * tuning[both].to_numpy(float), report[both].to_numpy(float))
    return regret.best_of_k(*scores, range(1, len(both) + 1))


def table_of_budgets(results: Results) -> pd.DataFrame:
    """`best_of` of every rule on every task: columns k, score, sd, task, rule."""
    parts = [
        best_of(shown.evidence, rule).assign(task=task, rule=rule)
        for task, shown in networks(results).items()
        for rule in shown.evidence.arms_in(CONDITION)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw_budgets(name: str, results: Results) -> None:
    """Expected accuracy against the number of trials, a line a rule, a panel a task."""
    table = table_of_budgets(results)
    if table.empty:
        chapter_figures.not_run(name)
        return
    tasks = list(dict.fromkeys(table.task))
    words = "; ".join(_leaders(task, table[table.task == task]) for task in tasks)
    figures.figure(
        name,
        lambda axes: _panels(axes, table),
        data=table,
        results=ids(results, tasks),
        **grid(len(tasks), 3.8),
        alt=f"Expected test accuracy of the best of k trials against k, by rule. Ahead: {words}.",
        caption="What a budget of k trials buys when rate and options are searched together: "
        "expected test accuracy of the best of k random trials, chosen on tuning seeds, scored on "
        f"report seeds. Means, without intervals; they bear no verdict. Ahead: {words}.",
    )


def _leaders(task: str, part: pd.DataFrame) -> str:
    most = int(part.groupby("rule").k.max().min())
    budgets = [*(k for k in BUDGETS if k < most), most]
    return f"{task}: " + ", ".join(f"{_leader(part, k)} at {k}" for k in budgets)


def _leader(part: pd.DataFrame, k: int) -> str:
    scores = part[part.k == k].set_index("rule").score
    return f"{scores.idxmax()} {scores.max():.1f} %"


def _panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    hide(axes, table.task.nunique())
    for ax, (task, part) in zip(axes.flat, table.groupby("task", sort=False), strict=False):
        for marker, (rule, line) in zip("os^vD", part.groupby("rule", sort=False), strict=False):
            ax.plot(line.k, line.score, marker=marker, markersize=4, label=rule)
        best = part[part.k == part.k.max()].score.max()
        lowest = max(part.score.min(), best - 40)
        ax.set(xlabel="trials k", ylabel="test accuracy / %", title=task)
        ax.set_ylim(lowest - 1, best + 1)
    axes.flat[0].legend(fontsize="small")


def table_of_winners(results: Results) -> pd.DataFrame:
    """The trial that tuning chose of every rule: trials, its rate, its options, its accuracy."""
    rows = []
    for task, shown in networks(results).items():
        evidence = shown.evidence
        for rule in evidence.arms_in(CONDITION):
            chosen = evidence.candidates(CONDITION, rule).chosen
            scores = evidence.report(CONDITION, rule, "accuracy")
            rows.append(
                {
                    "task": task,
                    "rule": rule,
                    "trials": scores.columns.get_level_values("lr").nunique(),
                    "rate": f"{chosen.lr:.3g}",
                    "options": options_of(evidence, rule, chosen.lr),
                    "accuracy, %": scores[chosen.lr, chosen.readout].mean(),
                    "diverged": evidence.diverged(CONDITION, rule, chosen.lr),
                }
            )
    return pd.DataFrame(rows)


def options_of(evidence: Evidence, rule: str, lr: float) -> str:
    """What a trial's rule was run with besides its rate: ``μ = 0.93``; a dash for none."""
    options = read(evidence.settings(CONDITION, rule, lr).optimizer).options
    texts = [f"{GREEK.get(name, name)} = {_short(value)}" for name, value in options.items()]
    return ", ".join(texts) or "–"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
