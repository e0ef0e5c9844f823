"""What a million networks would cost: a model whose constants are all measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import page
from steadydescent.study.book.chapters.growth.curves import Growth, table_of_curves

NETWORKS, UPDATES, MACHINES = 10**6, 1_000, (1, 10, 100, 1_000)


@dataclass(frozen=True)
class Machine:
    """What one machine like the measured one does with the benchmark's task; seconds, MiB, bytes.

    `update` is of a whole stack of `width`, `rest` what a stack takes besides its updates, `start`
    what a worker takes once. `save` and `look` are the command's own part a stack: storing it, and
    looking through what is stored, by `look` for each stack that is there already.
    """

    width: int
    update: float
    rest: float
    start: float
    save: float
    look: float
    memory: float
    disk: float

    def cost(self, networks: int, updates: int, machines: int) -> dict[str, Any]:
        """Hours, and whether the workers or the one command that stores their rows set the pace."""
        stacks = math.ceil(networks / self.width)
        training = self.start + math.ceil(stacks / machines) * (updates * self.update + self.rest)
        storing = stacks * self.save + self.look * stacks**2 / 2
        hours = max(training, storing) / 3600
        return {
            "machines": machines,
            "hours": hours,
            "machine hours": machines * hours,
            "set by": "training" if training >= storing else "storing",
            "disk, GiB": stacks * self.disk / 2**30,
        }


def machine(rows: pd.DataFrame) -> Machine | None:
    """The model's constants from the rows; None where a curve that it needs was not measured."""
    names = ("networks", "planned", "store", "replicas")
    sweeps, planned, stored, eager = (rows[rows.curve == name] for name in names)
    if sweeps.empty or eager.empty or stored.empty:
        return None
    width = int((sweeps.networks / sweeps.stacks).iloc[0])
    update = math.exp(np.interp(math.log(width), np.log(eager.replicas), np.log(eager.seconds)))
    rest = max(0.0, _slope(sweeps, "seconds") - sweeps.updates.iloc[0] * update)
    start = 0.0
    if len(planned) and planned.seconds.iloc[0] < update:
        update, start = float(planned.seconds.iloc[0]), float(planned.first_seconds.iloc[0])
    return Machine(
        width=width,
        update=update,
        rest=rest,
        start=start,
        save=float(stored.save_seconds.median()),
        look=max(0.0, _slope(stored, "seconds")),
        memory=float(eager.memory_mib[eager.replicas >= width].iloc[0]),
        disk=float((sweeps.bytes / sweeps.stacks).iloc[-1]),
    )


def _slope(table: pd.DataFrame, y: str) -> float:
    """Of a straight line against the number of stacks."""
    return float(np.polyfit(table.stacks, table[y], 1)[0])


def table_of_costs(
    model: Machine, networks: int, updates: int, machines: Sequence[int]
) -> pd.DataFrame:
    """A row for each number of machines."""
    return pd.DataFrame([model.cost(networks, updates, count) for count in machines])


def answer(growth: Growth) -> page.Shown:
    """The page's first paragraph: hours for a million networks, and how many curves are linear."""
    words = _missing("CPU", "cpu") if growth.rows.empty else []
    model, curves = machine(growth.rows), table_of_curves(growth)
    if model:
        alone, ten = (model.cost(NETWORKS, UPDATES, count)["hours"] for count in (1, 10))
        million = (
            f"A million networks of {UPDATES:,} updates would take {alone:,.3g} hours on one "
            f"machine like this ({growth.receipt['device']}), {ten:,.3g} on ten."
        )
        words += [page.strong(million), " "]
    if len(curves):
        straight = (curves.linear != "nowhere").sum()
        words.append(
            f"Of {len(curves)} curves {straight} have a linear stretch; the table says where it "
            "ends, and why."
        )
    return page.paragraph(*words)


def _missing(name: str, device: str) -> list[page.Part]:
    """What stands where a kind of device is not measured."""
    command = page.code(f"python benchmarks/growth.py --device {device}")
    after = " measures it in a few minutes, and this page then shows it. "
    return [f"Growth on a {name} is not measured: ", command, after]


def show_curves(growth: Growth) -> page.Shown:
    """The table of curves."""
    curves = table_of_curves(growth)
    return page.table(curves) if len(curves) else page.paragraph("Nothing to show yet.")


def show_costs(growth: Growth) -> page.Shown:
    """The bill for a million networks."""
    model = machine(growth.rows)
    if model is None:
        return page.paragraph("Not all of what the model needs is measured yet.")
    costs = table_of_costs(model, NETWORKS, UPDATES, MACHINES)
    return page.table(costs, precision=1, thousands=" ")


def show_constants(growth: Growth) -> page.Shown:
    """The model's constants in a sentence."""
    model = machine(growth.rows)
    if model is None:
        return page.paragraph("")
    return page.paragraph(
        f"Measured for it: {1e3 * model.update:.3g} ms an update of {model.width} networks, "
        f"{model.rest:.2g} s more a stack, {model.start:.2g} s a worker to compile, "
        f"{1e3 * model.save:.2g} ms to store a stack of {model.disk / 1024:.0f} KiB, "
        f"{1e6 * model.look:.2g} µs to look at a stored one, {model.memory:.0f} MiB of memory a "
        "worker above the library's own. These are networks of the smallest task; others scale "
        "with the rates that make plan shows."
    )


def introduce_gpu(growth: Growth) -> page.Shown:
    """The device of the figure below, or how to measure one."""
    if growth.rows.empty:
        return page.paragraph(*_missing("GPU", "cuda"))
    return page.paragraph(f"On {growth.receipt['device']}:")
