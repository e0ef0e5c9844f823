"""Odd places: no study, somebody else's folder, no checkout, other letters and locales, any umask,
narrow terminals.
"""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from disk_faults import killed_at
from fabricated import a_run, tables, write_experiments, write_result
from steadydescent import cli
from steadydescent.cli import main
from steadydescent.files import write_atomically
from steadydescent.study import paths, reproduce, terminal
from steadydescent.study.paths import ROOT, require_project, require_study
from steadydescent.study.results import provenance
from steadydescent.study.results.store import Store
from writers import scored, tree

ALIEN = '[project]\nname = "another"\n'


def commands(group: click.Group, *before: str):
    """Every command, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield [*before, name]


def arguments(words: Sequence[str]) -> list[str]:
    """Something for each argument that a command asks for."""
    command = reduce(lambda group, name: group.commands[name], words, main)
    return ["x" for param in command.params if isinstance(param, click.Argument) and param.required]


def steady(*words: str, flags: tuple[str, ...] = (), cwd: Path | None = None, **more: str):
    """A command as a process of its own."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PROFILE", "DEVICE", "ONLY")
    }
    line = [sys.executable, *flags, "-m", "steadydescent.cli", *words]
    return subprocess.run(line, env=own | more, capture_output=True, cwd=cwd)


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one sentence with which a command refused."""
    text = done.stderr.decode()
    assert done.returncode == 1 and text.startswith("Error: ") and "Traceback" not in text, text
    assert len(text.strip().splitlines()) <= 2
    return text


# ---- no study here -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", commands(main), ids=" ".join)
def test_no_command_works_in_a_folder_without_a_study_and_none_changes_it(
    words, tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("STEADY_HOME", str(tmp_path))
    for name in ("screenshots/mine", "generated/mine", "experiments/mine"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    before = tree(tmp_path)
    done = CliRunner().invoke(main, [*words, *arguments(words)])
    assert done.exit_code == 1 and tree(tmp_path) == before
    assert done.output.startswith(
        f"Error: there is no study in {tmp_path}: experiments/study.yml is missing; STEADY_"
    )
    assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("project", [None, ALIEN, "not toml [", 'project = "steadydescent"'])
def test_clean_removes_nothing_from_a_folder_that_is_no_checkout_of_this_project(
    project, tmp_path, monkeypatch
):
    write_experiments(tmp_path / "experiments")
    (tmp_path / "screenshots").mkdir()
    if project:
        (tmp_path / "pyproject.toml").write_text(project)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    before = tree(tmp_path)
    done = CliRunner().invoke(main, ["clean"])
    assert done.exit_code == 1 and tree(tmp_path) == before
    assert (
        f"nothing is removed from {tmp_path}: its pyproject.toml does not name steadydescent"
        in done.output
    )


def test_this_repository_is_a_study_and_a_project():
    require_study(ROOT)
    require_project(ROOT)


def test_clean_follows_no_link(tmp_path, monkeypatch):
    """What a link leads to is somebody's; a link to nowhere goes too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("")
    (tmp_path / "_build").symlink_to(tmp_path / "mine")
    (tmp_path / "screenshots").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    assert len(reproduce.clean_tree(False)) == 2
    assert tree(tmp_path) == {"mine": None, "mine/precious": b""}


def test_home_named_by_nothing_is_the_checkout_and_a_relative_one_holds_wherever_one_goes(tmp_path):
    code = "import os; from steadydescent.study.paths import ROOT; os.chdir('/'); print(ROOT)"
    for value, expected in (("", ROOT), ("there", tmp_path / "there")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"STEADY_HOME": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(expected)


def test_package_without_its_repository_says_so_and_writes_nothing_beside_itself(tmp_path):
    """As pip leaves it in a Python's library."""
    library = tmp_path / "lib" / "python3" / "site-packages"
    shutil.copytree(
        ROOT / "src" / "steadydescent",
        library / "steadydescent",
        ignore=shutil.ignore_patterns("*.pyc"),
    )
    before = set(tree(tmp_path))
    own = {"PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1", "STEADY_HOME": ""}
    text = sentence(steady("data", "fetch", "mnist1d", cwd=tmp_path, **own))
    assert f"there is no study in {tmp_path / 'lib'}" in text and "get the repository" in text
    assert set(tree(tmp_path)) == before


# ---- whose commit --------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", "-C", folder, *name, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "höme of it"
    folder.mkdir()
    (folder / "file").write_text("one")
    git(folder, "init", "-q")
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", "one", "--no-verify")
    return folder


def test_commit_is_that_of_the_checkout_in_a_work_tree_and_through_a_link_too(
    repository, monkeypatch
):
    head = git(repository, "rev-parse", "--short=12", "HEAD")
    git(repository, "worktree", "add", "-q", str(repository.with_name("other")))
    repository.with_name("link").symlink_to(repository)
    for place in (repository, repository.with_name("other"), repository.with_name("link")):
        monkeypatch.setattr(provenance, "ROOT", place)
        assert provenance.commit() == head


def test_tarball_unpacked_inside_another_repository_has_no_commit(repository, monkeypatch):
    (repository / "unpacked").mkdir()
    monkeypatch.setattr(provenance, "ROOT", repository / "unpacked")
    assert provenance.commit() == "unknown"


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_variables_of_git_do_not_lend_another_repositorys_commit(
    repository, variable, tmp_path, monkeypatch
):
    """As in a hook, or in a shell that works on another repository."""
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv(
        variable, str(repository / {"GIT_DIR": ".git", "GIT_INDEX_FILE": "none"}.get(variable, "."))
    )
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"


def test_without_git_the_commit_is_unknown(repository, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", repository)
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "unknown"


# ---- letters and locales -------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def published(home: Path) -> Path:
    """A study with one published result."""
    write_experiments(home / "experiments")
    write_result(
        home / "results/published/toy/mnist1d-mlp", scored(0.05), "laptop", "toy/mnist1d-mlp@0"
    )
    return home


@pytest.mark.parametrize(
    "name", ["a b", "it's", "ü", "日本\u3000語", "a\u00a0b", "a;b", "$HOME", "%s"]
)
def test_folder_may_have_any_letters_in_its_name(name, tmp_path, toy):
    home = published(tmp_path / name)
    require_study(home)
    for folder in (home, tmp_path):
        write_atomically(folder / name / "c d" / name, b"")
        assert (folder / name / "c d" / name).exists()


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1bb", "a\udcffb"])
def test_folder_whose_name_no_message_could_repeat_is_refused(name, tmp_path):
    with pytest.raises(
        ValueError, match="has characters in its name that messages and files cannot repeat"
    ):
        require_study(tmp_path / name)


@pytest.mark.slow
def test_commands_speak_every_letter_in_the_c_locale_or_say_why_not(tmp_path, toy):
    home = published(tmp_path / "a place")
    more = {"STEADY_HOME": str(home), **ASCII}
    for words in (["claims"], ["claims", "--json"], ["cite"], ["plan"]):
        done = steady(*words, cwd=Path("/"), **more)
        assert done.returncode == 0, done.stderr
    home = published(tmp_path / "plätze")
    assert steady("claims", STEADY_HOME=str(home)).returncode == 0
    assert "set PYTHONUTF8=1" in sentence(steady("claims", **ASCII, STEADY_HOME=str(home)))


def test_letters_that_a_locale_lacks_end_no_command(monkeypatch, tmp_path):
    """A C locale speaks UTF-8, as Python itself would have it; another does what it can."""
    for encoding, expected in (
        ("ascii", "2 × 3"),
        ("latin-1", "2 × 3"),
        ("utf-8", "2 × 3 …"),
        ("cp1251", "2 ? 3 …"),
    ):
        with (tmp_path / encoding).open("w", encoding=encoding) as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            terminal._write_any_letter()
            cli.show([{"rule": "2 × 3 …"}], False)
            monkeypatch.undo()
        text = (tmp_path / encoding).read_text(
            encoding="utf-8" if encoding == "ascii" else encoding
        )
        assert expected in text


def test_every_text_file_is_opened_with_its_encoding():
    """Otherwise it is the locale's."""
    places = []
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and _opens_text(call):
                places.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert places == []


def _opens_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [
        part.value
        for part in call.args
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    binary = name in ("open", "fdopen") and any("b" in mode and len(mode) < 4 for mode in modes)
    named = any(word.arg == "encoding" for word in call.keywords) or (
        name == "read_text" and len(call.args) == 1
    )
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    return (
        name in ("open", "read_text", "write_text", "fdopen")
        and not (binary or named)
        and not (isinstance(owner, ast.Name) and owner.id in ("os", "gzip"))
    )


# ---- python -O -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_assertions_what_computes_is_refused_and_what_reads_works(tmp_path, toy):
    home = published(tmp_path / "home")
    for how in ({"flags": ("-O",)}, {"PYTHONOPTIMIZE": "2"}):
        for words in terminal.COMPUTING:
            assert "without, or unset PYTHONOPTIMIZE" in sentence(
                steady(words, STEADY_HOME=str(home), **how)
            )
        assert steady("claims", STEADY_HOME=str(home), **how).returncode == 0


def test_commands_that_compute_are_commands():
    assert set(terminal.COMPUTING) <= set(main.commands)


# ---- umask and clock -----------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_everything_written_follows_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        store = Store(tmp_path / "a" / "store", warn=lambda text: None)
        store.save(tables([a_run(seed=0)]), {})
        store.save(tables([a_run(seed=1)]), {})
        next(store.root.glob("??/*/runs.parquet")).write_bytes(b"PAR1")
        assert len(Store(store.root, warn=lambda text: None).keys()) == 1  # the other is set aside
        write_atomically(tmp_path / "b" / "note", b"")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert len(modes) > 15
    for path, mode in modes.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_clock_that_steps_back_changes_neither_what_is_left_about_nor_what_is_done(tmp_path):
    """A dead writer's leavings go whenever they seem to be from."""
    for moment in (0, 2**32):
        assert killed_at(4, lambda: write_atomically(tmp_path / "note", b"half"))
        for left in tmp_path.iterdir():
            os.utime(left, (moment, moment))
        write_atomically(tmp_path / "note", b"whole")
        assert tree(tmp_path) == {"note": b"whole"}


# ---- terminals -----------------------------------------------------------------------------------

ROW = {
    "id": "weight-averages-generalise",
    "task": "mnist1d-mlp",
    "condition": "dense sweep, a tenth of the best rate",
    "verdict": "too small to matter",
    "primary": True,
    "headline": "Too small to matter on MNIST-1D's perceptron.",
    "points": None,
    "registered": "2026-01-02",
    "first_seen": "2026-02-03",
    "measure": "accuracy",
    "estimate": 0.5,
    "ci_low": 0.1,
    "ci_high": 1.0,
    "null": 0.0,
    "unit": "pp",
    "margin": 0.5,
    "n_seeds": 20,
    "networks": 868,
    "diverged": 0,
    "seeds_needed": 60,
    "result": "weight-averaging/mnist1d-mlp@3f9c2a7e",
    "tests": [],
}


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 160, 300])
def test_claims_stay_readable_at_any_width(columns, monkeypatch, capsys):
    """No line is longer than the terminal, and no word of up to ten letters is broken."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    (row,) = cli.verdict_rows([ROW])
    cli.show([row], False, "Verdicts")
    text = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= columns
    words = {
        word
        for key, value in row.items()
        if value and key != "claim"
        for word in f"{key} {value}".split()
        if len(word) <= 10
    }
    assert words <= set(text.split())
    if columns <= 80:  # a block a row, with what has no value left out
        assert "weight-averages-generalise" in text and "diverged" not in text
        assert ROW["result"] in text.replace("\n", "").replace(" ", "")


def test_nothing_is_shown_as_before_where_there_is_no_terminal(capsys):
    cli.show([], False, "Nothing")
    cli.show(cli.verdict_rows([ROW]), False, "Verdicts")
    text = capsys.readouterr().out
    assert "┃" in text and max(map(len, text.splitlines())) <= terminal.WIDE
    cli.show([{"a": 1.0}], True)
    assert json.loads(capsys.readouterr().out) == [{"a": 1.0}]
