"""What is published is whole, has its receipt, and is what README says."""

import subprocess

import pytest

from steadydescent.findings import results, rows
from steadydescent.paths import PUBLISHED, ROOT
from steadydescent.reproduce import with_verdicts
from steadydescent.study import load_study
from steadydescent.trial import result_id

FOUND = list(results(PUBLISHED))


def test_every_task_of_the_published_profile_is_there():
    profiles = {receipt["profile"] for *_, receipt in FOUND}
    assert profiles <= {"laptop", "desk", "full"}
    assert FOUND
    have = {(name, task) for name, task, *_ in FOUND}
    for name, *_, receipt in FOUND:
        assert {(name, task) for task in load_study()[name].profiles[receipt["profile"]]} <= have


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found[1])
def test_result_is_what_its_id_says(found):
    name, task, _, result, receipt = found
    assert receipt["result"] == result_id(name, task, result)
    assert receipt["networks"] == len(result.runs)
    assert "+changes" not in receipt["commit"]


def test_tuning_and_report_runs_share_no_seed_and_tuning_never_saw_test_data():
    for *_, result, _ in FOUND:
        tuning, report = result.runs[~result.runs.test], result.runs[result.runs.test]
        assert not set(tuning.seed) & set(report.seed)
        assert set(result.finals[result.finals.run.isin(tuning.run)].split) == {"validation"}


def test_readme_shows_the_published_verdicts():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_verdicts(readme), "run `make publish`, which writes README's table"
    assert all(f"**{row['verdict']}**" in readme for row in rows(PUBLISHED))


def test_repository_stays_under_twenty_megabytes():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = [path.stat().st_size for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    assert sum(sizes) < 20e6
