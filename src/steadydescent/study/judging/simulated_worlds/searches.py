"""How intervals that are read off dense sweeps fare, on made-up sweeps."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from steadydescent.study.judging import regret
from steadydescent.study.judging.simulated_worlds.means import NUMBERS_OF_SEEDS
from steadydescent.study.judging.simulated_worlds.other_kinds import NOT_WORSE, TRUTH_SEEDS
from steadydescent.study.judging.simulated_worlds.tally import LEVELS, Intervals, at_levels
from steadydescent.study.judging.simulated_worlds.worlds import (
    COMMON_SHARE,
    SIMULATED_MARGIN,
)
from steadydescent.study.judging.statistics import Array

SWEEP_RATES = np.geomspace(1e-5, 1, 31)
_PLACES = np.arange(31.0)
SWEEP = 62 - 0.15 * (_PLACES - 23) ** 2 * np.where(_PLACES > 23, 4, 1)
"""True accuracy in percent at each of a sweep's rates: a slow rise to 0.046, then a steep fall."""
SWEEP_NOISE = 1.0
"""Standard deviation in pp of a run, and of what all runs of a seed share."""
SWEEP_TRIALS, CLOSING_TRIALS = 9, 9
GAIN, CLOSING, LOSS = "log-uniform search", "coarse-to-fine search", "rate of a range test"
CLOSING_DRAWS = 2**12
"""First rounds drawn here; claims use more, and their intervals are a little shorter."""


def simulated_searches(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS, seed: int = 0
) -> Iterator[Intervals]:
    """What 9 trials of log-uniform search regain of what uniform search gives away."""
    truth = _true_gain("log-uniform", "uniform", SWEEP_TRIALS)
    ask = ("log-uniform", "uniform", SWEEP_TRIALS)
    yield from _gains(GAIN, ask, regret.FIRST_ROUNDS, truth, replications, sizes, seed)


def simulated_closing(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS[1:3], seed: int = 0
) -> Iterator[Intervals]:
    """What 9 trials of coarse-to-fine search regain of what log-uniform search gives away."""
    truth = _true_gain("coarse-to-fine", "log-uniform", CLOSING_TRIALS)
    ask = ("coarse-to-fine", "log-uniform", CLOSING_TRIALS)
    yield from _gains(CLOSING, ask, CLOSING_DRAWS, truth, replications, sizes, seed)


def _gains(
    name: str,
    ask: tuple[str, str, int],
    draws: int,
    truth: float,
    replications: int,
    sizes: Sequence[tuple[int, int]],
    seed: int,
) -> Iterator[Intervals]:
    for tuning, report in sizes:
        rng = np.random.default_rng([seed, tuning, report, draws])
        ends: dict[float, list[tuple[float, float, float]]] = {level: [] for level in LEVELS}
        for i in range(replications):
            sweep = regret.Sweep(SWEEP_RATES, swept(tuning, rng), swept(report, rng))
            value, parts = regret.gain_and_parts(sweep, *ask, seed=i, draws=draws)
            for level in LEVELS:
                made = regret.interval_of_parts(value, parts, level)
                ends[level].append((made.value, made.low, made.high))
        yield _intervals(name, tuning, report, replications, ends, truth)


def _intervals(
    name: str,
    tuning: int,
    report: int,
    replications: int,
    ends: dict[float, list[tuple[float, float, float]]],
    truth: float,
) -> Intervals:
    case = {"kind": name, "world": "sweep", "tuning": tuning, "report": report}
    case |= {"replications": replications}
    arrays = {level: np.array(found) for level, found in ends.items()}
    return Intervals(case, arrays, truth, SIMULATED_MARGIN)


def simulated_range_tests(
    replications: int,
    draws: int = 500,
    sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS,
    seed: int = 0,
) -> Iterator[Intervals]:
    """Minus what is lost at rates that range tests suggest, here drawn log-normally around half the
    best one; a seed's suggestion is the higher the better the seed.
    """
    for tuning, report in sizes:
        rng = np.random.default_rng([seed, tuning, report, 1])
        estimates = []
        for _ in range(replications):
            validation, test = reported(report, rng)
            sweep = regret.Sweep(SWEEP_RATES, swept(tuning, rng), test, validation)
            suggested = _suggested(test.mean(axis=1) - SWEEP.mean(), rng)
            lost = regret.range_test_estimates(sweep, suggested, LEVELS[0], draws=draws)
            estimates.append(lost["middle", 400].turned())
        case = {"kind": LOSS, "world": "sweep", "tuning": tuning, "report": report}
        case |= {"replications": replications}
        truth = -_true_loss(tuning)
        yield Intervals(case, at_levels(estimates), truth, SIMULATED_MARGIN, "at least", NOT_WORSE)


def reported(seeds: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Validation and test scores of report seeds, `[S', G]`, with as much in common as in
    `worlds`.
    """
    shape = (seeds, len(SWEEP_RATES))
    shared, common = rng.normal(size=(seeds, 1)), rng.normal(size=shape)
    each = (
        COMMON_SHARE**0.5 * common + (1 - COMMON_SHARE) ** 0.5 * rng.normal(size=shape)
        for _ in range(2)
    )
    validation, test = (SWEEP + SWEEP_NOISE * (shared + own) for own in each)
    return validation, test


def swept(seeds: int, rng: np.random.Generator) -> Array:
    """Scores of a sweep, `[S, G]`: of every seed's runs a part is shared."""
    own, shared = rng.normal(size=(seeds, len(SWEEP_RATES))), rng.normal(size=(seeds, 1))
    return SWEEP + SWEEP_NOISE * (own + shared)


def _suggested(better: Array, rng: np.random.Generator) -> pd.DataFrame:
    """Suggestions of seeds that are so much better than the mean one, `[S']`."""
    spread = 0.4 * rng.normal(size=len(better)) + 0.3 * better
    rates = SWEEP_RATES[SWEEP.argmax()] / 2 * np.exp(spread)
    seeds = range(len(better))
    return pd.DataFrame({"seed": seeds, "rule": "middle", "length": 400, "rate": rates})


def _true_gain(method: str, against: str, trials: int) -> float:
    """Of very many searches on networks that no two trials share."""
    rng = np.random.default_rng(0)
    sweep = regret.Sweep(SWEEP_RATES, swept(20_000, rng), np.stack([SWEEP, SWEEP]))
    lost = regret.regrets(sweep, (against, method), (trials,), 10 * TRUTH_SEEDS)
    lost = lost.set_index("method").regret
    return float(lost[against] - lost[method])


def _true_loss(tuning: int) -> float:
    """Against the rate that so many tuning seeds choose, on average."""
    rng = np.random.default_rng(0)
    best = np.mean([SWEEP[swept(tuning, rng).mean(axis=0).argmax()] for _ in range(4_000)])
    _, test = reported(TRUTH_SEEDS, rng)
    rates = _suggested(test.mean(axis=1) - SWEEP.mean(), rng).rate
    return float(best - np.interp(np.log(rates), np.log(SWEEP_RATES), SWEEP).mean())
