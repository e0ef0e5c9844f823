"""Reproducible minibatches: which examples each update sees, from the seed alone; how many, and their noise."""

import gc
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import Sampler

POWERS_OF_TWO = (64, 128, 256, 512, 1024)
"""The slides' choices of the batch size n (uit-slides)."""
SMALL_DATA = 200
"""Up to so many examples the slides train on all of them at once (uit-slides)."""
OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
"""What plain RuntimeErrors of torch, its allocators and cuBLAS say when memory is short."""


class IndexStream:
    """Endless minibatches of n out of m examples; each epoch is a fresh permutation.

    The last m mod n examples of an epoch are left out of it (they come again in the next). With `replacement` every
    example of every minibatch is drawn anew from all m, independently: the noise of the closed forms.
    The stream depends on (m, n, seed, replacement) alone, not on how many batches are taken at a time.

    >>> stream = IndexStream(examples=7, batch_size=3, seed=0)
    >>> stream.take(4).shape
    torch.Size([4, 3])

    Raises:
        ValueError: unless 1 ≤ n ≤ m.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, *, replacement: bool = False) -> None:
        _check_batch_size(examples, batch_size)
        self.examples, self.batch_size, self.replacement = examples, batch_size, replacement
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, batch_size, dtype=torch.int64)

    def _epoch(self) -> Tensor:
        whole = self.examples - self.examples % self.batch_size
        if self.replacement:
            return torch.randint(self.examples, (whole // self.batch_size, self.batch_size), generator=self._generator)
        return torch.randperm(self.examples, generator=self._generator)[:whole].view(-1, self.batch_size)

    def take(self, steps: int) -> Tensor:
        """The next `steps` minibatches, `[steps, n]`, int64 positions in the training set."""
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        parts, held = [self._left], len(self._left)
        while held < steps:
            parts.append(self._epoch())
            held += len(parts[-1])
        batches = torch.cat(parts)
        self._left = batches[steps:].clone()
        return batches[:steps]


class EpochBatches(Sampler[list[int]]):
    """Minibatches for one's own loop: `DataLoader(data, batch_sampler=EpochBatches(len(data), 64, seed=0))`.

    Every time it is iterated over, the next epoch: a fresh permutation of all m examples in batches of n, the last one
    smaller if n does not divide m, or left out with `drop_last`. The order depends on (m, n, seed) and the number of
    epochs before alone; there is no epoch to set. With `drop_last` it is the order of `IndexStream`.

    To resume in the middle of an epoch, store `state_dict()` and load it: the next iteration goes on behind the last
    batch that was handed out. A `DataLoader` with workers asks for `num_workers · prefetch_factor` batches ahead of
    the loop: there, say `state_dict(done=batches the loop has finished in this epoch)`.

    >>> batches = EpochBatches(examples=7, batch_size=3, seed=0)
    >>> [len(batch) for batch in batches], len(batches)
    ([3, 3, 1], 3)

    Raises:
        ValueError: unless 1 ≤ n ≤ m.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, *, drop_last: bool = False) -> None:
        _check_batch_size(examples, batch_size)
        self.examples, self.batch_size, self.drop_last = examples, batch_size, drop_last
        self._generator = torch.Generator().manual_seed(seed)
        self._epoch_start = self._generator.get_state()
        self._done = 0
        self._resume = False

    def __len__(self) -> int:
        return updates_per_epoch(self.examples, self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        first = self._done if self._resume else 0
        self._resume, self._done = False, first
        self._epoch_start = self._generator.get_state()
        order = torch.randperm(self.examples, generator=self._generator)
        for batch in order.split(self.batch_size)[first : len(self)]:
            self._done += 1
            yield batch.tolist()

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """Where the epoch under way started, and how many of its batches are done: by default, those handed out.

        Raises:
            ValueError: unless 0 ≤ done ≤ the number of batches in an epoch.
        """
        done = self._done if done is None else done
        if not 0 <= done <= len(self):
            raise ValueError(f"done must be between 0 and the {len(self)} batches of an epoch, got {done}")
        return {**self._sizes(), "epoch_start": self._epoch_start.clone(), "done": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken: the next iteration gives the rest of its epoch, or a new one at its end.

        Raises:
            ValueError: for the state of batches of other data, size or kind.
        """
        if other := {name: state[name] for name, value in self._sizes().items() if state[name] != value}:
            raise ValueError(f"the state must be of {self._sizes()}, got {other}")
        self._generator.set_state(state["epoch_start"])
        self._epoch_start, self._done = state["epoch_start"].clone(), state["done"]
        self._resume = self._done < len(self)
        if not self._resume:
            torch.randperm(self.examples, generator=self._generator)  # that epoch is over: pass its order by

    def _sizes(self) -> dict[str, int | bool]:
        return {"examples": self.examples, "batch_size": self.batch_size, "drop_last": self.drop_last}


def updates_per_epoch(examples: int, batch_size: int, *, drop_last: bool) -> int:
    """Updates in one epoch, one pass over all m examples: ⌈m/n⌉, or ⌊m/n⌋ without the last, smaller batch.

    >>> updates_per_epoch(5_000_000, 1000, drop_last=False)  # the slides' 5000 mini-batches are one epoch
    5000

    Raises:
        ValueError: unless 1 ≤ n ≤ m.
    """
    _check_batch_size(examples, batch_size)
    return examples // batch_size if drop_last else -(-examples // batch_size)


def recommended_batch_sizes(examples: int) -> tuple[int, ...]:
    """The slides' rule for n: all m examples if m ≤ 200, else a power of two, 64 to 1024, that is no more than m.

    Of these the slides take what fits the memory (`largest_that_fits`, `memory_bound`); uit-slides.

    >>> recommended_batch_sizes(150), recommended_batch_sizes(300)
    ((150,), (64, 128, 256))

    Raises:
        ValueError: for fewer than 1 example.
    """
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")
    return (examples,) if examples <= SMALL_DATA else tuple(n for n in POWERS_OF_TWO if n <= examples)


def noise_factor(examples: int, batch_size: int, *, replacement: bool) -> float:
    """Variance of a minibatch's mean as a share of the variance over the examples σ² (divisor m).

    With replacement 1/n; without, as in an epoch's batches, 1/n·(m − n)/(m − 1), which is 0 at n = m. The noise of
    the gradient is the root of it times σ: slope −1/2 in n on log axes (uit-slides; mccandlish2018empirical).

    >>> noise_factor(100, 25, replacement=True), noise_factor(101, 26, replacement=False) * 26
    (0.04, 0.75)

    Raises:
        ValueError: unless 1 ≤ n ≤ m.
    """
    _check_batch_size(examples, batch_size)
    if replacement or examples == 1:
        return 1 / batch_size if replacement else 0.0
    return (examples - batch_size) / (examples - 1) / batch_size


def regularised_cost(losses: Tensor, weights: Iterable[Tensor], strength: float, examples: int) -> Tensor:
    """The cost of a minibatch with its L2 term, mean(losses) + λ/(2m)·Σ_l ‖W_l‖²_F, a scalar.

    `losses` `[B]`, one for each example; `weights` the matrices W_l (the slides leave biases out); λ `strength`; m all
    `examples` of the training set. Two divisors are in use: (a) m; (b) the batch size (uit-slides print λ/2n), with
    which the same λ weighs m/n times as much. With (a) the mean cost of an epoch's batches, if they are of one size, is
    that of the whole training set, whatever n. In torch's terms the weight decay is λ/m.

    >>> regularised_cost(torch.tensor([1.0, 3.0]), [torch.ones(2, 2)], strength=10.0, examples=100).item()
    2.2

    Raises:
        ValueError: for a negative strength, or fewer examples than losses.
    """
    if not strength >= 0:
        raise ValueError(f"strength must be at least 0, got {strength}")
    if examples < len(losses):
        raise ValueError(f"examples must be all of the training set's, at least {len(losses)}, got {examples}")
    squares = torch.stack([weight.square().sum() for weight in weights]).sum()
    return losses.mean() + strength / (2 * examples) * squares


def activation_bytes(module: nn.Module, *inputs: Any) -> int:
    """Bytes that one forward pass `module(*inputs)` keeps for the backward pass, inputs included, weights not.

    The share of a minibatch's memory that grows with n: measure at n and 2n, and (bytes(2n) − bytes(n))/n is the bytes
    for each example, whatever is kept once. Each storage counts once. To count the loss too, hand in a module that
    computes it. Weights, buffers and random generators are left as they were.

    >>> mlp = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 10))
    >>> activation_bytes(mlp, torch.zeros(7, 40))  # 7 · (40 inputs + 100 hidden units) · 4 bytes
    3920
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    copies = tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)  # a view keeps no more
    own = {tensor.untyped_storage().data_ptr() for tensor in chain(module.parameters(), buffers.values())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices), torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        output = torch.func.functional_call(module, buffers, copies)
        total = sum(kept.values())
    del output  # until here it kept the graph, so that no storage was freed and another put in its place
    return total


def memory_bound(bytes_fixed: int, bytes_per_example: float, budget: int) -> int:
    """The largest n with bytes_fixed + n·bytes_per_example ≤ budget, all in bytes (uit-slides: what fits memory).

    Fixed are the weights, their gradients and the optimiser's slots: with P parameters in single precision
    4·P·(2 + slots), Adam having 2 slots. Per example: `activation_bytes`. It is an estimate: the backward pass and the
    kernels take working memory on top, so leave some of the budget, or try it out with `largest_that_fits`.

    >>> memory_bound(bytes_fixed=4_000, bytes_per_example=900, budget=10_000)
    6

    Raises:
        ValueError: if not even one example fits, or bytes_per_example is not positive.
    """
    if not bytes_per_example > 0:
        raise ValueError(f"bytes_per_example must be positive, got {bytes_per_example}")
    if budget < bytes_fixed + bytes_per_example:
        raise ValueError(f"budget must hold one example, {bytes_fixed} + {bytes_per_example} bytes, got {budget}")
    return int((budget - bytes_fixed) // bytes_per_example)


def largest_that_fits(step: Callable[[int], object], limit: int) -> int:
    """The largest n ≤ limit for which `step(n)` does not run out of memory: doubles from 1, then halves the gap.

    `step(n)` makes one whole update with n examples, for forward, backward and the optimiser's slots all take memory.
    It is called at most 2·log₂(limit) + 2 times; what fits is taken to fit with fewer examples too. Only errors that
    say memory ran out count, `torch.OutOfMemoryError`, `MemoryError` and RuntimeErrors with the words of
    `OUT_OF_MEMORY`; others pass through. On a CPU, Linux may end the process rather than refuse memory: there take
    `memory_bound`.

    >>> def step(n):
    ...     if n > 300:
    ...         raise MemoryError
    >>> largest_that_fits(step, limit=1024)
    300

    Raises:
        ValueError: for a limit below 1.
        MemoryError: if not even one example fits.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1 example, got {limit}")
    fits, fails = 0, limit + 1
    while fails - fits > 1:
        size = min(max(1, 2 * fits), limit) if fails > limit else (fits + fails) // 2
        if _fits(step, size):
            fits = size
        else:
            fails = size
    if fits == 0:
        raise MemoryError("not even one example fits the memory")
    return fits


def _fits(step: Callable[[int], object], size: int) -> bool:
    try:
        step(size)
        return True
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
    gc.collect()  # outside the handler: the error's traceback held the tensors of the step
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _check_batch_size(examples: int, batch_size: int) -> None:
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size must be between 1 and the {examples} examples, got {batch_size}")
