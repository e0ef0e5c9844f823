"""Reproducible minibatches: which examples each update sees, from the seed alone."""

import torch
from torch import Tensor


class IndexStream:
    """Endless minibatches of n out of m examples; each epoch is a fresh permutation.

    The last m mod n examples of an epoch are left out of it (they come again in the next).
    The stream depends on (m, n, seed) alone, not on how many batches are taken at a time.

    >>> stream = IndexStream(examples=7, batch_size=3, seed=0)
    >>> stream.take(4).shape
    torch.Size([4, 3])
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= examples:
            raise ValueError(f"batch_size must be between 1 and the {examples} examples, got {batch_size}")
        self.examples, self.batch_size = examples, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, batch_size, dtype=torch.int64)

    def _epoch(self) -> Tensor:
        whole = self.examples - self.examples % self.batch_size
        return torch.randperm(self.examples, generator=self._generator)[:whole].view(-1, self.batch_size)

    def take(self, steps: int) -> Tensor:
        """The next `steps` minibatches, `[steps, n]`, int64 positions in the training set."""
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        parts = [self._left]
        while sum(len(part) for part in parts) < steps:
            parts.append(self._epoch())
        batches = torch.cat(parts)
        self._left = batches[steps:].clone()
        return batches[:steps]
