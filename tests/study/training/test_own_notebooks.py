"""Notebooks take the axis that they compare, hold no programs, and keep one's own results apart."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from real_commands import write_notebook
from steadydescent.study.book.comparisons import Comparison
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning import load_study, plan_of, plans
from steadydescent.study.planning.axes import COMMON
from steadydescent.study.results.receipts import untrue
from steadydescent.study.results.store import Result, read_folder
from steadydescent.study.training import trial as trials
from steadydescent.study.training.kernels import check_parameters
from steadydescent.study.training.notebooks import check_notebooks
from steadydescent.study.training.trial import Trial
from trials import start

STUDY_PARAMETERS = ("experiment", "task", "profile", "device")
NOTEBOOKS = {name: EXPERIMENTS / one.notebook for name, one in load_study().items()}


def cells(path: Path, kind: str = "code") -> list[str]:
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def parameters(path: Path) -> dict[str, object]:
    (cell,) = (
        c.source for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", ())
    )
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign)
    }


# ---- the notebooks as they stand -----------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_the_studys_and_the_notebooks_own_axes(name):
    stated = parameters(NOTEBOOKS[name])
    axes = [*load_study()[name].axes, *COMMON]
    assert list(stated) == [*STUDY_PARAMETERS, *axes]
    assert [stated[axis] for axis in axes] == [None] * len(axes)
    assert stated["experiment"] == NOTEBOOKS[name].stem  # two experiments may have one
    (given,) = re.findall(r"^own = \{(.*)\}$", "\n".join(cells(NOTEBOOKS[name])), re.MULTILINE)
    assert given == ", ".join(f'"{axis}": {axis}' for axis in axes)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short_and_hold_no_programs(name):
    programs = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.comprehension)
    for cell in cells(NOTEBOOKS[name]):
        assert len(cell.splitlines()) <= 8, cell
        assert max(map(len, cell.splitlines())) <= 100, cell
        assert not [node for node in ast.walk(ast.parse(cell)) if isinstance(node, programs)], cell


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_says_how_to_vary_the_axis_with_words_that_work(name):
    first = cells(NOTEBOOKS[name], "markdown")[0]
    assert all(word in first for word in ("**Question.**", "**How.**", "**Cost.**", "**Command.**"))
    options = dict(re.findall(r'-p (\w+) "([^"]+)"', first))
    assert set(options) == set(load_study()[name].axes)
    assert plan_of(name, "mnist1d-mlp", "smoke", **options).own.keys() == options.keys()


def test_each_notebook_shows_a_table_and_a_figure_of_its_own():
    for path in NOTEBOOKS.values():
        code = "\n".join(cells(path))
        assert f"from steadydescent.study.book.comparisons.{path.stem} import figure, table" in code
        assert "\ntable(comparison)\nfigure(comparison);" in code


def test_study_runs_every_notebook_as_it_stands():
    check_notebooks(plans("smoke"), "cpu")


# ---- a notebook with values of its own -----------------------------------------------------------


@pytest.mark.parametrize("value", ["[16, 48]", "4", '"[16]"'])
def test_study_refuses_a_notebook_whose_cell_sets_an_axis(tmp_path, value):
    text = "\n".join(f'{name} = "x"' for name in STUDY_PARAMETERS)
    given = dict.fromkeys(STUDY_PARAMETERS, "x")
    write_notebook(tmp_path / "a.ipynb", parameters=f"{text}\nbatch_sizes = None")
    check_parameters(tmp_path / "a.ipynb", given)
    write_notebook(tmp_path / "a.ipynb", parameters=f"{text}\nbatch_sizes = {value}")
    with pytest.raises(ValueError, match=r"a\.ipynb sets batch_sizes = .*set it to None"):
        check_parameters(tmp_path / "a.ipynb", given)


# ---- one's own results ---------------------------------------------------------------------------


@pytest.fixture
def saved(toy, monkeypatch) -> tuple[Trial, Path]:
    start(monkeypatch, toy, {"": 0})
    trial = Trial("toy", "mnist1d-mlp", "laptop", "cpu", store=toy / "store", seeds=4)
    trial.tune()
    trial.report()
    return trial, trial.save(toy / "results")


def test_own_result_lies_apart_and_says_what_was_changed(toy, saved):
    _, folder = saved
    assert folder.relative_to(toy / "results").parts[:3] == ("own", "laptop", "toy")
    found, receipt = read_folder(folder, Result)
    assert receipt["own"] == {"seeds": 4} and receipt["result"].startswith("own-toy/mnist1d-mlp@")
    assert found.runs[found.runs.test].seed.nunique() == 4
    assert Comparison.read(folder).title.endswith("own: seeds=4")


def test_own_result_is_never_taken_for_the_studys(saved):
    """In the place of a result that is judged, published or counted as reproduced."""
    _, folder = saved
    result, receipt = read_folder(folder, Result)
    assert "own-toy" in untrue("toy", "mnist1d-mlp", "laptop", result, receipt)
    named = receipt | {"result": receipt["result"].removeprefix("own-")}
    assert "own" in untrue("toy", "mnist1d-mlp", "laptop", result, named)


def test_evaluation_takes_no_longer_than_all(saved):
    """A receipt says what looks at the networks took, by kind."""
    _, folder = saved
    result, receipt = read_folder(folder, Result)
    said = lambda took: untrue(
        "toy", "mnist1d-mlp", "laptop", result, receipt | {"evaluation": {"finals": took}}
    )
    assert "own-toy" in said(receipt["seconds"])  # nothing else is wrong
    assert "evaluation must take at most" in said(receipt["seconds"] + 2)
    assert "evaluation" in said(-1.0)


def test_studys_own_result_has_no_word_of_a_variation(toy, monkeypatch):
    trial, _ = start(monkeypatch, toy, {"": 0})
    trial.tune()
    trial.report()
    folder = trial.save(toy / "results")
    assert folder == toy / "results" / "laptop" / "toy" / "mnist1d-mlp"
    assert "own" not in read_folder(folder, Result)[1]


def test_own_trial_trains_nothing_before_its_parameters_are_checked(toy, monkeypatch):
    monkeypatch.setattr(trials, "train", lambda *_: pytest.fail("was to be refused first"))
    with pytest.raises(ValueError, match="seeds must be a whole number"):
        Trial("toy", "mnist1d-mlp", "laptop", "cpu", store=toy / "store", seeds=1)
    assert not (toy / "store").exists()
