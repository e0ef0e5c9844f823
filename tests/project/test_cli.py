"""The `steady` command: help for everything, JSON that programs can rely on, one sentence for what
a user can mend.
"""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fabricated import experiments_from, result, write_experiments, write_result
from steadydescent import cli
from steadydescent.cli import main
from steadydescent.engine.data import SOURCES
from steadydescent.study.book import saved_results, verdict_rows
from steadydescent.study.paths import ROOT
from steadydescent.study.planning import Plan, load_study, plans
from steadydescent.study.results import provenance
from steadydescent.study.training import stack_training

TASK = "mnist1d-mlp"
CLAIM_KEYS = {
    "id",
    "scope",
    "task",
    "condition",
    "measure",
    "verdict",
    "estimate",
    "ci_low",
    "ci_high",
    "margin",
    "n_seeds",
    "diverged",
    "profile",
    "result",
    "primary",
    "direction",
    "size",
    "registered",
    "first_seen",
    "edge_share",
    "censored_share",
    "choices",
    "bound",
    "headline",
}
COST_KEYS = {
    "experiment",
    "task",
    "profile",
    "networks",
    "points",
    "replica_steps",
    "stacks",
    "minutes",
    "training_minutes",
    "evaluation_minutes",
    "memory_gib",
    "disk_mb",
}
COMMANDS = [
    ["reproduce"],
    ["run"],
    ["plan"],
    ["claims"],
    ["verify"],
    ["book"],
    ["serve"],
    ["publish"],
    ["cite"],
    ["data"],
    ["data", "fetch"],
    ["bench"],
    ["gpu"],
    ["import-store"],
    ["clean"],
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("PROFILE", "DEVICE", "ONLY", "STEADY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STEADY_COMMAND", "steady test")
    monkeypatch.setattr(stack_training.torch.cuda, "is_available", lambda: False)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small study with one published result."""
    write_experiments(tmp_path / "experiments")
    for name in ("PUBLISHED", "REPRODUCED"):
        for module in (saved_results, verdict_rows):
            monkeypatch.setattr(module, name, tmp_path / "results" / name.lower())
    with experiments_from(tmp_path / "experiments"):
        plan = Plan(experiment=load_study()["toy"], task=TASK, profile="laptop")
        better = lambda run, readout, split: (
            0.6 + 0.05 * readout.startswith("ema-") + run.seed % 3 / 1000
        )
        write_result(
            tmp_path / "results/published/toy" / TASK,
            result(plan, better),
            "laptop",
            f"toy/{TASK}@3f9c2a7e",
        )
        yield tmp_path


def steady(*words: str, code: int = 0) -> str:
    """What the command prints; its exit status is checked."""
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


# ---- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words):
    text = steady(*words, "--help")
    assert text.startswith("Usage:") and len(text.splitlines()) >= 5
    assert text == steady(*words, "-h")


def test_no_command_was_forgotten_here():
    known = {words[0] for words in COMMANDS} | {" ".join(words) for words in COMMANDS}
    for name, command in main.commands.items():
        assert name in known
        assert all(f"{name} {inner}" in known for inner in getattr(command, "commands", {}))


def test_commands_and_options_are_all_described():
    for command in main.commands.values():
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "port":
                assert option.help, (command.name, option.name)


def test_help_needs_no_heavy_imports_and_works_as_a_module():
    slow = "{'torch', 'pandas', 'papermill'}"
    code = f"import sys, steadydescent.cli; assert not {slow} & set(sys.modules), 'slow start'"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "steadydescent.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(words[0] in done.stdout for words in COMMANDS)


def test_help_on_data_names_every_source():
    text = " ".join(steady("data", "fetch", "--help").split())
    assert f"SOURCE is one of {', '.join(SOURCES)}, or all." in text


# ---- plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_plan_as_json_has_a_row_a_task_with_its_cost(profile):
    rows = json.loads(steady("plan", "--profile", profile, "--device", "cpu", "--json"))
    assert [row["task"] for row in rows] == [plan.task for plan in plans(profile)]
    for row in rows:
        assert set(row) >= COST_KEYS
        assert row["profile"] == profile and row["networks"] + row["points"] > 0


def test_plan_for_people_ends_with_the_bill_and_what_is_left_out():
    text = steady("plan", "--profile", "laptop")
    assert TASK in text and "networks" in text
    (line,) = (line for line in text.splitlines() if line.startswith("Profile laptop leaves out: "))
    assert line.endswith(".") and "weight_averaging/fashion-mnist-cnn" in line.rstrip(".").split(
        ": "
    )[1].split(", ")


def test_plan_reads_profile_and_only_from_the_environment_as_make_passes_them(monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("ONLY", f"weight_averaging/{TASK}")
    (row,) = json.loads(steady("plan", "--json"))
    assert (row["profile"], row["task"]) == ("smoke", TASK)


# ---- claims and citations ------------------------------------------------------------------------


def test_claims_as_json_have_the_promised_keys(published):
    rows = json.loads(steady("claims", "--json"))
    assert [row["condition"] for row in rows] == ["constant", "linear"]
    for row in rows:
        assert set(row) >= CLAIM_KEYS
        assert (
            row["id"] == "ema-wins"
            and (row["verdict"], row["direction"], row["size"]) == ("supported", "for", "large")
            and row["headline"].startswith("Holds when the rate is constant")
            and row["result"] == f"toy/{TASK}@3f9c2a7e"
        )
        assert row["ci_low"] <= row["estimate"] <= row["ci_high"] and row[
            "estimate"
        ] == pytest.approx(5)
        assert (row["n_seeds"], row["diverged"], row["margin"], row["profile"]) == (
            5,
            0,
            1.0,
            "laptop",
        )


def test_claims_for_people_show_verdict_interval_and_seeds(published):
    text = steady("claims")
    assert "supported" in text and "accuracy" in text
    assert "+5.00 pp (+5.00 to +5.00)" in text
    assert f"toy/{TASK}@3f9c2a7e" in text


def test_claims_without_results_are_not_run_or_a_sentence(published):
    rows = json.loads(steady("claims", "--source", "reproduced", "--profile", "desk", "--json"))
    assert {row["verdict"] for row in rows} == {"not run"} and not any(
        row["result"] for row in rows
    )
    assert "no reproduced results of profile desk" in steady(
        "claims", "--source", "reproduced", "--profile", "desk", code=1
    )


def test_cite_gives_one_entry_by_its_id_or_all(published):
    entry = steady("cite", f"toy/{TASK}@3f9c2a7e")
    assert entry == steady("cite") and entry.startswith(
        f"@misc{{steadydescent-toy-{TASK}-3f9c2a7e,"
    )
    assert "year   = {2026}" in entry and entry.count("{") == entry.count("}")
    assert "must be one of ['toy/mnist1d-mlp@3f9c2a7e']" in steady("cite", "nothing", code=1)


# ---- what a user can mend ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["plan", "--profile", "huge"],
            "profile must be one of ['smoke', 'laptop', 'desk', 'full'], got 'huge'",
        ),
        (["run", "--profile", "huge"], "profile must be one of"),
        (["reproduce", "--profile", "huge"], "profile must be one of"),
        (["verify", "--profile", "huge"], "profile must be one of"),
        (["claims", "--source", "reproduced", "--profile", "huge"], "profile must be one of"),
        (
            ["plan", "--device", "tpu"],
            "device 'tpu' is unknown; did you mean 'cpu'? Known are ['auto', 'cpu', 'cuda']",
        ),
        (["run", "--device", "cuda"], "torch finds no GPU; use DEVICE=cpu or DEVICE=auto"),
        (
            ["plan", "--only", "nothing"],
            "in profile 'laptop', only must be one of ['batch_size'",
        ),
        (["run", "--only", "nothing"], "only must be one of"),
        (
            ["claims", "--source", "mine"],
            "source must be one of ['published', 'reproduced'], got 'mine'",
        ),
        (
            ["publish", "--profile", "smoke"],
            "profile 'smoke' supports no claim and is not published",
        ),
        (
            ["data", "fetch", "cifar"],
            "source must be one of ['mnist1d', 'fashion-mnist', 'names', "
            "'gaussian-2', 'gaussian-100', 'all'], got",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_word_is_answered_with_one_sentence_and_no_traceback(words, sentence):
    text = steady(*words, code=1)
    assert sentence in text and text.startswith("Error: ") and "Traceback" not in text
    message = text.removeprefix("Error: ").splitlines()
    assert len(message) == 2 and "STEADY_DEBUG=1" in message[1]


def test_debugging_shows_where_an_error_happened(monkeypatch):
    monkeypatch.setenv("STEADY_DEBUG", "1")
    done = CliRunner().invoke(main, ["plan", "--profile", "huge"])
    assert isinstance(done.exception, ValueError)


def test_errors_that_no_user_can_mend_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "show", lambda *_: {}["missing"])
    assert isinstance(CliRunner().invoke(main, ["plan", "--profile", "smoke"]).exception, KeyError)


# ---- receipts ------------------------------------------------------------------------------------


def test_receipt_names_command_commit_packages_and_device_in_plain_json():
    made = provenance.receipt("cpu", seconds=1.5)
    assert json.loads(json.dumps(made)) == made
    assert (
        made["command"] == "steady test" and made["seconds"] == 1.5 and made["device_kind"] == "cpu"
    )
    assert "cores" in made["device"] and {"torch", "numpy", "pandas"} <= set(made["packages"])


def test_commit_says_when_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"
    git = lambda *words: subprocess.run(
        ["git", "-C", str(tmp_path), *words], check=True, capture_output=True
    )
    (tmp_path / "file").write_text("one")
    git("init", "-q")
    git("add", "file")
    git(
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-q",
        "-m",
        "one",
        "--no-verify",
    )
    clean = provenance.commit()
    assert len(clean) == 12 and int(clean, 16) >= 0
    (tmp_path / "file").write_text("two")
    assert provenance.commit() == f"{clean}+changes"


def test_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package-here"))
    assert set(provenance.packages()) == {"torch"}


def test_paths_do_not_depend_on_the_working_directory(tmp_path):
    code = "from steadydescent.study.paths import ROOT; print(ROOT)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT)
