"""What a checkpoint holds, and the mean of two: OpenNMT-tf's images 6 and 7, of real files."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from steadydescent.study.book import figures
from steadydescent.weight_averaging import (
    average_checkpoints,
    last_checkpoints,
    save_checkpoint,
)
from steadydescent.weight_averaging.checkpoint_files import opened

INPUTS, OUTPUTS, UPDATES = 3, 2, 2
COLUMNS = ["tensor", "kind", "of", "shape"]
SLOT_NAMES = {"exp_avg": "m", "exp_avg_sq": "v", "step": "t"}
"""torch's name of a slot of Adam → the paper's letter."""


def write_checkpoints(folder: Path) -> None:
    """A small layer trained by Adam, with a checkpoint after each update."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(INPUTS, OUTPUTS)
        x, y = torch.randn(7, INPUTS), torch.randn(7, OUTPUTS)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5)
    for step in range(1, UPDATES + 1):
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimizer.step()
        save_checkpoint(folder / f"{step}.safetensors", layer, optimizer, step)


def table_of_contents(path: Path) -> pd.DataFrame:
    """Tensors of a checkpoint: columns tensor, kind (weight or slot), of (its weight), shape."""
    with opened(path) as file:
        weights, slots = file.mapping("weights"), file["slots"]
    rows = [(f"weights.{of}", "weight", of, _shape(value)) for of, value in weights.items()]
    for of, own in slots.items():
        for slot, value in own.items():
            kind = f"slot {SLOT_NAMES[slot]}"
            rows.append((f"slots.{of}.{slot}", kind, of, _shape(value)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _shape(value: torch.Tensor) -> str:
    return "×".join(map(str, value.shape))


def contents() -> pd.DataFrame:
    """What the last checkpoint of the small layer holds."""
    with TemporaryDirectory() as folder:
        write_checkpoints(Path(folder))
        return table_of_contents(Path(folder) / f"{UPDATES}.safetensors")


def draw_contents(name: str) -> None:
    """A checkpoint as a graph: weights, and the optimiser's slots at the weight that each is of."""
    table = contents()
    weights, slots = table[table.kind == "weight"], table[table.kind != "weight"]
    kinds = ", ".join(dict.fromkeys(kind.removeprefix("slot ") for kind in slots.kind))
    what = f"{len(weights)} weights and {len(slots)} slots of Adam, {kinds}"
    figures.figure(
        name,
        lambda ax: _graph(ax, weights, slots),
        data=table,
        size=(7.2, 3.4),
        alt=f"A checkpoint of one linear layer as a graph: {what}, each slot joined to its weight.",
        caption=f"What a checkpoint of one linear layer trained by Adam holds: {what}, each of the "
        "weight that it is joined to. How the layer computes is not in the file.",
    )


def _graph(ax: Axes, weights: pd.DataFrame, slots: pd.DataFrame) -> None:
    """Edges go from the right side of a box to the left side of the next; boxes lie at x below."""
    heights = dict(zip(weights.of, (0.85, 0.35), strict=True))
    for row in weights.itertuples():
        height = heights[str(row.of)]
        _edge(ax, (0.09, 0.6), (0.3, height))
        _box(ax, (0.42, height), f"{row.tensor}  [{row.shape}]", "C0")
    for of, own in slots.groupby("of", sort=False):
        for place, slot in enumerate(own.itertuples()):
            height = heights[str(of)] + 0.16 * (1 - place)
            _edge(ax, (0.55, heights[str(of)]), (0.77, height))
            ax.text(0.7, height + 0.02, str(slot.kind).removeprefix("slot "), style="italic")
            _box(ax, (0.94, height), f"{slot.tensor}  [{slot.shape or 'a number'}]", "C1")
    _box(ax, (0.0, 0.6), f"checkpoint,\nupdate {UPDATES}", "0.5")
    ax.set(xlim=(-0.1, 1.13), ylim=(0.05, 1.15))
    ax.set_axis_off()


def _edge(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.plot([start[0], end[0]], [start[1], end[1]], color="0.5", linewidth=1)


def _box(ax: Axes, place: tuple[float, float], text: str, colour: str) -> None:
    frame = {"boxstyle": "round", "edgecolor": colour, "facecolor": "none", "linewidth": 1.6}
    ax.text(place[0], place[1], text, ha="center", va="center", fontsize="small", bbox=frame)


def table_of_mean() -> pd.DataFrame:
    """The weights in both checkpoints and in their mean: checkpoint, tensor, row, column, value."""
    with TemporaryDirectory() as folder:
        write_checkpoints(Path(folder))
        paths = last_checkpoints(folder, UPDATES)
        of_file = {f"update {path.stem}": _weights_in(path) for path in paths}
        of_file["mean"] = average_checkpoints(paths)
    rows = [
        (checkpoint, tensor, row, column, value.item())
        for checkpoint, weights in of_file.items()
        for tensor, values in weights.items()
        for row, line in enumerate(torch.atleast_2d(values))
        for column, value in enumerate(line)
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "tensor", "row", "column", "value"])


def _weights_in(path: Path) -> dict[str, torch.Tensor]:
    with opened(path) as file:
        return dict(file.mapping("weights"))


def draw_mean(name: str) -> None:
    """The weight matrix in both checkpoints and in the mean, number by number."""
    table = table_of_mean()
    matrix = table[table.tensor == "weight"]
    first = matrix[(matrix.row == 0) & (matrix.column == 0)].set_index("checkpoint").value
    halves = " + ".join(f"{value:.3f}/{UPDATES}" for value in first.drop("mean"))
    sum_of_first = f"{halves} = {first['mean']:.3f}"
    figures.figure(
        name,
        lambda axes: _matrices(axes, matrix),
        data=table,
        size=(8.4, 1.9),
        ncols=UPDATES + 1,
        alt=f"A 2 × 3 weight matrix in two checkpoints and their mean; the first entry is "
        f"{sum_of_first}.",
        caption="The weights of the small layer in its last two checkpoints, and their mean: each "
        f"is divided by {UPDATES} and added to a zero, for the first entry {sum_of_first}. Slots "
        "are not averaged.",
    )


def _matrices(axes: Iterable[Axes], matrix: pd.DataFrame) -> None:
    for ax, (checkpoint, part) in zip(axes, matrix.groupby("checkpoint", sort=False), strict=True):
        for entry in part.itertuples():
            place = (entry.column, -entry.row)
            ax.text(*place, f"{entry.value:.3f}", ha="center", va="center")
        ax.set(title=checkpoint, xlim=(-0.6, INPUTS - 0.4), ylim=(0.6 - OUTPUTS, 0.6))
        ax.set(xticks=[], yticks=[])
