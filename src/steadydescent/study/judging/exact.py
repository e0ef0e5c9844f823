"""Claims of scope E: arithmetic decides them, and this is the arithmetic.

Each function computes one claim's rows with the library's own formulas. Conditions and margins are
stated, estimates and verdicts follow. `tests_of` names the tests that hold the same arithmetic to
closed forms.
"""

import ast
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from steadydescent.averages import debias, ewa, mean_length, window
from steadydescent.checks import check_choice, check_size
from steadydescent.engine.tasks.models import mlp
from steadydescent.normalization import reestimate
from steadydescent.optimizers.rules import RULES, sgd
from steadydescent.schedules import noam
from steadydescent.study.judging.verdicts import DECISIONS, DecisionRule, of_number
from steadydescent.study.paths import ROOT
from steadydescent.weight_averaging import EMA, Debiased, Mixing, Ramped, Started
from steadydescent.weight_averaging.readouts import Weights, coefficients, ema_weights, tail_weights

MATTERS = 10.0
"""Percent; a smaller change of a value does not matter."""
ROUNDING_LEFT = 1e-9
"""What double precision may leave of a zero."""
TRAINED_UPDATES = 20


@dataclass(frozen=True)
class Exact:
    """One number that bears on a claim, and the rule of `verdicts` by which it does.

    The estimate is taken in the claimed direction. There is no interval: arithmetic has no seeds.

    >>> Exact("t = 1", "gain", -3.0, 1.0, "%", "superiority").verdict
    'refuted'

    Raises:
        ValueError: for an unknown rule, an estimate that is not finite, or a negative margin.
    """

    condition: str
    measure: str
    estimate: float
    margin: float
    unit: str
    rule: DecisionRule

    def __post_init__(self) -> None:
        check_choice(self.rule, DECISIONS, "rule")
        if not math.isfinite(self.estimate):
            raise ValueError(f"estimate must be finite, got {self.estimate} for {self.measure!r}")
        check_size(self.margin, "margin")

    @property
    def verdict(self) -> str:
        """The word for the estimate."""
        return of_number(self.estimate, self.margin, self.rule)


def _bias_under_batch_norm() -> list[Exact]:
    """A network against the same one with a drawn bias before each batch norm, in double precision.

    Inference reads statistics estimated afresh. Running means start at 0 and still lack 0.9^t of a
    bias after t updates, with torch's momentum; that is their start, not the bias.
    """
    fresh, trained = [], []
    for plain, biased in map(_pair, range(3)):
        fresh.append(_distance(plain, biased))
        for model in (plain, biased):
            _train(model)
            reestimate(model, _batches())
            model.eval()
        trained.append(_distance(plain, biased))
    largest = {
        "3 fresh networks, training": max(fresh),
        f"3 networks after {TRAINED_UPDATES} updates, inference": max(trained),
    }
    measure, unit = "largest change of an output by the bias", "of the largest output"
    return [
        Exact(networks, measure, change, ROUNDING_LEFT, unit, "equivalence")
        for networks, change in largest.items()
    ]


def _early_correction() -> list[Exact]:
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


def _noise_of_correction() -> list[Exact]:
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


def _momentum_after_ten_steps() -> list[Exact]:
    """Corrected over uncorrected update under a constant gradient; "about 10" is up to 15."""
    excess = 100 * (_lengths("corrected-momentum", 100) / _lengths("averaged-momentum", 100) - 1)
    tenth, measure = float(excess[9]), "excess of the corrected step"
    rows = [Exact("step 10, β = 0.9", measure, tenth, MATTERS, "%", "equivalence")]
    for share in (10, 1):
        first, measure = float(1 + np.argmax(excess <= share)), f"first step within {share} %"
        rows.append(Exact("β = 0.9", measure, first, 15.0, "steps", "equivalence"))
    return rows


def _shorter_warm_up() -> list[Exact]:
    """Slope of the rate in warm-up against that of 8000 updates.

    d = 768 and scale 2 are opennmt-tf's.
    """
    rows, measure = [], "excess of the rate's slope"
    for warmup in (6000, 4000, 2000):
        excess = 100 * (_slope(warmup) / _slope(8000) - 1)
        against = f"warm-up {warmup} against 8000"
        rows.append(Exact(against, measure, excess, MATTERS, "%", "superiority"))
    return rows


def _window_of_an_average() -> list[Exact]:
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


def _outlier() -> list[Exact]:
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


def _smoother_training() -> list[Exact]:
    """Trained weights after each update with an EMA attached against without.

    Steadier would be other than equal. What an EMA steadies is the readout; that is the claim
    `ema-better-than-last`.
    """
    mixings: dict[str, Mixing] = {
        "β = 0.9": Started(0.9),
        "β = 0.9, debiased": Debiased(0.9),
        "ramp": Ramped(),
    }
    plain = _train(_pair(0)[0])
    rows, measure = [], f"largest change of a weight in {TRAINED_UPDATES} updates"
    for name, mixing in mixings.items():
        change = (_train(_pair(0)[0], mixing) - plain).abs().max().item()
        rows.append(Exact(name, measure, change, 0.0, "", "difference"))
    return rows


EXACT: dict[str, Callable[[], list[Exact]]] = {
    "bn-bias-redundant": _bias_under_batch_norm,
    "ewa-bias-correction-early": _early_correction,
    "bias-correction-reduces-noise": _noise_of_correction,
    "momentum-correction-10-steps": _momentum_after_ten_steps,
    "noam-warmup": _shorter_warm_up,
    "ema-window": _window_of_an_average,
    "ema-outlier": _outlier,
    "ema-smooths-training": _smoother_training,
}
"""Claim id → function that computes its rows."""


def tests_of(claim: str) -> list[str]:
    """The tests marked with a claim's id, as `tests/room/test_x.py::test_y`.

    None where the tests are not at hand.
    """
    return [test for marked, test in _marked_tests() if marked == claim]


@cache
def _marked_tests() -> list[tuple[str, str]]:
    """Every (claim, test), by file and line."""
    return [
        (claim, f"{path.relative_to(ROOT).as_posix()}::{function.name}")
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef)
        for claim in _marks(function)
    ]


def _marks(function: ast.FunctionDef) -> Iterator[str]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
            yield ast.literal_eval(mark.args[0])


def _one() -> Tensor:
    return torch.ones((), dtype=torch.float64)


def _pair(seed: int) -> tuple[nn.Module, nn.Module]:
    """A network with batch norm, and its copy with a standard normal bias before each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain = mlp(7, 11, 13, 3, norm="batch").double()
        biased = deepcopy(plain)
        for layer in biased.modules():
            if isinstance(layer, nn.Linear) and layer.bias is None:
                layer.bias = nn.Parameter(torch.randn(layer.out_features, dtype=torch.float64))
    return plain, biased


def _distance(plain: nn.Module, biased: nn.Module) -> float:
    """Largest difference of two networks' outputs, as a share of the largest output."""
    (x,) = _batches(updates=1)
    with torch.no_grad():
        out = plain(x)
        return ((biased(x) - out).abs().max() / out.abs().max()).item()


def _batches(updates: int = TRAINED_UPDATES) -> list[Tensor]:
    """Standard normal inputs, the same at every call, 29 examples an update."""
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(updates, 29, 7, generator=generator, dtype=torch.float64))


def _train(model: nn.Module, mixing: Mixing | None = None) -> Tensor:
    """Train by SGD to give back the first three inputs; the weights after each update, `[T, P]`.

    With a mixing, an EMA is kept, and now and then swapped in for an evaluation.
    """
    ema, parameters, weights = EMA(model, mixing) if mixing else None, list(model.parameters()), []
    for step, x in enumerate(_batches(), start=1):
        grads = torch.autograd.grad((model(x) - x[:, :3]).square().mean(), parameters)
        with torch.no_grad():
            for theta, grad in zip(parameters, grads, strict=True):
                theta.copy_(sgd(theta, grad, (), step, lr=0.2)[0])
        weights.append(nn.utils.parameters_to_vector(parameters).detach())
        if ema:
            ema.update(model)
        if ema and step % 10 == 0:
            with ema.swapped(model), torch.no_grad():
                model(x)
    return torch.stack(weights)


def _lengths(rule: str, steps: int) -> Weights:
    """Length of each update of a kind of momentum, `[steps]`.

    At rate 1 and β = 0.9, all gradients being 1.
    """
    theta = torch.zeros((), dtype=torch.float64)
    state, path = RULES[rule].init(theta), [0.0]
    for t in range(1, steps + 1):
        theta, state = RULES[rule].update(theta, torch.ones_like(theta), state, t, 1.0, beta=0.9)
        path.append(theta.item())
    return -np.diff(path)


def _slope(warmup: int) -> float:
    """Mean rise of Noam's rate per update over its warm-up."""
    first, last = noam(d_model=768, warmup=warmup, scale=2)(np.array([1, warmup]))
    return float(last - first) / (warmup - 1)


def _lag_and_variance(weights: Weights) -> Weights:
    """Mean age of the values that a readout remembers, in steps, and its noise variance, `[2]`.

    The variance is over that of one value. With shares c_k of age k: Σ k·c_k and Σ c_k².
    """
    shares = coefficients(weights)[::-1]
    return np.array([shares @ np.arange(len(shares)), shares @ shares])
