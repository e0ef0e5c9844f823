"""Contrasts that are no difference of two tuned arms: each an interval from the same evidence,
above 0 as claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from steadydescent.checks import check_choice, check_count, check_positive
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.tasks.noisy_quadratic import expected_loss
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.optimizers import RULES
from steadydescent.study.judging import regret
from steadydescent.study.judging.statistics import DRAWS, Estimate, paired
from steadydescent.weight_averaging import parse

if TYPE_CHECKING:
    from steadydescent.study.judging.claims import Contrast
    from steadydescent.study.judging.evidence import Evidence


SEARCHES = 1_000
"""Searches simulated in each of the bootstrap's draws; their own noise is part of the interval."""


class Analysed(NamedTuple):
    """An interval above 0 where the claim is right; with `ratio` on the scale of logarithms."""

    estimate: Estimate
    unit: str
    ratio: bool = False


def dense_sweep(evidence: Evidence, condition: str, arm: str) -> regret.Sweep:
    """An arm's whole grid as tuning and report seeds saw it, accuracy in percent."""
    tuning = evidence.tuning(condition, arm, "accuracy").xs("last", axis=1, level="readout")
    report = evidence.report(condition, arm, "accuracy").xs("last", axis=1, level="readout")
    both = [lr for lr in tuning.columns if lr in set(report.columns)]
    return regret.Sweep(np.array(both), 100 * tuning[both].to_numpy(), report[both].to_numpy())


def search_regret(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """How much less accuracy a search loses than another at equal trials, searching on the dense
    sweep.
    """
    sweep, trials = dense_sweep(evidence, condition, contrast.arm), int(contrast.options["trials"])
    found = regret.contrast(
        sweep,
        str(contrast.options["method"]),
        str(contrast.options["than"]),
        trials,
        level,
        SEARCHES,
    )
    return Analysed(found, "pp")


def range_test(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """Minus the accuracy lost by training at the rate that range tests suggest: above −margin, a
    good rate.
    """
    sweep = dense_sweep(evidence, condition, contrast.arm)
    wanted = suggestions(evidence)
    wanted = wanted[
        (wanted.rule == contrast.options["suggestion"])
        & (wanted.length == contrast.options["updates"])
    ]
    (lost,) = regret.range_test_estimates(sweep, wanted, level).values()
    return Analysed(Estimate(-lost.value, -lost.high, -lost.low, lost.sd, lost.n), "pp")


def suggestions(evidence: Evidence) -> pd.DataFrame:
    """What every range test suggests: columns seed, rule, length (updates) and rate."""
    runs = evidence.result.runs[["run", "seed", "steps"]].rename(columns={"steps": "length"})
    table = evidence.result.suggestions.merge(runs, on="run")
    return table[["seed", "rule", "length", "rate"]]


def below(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """How many decades an arm's tuned rate lies below a limit; tuning seeds are resampled.

    The best rate lies anywhere within half a step of the grid from the point that is chosen; so far
    the ends are moved.
    """
    scores = evidence.tuning(condition, contrast.arm, "accuracy").xs(
        "last", axis=1, level="readout"
    )
    table, rates = scores.to_numpy(), scores.columns.to_numpy(float)
    seeds = len(table)
    counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
    decades = -np.log10(rates / float(contrast.options["limit"]))
    drawn = decades[(counts @ table).argmax(axis=1)]
    value = float(decades[table.mean(axis=0).argmax()])
    low, high = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    half, sd = math.log10(rates[1] / rates[0]) / 2, float(drawn.std(ddof=1)) * math.sqrt(seeds)
    return Analysed(
        Estimate(value, min(low, value) - half, max(high, value) + half, sd, seeds), "decades"
    )


def noise_slope(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """−d log(noise)/d log(n): how the standard deviation of minibatch gradients falls with their
    size, seed by seed.
    """
    table = noise_table(evidence, condition, contrast.arm)
    slopes = [
        -np.polyfit(np.log(part.batch_size), np.log(part.noise), 1)[0]
        for _, part in table.groupby("seed")
    ]
    return Analysed(paired(np.array(slopes), level), "")


def noise_table(evidence: Evidence, condition: str, arm: str) -> pd.DataFrame:
    """Standard deviation of minibatch gradients: columns seed, batch_size, noise; the mean (of
    logs) over training.
    """
    runs = evidence.runs(condition, arm)
    table = evidence.result.measures.merge(runs[runs.test][["run", "seed"]], on="run")
    table = table[(table.measure == "gradient-noise") & (table.value > 0)]
    table = table.assign(batch_size=table.batch_size.astype(int), noise=np.log(table.value))
    return (
        table.groupby(["seed", "batch_size"], as_index=False)
        .noise.mean()
        .assign(noise=lambda t: np.exp(t.noise))
    )


def matching_window(
    evidence: Evidence, contrast: Contrast, condition: str, level: float
) -> Analysed:
    """Whose loss is nearer to the EMA's: the mean of the last 1/(1−β) steps (above 0), or of
    (1+β)/(1−β).
    """
    ours, near, far = (
        evidence.candidates(condition, arm, "loss")
        for arm in (contrast.arm, contrast.against[0], contrast.against[1])
    )
    lr = ours.chosen.lr
    at = lambda side: side.scores.report[:, [label.lr for label in side.labels].index(lr)]
    apart = np.abs(at(far) - at(ours)) - np.abs(at(near) - at(ours))
    return Analysed(paired(apart, level), "nats")


def faster_size(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """How much less time an example takes at powers of two than at their neighbours, in percent,
    round by round.
    """
    gains = evidence.result.timings.dropna(subset="gain")
    return Analysed(paired(gains.groupby("round").gain.mean().to_numpy(), level), "%")


def closed_form(evidence: Evidence, contrast: Contrast, condition: str, level: float) -> Analysed:
    """Measured minus expected loss on the noisy quadratic at the arm's tuned rate, as a share of
    the expected one.
    """
    side = evidence.candidates(condition, contrast.arm, "height")
    chosen = side.chosen
    expected = expected_height(evidence, condition, contrast.arm, chosen.lr, chosen.readout)
    return Analysed(
        paired(100 * (side.scores.report[:, side.scores.chosen()] / expected - 1), level), "%"
    )


def expected_height(evidence: Evidence, condition: str, arm: str, lr: float, readout: str) -> float:
    """The noisy quadratic's expected loss at the end of an arm's runs at this rate."""
    return float(expected_curve(evidence, condition, arm, lr, readout)[-1])


def expected_curve(
    evidence: Evidence, condition: str, arm: str, lr: float, readout: str
) -> np.ndarray:
    """The noisy quadratic's expected loss after every update of an arm's runs at this rate, `[T]`."""
    settings, eigenvalues = evidence.settings(condition, arm), np.array(EIGENVALUES)
    run = Run(**settings._asdict(), lr=lr, seed=0, readouts=(readout,))
    rule, options = read(run.optimizer)
    hyper, rates = RULES[rule].checked(**options), run.rates()
    beta, weights = hyper.get("mu", hyper.get("beta", 0.0)), parse(readout, run.steps)[1]
    return expected_loss(rule, rates, weights, eigenvalues, eigenvalues, 1.0, run.batch_size, beta)


ANALYSES: dict[str, Callable[[Evidence, Contrast, str, float], Analysed]] = {
    "search regret": search_regret,
    "range test": range_test,
    "decades below": below,
    "noise slope": noise_slope,
    "matching window": matching_window,
    "faster size": faster_size,
    "closed form": closed_form,
}
OPTIONS: dict[str, dict[str, Sequence[str] | type]] = {
    "search regret": {"method": list(regret.METHODS), "than": list(regret.METHODS), "trials": int},
    "range test": {"suggestion": list(SUGGESTIONS), "updates": int},
    "decades below": {"limit": float},
}
"""What an analysis must be told: one of some names, or a positive number of a kind."""


def check_options(analysis: str | None, options: Mapping[str, object]) -> None:
    """Refuse an option that an analysis does not have, that is missing, or that says what it cannot
    use.

    Raises:
        ValueError: naming the option.
    """
    known = OPTIONS.get(analysis or "", {})
    for name in options:
        check_choice(name, known, f"an option of the analysis {analysis!r}")
    for name, allowed in known.items():
        if name not in options:
            raise ValueError(
                f"the analysis {analysis!r} needs the option {name!r}, got {list(options)}"
            )
        if not isinstance(allowed, type):
            check_choice(options[name], allowed, name)
        elif allowed is int:
            check_count(options[name], name)
        else:
            check_positive(options[name], name)
