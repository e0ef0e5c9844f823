"""Which examples each update sees: an endless stream of indices from a seed."""

import torch
from torch import Tensor

from steadydescent.checks import check_count
from steadydescent.minibatches.sizes import check_batch_size, check_flag


class IndexStream:
    """Endless minibatches of n out of m examples; each epoch is a fresh permutation.

    The last m mod n examples of an epoch are left out of it (they come again in the next). With
    `replacement` every example of every minibatch is drawn anew from all m, independently: the
    noise of the closed forms. The stream depends on (m, n, seed, replacement) alone, not on how
    many batches are taken at a time. It is on the CPU, whatever torch's default device.

    >>> stream = IndexStream(examples=7, batch_size=3, seed=0)
    >>> stream.take(4).shape
    torch.Size([4, 3])

    Raises:
        ValueError: unless 1 ≤ n ≤ m and 0 ≤ seed < 2⁶⁴, all whole, and replacement is True or
            False.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, *, replacement: bool = False
    ) -> None:
        self.examples, self.batch_size = check_batch_size(examples, batch_size)
        self.replacement = check_flag(replacement, "replacement")
        self._generator = seeded(seed)
        self._rest = torch.empty(0, self.batch_size, dtype=torch.int64, device="cpu")

    def _epoch(self) -> Tensor:
        whole = self.examples - self.examples % self.batch_size
        if self.replacement:
            shape = (whole // self.batch_size, self.batch_size)
            return torch.randint(self.examples, shape, generator=self._generator, device="cpu")
        return permutation(self.examples, self._generator)[:whole].view(-1, self.batch_size)

    def take(self, steps: int) -> Tensor:
        """The next `steps` minibatches, `[steps, n]`, int64 positions in the training set."""
        steps = check_count(steps, "steps", least=0)
        parts, count = [self._rest], len(self._rest)
        while count < steps:
            parts.append(self._epoch())
            count += len(parts[-1])
        batches = torch.cat(parts)
        self._rest = batches[steps:].clone()
        return batches[:steps]


def permutation(examples: int, generator: torch.Generator) -> Tensor:
    """The examples in a random order, on the CPU as the generator, whatever the default device."""
    return torch.randperm(examples, generator=generator, device="cpu")


def seeded(seed: int) -> torch.Generator:
    """A generator with this seed, a whole number of at least 0 and below 2⁶⁴."""
    if check_count(seed, "seed", least=0) >= 2**64:  # torch takes no more bits
        raise ValueError(f"seed must be below 2**64, got {seed}")
    return torch.Generator().manual_seed(int(seed))
