"""Cases of the suite, or widths of tasks, one after another, each told as it is done.

    python benchmarks/item_by_item.py '{"kind": "case", "device": "cpu", …}' '["update and EMA"]'

`steady gpu` runs it, in a process of its own that it can end at any moment.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from steadydescent.study.training.items import serve_items
from suite import CASES
from training import Settings
from widths import Look, widths


def work(asked: dict[str, Any]) -> Callable[[str], Any]:
    """What is done with an item of a kind: a case's rows, or a task's width."""
    device, given = asked["device"], asked["settings"]
    if asked["kind"] == "case":
        return lambda name: CASES[name](device, Settings(**given))
    return lambda task: widths(task, device, Look(**given))


if __name__ == "__main__":
    serve_items(work(json.loads(sys.argv[1])), json.loads(sys.argv[2]))
