"""What readouts remember, and the slides' example of an average."""

from collections.abc import Sequence

import pandas as pd
import torch

from steadydescent.averages import debias, ewa, mean_length, window
from steadydescent.study.book import figures, page, plots
from steadydescent.weight_averaging import coefficients, parse

READOUTS = ("ema-2", "ema-10", "ema-30", "ema-ramp", "tail-25", "checkpoints-4")
STEPS = 200
"""Steps of the run whose shares are drawn."""
DEGREES, BETA = (40, 49), 0.98
"""The slides' two temperatures and their β."""


def example() -> page.Shown:
    """The slides' average of two temperatures, as it is and debiased."""
    first = ewa(torch.zeros(()), torch.tensor(float(DEGREES[0])), BETA)
    second = ewa(first, torch.tensor(float(DEGREES[1])), BETA)
    right = debias(first, BETA, 1), debias(second, BETA, 2)
    return page.paragraph(
        f"The slides' example: {DEGREES[0]} and {DEGREES[1]} degrees with β = {BETA} give "
        f"V₁ = {first:.1f} and V₂ = {second:.3f}; debiased {right[0]:.0f} and {right[1]:.3f}. "
        f"The window 1/(1 − β) is {window(BETA):.0f} values; in lag and noise the average is like "
        f"the plain mean of (1 + β)/(1 − β) = {mean_length(BETA):.0f}."
    )


def table_of_shares(readouts: Sequence[str] = READOUTS, steps: int = STEPS) -> pd.DataFrame:
    """The share of every step's weights in each readout: columns readout, step, share."""
    parts = []
    for readout in readouts:
        weights = parse(readout, steps)[1]
        if weights is None:
            raise ValueError(f"readout {readout!r} keeps one step alone; it has no shares")
        columns = {"readout": readout, "step": range(1, steps + 1), "share": coefficients(weights)}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def half_of(shares: pd.DataFrame, readout: str) -> int:
    """In how many of the last steps half of a readout's weight lies."""
    own = shares[shares.readout == readout].sort_values("step", ascending=False).share
    return int((own.cumsum() < 0.5).sum()) + 1


def draw_memory(name: str) -> None:
    """What each readout remembers of a run."""
    shares = table_of_shares()
    ema, tail = half_of(shares, "ema-10"), half_of(shares, "tail-25")
    figures.figure(
        name,
        lambda ax: plots.memory(list(READOUTS), STEPS, ax),
        data=shares,
        size=(6.8, 3.6),
        alt=f"Share of each step in six readouts of a run of {STEPS} steps. Half of the weight of "
        f"ema-10 lies in the last {ema} steps, half of tail-25 in the last {tail}.",
        caption=f"What each readout remembers, in a run of {STEPS} steps: an EMA's shares fall off "
        "exponentially, a tail mean's are flat, checkpoints are single steps. Half the weight of "
        f"*ema-10* lies in the last {ema} steps.",
    )
