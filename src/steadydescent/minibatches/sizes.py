"""How many examples a minibatch has: updates in an epoch, the slides' rule, noise and cost."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadydescent.checks import check_count, check_size

POWERS_OF_TWO = (64, 128, 256, 512, 1024)
"""The slides' choices of the batch size n (uit-slides)."""
SMALL_DATA = 200
"""Up to so many examples the slides train on all of them at once (uit-slides)."""


def updates_per_epoch(examples: int, batch_size: int, *, drop_last: bool) -> int:
    """Updates in one pass over all m examples: ⌈m/n⌉, or ⌊m/n⌋ without the last, smaller batch.

    The slides' 5000 mini-batches are one epoch:

    >>> updates_per_epoch(5_000_000, 1000, drop_last=False)
    5000

    Raises:
        ValueError: unless 1 ≤ n ≤ m, both whole, and drop_last is True or False.
    """
    examples, batch_size = check_batch_size(examples, batch_size)
    if check_flag(drop_last, "drop_last"):
        return examples // batch_size
    return -(-examples // batch_size)


def recommended_batch_sizes(examples: int) -> tuple[int, ...]:
    """The slides' rule for n: all m examples if m ≤ 200, else powers of two up to m, 64 to 1024.

    Of these the slides take what fits the memory (`largest_that_fits`, `memory_bound`); uit-slides.

    >>> recommended_batch_sizes(150), recommended_batch_sizes(300)
    ((150,), (64, 128, 256))

    Raises:
        ValueError: unless examples is a whole number of at least 1.
    """
    examples = check_count(examples, "examples")
    if examples <= SMALL_DATA:
        return (examples,)
    return tuple(size for size in POWERS_OF_TWO if size <= examples)


def noise_factor(examples: int, batch_size: int, *, replacement: bool) -> float:
    """Variance of a minibatch's mean as a share of the variance over the examples σ² (divisor m).

    With replacement 1/n; without, as in an epoch's batches, 1/n·(m − n)/(m − 1), which is 0 at n =
    m. The noise of the gradient is the root of it times σ: slope −1/2 in n on log axes (uit-slides;
    mccandlish2018empirical).

    >>> noise_factor(100, 25, replacement=True), noise_factor(101, 26, replacement=False) * 26
    (0.04, 0.75)

    Raises:
        ValueError: unless 1 ≤ n ≤ m, both whole, and replacement is True or False.
    """
    examples, batch_size = check_batch_size(examples, batch_size)
    if check_flag(replacement, "replacement") or examples == 1:
        return 1 / batch_size if replacement else 0.0
    return (examples - batch_size) / (examples - 1) / batch_size


def regularised_cost(
    losses: Tensor, weights: Iterable[Tensor], strength: float, examples: int
) -> Tensor:
    """The cost of a minibatch with its L2 term, mean(losses) + λ/(2m)·Σ_l ‖W_l‖²_F, a scalar.

    `losses` `[B]`, one for each example; `weights` the matrices W_l (the slides leave biases out);
    λ `strength`; m all `examples` of the training set. Two divisors are in use: (a) m; (b) the
    batch size (uit-slides print λ/2n), with which the same λ weighs m/n times as much. With (a) the
    mean cost of an epoch's batches, if they are of one size, is that of the whole training set,
    whatever n. In torch's terms the weight decay is λ/m.

    >>> losses, weights = torch.tensor([1.0, 3.0]), [torch.ones(2, 2)]
    >>> regularised_cost(losses, weights, strength=10.0, examples=100).item()
    2.2

    Raises:
        ValueError: for losses that are not one for each example, no weights, a strength that is
            negative or not finite, or fewer examples than losses.
    """
    if not isinstance(losses, Tensor) or losses.ndim != 1 or not len(losses):
        got = tuple(losses.shape) if isinstance(losses, Tensor) else repr(losses)
        raise ValueError(f"losses must be [B], one for each example (reduction='none'), got {got}")
    matrices = list(weights)
    if not matrices or not all(isinstance(matrix, Tensor) for matrix in matrices):
        kinds = [type(matrix).__name__ for matrix in matrices]
        raise ValueError(f"weights must be tensors, at least one, got {kinds}")
    strength = check_size(strength, "strength")
    if check_count(examples, "examples") < len(losses):
        raise ValueError(
            f"examples must be all of the training set's, at least {len(losses)}, got {examples}"
        )
    squares = torch.stack([matrix.square().sum() for matrix in matrices]).sum()
    return losses.mean() + strength / (2 * examples) * squares


def check_batch_size(examples: Any, batch_size: Any) -> tuple[int, int]:
    """m and n with 1 ≤ n ≤ m, as plain ints."""
    examples, batch_size = check_count(examples, "examples"), check_count(batch_size, "batch_size")
    if batch_size > examples:
        raise ValueError(
            f"batch_size must be between 1 and the {examples} examples, got {batch_size}"
        )
    return examples, batch_size


def check_flag(value: Any, name: str) -> bool:
    """True or False, as a plain bool: any text would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)
