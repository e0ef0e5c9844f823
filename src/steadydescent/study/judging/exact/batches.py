"""Batch size and rate: noise against n, noise against α, and the bytes that n takes."""

import numpy as np
import torch

from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.tasks import TASKS, initial_model
from steadydescent.engine.tasks.noisy_quadratic import stationary_variance
from steadydescent.minibatches import activation_bytes, noise_factor
from steadydescent.study.judging.exact.number import MATTERS, Exact

PERCEPTRONS = {"mnist1d-mlp": 40, "fashion-mnist-mlp": 784}
"""Task → its inputs."""
SLOTS = 3
"""What training with momentum keeps of each weight: the weight, its gradient, its velocity."""


def small_rate() -> list[Exact]:
    """How far from the minimum descent settles at a tenth of a rate, with noisy gradients.

    On the noisy quadratic with h = v = 1, the standard deviation is √(α/(2 − α)). Without noise
    there is nothing to settle at: every rate below 2/h arrives, and the small one last.
    """
    rows, measure = [], "fall of the distance at a tenth of the rate"
    for lr in (1.0, 0.1, 0.01):
        tenth, whole = (stationary_variance(rate, 1.0, 1.0) ** 0.5 for rate in (lr / 10, lr))
        fall = 100 * float(1 - tenth / whole)
        rows.append(Exact(f"α·h = {lr}", measure, fall, MATTERS, "%", "superiority"))
    return rows


def noise_against_size() -> list[Exact]:
    """Slope of the log standard deviation of a minibatch's gradient against log n, sign turned.

    1/2 exactly for draws with replacement; without, as in an epoch, noise falls a little faster.
    """
    sizes, examples = 2 ** np.arange(11), 4_000
    rows, measure = [], "slope, sign turned"
    for how, replacement in (("with", True), ("without", False)):
        variances = [noise_factor(examples, int(n), replacement=replacement) for n in sizes]
        slope = -float(np.polyfit(np.log(sizes), np.log(variances) / 2, 1)[0])
        drawn = f"drawn {how} replacement, n from 1 to {sizes[-1]} of {examples}"
        rows.append(Exact(drawn, measure, slope, 0.05, "", "superiority"))
    return rows


def bytes_in_memory() -> list[Exact]:
    """Bytes of inputs and activations at n = 1 against all m examples: they are proportional to n.

    Weights, gradients and velocities do not grow with n, so with them less is saved.
    """
    rows = []
    for task, inputs in PERCEPTRONS.items():
        each, fixed = _bytes_of(task, inputs)
        examples = SPLIT_SIZES[TASKS[task].source]["train"]
        for kept, once in (("activations", 0), ("with weights and their slots", fixed)):
            saved = 100 * (1 - (once + each) / (once + examples * each))
            when = f"{task}, {kept}, n = 1 against {examples}"
            rows.append(Exact(when, "bytes saved", saved, MATTERS, "%", "superiority"))
    return rows


def _bytes_of(task: str, inputs: int) -> tuple[int, int]:
    """Bytes an example, measured between n = 7 and n = 14, and bytes that n leaves as they are."""
    model = initial_model(task, seed=0)
    seven, fourteen = (activation_bytes(model, torch.zeros(n, inputs)) for n in (7, 14))
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return (fourteen - seven) // 7, SLOTS * weights
