"""What is equal in a trained network: with a bias before batch norm, with an average attached."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from steadydescent.engine.tasks.models import mlp
from steadydescent.normalization import reestimate
from steadydescent.optimizers.rules import sgd
from steadydescent.study.judging.exact.number import ROUNDING_LEFT, Exact
from steadydescent.weight_averaging import EMA, Debiased, Mixing, Ramped, Started

TRAINED_UPDATES = 20


def bias_under_batch_norm() -> list[Exact]:
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


def smoother_training() -> list[Exact]:
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
