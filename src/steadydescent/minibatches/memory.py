"""What fits the memory: bytes that a forward pass keeps, the bound they give, and trying it out."""

import gc
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from steadydescent.checks import check_count, check_positive, check_size

OUT_OF_MEMORY = (
    *("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED"),
    *("CUDNN_STATUS_NOT_SUPPORTED", "Unable to find a valid cuDNN algorithm"),
)
"""What plain RuntimeErrors say when memory is short, in capitals or not.

They come from torch, its allocators, cuBLAS and cuDNN. cuDNN has no word of its own for it; Hugging
Face's accelerate takes the same for too little memory.
"""


def activation_bytes(module: nn.Module, *inputs: Any) -> int:
    """Bytes that a forward pass keeps for the backward pass, inputs included, weights not.

    The pass is `module(*inputs)`. The share of a minibatch's memory that grows with n: measure at n
    and 2n, and (bytes(2n) − bytes(n))/n is the bytes for each example, whatever is kept once. Each
    storage counts once. To count the loss too, hand in a module that computes it. Weights, buffers
    and random generators are left as they were. What training would keep is counted under `no_grad`
    and `inference_mode` too.

    >>> mlp = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 10))
    >>> activation_bytes(mlp, torch.zeros(7, 40))  # 7 · (40 inputs + 100 hidden units) · 4 bytes
    3920

    Raises:
        ValueError: for what is no module.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be an nn.Module, got {module!r}")
    with torch.inference_mode(False):  # in which nothing is kept, whatever else is switched on
        return _saved_bytes(module, inputs)


def _saved_bytes(module: nn.Module, inputs: tuple) -> int:
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    # of views: a storage that is larger than the input would count in full
    copies = tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)
    tensors = chain(module.parameters(), buffers.values())
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    with (
        torch.random.fork_rng(devices),
        torch.enable_grad(),
        saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        output = torch.func.functional_call(module, buffers, copies)
        total = sum(sizes.values())
    # until here it kept the graph, so that no storage was freed and another put in its place
    del output
    return total


def memory_bound(bytes_fixed: int, bytes_per_example: float, budget: int) -> int:
    """The largest n with bytes_fixed + n·bytes_per_example ≤ budget, all in bytes.

    The slides take what fits the memory (uit-slides). Fixed are the weights, their gradients and
    the optimiser's slots: with P parameters in single precision 4·P·(2 + slots), Adam having 2
    slots. Per example: `activation_bytes`. It is an estimate: the backward pass and the kernels
    take working memory on top, so leave some of the budget, or try it out with `largest_that_fits`.

    >>> memory_bound(bytes_fixed=4_000, bytes_per_example=900, budget=10_000)
    6

    Raises:
        ValueError: if not even one example fits, bytes_per_example is not positive, or one of the
            three is negative or not finite.
    """
    check_size(bytes_fixed, "bytes_fixed")
    check_positive(bytes_per_example, "bytes_per_example")
    if check_size(budget, "budget") < bytes_fixed + bytes_per_example:
        raise ValueError(
            f"budget must hold one example, {bytes_fixed} + {bytes_per_example} bytes, got {budget}"
        )
    return int((budget - bytes_fixed) // bytes_per_example)


def largest_that_fits(step: Callable[[int], object], limit: int, smallest: int = 1) -> int:
    """The largest n ≤ limit for which `step(n)` fits the memory.

    It doubles n from `smallest`, then halves the gap. `step(n)` makes one whole update with n
    examples, for forward, backward and the optimiser's slots all take memory. So it trains the
    model: put the search inside `lr_search.restored(model, optimizer)`, whose copies of weights and
    slots take memory too. Batch normalisation refuses a single example: there, `smallest=2`.

    `step` is called at most 2·log₂(limit) + 2 times; what fits is taken to fit with fewer examples
    too. Only errors that say memory ran out count, `torch.OutOfMemoryError`, `MemoryError` and
    RuntimeErrors with the words of `OUT_OF_MEMORY`; others pass through. On a CPU, Linux may end
    the process rather than refuse memory: there take `memory_bound`.

    >>> def step(n):
    ...     if n > 300:
    ...         raise MemoryError
    >>> largest_that_fits(step, limit=1024, smallest=2)
    300

    Raises:
        ValueError: unless 1 ≤ smallest ≤ limit, both whole.
        MemoryError: if not even the smallest batch fits.
    """
    smallest = check_count(smallest, "smallest")
    limit = check_count(limit, "limit", least=smallest)
    if reason := _refusal(step, smallest):
        raise MemoryError(f"not even a batch of {smallest} fits the memory: {reason}")
    fits, fails = smallest, limit + 1
    while fails - fits > 1:
        size = min(2 * fits, limit) if fails > limit else (fits + fails) // 2
        if _refusal(step, size):
            fails = size
        else:
            fits = size
    return fits


def _refusal(step: Callable[[int], object], size: int) -> str:
    """What the error said that memory ran out with; empty if it did not."""
    try:
        step(size)
        return ""
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words.lower() in reason.lower() for words in OUT_OF_MEMORY):
            raise
    gc.collect()  # outside the handler: the error's traceback held the tensors of the step
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return reason
