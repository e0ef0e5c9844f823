"""Published results as the cells of a page get them, read once for all tests."""

from functools import cache

from steadydescent.study.book.edition import ShownResult
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results.store import Result, read_folder


@cache
def published_result(experiment: str, task: str) -> ShownResult:
    result, receipt = read_folder(PUBLISHED / experiment / task, Result)
    return ShownResult(Evidence(result, receipt), receipt)
