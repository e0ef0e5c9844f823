"""Bytes before they are taken: how many replicas a GPU evaluates at once, and what an error says.

Axes: R replicas, N examples.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARE = 0.25
"""Of a device's memory, what one evaluation may take beside what training holds. A share of all of
it, not of what happens to be free: the same stack is cut alike, to the same bits, every time.
"""
NO_ROOM = "can't allocate memory"
"""How torch's CPU allocator says it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was wanting, a GPU's or the machine's.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and NO_ROOM in str(error)


class CountsBytes(TorchDispatchMode):
    """Counts the bytes of every tensor that operations make; a view of another takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for leaf in _tensors(made):
            if leaf.untyped_storage().data_ptr() not in given:
                self.bytes += leaf.nbytes
        return made


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@torch.no_grad()
def bytes_made(function: Callable[..., Any], *inputs: Tensor) -> int:
    """Bytes of all tensors that a function makes on its way: at least what it holds at any moment.

    It is run once, and counted operation by operation.
    """
    with CountsBytes() as counted:
        function(*inputs)
    return counted.bytes


_COUNTED: dict[tuple, int] = {}
"""Bytes of what was counted before: a count costs as much as a replica's evaluation, and a stack is
evaluated hundreds of times. The same code on inputs of the same shapes makes as many.
"""


def _counted(function: Callable[..., Any], inputs: list[Tensor]) -> int:
    shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
    kind = (getattr(function, "__self__", None), getattr(function, "__code__", function), shapes)
    if kind not in _COUNTED:
        _COUNTED[kind] = bytes_made(function, *inputs)
    return _COUNTED[kind]


def replicas_at_once(
    function: Callable[..., Any], replicas: tuple[Tensor, ...], room: float
) -> int | None:
    """How many of R replicas a function may be mapped over at once in so many bytes of `room`.

    None means that all of them fit. `replicas` are its inputs, each `[R, …]`, and the first replica
    is what is counted. One is the least: smaller than a replica nothing is cut.
    """
    count = len(replicas[0])
    each = _counted(function, [tensor[0] for tensor in replicas])
    return None if each * count <= room else max(1, int(room // each))


def room_on(device: torch.device) -> float:
    """Bytes that one evaluation may take on a GPU; on a CPU nothing is cut."""
    if device.type != "cuda":
        return math.inf
    return SHARE * torch.cuda.get_device_properties(device).total_memory


def over_replicas(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function mapped over replicas, as many at once as have room on their device."""

    def mapped(*replicas: Tensor) -> Tensor:
        at_once = replicas_at_once(function, replicas, room_on(replicas[0].device))
        return vmap(function, chunk_size=at_once)(*replicas)

    return mapped
