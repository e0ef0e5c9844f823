"""The one shape in which every data set arrives, and the rules for the seeds that ask for it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

from torch import Tensor

SEED_LIMIT = 2**31  # seeds stay below; the numbers from here to 2**32 are the generators' own
Report = Callable[[str], None]  # takes one plain sentence


@dataclass(frozen=True, eq=False)
class TaskData:
    """Examples and, for each of S seeds, which of them train and which validate.

    pool        [N, *shape]  every example as stored: uint8 for images (0 to 255), float32 for MNIST-1D, int64 tokens
    labels      [N] or       int64 class numbers, one an example, or one at each of L places of a sequence: then -100,
                [N, L]       which torch's cross_entropy passes over, marks the padding
    train       [S, M]       int64 rows of the pool: the training set of each seed
    validation  [S, V]       int64 rows
    test        [T]          int64 rows, the same for all seeds
    mean, std   [S, F]       float32, of the training rows alone, in stored units; F features standardised separately
                             (1: one scalar for all pixels). std is the population's: divided by M, not M - 1.
                             Tokens are not standardised: mean 0, std 1
    checksum                 SHA-256 of everything above but mean and std, which follow from it
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
    """The seeds as a list of ints; raises ValueError or TypeError with a sentence when they cannot be used."""
    if len(seeds) == 0:
        raise ValueError("seeds must hold at least one seed, got none")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"seeds must be whole numbers, got {seed!r} of type {type(seed).__name__}")
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seeds must be at least 0 and below 2**31 = {SEED_LIMIT}, got {seed}")
    repeated = sorted({int(seed) for seed in seeds if list(seeds).count(seed) > 1})
    if repeated:
        raise ValueError(f"seeds must differ from one another, got {repeated} more than once")
    return [int(seed) for seed in seeds]
