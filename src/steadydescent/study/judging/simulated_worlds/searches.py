"""How intervals that are read off dense sweeps fare, on made-up sweeps."""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from steadydescent.study.judging import regret
from steadydescent.study.judging.simulated_worlds.other_kinds import (
    TRUTH_SEEDS,
    IntervalKind,
    tallied,
)
from steadydescent.study.judging.simulated_worlds.worlds import SIMULATED_MARGIN
from steadydescent.study.judging.statistics import Array, Estimate

SWEEP_SIZES = ((20, 100), (8, 20), (4, 20), (3, 8))
SWEEP_RATES = np.geomspace(1e-5, 1, 31)
_PLACES = np.arange(31.0)
SWEEP = 62 - 0.15 * (_PLACES - 23) ** 2 * np.where(_PLACES > 23, 4, 1)
"""True accuracy in percent at each of a sweep's rates: a slow rise to 0.046, then a steep fall."""
SWEEP_NOISE = 1.0
"""Standard deviation in pp of a run, and of what all runs of a seed share."""
SWEEP_TRIALS = 9
GAIN, LOSS = "log-uniform against uniform search", "rate of a range test"
SWEEP_KINDS = {
    GAIN: IntervalKind("mean", SIMULATED_MARGIN),
    LOSS: IntervalKind(
        "mean",
        SIMULATED_MARGIN,
        "at least",
        false=(-1.0, "supported"),
        found=(0.0, "supported"),
    ),
}


def simulate_searches(
    replications: int,
    resamples: int = 200,
    draws: int = 500,
    sizes: Sequence[tuple[int, int]] = SWEEP_SIZES,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How intervals that are read off made-up dense sweeps fare: rows as in `simulate_kinds`.

    What 9 trials of log-uniform search regain of what uniform search gives away; and minus what is
    lost at rates that range tests suggest, here drawn log-normally around half the best one.
    """
    rows = []
    total = len(sizes) * replications
    with tqdm(total=total, unit="replication", file=sys.stderr, disable=not progress) as bar:
        for tuning, report in sizes:
            rng = np.random.default_rng([seed, tuning, report])
            intervals: dict[str, list[tuple[float, float, float]]] = {}
            for _ in range(replications):
                for name, made in _estimates(tuning, report, rng, draws, resamples).items():
                    intervals.setdefault(name, []).append((made.value, made.low, made.high))
                bar.update()
            case = {"world": "sweep", "tuning": tuning, "report": report}
            case |= {"replications": replications}
            truths = {GAIN: _true_gain(), LOSS: -_true_loss(tuning)}
            rows += [
                {"kind": name} | case | tallied(np.array(ends), truths[name], SWEEP_KINDS[name])
                for name, ends in intervals.items()
            ]
    return pd.DataFrame(rows)


def _estimates(
    tuning: int, report: int, rng: np.random.Generator, draws: int, resamples: int
) -> dict[str, Estimate]:
    """What is read off one made-up sweep."""
    sweep = regret.Sweep(SWEEP_RATES, swept(tuning, rng), swept(report, rng))
    methods, seed = ("log-uniform", "uniform"), int(rng.integers(2**32))
    gain = regret.search_gain(sweep, *methods, SWEEP_TRIALS, 0.95, draws, seed, resamples)
    suggested = _suggested(report, rng)
    lost = regret.range_test_estimates(sweep, suggested, 0.95, resamples=resamples)
    return {GAIN: gain, LOSS: lost["middle", 400].turned()}


def swept(seeds: int, rng: np.random.Generator) -> Array:
    """Scores of a sweep, `[S, G]`: of every seed's runs a part is shared."""
    own, shared = rng.normal(size=(seeds, len(SWEEP_RATES))), rng.normal(size=(seeds, 1))
    return SWEEP + SWEEP_NOISE * (own + shared)


def _suggested(seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    rates = SWEEP_RATES[SWEEP.argmax()] / 2 * np.exp(0.5 * rng.normal(size=seeds))
    return pd.DataFrame({"seed": range(seeds), "rule": "middle", "length": 400, "rate": rates})


def _true_gain() -> float:
    """Of very many searches on networks that no two trials share."""
    rng = np.random.default_rng(0)
    sweep = regret.Sweep(SWEEP_RATES, swept(20_000, rng), np.stack([SWEEP, SWEEP]))
    methods = ("uniform", "log-uniform")
    lost = regret.regrets(sweep, methods, (SWEEP_TRIALS,), TRUTH_SEEDS).set_index("method").regret
    return float(lost["uniform"] - lost["log-uniform"])


def _true_loss(tuning: int) -> float:
    """Against the rate that so many tuning seeds choose, on average."""
    rng = np.random.default_rng(0)
    best = np.mean([SWEEP[swept(tuning, rng).mean(axis=0).argmax()] for _ in range(4_000)])
    rates = _suggested(TRUTH_SEEDS, rng).rate
    return float(best - np.interp(np.log(rates), np.log(SWEEP_RATES), SWEEP).mean())
