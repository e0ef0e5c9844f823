"""The benchmark suite: which cases there are, which are picked, and where what they found is kept.

`steady bench` runs it in a process of its own, whose allocator and threads are set as for training.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from ceilings import (
    bandwidth,
    evaluation_against_products,
    product_ceiling,
    step_against_convolutions,
    step_against_products,
)
from commands import book, importing, reproduce, sweep_share
from pieces import (
    HALF,
    MODELS,
    MORE_OPTIMIZERS,
    OPTIMIZERS,
    SHAPES,
    ema_update,
    optimizer_layout,
    optimizer_step,
)
from steadydescent.checks import check_choice
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results import published
from steadydescent.study.results.provenance import receipt
from training import TASKS, Settings, averages_cost, train

Case = Callable[[str, Settings], list[dict[str, Any]]]
PERCEPTRONS = ("mnist1d-mlp", "fashion-mnist-mlp")
CONVOLUTIONAL = ("mnist1d-cnn", "fashion-mnist-cnn")

CASES: dict[str, Case] = {
    **{f"train {task}, one EMA": partial(train, task) for task in TASKS},
    **{f"bare products, {task}": partial(product_ceiling, task) for task in PERCEPTRONS},
    **{
        f"step against its bare matrix products, {task}": partial(step_against_products, task)
        for task in PERCEPTRONS
    },
    **{
        f"step against its products and passes, {task}": partial(
            step_against_products, task, passes=True
        )
        for task in PERCEPTRONS
    },
    **{
        f"step against its convolutions alone, {task}": partial(step_against_convolutions, task)
        for task in CONVOLUTIONAL
    },
    **{
        f"evaluation against its bare matrix products, {task}": partial(
            evaluation_against_products, task
        )
        for task in PERCEPTRONS
    },
    "update and EMA": bandwidth,
    **{
        f"one EMA added to a step, {task}": partial(averages_cost, task, averages=1)
        for task in PERCEPTRONS
    },
    **{
        f"five averages added to a step, {task}": partial(averages_cost, task, averages=5)
        for task in PERCEPTRONS
    },
    **{f"EMA update, {name}": partial(ema_update, name) for name in (*MODELS, *SHAPES)},
    **{
        f"optimizer step, {rule}, {on}": partial(optimizer_step, rule, on)
        for rule in OPTIMIZERS
        for on in MODELS
    },
    **{
        f"optimizer by layout, {rule}, {name}": partial(optimizer_layout, rule, name)
        for rule in MORE_OPTIMIZERS
        for shape in SHAPES
        for name in (shape, shape + HALF)
    },
    **{
        f"import {module}": partial(importing, module)
        for module in ("steadydescent", "steadydescent.engine.stack")
    },
    "store, journal and checks": sweep_share,
}
"""Case → what measures it on a device."""
ON_REQUEST: dict[str, Case] = {"reproduce": reproduce, "book": book}
"""Cases that take minutes."""


def chosen(only: str = "", also: str = "") -> dict[str, Case]:
    """Cases whose name holds `only`, or matches it as a glob, and those in `also`.

    Those in `also` are on request, with commas between.

    With `also` and no `only`, those on request are all that is run.

    Raises:
        ValueError: for a pattern that no case matches, or an unknown case on request; names what
            exists.
    """
    wanted = [name for name in also.split(",") if name]
    for name in wanted:
        check_choice(name, sorted(ON_REQUEST), "a case on request")
    matches = lambda name: fnmatchcase(name.lower(), f"*{only.lower()}*")
    picked = {name: case for name, case in CASES.items() if matches(name)}
    if not picked:
        check_choice(only, CASES, f"a case (on request: {sorted(ON_REQUEST)})")
    return ({} if wanted and not only else picked) | {name: ON_REQUEST[name] for name in wanted}


def run(cases: dict[str, Case], device: str, settings: Settings) -> list[dict[str, Any]]:
    """The rows of all cases, each told on standard error as it is done."""
    rows = []
    for number, (name, case) in enumerate(cases.items(), start=1):
        began = time.perf_counter()
        rows += case(device, settings)
        print(
            f"{number}/{len(cases)} {name}: {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return rows


def measured(
    only: str, also: str, device: str, settings: Settings, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """`run` in a process of its own that starts with this environment.

    Raises:
        RuntimeError: when a case failed; the process has said on standard error how.
    """
    request = json.dumps({"only": only, "also": also, "device": device, "settings": vars(settings)})
    words = [sys.executable, __file__, request]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError("a case of the benchmark failed; its message is above")
    return json.loads(done.stdout.splitlines()[-1])


def brief(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns that fit a terminal."""
    return [
        {
            "case": row["case"],
            "peer": row["peer_name"],
            "ours": row["ours"],
            "theirs": row["peer"],
            "unit": row["unit"],
            "ours/theirs": f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]",
            "losses": {True: "agree", False: "DIFFER", None: ""}[row["losses_agree"]],
        }
        for row in rows
    ]


def save(
    rows: Sequence[dict[str, Any]], device: str, minutes: float, folder: Path = PUBLISHED
) -> Path:
    """`keep` rows that were measured here and now."""
    return keep(rows, device, receipt(device, minutes=round(minutes, 1)), folder)


def keep(
    rows: Sequence[dict[str, Any]], device: str, origin: dict[str, Any], folder: Path = PUBLISHED
) -> Path:
    """Keep rows with the receipt of their origin in `bench-<device>.json`.

    Cases that were measured earlier and not now stay there.
    """
    name, now = f"bench-{device}.json", {row["case"] for row in rows}
    parts = published.parsed(name, folder, otherwise=[])
    kept = [
        {**part, "rows": [row for row in part["rows"] if row["case"] not in now]} for part in parts
    ]
    parts = [part for part in kept if part["rows"]]
    parts.append({"rows": list(rows), "receipt": origin})
    return published.write_json(name, parts, folder)


def main(request: str) -> None:
    """Run what a request asks for and print the rows as the last line."""
    asked = json.loads(request)
    cases = chosen(asked["only"], asked["also"])
    print(json.dumps(run(cases, asked["device"], Settings(**asked["settings"]))))


if __name__ == "__main__":
    main(sys.argv[1])
