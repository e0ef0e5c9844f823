"""The one shape in which every data set arrives, and the rules for the seeds that ask for it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

SEED_LIMIT = 2**31  # seeds stay below; the numbers from here to 2**32 are the generators' own
Report = Callable[[str], None]  # takes one plain sentence


@dataclass(frozen=True, eq=False)
class TaskData:
    """Examples and, for each of S seeds, which of them train and which validate.

    pool        [N, *shape]  every example as stored: uint8 for images (0 to 255),
                             float32 for MNIST-1D, int64 tokens
    labels      [N] or       int64 class numbers, one an example, or one at each of
                [N, L]       L places of a sequence: then -100, which torch's
                             cross_entropy passes over, marks the padding
    train       [S, M]       int64 rows of the pool: the training set of each seed
    validation  [S, V]       int64 rows
    test        [T]          int64 rows, the same for all seeds
    mean, std   [S, F]       float32, of the training rows alone, in stored units;
                             F features standardised separately (1: one scalar for
                             all pixels). std is the population's: divided by M, not
                             M - 1. Tokens are not standardised: mean 0, std 1
    checksum                 SHA-256 of all above but mean and std, which follow
    """

    pool: Tensor
    labels: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    mean: Tensor
    std: Tensor
    checksum: str


def checksum(**tensors: Tensor) -> str:
    """SHA-256 over the tensors' names, types, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list of ints; a ValueError or TypeError says why they cannot be used."""
    if len(seeds) == 0:
        raise ValueError("seeds must hold at least one seed, got none")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(
                f"seeds must be whole numbers, got {seed!r} of type {type(seed).__name__}"
            )
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seeds must be at least 0 and below 2**31 = {SEED_LIMIT}, got {seed}")
    repeated = sorted({int(seed) for seed in seeds if list(seeds).count(seed) > 1})
    if repeated:
        raise ValueError(f"seeds must differ from one another, got {repeated} more than once")
    return [int(seed) for seed in seeds]


def first_examples(data: TaskData, examples: int) -> TaskData:
    """The same data with the first M examples of each training set alone; 0 means all.

    They are standardised by these alone. Every training set is in random order, so the first are a
    draw like any other.
    """
    if not 0 < examples < data.train.shape[1]:
        return data
    train = data.train[:, :examples]
    moments = [_moments(data.pool[rows].double(), data.mean.shape[1]) for rows in train]
    mean, std = (torch.stack(part).float() for part in zip(*moments, strict=True))
    return replace(data, train=train, mean=mean, std=std)


def _moments(x: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each feature, `[F]`, or of all where F is 1."""
    flat = x.reshape(-1, features)
    return flat.mean(0), flat.std(0, correction=0)


def wrong_labels(labels: Tensor, share: float, seed: int, classes: int = 10) -> Tensor:
    """Labels `[M]` of which each is, with probability `share`, another class, any alike.

    >>> (wrong_labels(torch.zeros(1000, dtype=torch.int64), 0.2, seed=0) > 0).float().mean().item()
    0.2...
    """
    generator = torch.Generator().manual_seed(seed)
    changed = torch.rand(len(labels), generator=generator) < share
    offsets = torch.randint(1, classes, labels.shape, generator=generator)
    others = (labels + offsets.to(labels.device)) % classes
    return torch.where(changed.to(labels.device), others, labels)
