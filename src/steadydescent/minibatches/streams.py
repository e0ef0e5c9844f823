"""Which examples each update sees: an endless stream of indices, and epochs for a loop of one's own."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from steadydescent.checks import check_count
from steadydescent.minibatches.sizes import check_batch_size, check_flag, updates_per_epoch

Batch = TypeVar("Batch")


class IndexStream:
    """Endless minibatches of n out of m examples; each epoch is a fresh permutation.

    The last m mod n examples of an epoch are left out of it (they come again in the next). With `replacement` every
    example of every minibatch is drawn anew from all m, independently: the noise of the closed forms.
    The stream depends on (m, n, seed, replacement) alone, not on how many batches are taken at a time.

    >>> stream = IndexStream(examples=7, batch_size=3, seed=0)
    >>> stream.take(4).shape
    torch.Size([4, 3])

    Raises:
        ValueError: unless 1 ≤ n ≤ m and 0 ≤ seed < 2⁶⁴, all whole, and replacement is True or False.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, *, replacement: bool = False) -> None:
        self.examples, self.batch_size = check_batch_size(examples, batch_size)
        self.replacement = check_flag(replacement, "replacement")
        self._generator = _seeded(seed)
        self._left = torch.empty(0, self.batch_size, dtype=torch.int64)

    def _epoch(self) -> Tensor:
        whole = self.examples - self.examples % self.batch_size
        if self.replacement:
            return torch.randint(self.examples, (whole // self.batch_size, self.batch_size), generator=self._generator)
        return torch.randperm(self.examples, generator=self._generator)[:whole].view(-1, self.batch_size)

    def take(self, steps: int) -> Tensor:
        """The next `steps` minibatches, `[steps, n]`, int64 positions in the training set."""
        steps = check_count(steps, "steps", least=0)
        parts, held = [self._left], len(self._left)
        while held < steps:
            parts.append(self._epoch())
            held += len(parts[-1])
        batches = torch.cat(parts)
        self._left = batches[steps:].clone()
        return batches[:steps]


class EpochBatches(Sampler[list[int]]):
    """Minibatches for one's own loop, as the `batch_sampler` of a `DataLoader`.

    Every time it is iterated over, the next epoch: a fresh permutation of all m examples in batches of n, the last one
    smaller if n does not divide m, or left out with `drop_last`. The order depends on (m, n, seed) and the number of
    epochs before alone; there is no epoch to set. With `drop_last` it is the order of `IndexStream`.

    To resume in the middle of an epoch, store `state_dict()` and load it: the next iteration goes on behind the last
    batch that was handed out. Two things about the `DataLoader`:

    - Each time it is iterated over it draws a number, from torch's global generator if it has none of its own. Give
      it one, as below: else dropout goes on with other random numbers after a resumption than without it.
    - With workers it asks for `num_workers · prefetch_factor` batches ahead of the loop. Go through `counted(loader)`,
      and the state is that of the batches which have reached the loop.

    >>> from torch.utils.data import DataLoader
    >>> batches = EpochBatches(examples=7, batch_size=3, seed=0)
    >>> loader = DataLoader(range(7), batch_sampler=batches, generator=torch.Generator())
    >>> [len(batch) for batch in loader], len(batches)
    ([3, 3, 1], 3)
    >>> for batch in batches.counted(loader):  # the loop of a run that is stopped after one batch
    ...     state = batches.state_dict()
    ...     break
    >>> batches.load_state_dict(state)
    >>> [len(batch) for batch in batches.counted(loader)]
    [3, 1]

    Raises:
        ValueError: unless 1 ≤ n ≤ m and 0 ≤ seed < 2⁶⁴, all whole, and drop_last is True or False.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, *, drop_last: bool = False) -> None:
        self.examples, self.batch_size = check_batch_size(examples, batch_size)
        self.drop_last = check_flag(drop_last, "drop_last")
        self._generator = _seeded(seed)
        self._epoch_start = self._generator.get_state()
        self._first = self._done = 0
        self._reached: int | None = None
        self._resume = False

    def __len__(self) -> int:
        return updates_per_epoch(self.examples, self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        self._first = self._done = self._done if self._resume else 0
        self._resume, self._reached = False, None
        self._epoch_start = self._generator.get_state()
        order = torch.randperm(self.examples, generator=self._generator)
        for batch in order.split(self.batch_size)[self._first : len(self)]:
            self._done += 1
            yield batch.tolist()

    def counted(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches; from then on `state_dict()` counts those that reached the loop, not those prefetched.

        Needed with `num_workers` above 0, right without. Until the next epoch starts.

        Raises:
            ValueError: if more batches come than were asked for here: the loader has another sampler.
        """
        for position, batch in enumerate(loader, start=1):
            if self._first + position > self._done:
                raise ValueError("the loader must take its batches from this sampler, as its batch_sampler")
            self._reached = self._first + position
            yield batch

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """Where the epoch under way started, and how many of its batches are done.

        By default those that reached the loop through `counted`, without it those handed out.

        Raises:
            ValueError: unless done is a whole number between 0 and the number of batches in an epoch.
        """
        if done is None:
            done = self._done if self._reached is None else self._reached
        return {**self._sizes(), "epoch_start": self._epoch_start.clone(), "done": self._checked(done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken: the next iteration gives the rest of its epoch, or a new one at its end.

        Raises:
            ValueError: for what is no state, or the state of batches of other data, size or kind.
        """
        names = [*self._sizes(), "epoch_start", "done"]
        if not isinstance(state, dict) or (missing := [name for name in names if name not in state]):
            lacks = f"without {', '.join(missing)}" if isinstance(state, dict) else repr(state)
            raise ValueError(f"the state must be a dict as state_dict() gives it, got one {lacks}")
        if other := {name: state[name] for name, value in self._sizes().items() if state[name] != value}:
            raise ValueError(f"the state must be of {self._sizes()}, got {other}")
        done, generator = self._checked(state["done"]), torch.Generator()
        try:
            generator.set_state(state["epoch_start"])
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"epoch_start must be the state of a torch.Generator: {error}") from error
        self._generator, self._epoch_start = generator, generator.get_state()
        self._done, self._reached, self._resume = done, None, done < len(self)
        if not self._resume:
            torch.randperm(self.examples, generator=self._generator)  # that epoch is over: pass its order by

    def _checked(self, done: int) -> int:
        if check_count(done, "done", least=0) > len(self):
            raise ValueError(f"done must be between 0 and the {len(self)} batches of an epoch, got {done}")
        return int(done)

    def _sizes(self) -> dict[str, int | bool]:
        return {"examples": self.examples, "batch_size": self.batch_size, "drop_last": self.drop_last}


def _seeded(seed: int) -> torch.Generator:
    if check_count(seed, "seed", least=0) >= 2**64:  # torch takes no more bits
        raise ValueError(f"seed must be below 2**64, got {seed}")
    return torch.Generator().manual_seed(int(seed))
