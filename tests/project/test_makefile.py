"""make: settings reach commands as they are and run nothing; a word that is no setting is refused
with the nearest.
"""

import os
import shutil
import subprocess

import pytest

from steadydescent.study.paths import ROOT

SETTINGS = (
    "PROFILE",
    "DEVICE",
    "ONLY",
    "WORKERS",
    "CELL_HOURS",
    "SOURCE",
    "SAVE",
    "MINUTES",
    "OUT",
    "AGAIN",
    "PYTHON",
    "TORCH_INDEX",
)
TELL = """#!/bin/sh
[ "$1" = -c ] || { for word in "$@"; do printf '%s\\0' "word=$word"; done; env -0; } >> told
"""
TARGETS = {
    "reproduce": (),
    "plan": (),
    "claims": ("SOURCE",),
    "verify": (),
    "bench": ("ONLY", "SAVE"),
    "gpu": (),
    "publish": (),
    "book": ("SOURCE",),
    "serve": (),
    "clean": (),
}
INJECTIONS = [
    "x'; touch pwned; '",
    'x"; touch pwned; "',
    "`touch pwned`",
    "$(touch pwned)",
    "$$(touch pwned)",
    "$(shell touch pwned)",
    "${shell touch pwned}",
    "x\ntouch pwned",
    "x; touch pwned #",
    "--help",
    "a\\",
    "é ü",
]


@pytest.fixture
def home(tmp_path):
    """A checkout in which `steady` and python print their arguments, and nothing is installed."""
    folder = tmp_path / "a place"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("steady", "python"):
        (folder / ".venv" / "bin" / name).write_text(TELL)
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / "ready").write_text("")
    return folder


def make(home, *words, **more):
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in (*SETTINGS, "MAKEFLAGS", "MAKELEVEL")
    }
    return subprocess.run(
        ["make", *words], cwd=home, env=own | more, capture_output=True, text=True
    )


def told(home) -> tuple[list[str], dict[str, str]]:
    """Words and variables that the command was given."""
    parts = [part.partition("=") for part in (home / "told").read_text().split("\0") if part]
    (home / "told").unlink()
    words = [value for name, _, value in parts if name == "word"]
    return words, {name: value for name, _, value in parts if name in SETTINGS}


def test_settings_are_those_that_make_knows_and_have_their_defaults(home):
    assert make(home, "plan").returncode == 0
    words, variables = told(home)
    assert words == ["plan"] and tuple(sorted(variables)) == tuple(sorted(SETTINGS))
    chosen = {name: value for name, value in variables.items() if value}
    assert chosen == {
        "PROFILE": "auto",
        "DEVICE": "auto",
        "SOURCE": "published",
        "PYTHON": "python3",
    }


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize("way", ["word", "environment"])
def test_value_reaches_every_command_as_it_is_and_runs_nothing(home, value, way):
    for target in TARGETS:
        given = {name: value for name in SETTINGS if name != "PYTHON"}
        words = [f"{name}={value}" for name in given]
        done = make(home, target, *words) if way == "word" else make(home, target, **given)
        assert done.returncode == 0, done.stderr
        words, variables = told(home)
        assert {name: variables[name] for name in given} == given
        assert words[0] == target and all(
            f"={value}" in word or word in (target, "--save") for word in words
        )
        assert not list(home.rglob("pwned"))


@pytest.mark.parametrize("pip", ["exit 0", "exit 1"])
def test_bench_installs_its_peer_where_that_is_missing_and_goes_on_without(home, pip):
    python = home / ".venv" / "bin" / "python"
    python.write_text(f"{TELL}case $1 in -c) exit 1;; esac\n{pip}\n")
    done = make(home, "bench")
    words, _ = told(home)
    assert done.returncode == 0 and ".[bench]" in words and words[-2:] == ["bench", "--only="]
    assert ("could not be installed" in done.stderr) == (pip == "exit 1")


def test_bench_installs_nothing_where_its_peer_is(home):
    assert make(home, "bench").stdout == "" and told(home)[0] == ["bench", "--only="]


@pytest.mark.parametrize("target", [target for target, own in TARGETS.items() if own])
def test_command_is_given_what_it_does_not_read_from_the_environment(home, target):
    make(home, target, *(f"{name}=mine" for name in TARGETS[target]))
    assert "mine" in "".join(told(home)[0])


@pytest.mark.parametrize("value", [i for i in INJECTIONS if i != "--help"])
@pytest.mark.parametrize("name", ["PYTHON", "TORCH_INDEX"])
def test_nothing_is_run_while_packages_are_installed_either(home, value, name):
    os.utime(home / ".venv" / "ready", (0, 0))
    done = make(home, ".venv/ready", f"{name}={value}")
    assert not list(home.rglob("pwned")) and done.returncode == 0, done.stderr
    words, _ = told(home)
    assert name == "PYTHON" or f"--extra-index-url={value}" in words
    done = make(home, ".venv", f"PYTHON={value}")
    assert done.returncode != 0 and "There is no " in done.stderr and not list(home.rglob("pwned"))


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("PROFLE=smoke", "PROFILE"),
        ("profile=smoke", "PROFILE"),
        ("WORKER=4", "WORKERS"),
        ("ONLI=x", "ONLY"),
        ("DEVICES=cpu", "DEVICE"),
        ("TORCHINDEX=x", "TORCH_INDEX"),
        ("SORCE=reproduced", "SOURCE"),
        ("PYTHN=3", "PYTHON"),
        ("STEADYHOME=/x", "STEADY_HOME"),
        ("it's=1", "MINUTES"),
    ],
)
def test_word_that_is_no_setting_is_refused_with_the_nearest_before_anything_runs(
    home, word, nearest
):
    for target in ("plan", ".venv/ready"):
        done = make(home, target, word)
        assert done.returncode == 2 and not (home / "told").exists()
        name = word.partition("=")[0]
        assert (
            f"there is no setting {name}; the nearest is {nearest}, and all are: PROFILE "
            in done.stderr
        )


@pytest.mark.parametrize(
    "name", ["STEADY_HOME", "STEADY_DEBUG", "DASK_SCHEDULER_ADDRESS", "CUDA_VISIBLE_DEVICES"]
)
def test_variables_of_commands_may_stand_beside_settings(home, name):
    assert make(home, "plan", f"{name}=$(shell touch pwned)").returncode == 0
    assert f"{name}=$(shell touch pwned)" in (home / "told").read_text() and not list(
        home.rglob("pwned")
    )
