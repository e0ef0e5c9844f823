"""A weight and its averages along training, where gradients are noisy: OpenNMT-tf's image 1."""

from collections.abc import Mapping

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from steadydescent.optimizers.rules import sgd
from steadydescent.study.book import figures
from steadydescent.weight_averaging import EMA, Debiased, Mixing, Ramped, Started

UPDATES, RATE, START, MINIMUM = 300, 0.1, 0.0, 1.0
AVERAGES: Mapping[str, Mixing] = {
    "ramp": Ramped(),
    "β = 0.99, from the first weight": Started(0.99),
    "β = 0.99, corrected": Debiased(0.99),
}


def table_of_shadows() -> pd.DataFrame:
    """SGD on ½·(θ − 1)² with gradient noise of variance 1: columns update, weight, averages."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(UPDATES, generator=generator, dtype=torch.float64)
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, START)
    averages = {name: EMA(model, mixing) for name, mixing in AVERAGES.items()}
    rows = []
    for step, disturbance in enumerate(noise, start=1):
        with torch.no_grad():
            grad = model.weight - MINIMUM + disturbance
            model.weight.copy_(sgd(model.weight, grad, (), step, lr=RATE)[0])
        for average in averages.values():
            average.update(model)
        shadows = [_of(average.module.get_parameter("weight")) for average in averages.values()]
        rows.append((step, _of(model.weight), *shadows))
    return pd.DataFrame(rows, columns=["update", "weight", *averages])


def _of(weight: Tensor) -> float:
    return weight.item()


def spreads(table: pd.DataFrame) -> pd.Series:
    """Name → root mean square distance from the minimum over the second half of the run."""
    late = table[table["update"] > UPDATES // 2].drop(columns="update")
    return ((late - MINIMUM) ** 2).mean() ** 0.5


def draw_shadow(name: str) -> None:
    """The weight and three averages of it."""
    table = table_of_shadows()
    off = ", ".join(f"{line} {value:.2g}" for line, value in spreads(table).items())
    figures.figure(
        name,
        lambda ax: _panel(ax, table),
        data=table,
        size=(7.2, 3.6),
        alt=f"A weight that swings around its minimum, and three averages of it. Distance from the "
        f"minimum over the second half: {off}.",
        caption=f"A weight trained by SGD (rate {RATE:g}) on ½(θ − 1)² with gradient noise of "
        f"variance 1, and averages of it. Root mean square distance from the minimum over the "
        f"second half: {off}.",
    )


def _panel(ax: Axes, table: pd.DataFrame) -> None:
    ax.axhline(MINIMUM, color="0.5", linewidth=1)
    ax.plot(table["update"], table.weight, linewidth=0.8, label="weight")
    for line in AVERAGES:
        ax.plot(table["update"], table[line], label=line)
    ax.set(xlabel="update", ylabel="θ")
    ax.legend(fontsize="small")
