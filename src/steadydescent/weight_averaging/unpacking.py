"""Nested values out of JSON and named tensors, as `packing` has put them in."""

import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadydescent.weight_averaging.packing import FACTORIES, NUMPY_KINDS


def unpacked(packed: Any, tensor: Callable[[str, str], Tensor]) -> Any:
    """What was packed; `tensor(name, digest)` reads and verifies one.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError, OverflowError: for JSON that no `Packer`
            writes.
    """
    if not isinstance(packed, dict):
        if isinstance(packed, list):
            raise TypeError("a bare list is nothing that was packed")
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return _from_stored(tensor, *content)
    return _UNPACKERS[kind](content, lambda value: unpacked(value, tensor))


def _from_stored(
    tensor: Callable[[str, str], Tensor], name: str, digest: str, *more: Any
) -> Tensor:
    value = tensor(name, digest)
    if not more:
        return value
    dtype, numbers = more
    if dtype is not None:
        return value.view(_dtype(dtype)).reshape(numbers)
    span = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, numbers, strict=True))
    if span != value.numel() or min(numbers) < 0:
        raise ValueError(f"{name} has {value.numel()} numbers, which {numbers} are no strides for")
    return torch.empty_strided(value.shape, numbers, dtype=value.dtype).copy_(value)


def _dtype(name: str) -> torch.dtype:
    if not isinstance(dtype := getattr(torch, name), torch.dtype):
        raise TypeError(f"{name} is no dtype")
    return dtype


def _numbers(dtype_name: str, content: bytes) -> np.ndarray:
    if (dtype := np.dtype(dtype_name)).kind not in NUMPY_KINDS:
        raise TypeError(f"{dtype} is no dtype of numbers or times")
    return np.frombuffer(bytearray(content), dtype)


def _array(content: Any, unpack: Callable[[Any], Any]) -> np.ndarray:
    dtype, shape, values = content
    return _numbers(dtype, unpack(values).numpy().tobytes()).reshape(shape)


def _pairs(content: Any, unpack: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    return [(unpack(key), unpack(value)) for key, value in content]


def _ordered(content: Any, unpack: Callable[[Any], Any]) -> OrderedDict[Any, Any]:
    pairs, metadata = content
    ordered = OrderedDict(_pairs(pairs, unpack))
    if metadata is not None:
        ordered._metadata = unpack(metadata)  # type: ignore[attr-defined]
    return ordered


def _defaultdict(content: Any, unpack: Callable[[Any], Any]) -> defaultdict[Any, Any]:
    factory, pairs = content
    return defaultdict(None if factory is None else FACTORIES[factory], _pairs(pairs, unpack))


_UNPACKERS: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "nan": lambda content, unpack: struct.unpack(">d", bytes.fromhex(content))[0],
    "int": lambda content, unpack: int(content, 16),
    "complex": lambda content, unpack: complex(*map(unpack, content)),
    "bytes": lambda content, unpack: bytes.fromhex(content),
    "list": lambda content, unpack: [unpack(value) for value in content],
    "tuple": lambda content, unpack: tuple(map(unpack, content)),
    "set": lambda content, unpack: set(map(unpack, content)),
    "frozenset": lambda content, unpack: frozenset(map(unpack, content)),
    "dict": lambda content, unpack: dict(_pairs(content, unpack)),
    "counter": lambda content, unpack: Counter(dict(_pairs(content, unpack))),
    "ordered": _ordered,
    "defaultdict": _defaultdict,
    "deque": lambda content, unpack: deque(map(unpack, content[1]), content[0]),
    "size": lambda content, unpack: torch.Size(content),
    "dtype": lambda content, unpack: _dtype(content),
    "device": lambda content, unpack: torch.device(content),
    "scalar": lambda content, unpack: _numbers(content[0], bytes.fromhex(content[1]))[0],
    "array": _array,
    "parameter": lambda content, unpack: nn.Parameter(unpack(content[1]), content[0]),
}
