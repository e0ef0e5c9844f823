"""Moving averages: their correction, their window, the noise and the outliers in them."""

import numpy as np
import torch
from torch import Tensor

from steadydescent.averages import debias, ewa, mean_length, window
from steadydescent.study.judging.exact.number import MATTERS, ROUNDING_LEFT, Exact
from steadydescent.study.judging.verdicts import DecisionRule
from steadydescent.weight_averaging.readouts import Weights, coefficients, ema_weights, tail_weights

USUAL_DECAYS = (0.9, 0.99, 0.999, 0.9999)
"""From the least that zh-ema gives to the default of viblo-ema's code."""


def early_correction() -> list[Exact]:
    """The factor 1/(1 − β^t): the claim says that it matters early and later does not."""
    rows, measure = [], "excess of the correction over 1"
    early, late = (0, 1), (3, 10)
    for beta in (0.5, 0.9, 0.98):
        for windows in (*early, *late):
            t = max(1, round(windows * window(beta)))
            excess = 100 * (debias(_one(), beta, t).item() - 1)
            when = f"t = {t}, windows: {windows}, β = {beta}"
            rule: DecisionRule = "superiority" if windows in early else "equivalence"
            rows.append(Exact(when, measure, excess, MATTERS, "%", rule))
    return rows


def noise_of_average() -> list[Exact]:
    """Variance of the noise in an average against that in one value.

    Independent noise leaves (1−β)/(1+β). Noise with the correlation ρ from one value to the next
    leaves (1−β)/(1+β)·(1+βρ)/(1−βρ): what lasts longer than the window is not averaged out.
    """
    rows, measure = [], "fall of the noise's variance"
    for beta, rho in ((0.5, 0.0), (0.9, 0.0), (0.98, 0.0), (0.999, 0.0), (0.9, 0.9)):
        shares = coefficients(ema_weights(round(40 * window(beta)), beta))
        kind = f"correlation {rho} from value to value" if rho else "independent noise"
        fall = 100 * (1 - _left_of_noise(shares, rho))
        rows.append(Exact(f"β = {beta}, {kind}", measure, fall, MATTERS, "%", "superiority"))
    return rows


def noise_of_correction() -> list[Exact]:
    """Noise of standard deviation 1 in every value, independent.

    That of the average is the norm of its shares. The correction multiplies it, and the signal with
    it, by 1/(1 − β^t): relative to the signal nothing changes.
    """
    rows, beta = [], 0.9
    for t in (1, 10, 100):
        shares = torch.zeros(t, dtype=torch.float64)
        for value in torch.eye(t, dtype=torch.float64):
            shares = ewa(shares, value, beta)
        fall = 100 * (1 - (debias(shares, beta, t).norm() / shares.norm()).item())
        when, measure = f"t = {t}, β = {beta}", "fall of the noise's sd"
        rows.append(Exact(when, measure, fall, ROUNDING_LEFT, "%", "superiority"))
    return rows


def window_of_an_average() -> list[Exact]:
    """Lag and noise variance of decay β against simple averages of as many values.

    These are of 1/(1−β) and of (1+β)/(1−β) values. The claim says that the first is matched, and so
    that it is nearer than the second.
    """
    rows = []
    for beta in (0.5, 0.9, 0.999):
        short, long, total = round(window(beta)), round(mean_length(beta)), round(40 * window(beta))
        average = _lag_and_variance(ema_weights(total, beta))
        by_short, by_long = (
            100 * (average / _lag_and_variance(tail_weights(total, k)) - 1) for k in (short, long)
        )
        for name, off, other in zip(
            ("lag", "noise variance"), by_short.tolist(), by_long.tolist(), strict=True
        ):
            over = f"{name}, excess over the mean of {short}"
            nearer = f"{name}, distance from the mean of {long} less that from the mean of {short}"
            rows += [
                Exact(f"β = {beta}", over, off, MATTERS, "%", "equivalence"),
                Exact(f"β = {beta}", nearer, abs(other) - abs(off), MATTERS, "pp", "superiority"),
            ]
    return rows


def usual_decays() -> list[Exact]:
    """Share of the first weights in an average that started from them, at the end of a run.

    β^T for a run of T updates. A usual β is right for a run if it has let go of its start.
    """
    rows, measure = [], "share of the first weights"
    for updates in (1_000, 100_000):
        for beta in USUAL_DECAYS:
            share = 100 * (1 - 1 / debias(_one(), beta, updates).item())
            run = f"β = {beta}, a window of {window(beta):.0f}, run of {updates} updates"
            rows.append(Exact(run, measure, share, MATTERS, "%", "equivalence"))
    return rows


def outlier() -> list[Exact]:
    """Share of one wild value's deviation δ that reaches the average.

    Last weights take all of it, a fifth is allowed. It is a share: a δ without bound still moves
    the average without bound.
    """
    average, calm, delta = _one(), _one(), 1000.0
    rows, measure = [], "share of the outlier in the average"
    for beta in (0.9, 0.99, 0.999):
        moved = ewa(average, calm + delta, beta) - ewa(average, calm, beta)
        share = 100 * (moved.item() / delta)
        rows.append(Exact(f"β = {beta}", measure, share, 20.0, "%", "equivalence"))
    return rows


def _one() -> Tensor:
    return torch.ones((), dtype=torch.float64)


def _left_of_noise(shares: Weights, rho: float) -> float:
    """Variance of Σ c_k·ξ_k over that of one ξ, whose correlation over k steps is ρ^k."""
    if rho == 0:
        return float(shares @ shares)
    ages = np.arange(len(shares))
    return float(shares @ rho ** abs(ages[:, None] - ages) @ shares)


def _lag_and_variance(weights: Weights) -> Weights:
    """Mean age of the values that a readout remembers, in steps, and its noise variance, `[2]`.

    The variance is over that of one value. With shares c_k of age k: Σ k·c_k and Σ c_k².
    """
    shares = coefficients(weights)[::-1]
    return np.array([shares @ np.arange(len(shares)), shares @ shares])
