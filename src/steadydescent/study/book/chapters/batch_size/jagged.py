"""The cost along training, smooth on all examples and jagged on minibatches; made on the spot."""

from collections.abc import Iterable

import pandas as pd
import torch
from matplotlib.axes import Axes

from steadydescent.minibatches import IndexStream
from steadydescent.optimizers.rules import sgd
from steadydescent.study.book import figures

EXAMPLES, FEATURES, NOISE = 256, 5, 0.5
SIZES = (EXAMPLES, 16, 1)
"""The full batch, a minibatch and single examples."""
UPDATES, RATE = 60, 0.1


def table_of_costs() -> pd.DataFrame:
    """Least squares by SGD at each size: columns n, update, cost (of its minibatch), of all.

    Costs are those before the update.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    y = x.sum(1) + NOISE * torch.randn(EXAMPLES, generator=generator, dtype=torch.float64)
    rows = []
    for n in SIZES:
        theta = torch.zeros(FEATURES, dtype=torch.float64)
        for step, batch in enumerate(IndexStream(EXAMPLES, n, seed=0).take(UPDATES), start=1):
            errors = x @ theta - y
            here = errors[batch]
            costs = here.square().mean().item() / 2, errors.square().mean().item() / 2
            rows.append((n, step, *costs))
            theta, _ = sgd(theta, x[batch].T @ here / n, (), step, lr=RATE)
    return pd.DataFrame(rows, columns=["n", "update", "cost", "of all"])


def rises(table: pd.DataFrame) -> pd.Series:
    """Size → updates after which the cost that is seen is higher than before."""
    return table.groupby("n", sort=False).cost.apply(lambda cost: int((cost.diff() > 0).sum()))


def draw_costs(name: str) -> None:
    """The cost of each minibatch, and that of all examples, a panel a size."""
    table = table_of_costs()
    counts = ", ".join(f"{count} at n = {n}" for n, count in rises(table).items())
    figures.figure(
        name,
        lambda axes: _panels(axes, table),
        data=table,
        size=(8.4, 3.2),
        ncols=len(SIZES),
        sharey=True,
        alt=f"The cost along {UPDATES} updates for the full batch, minibatches of 16 and single "
        f"examples. Updates after which it is higher than before: {counts}.",
        caption=f"Least squares on {EXAMPLES} examples, rate {RATE:g}: the cost of the minibatch "
        "at hand, which is what a run shows, and that of all examples. Updates after which the "
        f"first is higher than before: {counts}.",
    )


def _panels(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    for ax, (n, part) in zip(axes, table.groupby("n", sort=False), strict=True):
        ax.plot(part["update"], part.cost, label="its minibatch", linewidth=1)
        ax.plot(part["update"], part["of all"], label="all examples", linestyle="--")
        ax.set(title=f"n = {n}", xlabel="update", ylabel="cost", yscale="log")
        ax.label_outer()
    ax.legend(fontsize="x-small")
