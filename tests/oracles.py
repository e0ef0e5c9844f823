"""Slow references: one network, one plain PyTorch loop, every step's weights kept. Never imports
the engine.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


def stream_seed(source: str, seed: int, purpose: str) -> int:
    """The documented derivation of a stream's seed: first 63 bits of SHA-256 of
    `source/seed/purpose`.
    """
    return (
        int.from_bytes(hashlib.sha256(f"{source}/{seed}/{purpose}".encode()).digest()[:8], "big")
        >> 1
    )


def epochs(examples: int, batch_size: int, seed: int):
    """Minibatches of index permutations, epoch after epoch, the ragged end left out."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(examples, generator=generator)
        for start in range(0, examples - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


OPTIMIZERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "momentum(mu=0.5)": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.5),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr),
    "adamw(weight_decay=0.1)": lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.1),
}


def train_alone(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: str,
    rate: Callable[[int, nn.Module], float],
    batch_size: int,
    steps: int,
    seed: int,
) -> list[dict[str, Tensor]]:
    """State dicts θ_0 … θ_T of one network trained with torch's own optimiser and loss.

    `rate` gives the learning rate of update t = 1 … T; it may look at the model.
    """
    opt = OPTIMIZERS[optimizer](model.parameters(), 1.0)
    copy = lambda: {name: value.detach().clone() for name, value in model.state_dict().items()}
    states, batches = [copy()], epochs(len(x), batch_size, seed)
    for t in range(1, steps + 1):
        opt.param_groups[0]["lr"] = rate(t, model)
        batch = next(batches)
        opt.zero_grad()
        logits = model.train()(x[batch])
        nn.functional.cross_entropy(logits.flatten(0, -2), y[batch].flatten()).backward()
        opt.step()
        states.append(copy())
    return states


def weighted(states: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """Σ share·θ over states, in double precision."""
    return {
        name: sum(
            share * state[name].double()
            for share, state in zip(shares, states, strict=True)
            if share
        )
        for name in states[0]
    }


def readout(states: list[dict[str, Tensor]], name: str) -> dict[str, Tensor]:
    """A readout as the weighted sum its definition gives, over θ_0 … θ_T."""
    total = len(states) - 1
    kind, _, number = name.rpartition("-")
    shares = [0.0] * (total + 1)
    if name == "last":
        shares[-1] = 1.0
    elif name == "ema-ramp":
        shares[1] = 1.0
        for t in range(2, total + 1):
            decay = min(0.9999, (1 + t) / (10 + t))
            shares = [decay * share for share in shares]
            shares[t] += 1 - decay
    elif kind.startswith("ema"):
        beta = 1 - 100 / (total * float(number))
        powers = [0.0] + [(1 - beta) * beta ** (total - t) for t in range(1, total + 1)]
        if kind == "ema-start":
            shares = [beta**total, *powers[1:]]
        else:
            shares = [share / (1 - beta**total) for share in powers]
    elif kind == "tail":
        length = round(total * float(number) / 100)
        shares = [0.0] * (total + 1 - length) + [1 / length] * length
    elif kind == "checkpoints":
        count, every = int(number), max(1, total // 20)
        for j in range(count):
            shares[total - j * every] = 1 / count
    return weighted(states, shares)
