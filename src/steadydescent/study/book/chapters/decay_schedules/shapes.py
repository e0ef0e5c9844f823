"""The schedules themselves: their shapes, the sources' printed rates, OpenNMT-tf's images."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent import schedules
from steadydescent.engine.settings import read
from steadydescent.study.book import figures

TOTAL, EPOCH = 1000, 40
"""Updates of the run whose shapes are drawn, and of its epochs."""
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "warmup-linear": "warmup-linear(warmup_share=0.1)",
    "cooldown": "cooldown(cooldown_share=0.2)",
    "cooldown-sqrt": "cooldown(cooldown_share=0.2, power=0.5)",
    "steps": "steps(shares=[0.5, 0.75], factors=[0.1, 0.1])",
    "exponential": "exponential(base=0.95)",
    "exponential-0.99": "exponential(base=0.99)",
    "exp-drop": "exp-drop(first_epoch=10, every_epoch=false)",
    "exp-drop-every-epoch": "exp-drop(first_epoch=10, every_epoch=true)",
    "inverse-time": "inverse-time(rate=1)",
    "inverse-sqrt-epoch": "inverse-sqrt-epoch",
    "inverse-sqrt-step": "inverse-sqrt-step",
    "noam-25": "noam(d_model=64, warmup=25)",
    "noam-100": "noam(d_model=64, warmup=100)",
    "noam-400": "noam(d_model=64, warmup=400)",
}
"""Arm → its schedule, as the study has it, whether or not it was run."""
GROUPS = {
    "end at or near zero": (
        *("linear", "cosine", "warmup-linear"),
        *("cooldown", "cooldown-sqrt", "steps"),
    ),
    "the sources' formulas": (
        *("exponential", "exponential-0.99", "exp-drop", "exp-drop-every-epoch", "inverse-time"),
        *("inverse-sqrt-epoch", "inverse-sqrt-step"),
    ),
    "Noam, of its peak": ("noam-25", "noam-100", "noam-400"),
}
"""Panel → the arms that it shows."""
FIRST = 0.2
"""The slides' first rate."""
D_MODEL, WARMUP, FLOOR = 768, 8000, 1e-4
"""OpenNMT-tf's model; the warm-up and the smallest rate are assumed where it does not say."""


def factors(arm: str) -> np.ndarray:
    """An arm's factor on the peak rate at every update, `[TOTAL]`; Noam's as a share of its own."""
    name, options = read(SCHEDULES[arm])
    values = schedules.rates(name, 1.0, TOTAL, EPOCH, **options)
    return values / values.max() if name == "noam" else values


def table_of_shapes() -> pd.DataFrame:
    """Columns group, schedule, update, factor; updates count from 1."""
    updates = np.arange(1, TOTAL + 1)
    parts = [
        pd.DataFrame({"group": group, "schedule": arm, "update": updates, "factor": factors(arm)})
        for group, arms in GROUPS.items()
        for arm in arms
    ]
    return pd.concat(parts)


def draw_shapes(name: str) -> None:
    """The factor of every schedule along a run, a panel a group."""
    shapes = table_of_shapes()
    last = shapes[shapes["update"] == TOTAL].set_index("schedule").factor
    ends = ", ".join(f"{schedule} {value:.2g}" for schedule, value in last.items())
    figures.figure(
        name,
        lambda axes: _shape_panels(axes, shapes),
        data=shapes,
        size=(8.4, 3.8),
        ncols=3,
        sharey=True,
        alt=f"The factor on the peak rate along {TOTAL} updates for {len(last)} schedules. "
        f"Last factors: {ends}.",
        caption=f"The factor on the peak rate in a run of {TOTAL} updates, {TOTAL // EPOCH} "
        f"epochs. Last factors: {ends}. *ReduceLROnPlateau* is missing: it waits for validation "
        "losses.",
    )


def _shape_panels(axes: Iterable[Axes], shapes: pd.DataFrame) -> None:
    panels = zip(axes, shapes.groupby("group", sort=False), strict=True)
    for place, (ax, (group, part)) in enumerate(panels):
        figures.more_lines(ax)
        for schedule, line in part.groupby("schedule", sort=False):
            ax.plot(line["update"], line.factor, label=schedule)
        ax.set(title=group, xlabel="update", ylabel="" if place else "factor on the peak rate")
        ax.legend(fontsize="x-small")


def table_of_first_rates() -> pd.DataFrame:
    """The slides' formulas over their first four epochs, which count from 1."""
    rates = schedules.rates
    columns = {
        "α₀/(1 + epoch), α₀ = 0.2": rates("inverse-time", FIRST, 4, epoch=1, rate=1),
        "0.95^epoch · α₀": rates("exponential", FIRST, 4, epoch=1, base=0.95),
        "0.99^epoch · α₀": rates("exponential", FIRST, 4, epoch=1, base=0.99),
        "α₀/√epoch": rates("inverse-sqrt-epoch", FIRST, 4, epoch=1),
    }
    return pd.DataFrame({"epoch": range(1, 5)} | columns)


def table_of_noam_examples() -> pd.DataFrame:
    """OpenNMT-tf's printed rates and peaks: columns example, rate (as text)."""
    small = schedules.noam(d_model=4, warmup=WARMUP, scale=2)
    rows = [
        (
            "d = 4, scale 2, warm-up 8000: the first logged rate (step 2 of the formula)",
            f"{small(2):.4g}",
        ),
        ("the same with a smallest rate of 0.0001", f"{small.wrapped(floor=FLOOR)(2):.4g}"),
    ]
    for scale in (2, 6):
        peak = schedules.noam(D_MODEL, WARMUP, scale)(WARMUP)
        example = f"d = {D_MODEL}, scale {scale}, warm-up 8000 (assumed): the peak"
        rows.append((example, f"{peak:.3g}"))
    return pd.DataFrame(rows, columns=["example", "rate"])


def table_of_images() -> pd.DataFrame:
    """OpenNMT-tf's images 2 to 5: columns image, update, rate."""
    updates = np.arange(1.0, 60_001.0, 20)

    def rates(scale: float, **options: int) -> np.ndarray:
        return schedules.noam(D_MODEL, WARMUP, scale).wrapped(floor=FLOOR, **options)(updates)

    images = {
        "image 2: scale 2": rates(2),
        "image 3: scale 6": rates(6),
        "image 4: scale 2, start_decay_steps 10 000": rates(2, step_start=10_000),
        "image 5: scale 2, decay_step_duration 2": rates(2, step_duration=2),
    }
    parts = [
        pd.DataFrame({"image": image, "update": updates, "rate": values})
        for image, values in images.items()
    ]
    return pd.concat(parts)


def draw_images(name: str) -> None:
    """Noam's rate in four settings, a panel an image."""
    images = table_of_images()
    peaks = []
    for image, part in images.reset_index(drop=True).groupby("image", sort=False):
        update = part["update"][part.rate.idxmax()]
        peaks.append(f"{str(image).split(':')[0]} {part.rate.max():.3g} near update {update:,.0f}")
    largest = "; ".join(peaks)
    figures.figure(
        name,
        lambda axes: _image_panels(axes, images),
        data=images,
        size=(8.4, 5.2),
        nrows=2,
        ncols=2,
        sharey=True,
        alt=f"Noam's rate in four settings at d = {D_MODEL}. Largest rates: {largest}.",
        caption=f"OpenNMT-tf's images 2 to 5 redrawn, d = {D_MODEL}. Largest rates: {largest}. "
        f"The article does not state all settings: the warm-up of {WARMUP}, the smallest rate of "
        f"{FLOOR:g}, scale 2 in images 4 and 5 and the duration of 2 are assumed.",
    )


def _image_panels(axes: np.ndarray, images: pd.DataFrame) -> None:
    for ax, (image, part) in zip(axes.flat, images.groupby("image", sort=False), strict=True):
        ax.plot(part["update"] / 1000, 1000 * part.rate)
        ax.set_title(image, fontsize="medium")
        ax.set(xlabel="thousand updates", ylabel="learning rate × 1000")
