"""A module's tensors as they are now, to be put back whatever happens to the module meanwhile."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.weight_averaging.named_tensors import Tensors, copy_as, held, write


class Snapshot:
    """Copies of a module's parameters and buffers, with the tensors themselves and their holders.

    With `extra`, the state that modules give through `get_extra_state` is kept, too.
    """

    def __init__(self, module: nn.Module, extra: bool = False) -> None:
        self._module = module
        contents = held(module)  # also puts shards in the place of gathered weights
        self._places: list[tuple[str, Any, str, Tensor | None]] = [
            (f"{prefix}.{name}".lstrip("."), entries, name, tensor)
            for prefix, part in module.named_modules()
            for entries in (part._parameters, part._buffers)
            for name, tensor in entries.items()
        ]
        copies = {id(tensor): _copy(tensor) for *_, tensor in self._places if tensor is not None}
        # by place: in a copy of this, tensors have other ids
        self._copies = [copies.get(id(tensor)) for *_, tensor in self._places]
        parts = contents.extra.values() if extra else ()
        self._extra = [(part, deepcopy(part.get_extra_state())) for part in parts]

    def restore(self) -> None:
        """Put all back, bitwise, each tensor for itself, whatever becomes of the others.

        Raises:
            RuntimeError: naming what could not be put back.
        """
        held(self._module)
        failures = []
        for (name, entries, own_name, tensor), copy in zip(self._places, self._copies, strict=True):
            try:
                if own_name not in entries or entries[own_name] is not tensor:
                    entries[own_name] = tensor  # the module has put another in its place
                if tensor is not None:
                    _put_back(tensor, copy)
            except Exception as error:
                failures.append(f"{name!r} ({error})")
        for part, state in self._extra:
            try:
                part.set_extra_state(state)
            except Exception as error:
                failures.append(f"the extra state of a {type(part).__name__} ({error})")
        if failures:
            raise RuntimeError(f"all was put back but {', '.join(failures)}")


@contextmanager
def replaced(module: nn.Module, values: Tensors, last: Collection[str] = ()) -> Iterator[None]:
    """Other values in a module, as by `put`, for the length of a `with` block."""
    before = Snapshot(module)
    try:
        put(module, values, last)
        yield
    finally:
        before.restore()


def put(module: nn.Module, values: Tensors, last: Collection[str] = ()) -> None:
    """Write values into a module's parameters and buffers, by name.

    Those in `last` stand where others are in the same memory.
    """
    targets = held(module).state
    for name in sorted(targets, key=lambda name: name in last):
        write(targets[name], values[name])


def _copy(tensor: Tensor) -> Tensor | None:
    try:
        return copy_as(tensor, tensor.dtype)
    except (RuntimeError, ValueError):  # not initialised yet: there is nothing to keep
        return None


@torch.no_grad()
def _put_back(tensor: Tensor, copy: Tensor | None) -> None:
    if copy is None:
        return
    if tensor.shape == copy.shape and tensor.dtype == copy.dtype:
        write(tensor, copy)
    else:  # resized or cast meanwhile
        tensor.data = copy.to(tensor.device)
