"""Learning rates: OpenNMT-tf's Noam and its settings, and what the listed decays leave."""

import numpy as np

from steadydescent.schedules import Schedule, exp_drop, exponential, noam
from steadydescent.study.judging.exact.number import MATTERS, ROUNDING_LEFT, Exact

D_MODEL, ASSUMED_WARMUP, SMALLEST = 768, 8000, 1e-4
"""opennmt-tf's model and smallest rate; the warm-up of its images is assumed, as on the page."""


def shorter_warm_up() -> list[Exact]:
    """Slope of the rate in warm-up against that of 8000 updates, at scale 2."""
    rows, measure = [], "excess of the rate's slope"
    for warmup in (6000, 4000, 2000):
        excess = 100 * (_slope(warmup) / _slope(ASSUMED_WARMUP) - 1)
        against = f"warm-up {warmup} against {ASSUMED_WARMUP}"
        rows.append(Exact(against, measure, excess, MATTERS, "%", "superiority"))
    return rows


def larger_scale() -> list[Exact]:
    """The peak, scale/√(d·warm-up), against that at scale 2: images 2 and 3."""
    rows, measure = [], "excess of the largest rate"
    for scale in (3, 6):
        excess = 100 * (_peak(scale) / _peak(2) - 1)
        against = f"scale {scale} against 2"
        rows.append(Exact(against, measure, excess, MATTERS, "%", "superiority"))
    return rows


def later_start() -> list[Exact]:
    """`start_decay_steps`: the warm-up begins so much later; till then the smallest rate is held.

    Image 4.
    """
    rows, plain = [], _noam()
    for start in (5_000, 10_000):
        held = plain.wrapped(step_start=start, floor=SMALLEST)
        late = float(_at_peak(held) - _at_peak(plain) - start)
        above = 100 * (float(held(_updates(start)).max()) / SMALLEST - 1)
        when = f"start {start}"
        rows += [
            Exact(when, "delay of the peak, less the start", late, 0.0, "updates", "equivalence"),
            Exact(when, "excess of held over smallest", above, ROUNDING_LEFT, "%", "equivalence"),
        ]
    return rows


def longer_steps() -> list[Exact]:
    """`step_duration` k: each of Noam's steps lasts k updates, in the warm-up and after it.

    Image 5.
    """
    rows, plain = [], _noam()
    for duration in (2, 3):
        slow, when = plain.wrapped(step_duration=duration), f"duration {duration} against 1"
        warm_up = 100 * (_at_peak(slow) / _at_peak(plain) - 1)
        fall = 100 * (_fall_to_half(slow) / _fall_to_half(plain) - 1)
        rows += [
            Exact(when, "excess of the warm-up", warm_up, MATTERS, "%", "superiority"),
            Exact(when, "excess of the fall to half the peak", fall, MATTERS, "%", "superiority"),
        ]
    return rows


def listed_decays(epochs: int = 100) -> list[Exact]:
    """Share of α₀ that is left after 100 epochs; a decay that ends training leaves a tenth at most.

    α·e⁻¹ "from epoch n on" is read both ways, with n = 10.
    """
    once, every = (exp_drop(10, every_epoch=each, epoch=1) for each in (False, True))
    decays = {
        "0.95^epoch": (exponential(0.95, epoch=1), "the formula is 0.95^epoch"),
        "0.99^epoch": (exponential(0.99, epoch=1), "the formula is 0.99^epoch"),
        "e⁻¹ once, from epoch 10": (once, "e⁻¹ is taken once"),
        "e⁻¹ in every epoch from 10 on": (every, "e⁻¹ is taken in every epoch"),
    }
    measure = f"share of α₀ after {epochs} epochs"
    return [
        Exact(name, measure, 100 * decay(epochs), MATTERS, "%", "equivalence", when)
        for name, (decay, when) in decays.items()
    ]


def _noam(scale: float = 2) -> Schedule:
    return noam(D_MODEL, ASSUMED_WARMUP, scale)


def _updates(last: int) -> np.ndarray:
    return np.arange(1, last + 1)


def _peak(scale: float) -> float:
    return float(_noam(scale)(_updates(2 * ASSUMED_WARMUP)).max())


def _at_peak(schedule: Schedule) -> int:
    """The last update with the largest rate."""
    rates = schedule(_updates(4 * ASSUMED_WARMUP))
    return int(np.flatnonzero(rates == rates.max())[-1]) + 1


def _fall_to_half(schedule: Schedule) -> int:
    """Updates from the peak until half of it is left."""
    rates, peak = schedule(_updates(13 * ASSUMED_WARMUP)), _at_peak(schedule)
    return int((rates[peak - 1 :] > rates[peak - 1] / 2).sum())


def _slope(warmup: int) -> float:
    """Mean rise of Noam's rate per update over its warm-up."""
    first, last = noam(D_MODEL, warmup, scale=2)(np.array([1, warmup]))
    return float(last - first) / (warmup - 1)
