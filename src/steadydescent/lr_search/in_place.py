"""Writing what objects held back into them, so that whoever holds an object goes on holding it."""

from collections import deque
from typing import Any

import torch
from torch import Tensor


def set_class(value: Any, cls: type) -> None:
    """Give an object the class that it had."""
    if type(value) is not cls:
        value.__class__ = cls


def set_hooks(tensor: Tensor, which: str, hooks: dict | None) -> None:
    """Give a tensor the dict of hooks that it had, or none."""
    if (now := getattr(tensor, which)) is not hooks:
        if now is not None:
            now.clear()  # else torch's C++ goes on calling them
        setattr(tensor, which, hooks)


def refill(value: set | deque, items: list) -> None:
    """Put the members that a set or deque had back into it."""
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(items)


def refill_dict(value: dict, items: list[tuple[Any, Any]]) -> None:
    """The same keys in the same order with the same objects; an untouched dict stays untouched."""
    if _ids(list(value.items())) != _ids(items):
        value.clear()
        for key, item in items:
            value[key] = item


def _ids(items: list[tuple[Any, Any]]) -> list[tuple[int, int]]:
    return [(id(key), id(item)) for key, item in items]


def make_lazy(tensor: Tensor, cls: type[Tensor], nothing: Tensor) -> None:
    """A lazy module's parameter as it was before its first batch."""
    tensor.grad = None
    tensor.data = nothing
    set_class(tensor, cls)


def set_flag(tensor: Tensor, flag: bool) -> None:
    """`requires_grad` as it was, of a tensor that was a leaf."""
    if not tensor.is_leaf:  # written to in place by what has a graph
        tensor.detach_()
    if tensor.requires_grad is not flag:
        tensor.requires_grad_(flag)


def set_content(tensor: Tensor, memory: Tensor, content: Tensor) -> None:
    """The memory that the tensor had, and in it the values of `content`, bit by bit."""
    if tensor.is_inference():
        with torch.inference_mode():
            _write(tensor.detach(), content)
        return
    if not _is_opaque(memory) and memory.untyped_storage().nbytes() < (need := _bytes(memory)):
        memory.untyped_storage().resize_(need)  # it was given back, as sharding does
    if _place(tensor) != _place(memory):
        tensor.data = memory
    if not _same_bits(tensor, content):  # a graph may need what nobody changed, as it is
        _write(tensor, content)


def _write(tensor: Tensor, content: Tensor) -> None:
    if tensor.layout is torch.strided:
        for axis, stride in enumerate(tensor.stride()):
            # expanded: one value in memory for all of the axis
            if stride == 0 and tensor.shape[axis] > 1:
                tensor, content = tensor.narrow(axis, 0, 1), content.narrow(axis, 0, 1)
    tensor.copy_(content)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    """False where it cannot be told, as for sparse tensors; −0 is not 0, and a NaN is itself."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(left.element_size())
    if whole is None or _is_opaque(left) or left.is_quantized or left.device.type == "meta":
        return False
    return torch.equal(left.detach().view(whole), right.view(whole))


def _is_opaque(tensor: Tensor) -> bool:
    """Whether it has no memory of its own to look at: sparse, or made of others, as shards are."""
    return tensor.layout is not torch.strided or hasattr(tensor, "__tensor_flatten__")


def _bytes(tensor: Tensor) -> int:
    """What its memory must hold at least."""
    if not tensor.numel():
        return 0
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in axes)
    return int(last + 1) * tensor.element_size()


def _place(tensor: Tensor) -> tuple:
    """Where a tensor's values lie and how they are read; the latter alone if it is opaque."""
    how = (tensor.dtype, tensor.device, tensor.shape, tensor.layout)
    if _is_opaque(tensor):
        return how
    where = tensor.untyped_storage().data_ptr() if tensor.device.type != "meta" else 0
    return (*how, tensor.stride(), tensor.storage_offset(), where)
