"""Results against the published ones, the book, publishing, cleaning, the bill: what surrounds the
notebooks.
"""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fabricated import SMALL_EXPERIMENT, receipt
from small_study import TASK, keep
from steadydescent import verified
from steadydescent.cli import main
from steadydescent.study import reproduce
from steadydescent.study.book import verdict_rows
from steadydescent.study.book.summary import digest
from steadydescent.study.book.words import added_after
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.planning import load_study, plans, profile_for, published_profile
from steadydescent.study.planning.stacks import OWN_GIB
from steadydescent.study.results import published
from steadydescent.study.results.first_seen import first_seen
from steadydescent.study.results.store import Result, read_folder

# ---- made again only when it must be -------------------------------------------------------------


def test_verdicts_are_computed_again_only_when_what_they_rest_on_has_changed(home, monkeypatch):
    keep(home, "published", {"constant": 0.0, "linear": 0.0})
    asked, rows = [], verdict_rows.rows
    monkeypatch.setattr(verdict_rows, "rows", lambda root: asked.append(root) or rows(root))
    first = verdict_rows.cached_rows("published", None)
    assert verdict_rows.cached_rows("published", None) == first and len(asked) == 1
    keep(home, "published", {"constant": 0.3, "linear": 0.0})
    assert verdict_rows.cached_rows("published", None) != first and len(asked) == 2


# ---- verify --------------------------------------------------------------------------------------

UP, DOWN, NOTHING = 0.05, -0.05, 0.0


@pytest.mark.parametrize(
    ("published", "mine", "spread", "outcome", "code"),
    [
        (UP, UP, 0.0, "held", 0),
        (NOTHING, NOTHING, 0.0, "held", 0),
        (UP, DOWN, 0.0, "flipped", 1),
        (UP, NOTHING, 0.0, "flipped", 1),
        (NOTHING, UP, 0.0, "flipped", 1),
        (UP, UP, 0.2, "undecided", 0),  # mine is open
    ],
)
def test_verify_tells_held_flipped_and_undecided_apart_and_exits_accordingly(
    home, published, mine, spread, outcome, code
):
    keep(home, "published", {"constant": published, "linear": published})
    keep(home, "reproduced", {"constant": mine, "linear": published}, spread)
    rows = {row["condition"]: row for row in reproduce.compare("laptop")}
    assert rows["constant"]["outcome"] == outcome
    assert rows["linear"]["outcome"] == ("undecided" if spread else "held")
    printed = CliRunner().invoke(main, ["verify", "--profile", "laptop", "--json"])
    assert printed.exit_code == code
    assert {row["outcome"] for row in json.loads(printed.output)} == {
        row["outcome"] for row in rows.values()
    }
    printed = CliRunner().invoke(main, ["verify", "--profile", "laptop"])
    assert printed.exit_code == code
    assert f"of 2 published verdicts held, {code} flipped." in printed.output


@pytest.mark.parametrize(
    ("theirs", "own", "outcome"),
    [
        (("supported, size open", "for", "open"), ("too small to matter", "for", "small"), "held"),
        (("supported, size open", "for", "open"), ("supported", "for", "large"), "held"),
        (("supported", "for", "large"), ("too small to matter", "for", "small"), "flipped"),
        (
            ("supported, size open", "for", "open"),
            ("too small to matter", "against", "small"),
            "flipped",
        ),
        (("refuted", "against", "large"), ("open", "open", "open"), "undecided"),
        (("supported", "open", "open"), ("refuted", "against", "large"), "flipped"),  # at least
    ],
)
def test_what_is_known_in_one_and_open_in_the_other_contradicts_nothing(theirs, own, outcome):
    """Word, direction and size of a published row and of one's own."""
    names = ("verdict", "direction", "size")
    rows = (dict(zip(names, row, strict=True)) for row in (theirs, own))
    assert reproduce._outcome(*rows) == outcome


def test_published_result_that_was_open_cannot_flip(home):
    keep(home, "published", {"constant": UP, "linear": UP}, spread=0.2)
    keep(home, "reproduced", {"constant": UP, "linear": DOWN})
    assert {row["outcome"] for row in reproduce.compare("laptop")} == {"undecided"}


def test_intervals_that_overlap_are_said_to(home):
    keep(home, "published", {"constant": UP, "linear": UP})
    keep(home, "reproduced", {"constant": UP, "linear": DOWN})
    overlap = {row["condition"]: row["intervals_overlap"] for row in reproduce.compare("laptop")}
    assert overlap == {"constant": True, "linear": False}


def test_verify_refuses_to_compare_nothing(home):
    """Neither without results of one's own nor without published ones: an empty comparison is no
    success.
    """
    keep(home, "published", {"constant": UP, "linear": UP})
    with pytest.raises(
        FileNotFoundError,
        match="no reproduced results of profile laptop; run `make reproduce PROFILE=laptop`",
    ):
        reproduce.compare("laptop")
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    shutil.rmtree(home / "results" / "published")
    with pytest.raises(FileNotFoundError, match=r"no published result .* nothing to compare"):
        reproduce.compare("laptop")
    failed = CliRunner().invoke(main, ["verify", "--profile", "laptop"])
    assert failed.exit_code == 1 and "nothing to compare" in failed.output


# ---- publish and clean ---------------------------------------------------------------------------


def test_publish_copies_the_rows_as_they_are_and_replaces_older_ones(home):
    keep(home, "published", {"constant": DOWN, "linear": DOWN})
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    summary = home / "results/README.md"
    summary.write_text("what stood here before")
    (line,) = reproduce.publish_results("laptop")
    text = summary.read_text(encoding="utf-8")
    assert "stood here before" not in text and "**Holds when the rate is constant" in text
    data = (home / "results/verdicts.csv").read_text(encoding="utf-8")
    for mode in ("light", "dark"):
        drawn = (home / f"results/verdicts-{mode}.svg").read_text(encoding="utf-8")
        assert digest(data) in drawn
    assert line == f"toy/{TASK}@reproduced"
    mine, mine_receipt = read_folder(home / "results/reproduced/laptop/toy" / TASK, Result)
    there, receipt_there = read_folder(home / "results/published/toy" / TASK, Result)
    assert (
        all(one.equals(other) for one, other in zip(mine, there, strict=True))
        and receipt_there == mine_receipt
    )
    assert {row["outcome"] for row in reproduce.compare("laptop")} == {"held"}


def test_a_row_keeps_the_day_on_which_it_was_first_published(home):
    """A row published again with a later run keeps its day, and one that is new gets its run's; the
    manifest lists the ledger.
    """
    root = home / "results/published"
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    reproduce.publish_results("laptop")
    places = [("ema-wins", TASK, condition) for condition in ("constant", "linear")]
    days = dict.fromkeys(places, "2026-02-03")
    assert first_seen(root) == days and "first_seen.csv" in published.listed(root)
    table = published.table("first_seen.csv", root)
    table.loc[table.condition == "constant", "date"] = "2026-01-01"
    published.write_table("first_seen.csv", table[table.condition == "constant"], root)
    reproduce.publish_results("laptop")
    assert first_seen(root) == days | {places[0]: "2026-01-01"}
    rows = {row["condition"]: row for row in verdict_rows.rows(root)}
    assert [rows[name]["first_seen"] for name in ("constant", "linear")] == [
        "2026-01-01",
        "2026-02-03",
    ]
    assert added_after(rows["constant"]) and not added_after(rows["linear"])
    listed = CliRunner().invoke(main, ["claims", "--source", "published", "--json"])
    assert {row["first_seen"] for row in json.loads(listed.output)} == {"2026-01-01", "2026-02-03"}


def test_rows_of_ones_own_are_first_seen_when_they_are_run(home):
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    (root,) = (home / "results/reproduced").glob("laptop")
    assert {row["first_seen"] for row in verdict_rows.rows(root)} == {"2026-02-03"}


def test_publish_refuses_smoke_and_what_is_not_there(home):
    keep(home, "reproduced", {"constant": UP, "linear": UP}, profile="smoke")
    with pytest.raises(
        ValueError, match="'smoke' supports no claim and is not published; use laptop, desk or full"
    ):
        reproduce.publish_results("smoke")
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    with pytest.raises(
        ValueError, match=r"only, among the reproduced results, must be one of .*got 'toy/other'"
    ):
        reproduce.publish_results("laptop", "toy/other")
    assert not (home / "results" / "published").exists()


def test_damaged_result_is_not_published(home):
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    (home / "results/reproduced/laptop/toy" / TASK / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"runs\.parquet has SHA-256"):
        reproduce.publish_results("laptop")
    assert not (home / "results" / "published").exists()


def test_clean_leaves_results_and_data_unless_asked_for_results(home):
    keep(home, "published", {"constant": UP, "linear": UP})
    keep(home, "reproduced", {"constant": UP, "linear": UP})
    for name in (
        "_build/html/index.html",
        "generated/findings.json",
        "screenshots/book.png",
        "data/images",
        "results/store/ab/x",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("")
    there = lambda: {
        path.relative_to(home).as_posix() for path in [*home.glob("*"), *home.glob("results/*")]
    }
    staying = {
        "data",
        "experiments",
        "results",
        "results/published",
        "results/reproduced",
        "results/store",
    }
    reproduce.clean_tree(with_results=False)
    assert there() == staying
    reproduce.clean_tree(with_results=True)
    assert there() == staying - {"results/reproduced", "results/store"}
    assert reproduce.clean_tree(with_results=True) == []


# ---- cost ----------------------------------------------------------------------------------------


def test_bill_names_networks_time_memory_disk_and_what_is_left_out(capsys):
    rows = reproduce.costs("laptop", "cpu")
    reproduce.say_cost(rows, "laptop", "cpu")
    printed = capsys.readouterr().out
    assert f"About {sum(row['networks'] for row in rows)} networks" in printed
    for word in (
        "minutes",
        "GiB of memory",
        "MB of disk",
        "Kill it at any time",
        "Profile laptop leaves out: ",
        "weight_averaging/fashion-mnist-cnn",
    ):
        assert word in printed
    assert "PROFILE=full" not in printed


def test_bill_for_two_processes_is_half_the_time_and_twice_the_memory_beside_the_commands_own(
    capsys,
):
    row = {"networks": 5, "points": 0, "minutes": 30.0, "memory_gib": 1.5, "disk_mb": 1.0}
    reproduce.say_cost([row], "full", "cpu")
    assert (
        "30 minutes of training in one process" in (alone := capsys.readouterr().out)
        and "1.5 GiB" in alone
    )
    reproduce.say_cost([row], "full", "cpu", processes=2)
    both = capsys.readouterr().out
    assert "15 minutes of training in 2 processes" in both and f" {3 + OWN_GIB:g} GiB" in both


def test_bill_on_a_gpu_says_what_full_would_take(capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "costs", cache(reproduce.costs))  # the whole study's takes long
    reproduce.say_cost(reproduce.costs("smoke", "cuda"), "smoke", "cuda")
    said = capsys.readouterr().out
    full = reproduce.costs("full", "cuda")
    networks = sum(row["networks"] for row in full)
    assert f"PROFILE=full would train {networks} networks" in said and "it would take about" in said


def published_with(folder: Path, *profiles: str) -> Path:
    """A published folder with a result of each of these profiles."""
    for number, profile in enumerate(profiles):
        place = folder / "toy" / f"task-{number}"
        place.mkdir(parents=True)
        (place / "receipt.json").write_bytes(verified.sealed({"profile": profile}))
    return folder


def test_with_a_gpu_what_is_published_is_reproduced_and_without_one_a_laptops_part(tmp_path):
    root = published_with(tmp_path, "desk", "laptop", "desk")
    assert profile_for("auto", "cuda", root) == "desk"
    assert profile_for("auto", "cpu", root) == "laptop"
    assert profile_for("auto", "cuda", tmp_path / "nothing") == "laptop"
    assert {profile_for("smoke", device, root) for device in ("cuda", "cpu")} == {"smoke"}
    # what this checkout has published, by its own files
    told = [json.loads(path.read_text())["profile"] for path in PUBLISHED.glob("*/*/receipt.json")]
    assert profile_for("auto", "cuda") == published_profile() == max(told, key=told.count)


@pytest.mark.parametrize(("found", "profile"), [(True, "desk"), (False, "laptop")])
def test_commands_need_no_flag_on_either_machine(monkeypatch, found, profile):
    """The same profile for all commands, by the device that torch finds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    monkeypatch.delenv("PROFILE", raising=False)
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.setattr(reproduce, "run_study", lambda *given: asked.append(given[:2]))
    monkeypatch.setattr(reproduce, "compare", lambda given: asked.append(given) or [])
    asked: list = []
    assert CliRunner().invoke(main, ["run"]).exit_code == 0
    assert CliRunner().invoke(main, ["verify"]).exit_code == 0
    device = "cuda" if found else "cpu"
    assert asked == [(profile, device), profile]
    asked.clear()
    monkeypatch.setenv("DEVICE", "cpu")
    assert CliRunner().invoke(main, ["run"]).exit_code == 0
    assert CliRunner().invoke(main, ["verify"]).exit_code == 0
    assert asked == [("laptop", "cpu"), "laptop"]
    assert CliRunner().invoke(main, ["verify", "--profile", "smoke"]).exit_code == 0
    assert asked[-1] == "smoke"


def test_only_limits_the_bill():
    assert [row["task"] for row in reproduce.costs("desk", "cpu", f"weight_averaging/{TASK}")] == [
        TASK
    ]
    assert len(reproduce.costs("desk", "cpu")) == len(plans("desk"))


def test_small_experiment_used_here_is_a_valid_one(home):
    assert (
        load_study()["toy"].arms.keys() == SMALL_EXPERIMENT["arms"].keys()
        and receipt("smoke", "x")["profile"] == "smoke"
    )
