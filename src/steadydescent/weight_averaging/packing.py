"""Nested values as JSON and named tensors: what comes back is as it was, or packing refuses.

Type and value come back (`unpacking`). What is not its value does not come back. A tensor keeps
dtype, shape and values, and the order of its axes where it is dense; it comes back on the CPU, in
memory of its own, without graph, hooks and attributes, and `requires_grad` is kept for parameters
alone. A numpy array keeps dtype, shape and values; it comes back in C order and can be written to.

Taken are None, bool, int, float, complex, str, bytes; list, tuple, set, frozenset, dict,
OrderedDict, defaultdict, Counter and deque of them, with keys of all that can be one; tensors and
parameters; numpy's scalars and arrays of numbers and times; `torch.Size`, `torch.dtype`,
`torch.device`. Subclasses are refused: what they are stands in code.
"""

import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from steadydescent.weight_averaging.named_tensors import mesh_of

DEEPEST = 50
"""Nests inside each other; JSON's own reader gives up at about a thousand."""
FACTORIES: dict[str, Any] = {
    kind.__name__: kind for kind in (bool, dict, float, int, list, set, str, tuple)
}
"""What a defaultdict may make its values with."""
NUMPY_KINDS = "biufcmM"
"""numpy's letters for numbers and times."""
_STORED = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}
"""What all versions of safetensors know; other dtypes are stored as their bytes."""


class Packer:
    """Packs values; `tensors` collects copies of theirs on the CPU, under dotted names."""

    def __init__(self, digest: Callable[[Tensor], str]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.sharded = False
        """Whether some were gathered from several processes."""
        self._digest = digest
        self._depth = 0

    def pack(self, value: Any, name: str) -> Any:
        """JSON for a value that stands at a dotted name.

        Raises:
            TypeError: for what cannot come back as it is, by its name.
        """
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind in _PACKERS:
            return _PACKERS[kind](self, value, name)
        if isinstance(value, Tensor):
            return self._tensor(value, name)
        if isinstance(value, np.generic):
            return {"scalar": [_numpy_dtype(value, name), value.tobytes().hex()]}
        raise _refusal(value, name)

    def _inside(self, name: str, pack: Callable[[], Any]) -> Any:
        if self._depth == DEEPEST:
            raise TypeError(f"{name} is nested deeper than {DEEPEST} levels, or holds itself")
        self._depth += 1
        packed = pack()
        self._depth -= 1
        return packed

    def items(self, values: Iterable[Any], name: str) -> list[Any]:
        """Members by their number."""

        def inside() -> list[Any]:
            return [self.pack(item, f"{name}.{place}") for place, item in enumerate(values)]

        return self._inside(name, inside)

    def pairs(self, values: dict[Any, Any], name: str) -> list[Any]:
        """Keys and values by their key."""

        def inside() -> list[Any]:
            packed = []
            for key, item in values.items():
                place = f"{name}.{_label(key)}"
                packed.append([self.pack(key, f"the key {place}"), self.pack(item, place)])
            return packed

        return self._inside(name, inside)

    def ordered(self, value: OrderedDict[Any, Any], name: str) -> Any:
        """With the versions that torch hangs on a module's state, for its loaders."""
        if foreign := vars(value).keys() - {"_metadata"}:
            raise TypeError(
                f"{name} is an OrderedDict with attributes {sorted(foreign)}, "
                "which a checkpoint cannot hold"
            )
        pairs = self.pairs(value, name)
        return {"ordered": [pairs, self.pack(vars(value).get("_metadata"), f"{name}._metadata")]}

    def default(self, value: defaultdict[Any, Any], name: str) -> Any:
        """With its factory, if that is a type of Python's."""
        factory = value.default_factory
        if factory is not None and FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
            raise TypeError(
                f"{name} is a defaultdict of {factory!r}; "
                f"a checkpoint knows {sorted(FACTORIES)} alone"
            )
        return {"defaultdict": [factory and factory.__name__, self.pairs(value, name)]}

    def array(self, value: np.ndarray, name: str) -> Any:
        """The bytes of a numpy array as a tensor."""
        flat = np.frombuffer(bytearray(value.tobytes()), np.uint8)
        stored = self._stored(torch.from_numpy(flat), name)
        return {"array": [_numpy_dtype(value, name), list(value.shape), stored]}

    def _tensor(self, value: Tensor, name: str) -> Any:
        if is_lazy(value):
            raise TypeError(
                f"{name} is not initialised yet; call the module once on a batch before"
            )
        whole = value.detach()
        if mesh_of(value) is not None:
            self.sharded = True
            whole = value.full_tensor().detach()  # type: ignore[attr-defined]
        if value.is_nested:
            parts = "give it its parts, tensor.unbind()"
            raise TypeError(f"{name} is a nested tensor; a checkpoint cannot hold it: {parts}")
        if reason := _no_plain_tensor(value):
            raise TypeError(f"{name} {reason}; a checkpoint cannot hold it")
        if type(whole) not in (Tensor, nn.Parameter):
            raise _refusal(value, name)
        stored = self._stored(whole, name)
        if isinstance(value, nn.Parameter):
            return {"parameter": [value.requires_grad, stored]}
        return stored

    def _stored(self, value: Tensor, name: str) -> Any:
        """Where a tensor's values are, and what safetensors does not say.

        That is a dtype it does not know, and another order of the axes.
        """
        own, count = name, 2
        while own in self.tensors:  # keys with dots, 1 beside "1"
            own, count = f"{name}~{count}", count + 1
        copy = value.to("cpu", copy=True).resolve_conj().resolve_neg()
        dense = copy.contiguous()
        more: list[Any] = []
        if dense.dtype not in _STORED:
            more = [str(dense.dtype).removeprefix("torch."), list(dense.shape)]
            dense = dense.reshape(-1).view(torch.uint8)
        elif not copy.is_contiguous() and torch.empty_like(copy).stride() == copy.stride():
            more = [None, list(copy.stride())]
        self.tensors[own] = dense
        return {"tensor": [own, self._digest(dense), *more]}


def _no_plain_tensor(value: Tensor) -> str:
    """Why a tensor cannot be stored; empty if it can."""
    if value.is_quantized:
        return "is quantised"
    if value.is_meta:
        return "is on the meta device and holds no values"
    return "" if value.layout == torch.strided else f"is {value.layout}, not dense"


def _label(key: Any) -> str:
    """A key as part of a name."""
    if isinstance(key, Tensor):
        return type(key).__name__
    try:
        return str(key)[:100]
    except ValueError:  # whole numbers of more than 4 300 digits are not written out
        return hex(key)[:100]


def _text(packer: Packer, value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"{name} is a text with half a character ({error.reason})") from None
    return value


def _float(packer: Packer, value: float, name: str) -> Any:
    return {"nan": struct.pack(">d", value).hex()} if math.isnan(value) else value


def _int(packer: Packer, value: int, name: str) -> Any:
    return value if abs(value) < 2**63 else {"int": hex(value)}


def _complex(packer: Packer, value: complex, name: str) -> Any:
    return {"complex": [_float(packer, part, name) for part in (value.real, value.imag)]}


_PACKERS: dict[type, Callable[[Packer, Any, str], Any]] = {
    str: _text,
    int: _int,
    float: _float,
    complex: _complex,
    bytes: lambda packer, value, name: {"bytes": value.hex()},
    list: lambda packer, value, name: {"list": packer.items(value, name)},
    tuple: lambda packer, value, name: {"tuple": packer.items(value, name)},
    set: lambda packer, value, name: {"set": packer.items(value, name)},
    frozenset: lambda packer, value, name: {"frozenset": packer.items(value, name)},
    dict: lambda packer, value, name: {"dict": packer.pairs(value, name)},
    Counter: lambda packer, value, name: {"counter": packer.pairs(value, name)},
    OrderedDict: Packer.ordered,
    defaultdict: Packer.default,
    deque: lambda packer, value, name: {"deque": [value.maxlen, packer.items(value, name)]},
    np.ndarray: Packer.array,
    torch.Size: lambda packer, value, name: {"size": list(value)},
    torch.dtype: lambda packer, value, name: {"dtype": str(value).removeprefix("torch.")},
    torch.device: lambda packer, value, name: {"device": str(value)},
}


def _numpy_dtype(value: Any, name: str) -> str:
    dtype = value.dtype
    again = np.dtype(dtype.str) if dtype.kind in NUMPY_KINDS else None
    is_long = dtype.itemsize > 16 or dtype.char in "gG"
    if again != dtype or again.type is not dtype.type or dtype.metadata or is_long:
        raise TypeError(
            f"{name} is numpy's {dtype} ({type(value).__name__}); "
            "a checkpoint holds its numbers and times"
        )
    return str(dtype.str)


def _refusal(value: Any, name: str) -> TypeError:
    return TypeError(
        f"{name} is a {type(value).__name__}; a checkpoint holds tensors, numbers, texts and "
        "nests of Python's own containers of them: give it what it consists of"
    )
