"""Published results as the cells of a page get them, read once for all tests."""

from functools import cache

from steadydescent.study.book.findings import Shown
from steadydescent.study.judging.judge import evidence_of
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results.store import Result, read_folder


@cache
def published_result(experiment: str, task: str) -> Shown:
    result, receipt = read_folder(PUBLISHED / experiment / task, Result)
    return Shown(evidence_of(experiment, result, receipt, task), receipt)
