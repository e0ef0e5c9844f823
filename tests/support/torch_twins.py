"""torch's own optimisers that do what our rules do, and the cases in which both are compared."""

import itertools

import torch

from steadydescent.optimizers.rules import RULES

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def dampened(params, lr, beta, weight_decay):
    """torch's SGD as the slides' average, u ← β·u + (1−dampening)·g from u = 0; without that it
    starts from u₁ = g₁.
    """
    twin = torch.optim.SGD(params, lr, momentum=beta, dampening=beta, weight_decay=weight_decay)
    for param in params:
        twin.state[param]["momentum_buffer"] = torch.zeros_like(param)
    return twin


def corrected(params, lr, beta, weight_decay):
    """The same with the correction in the rate, α/(1−β^t), put there before each step and taken
    back after it.
    """
    twin, step = dampened(params, lr, beta, weight_decay), itertools.count(1)
    (group,) = twin.param_groups
    twin.register_step_pre_hook(
        lambda *_: group.update(plain=group["lr"], lr=group["lr"] / (1 - beta ** next(step)))
    )
    twin.register_step_post_hook(lambda *_: group.update(lr=group["plain"]))
    return twin


def betas(optimizer):
    return lambda params, lr, beta1, beta2, **rest: optimizer(
        params, lr, betas=(beta1, beta2), **rest
    )


TWINS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, lr, mu, **rest: torch.optim.SGD(params, lr, momentum=mu, **rest),
    "nesterov": lambda params, lr, mu, **rest: torch.optim.SGD(
        params, lr, momentum=mu, nesterov=True, **rest
    ),
    "averaged-momentum": dampened,
    "corrected-momentum": corrected,
    "rmsprop": lambda params, lr, beta, **rest: torch.optim.RMSprop(params, lr, alpha=beta, **rest),
    "adam": betas(torch.optim.Adam),
    "adamw": betas(torch.optim.AdamW),
}
"""Rule → torch's own optimiser that does the same: (parameters, rate, all hyper-parameters) →
optimiser.
"""


CASES = [
    *((name, {}) for name in RULES),
    *((name, {"weight_decay": 0.07}) for name in RULES),
    ("momentum", {"mu": 0.5}),
    ("nesterov", {"mu": 0.99, "weight_decay": 0.02}),
    ("averaged-momentum", {"beta": 0.98, "weight_decay": 0.02}),
    ("corrected-momentum", {"beta": 0.7}),
    ("rmsprop", {"beta": 0.5, "eps": 1e-3}),
    ("adam", {"beta1": 0.0, "beta2": 0.0}),
    ("adam", {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.3}),
    ("adamw", {"beta1": 0.8, "beta2": 0.99, "eps": 1e-5, "weight_decay": 0.0}),
]
