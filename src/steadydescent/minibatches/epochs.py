"""Epochs of minibatches for a loop of one's own, which can be stopped and resumed anywhere."""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from steadydescent.checks import check_count
from steadydescent.minibatches.sizes import check_batch_size, check_flag, updates_per_epoch
from steadydescent.minibatches.streams import permutation, seeded

Batch = TypeVar("Batch")


class _Pass:
    """One walk over an epoch: where its order starts, and how far it is."""

    def __init__(self, epoch_start: Tensor, done: int, resumes: bool = False) -> None:
        self.epoch_start, self.resumes = epoch_start, resumes
        self.first = self.handed_out = done
        self.reached: int | None = None  # through `counted`
        self.is_over = False

    @property
    def done(self) -> int:
        return self.handed_out if self.reached is None else self.reached

    @property
    def is_peek(self) -> bool:
        return self.done - self.first <= 1


class EpochBatches(Sampler[list[int]]):
    """Minibatches for one's own loop, as the `batch_sampler` of a `DataLoader`.

    Every time it is iterated over, the next epoch: a fresh permutation of all m examples in batches
    of n, the last one smaller if n does not divide m, or left out with `drop_last`. The order
    depends on (m, n, seed) and the number of epochs before alone; there is no epoch to set. With
    `drop_last` it is the order of `IndexStream`.

    Data parallel: with `rank` and `world_size` every process draws the same permutation and takes
    its own share of it, n examples a batch, the world n·world_size: together the ranks' t-th
    batches are the t-th batch of a single process with batches of n·world_size. All have equally
    many batches; of a last, smaller one each gets ⌊r/W⌋ or ⌈r/W⌉ of the r examples left, and where
    r < W, the sizes are refused. A state is of the world: one rank's serves them all.

    To resume in the middle of an epoch, store `state_dict()` and load it: the next iteration goes
    on behind the last batch that was handed out. Two things about the `DataLoader`:

    - Each time it is iterated over it draws a number, from torch's global generator if it has none
      of its own. Give it one, as below: else dropout goes on with other random numbers after a
      resumption than without it.
    - With workers it asks for `num_workers · prefetch_factor` batches ahead of the loop. Go through
      `counted(loader)`, and the state is that of the batches which have reached the loop. A look
      that is taken with workers between `load_state_dict` and the loop may spend the rest of the
      epoch: take it before.

    Each iteration counts for itself, and takes an epoch of its own. The state is that of the loop
    under way: a look at `next(iter(loader))` inside it, or a whole loop inside it, leaves it alone;
    between loops, it is that of the last. Where two iterations are alive and either could be meant,
    as behind `it = iter(loader)` that is kept in a variable, `state_dict` refuses. A loop through
    `counted` is always the one that is meant. One that was interrupted behind its first batch, and
    whose iterator a kept traceback keeps alive, looks as one around a whole loop: where a state is
    taken behind the end of an epoch alone, delete that traceback first (in a notebook, start the
    kernel anew).

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
        ValueError: unless 1 ≤ n ≤ m and 0 ≤ seed < 2⁶⁴, all whole, and drop_last is True or False;
            unless 0 ≤ rank < world_size and every rank gets equally many batches; in a process
            group of several where neither is given, for all would train on the same batches.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        seed: int,
        *,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.examples, self.batch_size = check_batch_size(examples, batch_size)
        self.drop_last = check_flag(drop_last, "drop_last")
        self.rank, self.world_size = _ranks(rank, world_size)
        self._check_shares()
        self._generator = seeded(seed)
        self._under_way: list[_Pass] = []
        self._last = self._newest = _Pass(self._generator.get_state(), 0)
        self._resume = False

    def __len__(self) -> int:
        world = self.batch_size * self.world_size
        return updates_per_epoch(self.examples, world, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        done = self._newest.first if self._resume else 0
        walk = self._newest = _Pass(self._generator.get_state(), done, self._resume)
        self._resume = False
        order = permutation(self.examples, self._generator)
        world_batches = order.split(self.batch_size * self.world_size)[done : len(self)]
        self._under_way.append(walk)
        try:
            for batch in world_batches:
                walk.handed_out += 1
                if walk in self._under_way:  # else a state was loaded since
                    self._last = walk
                yield batch.tensor_split(self.world_size)[self.rank].tolist()
            walk.is_over = True
        finally:
            if walk in self._under_way:
                self._under_way.remove(walk)
                if walk.is_peek:
                    self._give_back(walk)

    def _give_back(self, walk: _Pass) -> None:
        """After a look alone at the rest of a resumed epoch, the next iteration gives that rest."""
        if walk is self._newest and walk.resumes and walk.reached is None and not walk.is_over:
            self._generator.set_state(walk.epoch_start)
            self._resume = True

    def counted(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches, of which `state_dict()` counts those that reached the loop.

        Those that were prefetched do not count, until the loop ends. Needed with `num_workers`
        above 0, right without, and the word for which loop is meant where several are alive.

        Raises:
            ValueError: if more batches come than were asked for here: the loader has another
                sampler.
        """
        if self._newest not in self._under_way:
            self._give_back(self._newest)  # with workers a look takes several batches
        before, walk = self._newest, None
        for position, batch in enumerate(loader, start=1):
            if walk is None:
                walk = self._newest if self._newest is not before else None
            if walk is None or walk.first + position > walk.handed_out:
                raise ValueError(
                    "the loader must take its batches from this sampler, as its batch_sampler"
                )
            walk.reached, self._last = walk.first + position, walk
            yield batch

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """Where the epoch under way started, and how many of its batches are done.

        By default those that reached the loop through `counted`, without it those handed out.

        Raises:
            ValueError: unless done is a whole number between 0 and the number of batches in an
                epoch; where two iterations are alive and either could be meant.
        """
        walk = self._meant()
        done = walk.done if done is None else self._checked(done)
        return {**self._sizes(), "epoch_start": walk.epoch_start.clone(), "done": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken.

        The next iteration gives the rest of its epoch, or a new one at its end.

        Raises:
            ValueError: for what is no state, or the state of batches of other data, size, kind or
                number of ranks.
        """
        names = [*self._sizes(), "epoch_start", "done"]
        if isinstance(state, dict):
            state = {"world_size": 1, **state}  # written by one process, as older states are
            missing = [name for name in names if name not in state]
            problem = f"without {', '.join(missing)}" if missing else ""
        else:
            problem = repr(state)
        if problem:
            raise ValueError(
                f"the state must be a dict as state_dict() gives it, got one {problem}"
            )
        sizes = {"world_size": 1, **self._sizes()}
        if other := {name: state[name] for name, value in sizes.items() if state[name] != value}:
            raise ValueError(f"the state must be of {self._sizes()}, got {other}")
        done, generator = self._checked(state["done"]), torch.Generator()
        try:
            generator.set_state(state["epoch_start"])
        except (TypeError, RuntimeError) as error:
            sentence = f"epoch_start must be the state of a torch.Generator: {error}"
            raise ValueError(sentence) from error
        self._generator, self._last = generator, _Pass(generator.get_state(), done)
        self._newest = self._last
        self._under_way, self._resume = [], done < len(self)
        if not self._resume:
            permutation(self.examples, self._generator)  # that epoch is over: pass its order by

    def __getstate__(self) -> dict[str, Any]:
        """A copy is no loop under way, but stands where the one is that the copied is in."""
        return {**vars(self), "_under_way": [], "_last": (self._under_way or [self._last])[0]}

    def _meant(self) -> _Pass:
        """The walk whose state is meant: through `counted`, else one alive, else the last one."""
        if counted := [walk for walk in self._under_way if walk.reached is not None]:
            return counted[-1]
        if self._is_unclear():
            gc.collect()  # an iterator in a cycle of references looks alive
        if self._is_unclear():
            others = [walk for walk in self._under_way if walk is not self._last]
            raise ValueError(
                "state_dict must be told which loop is meant, "
                f"the one at batch {self._last.done} of its epoch "
                f"or that at batch {others[0].done}, whose iterator is alive; "
                "write `for batch in batches.counted(loader)` for the loop to resume, "
                "or delete the other iterator"
            )
        return self._under_way[0] if self._under_way else self._last

    def _is_unclear(self) -> bool:
        """Whether two walks are alive, or one of a single batch and after it a longer one."""
        alone = self._under_way[0] if len(self._under_way) == 1 else None
        if alone is None:
            return len(self._under_way) > 1
        return alone is not self._last and alone.is_peek and not self._last.is_peek

    def _check_shares(self) -> None:
        world = self.batch_size * self.world_size
        if world > self.examples and self.world_size > 1:
            raise ValueError(
                f"batch_size must be at most {self.examples // self.world_size}, "
                f"so that {self.world_size} ranks have a batch each "
                f"of the {self.examples} examples, got {self.batch_size}"
            )
        if not self.drop_last and 0 < (rest := self.examples % world) < self.world_size:
            raise ValueError(
                f"each of {self.world_size} ranks must get as many batches, "
                f"but the last one of the epoch has {rest} examples for them all; "
                f"take drop_last=True, or another batch_size than {self.batch_size}"
            )

    def _checked(self, done: int) -> int:
        if check_count(done, "done", least=0) > len(self):
            raise ValueError(
                f"done must be between 0 and the {len(self)} batches of an epoch, got {done}"
            )
        return int(done)

    def _sizes(self) -> dict[str, int | bool]:
        sizes = {
            "examples": self.examples,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
        }
        return sizes if self.world_size == 1 else {**sizes, "world_size": self.world_size}


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Which share of the batches, of how many; one process has it all."""
    if rank is None and world_size is None:
        group = dist.is_available() and dist.is_initialized()
        if group and dist.get_world_size() > 1:
            raise ValueError(
                "rank and world_size must be given in a process group of several, "
                "for each would draw the same batches: "
                "rank=dist.get_rank(), world_size=dist.get_world_size(), "
                "or rank=0, world_size=1 if something else shares them out"
            )
        return 0, 1
    if rank is None or world_size is None:
        raise ValueError(f"rank and world_size must be given together, got {rank} and {world_size}")
    rank, world_size = check_count(rank, "rank", least=0), check_count(world_size, "world_size")
    if rank >= world_size:
        raise ValueError(f"rank must be below world_size = {world_size}, got {rank}")
    return rank, world_size
