"""Where every rate loses too many runs, none can be chosen by its speed: rows, tables and figures
say so, and nothing crashes.
"""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from fabricated import note, result
from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.batch_size import critical
from steadydescent.study.book.chapters.covariate_shift import internal
from steadydescent.study.book.chapters.optimizers import surfaces
from steadydescent.study.book.chapters.results import fastest
from steadydescent.study.book.comparisons import Comparison
from steadydescent.study.book.edition import ShownResult
from steadydescent.study.book.numbers import numbers_of
from steadydescent.study.judging.evidence import Evidence, NotAnswerable
from steadydescent.study.judging.judge import judge_all
from steadydescent.study.paths import PACKAGE
from steadydescent.study.planning import plan_of
from steadydescent.study.training.edge_sides import crowded_sides

ASKING = ("candidates", "chosen", "best_of", "edges")
"""What asks evidence for candidates, and is refused where there are none."""
NEVER_REFUSED = ("", "'accuracy'", "'height'", "evidence.main_measure", "self.main_measure", "main")
"""Measures of a run's end, by which whatever rate may be chosen."""
WITH_TARGETS = {
    "batch_size": ["mnist1d-mlp"],
    "covariate_shift": ["mnist1d-mlp"],
    "optimizers": ["mnist1d-mlp", "saddle"],
}


def refusals(source: str) -> Iterator[str]:
    """Calls in a module that may be refused, and stand in no block that expects it."""
    tree = ast.parse(source)
    expected = {inner for block in ast.walk(tree) if _expects(block) for inner in ast.walk(block)}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            measure, *by = [ast.unparse(one) for one in call.args[2:4]] or [""]
            safe = call.func.attr not in ASKING or (measure in NEVER_REFUSED and not by)
            if not safe and call not in expected:
                yield ast.unparse(call)


def _expects(block: ast.AST) -> bool:
    """Whether NotAnswerable is caught, or suppressed, of what stands in the block."""
    if isinstance(block, ast.Try):
        return any(NotAnswerable.__name__ in ast.unparse(one.type) for one in block.handlers)
    return isinstance(block, ast.With) and f"suppress({NotAnswerable.__name__})" in ast.unparse(
        block.items[0]
    )


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "study" / "book").rglob("*.py")), ids=lambda path: path.stem
)
def test_whoever_shows_something_expects_that_no_rate_can_be_chosen(path: Path):
    assert not list(refusals(path.read_text(encoding="utf-8")))


def test_calls_that_may_be_refused_are_found():
    found = list(
        refusals("e.candidates(c, a, 'steps to target')\ne.chosen(c, a)\ne.edges(c, a, x)")
    )
    assert found == ["e.candidates(c, a, 'steps to target')", "e.edges(c, a, x)"]
    kept = "with suppress(NotAnswerable):\n    e.candidates(c, a, measure, by)"
    assert not list(refusals(kept))


@pytest.fixture(scope="module", params=[(e, t) for e in WITH_TARGETS for t in WITH_TARGETS[e]])
def lost(request) -> ShownResult:
    """A result of which the first report seed diverges at every rate."""
    experiment, task = request.param
    plan = plan_of(experiment, task, "smoke")
    how = lambda run, *_: 0.5 + 1e-3 * (run.seed % 3) + 1e-2 * run.lr
    made = result(plan, how, diverged=lambda run: run.seed == 1_000)
    receipt = note(plan, target=plan.target)
    return ShownResult(Evidence(made, receipt), receipt)


@pytest.fixture(autouse=True)
def saved(monkeypatch) -> dict[str, dict]:
    """What figures are asked to save; they are drawn as `figures.figure` draws them."""
    told: dict[str, dict] = {}

    def figure(name, draw, size=(1, 1), **options):
        layout = {key: options[key] for key in ("nrows", "ncols", "squeeze") if key in options}
        draw(plt.subplots(figsize=size, **layout)[1])
        told[name] = options

    for module in (figures, chapter_figures):
        monkeypatch.setattr(module, "figure", figure)
    yield told
    plt.close("all")


def test_no_arm_has_a_rate_to_be_chosen_by_its_speed(lost):
    """What the other tests rest on."""
    evidence = lost.evidence
    for condition in evidence.conditions:
        for arm in evidence.arms_in(condition):
            assert fastest(evidence, condition, arm) is None
            crowded_sides(evidence, condition, arm)


def test_rows_say_why_they_were_not_run(lost):
    rows = [row for row in judge_all(lost.evidence) if row.measure == "steps to target"]
    assert all(row.verdict == "not run" and "diverge or climb" in row.reason for row in rows)
    if lost.evidence.experiment != "batch_size":  # smoke has no condition that is asked there
        assert rows


def test_numbers_and_notebooks_leave_out_what_cannot_be_chosen(lost):
    assert numbers_of(lost.evidence, "x")
    comparison = Comparison(lost.evidence)
    module = import_module(f"steadydescent.study.book.comparisons.{lost.evidence.experiment}")
    assert len(module.table(comparison)) and module.figure(comparison) and comparison.sweep()
    assert len(comparison.rates()) and comparison.mean_of("steps to target").isna().all()
    comparison.verdicts()


def test_figures_of_speed_say_that_there_is_nothing_to_choose(lost, saved, monkeypatch):
    evidence, task = lost.evidence, lost.evidence.task
    condition = evidence.conditions[0]
    monkeypatch.setattr(chapter_figures, "shown", lambda experiment: {task: lost})
    lines = [(condition, arm) for arm in evidence.arms_in(condition)]
    chapter_figures.along("along", evidence.experiment, task, lines, by="steps to target")
    chapter_figures.rates("rates", evidence.experiment, task, measure="steps to target")
    assert plots.rate_table(evidence, evidence.conditions, "steps to target").empty
    critical.draw_target("target", {task: lost} if evidence.experiment == "batch_size" else {})
    if evidence.experiment == "covariate_shift":
        internal.draw_speeds("speeds", {task: lost})
    if evidence.main_measure == "height":
        surfaces.draw_paths("paths", {task: lost})
        surfaces.draw_descents("descents", {task: lost})
        assert len(surfaces.table_of_arrivals({task: lost})) == len(lines)
    words = {name: told["caption"] for name, told in saved.items()}
    said = "Every rate that report seeds ran loses too many runs to be chosen by its speed."
    assert words["along"] == words["rates"] == said
    assert set(words.values()) <= {said, "These results were not made in this profile."}
