"""What is trained inside `restored` leaves as it came in: every tensor and container is put back in
place, one by one.

Nothing goes through `state_dict` and `load_state_dict`, which cast, rename, leave out, and put new
objects in place of those that a compiled step, a schedule or the user still holds.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler

WRAPPERS = ("torch.distributed", "torch.nn.parallel", "torch._dynamo")
"""Modules whose attributes belong together with state in C++ or in a compiler, which no copy
reaches.
"""
REGISTERED = ("_parameters", "_buffers", "_modules")
"""What is put back of such a wrapper, beside its mode."""
HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps the hooks of a tensor; there is no public way to them."""
NO_DATA = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, partial, Enum)
"""Objects that may have attributes and are no state."""


@contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer, *others: Any) -> Iterator[None]:
    """Whatever is trained inside, model and optimiser leave as they came in, after an exception
    too.

    Each thing is put back in place, so that whoever holds it goes on holding it, in the dtype it
    had:

    - of the model: which parameters, buffers, submodules and attributes each module has, and its
      mode; the values of all tensors, in a state dict or not, whatever became of their size, dtype
      or memory; gradients, `requires_grad` and hooks on tensors. A lazy module that got its shape
      inside is lazy again. Attributes that are other people's objects stay as they are, but for
      tensors, lists, dicts, generators and modules;
    - of the optimiser: groups and their order, rates (tensors too), all its state, of whatever
      type;
    - the random states of torch (CPU, and the devices of these tensors), numpy and Python;
    - `others`: what else takes part, as a `GradScaler`, a scheduler, an EMA, or the `EpochBatches`
      that are drawn from.

    Mini-batches that were taken stay taken, unless their sampler is one of the `others`.
    Augmentation in workers has random states of its own. It costs a second copy of weights,
    gradients and optimiser slots.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), model.weight.clone()
    >>> with restored(model, optimizer):
    ...     model(torch.ones(3, 2)).square().mean().backward()
    ...     optimizer.step()
    >>> torch.equal(model.weight, before), model.weight.grad is None
    (True, True)

    Raises:
        ValueError: for what is no module or no optimiser; if the optimiser trains parameters that
            are not the model's, which would not be restored; for a tensor that cannot be copied.
            All before the block.
        RuntimeError: after the block, naming what could not be put back; all else was. An exception
            from inside the block goes on instead, with this as a note.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be an nn.Module, got {model!r}")
    check_optimizer(optimizer)
    foreign = {p for group in optimizer.param_groups for p in group["params"]} - set(
        model.parameters()
    )
    if foreign:
        raise ValueError(
            f"the optimiser must train the model's parameters alone, got {len(foreign)} that are not"
        )
    kept = _Kept()
    kept.note("model", model)
    kept.note("optimizer", optimizer, objects=True)
    for number, other in enumerate(others):
        kept.note(f"others[{number}]", other, objects=True)
    kept.note_random_states()
    try:
        yield
    except BaseException as error:
        if lost := kept.put_back():
            error.add_note(_sentence(lost))
        raise
    if lost := kept.put_back():
        raise RuntimeError(_sentence(lost)) from next(iter(lost.values()))


def check_optimizer(optimizer: object) -> None:
    """Refuse what is no optimiser of torch's kind."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")


def _sentence(lost: dict[str, Exception]) -> str:
    reasons = "; ".join(f"{name} ({type(error).__name__}: {error})" for name, error in lost.items())
    return f"restored could not put back {reasons}; all else is as it was, load these from a checkpoint"


class _Kept:
    """The steps that put everything back, each with the name of what it puts back."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []
        self._seen: dict[int, object] = {}  # holds the objects, so that no id is given again
        self._names: dict[int, str] = {}
        self._devices: set[torch.device] = set()

    def put_back(self) -> dict[str, Exception]:
        """Run every step, whatever becomes of the others; what failed, by name."""
        lost: dict[str, Exception] = {}
        with torch.no_grad():
            for name, step in self._steps:
                try:
                    step()
                except Exception as error:
                    lost.setdefault(name, error)
        return lost

    def note(self, name: str, value: Any, objects: bool = False) -> None:
        """Note a value and all it holds; with `objects` also what unknown objects hold in their
        attributes.
        """
        if (
            id(value) in self._seen
            or value is None
            or isinstance(value, bool | int | float | complex | str | bytes)
        ):
            return
        self._seen[id(value)] = value
        self._names[id(value)] = name
        match value:
            case Tensor():
                self._tensor(name, value, objects)
            case nn.Module() | torch.optim.Optimizer() | LRScheduler() | torch.amp.GradScaler():
                self.attributes(name, value, objects)
            case dict():
                self._dict(name, value, objects)
            case tuple() | frozenset():
                self._items(name, value, objects)
            case list() | bytearray():
                self._items(name, value, objects)
                self._step(name, partial(value.__setitem__, slice(None), value[:]))
            case set() | deque():
                self._items(name, value, objects)
                self._step(name, partial(_refill, value, list(value)))
            case np.ndarray() if value.flags.writeable:
                self._step(name, partial(np.copyto, value, value.copy()))
            case torch.Generator():
                self._step(name, partial(value.set_state, value.get_state()))
            case np.random.Generator():
                self._step(
                    name, partial(setattr, value.bit_generator, "state", value.bit_generator.state)
                )
            case np.random.RandomState():
                self._step(name, partial(value.set_state, value.get_state(legacy=False)))
            case random.Random():
                self._step(name, partial(value.setstate, value.getstate()))
            case _ if objects and not isinstance(value, NO_DATA):
                self.attributes(name, value, objects)

    def attributes(self, name: str, value: Any, objects: bool) -> None:
        """An object's class, which lazy and parametrised modules change, and its attributes."""
        own = getattr(value, "__dict__", {})
        if isinstance(value, nn.Module) and _is_wrapper(value):
            for part in REGISTERED:
                self.note(name, own[part], objects)
            self._step(name, partial(setattr, value, "training", value.training))
            return
        self._step(name, partial(_set_class, value, type(value)))
        if isinstance(own, dict):
            self._dict(name, own, objects)
        slots = {slot for cls in type(value).__mro__ for slot in cls.__dict__.get("__slots__", ())}
        for slot in slots - {"__dict__", "__weakref__"}:
            if hasattr(value, slot):
                self.note(f"{name}.{slot}", getattr(value, slot), objects)
                self._step(f"{name}.{slot}", partial(setattr, value, slot, getattr(value, slot)))

    def note_random_states(self) -> None:
        """The global generators, after all else, in case that what puts the rest back draws."""
        self._step("Python's random state", partial(random.setstate, random.getstate()))
        self._step(
            "numpy's random state", partial(np.random.set_state, np.random.get_state(legacy=False))
        )
        self._step("torch's random state", partial(torch.set_rng_state, torch.get_rng_state()))
        for device in self._devices:
            owner = torch.get_device_module(device)
            which = () if device.type == "mps" else (device,)
            step = partial(owner.set_rng_state, owner.get_rng_state(*which), *which)
            self._step(f"torch's random state on {device}", step)

    def _step(self, name: str, step: Callable[[], object]) -> None:
        self._steps.append((name, step))

    def _items(self, name: str, values: Any, objects: bool) -> None:
        if not isinstance(values, bytearray):
            for number, item in enumerate(values):
                self.note(f"{name}[{number}]", item, objects)

    def _dict(self, name: str, value: dict, objects: bool) -> None:
        for key, item in value.items():
            label = key if isinstance(key, str) else self._names.get(id(key), repr(key))
            self.note(name if label in REGISTERED else f"{name}.{label}", item, objects)
        self._step(name, partial(_refill_dict, value, list(value.items())))

    def _tensor(self, name: str, tensor: Tensor, objects: bool) -> None:
        for hooks in HOOKS:
            self._hooks(f"{name}.{hooks}", tensor, hooks)
        if is_lazy(tensor):
            self._step(name, partial(_make_lazy, tensor, type(tensor), tensor.data))
            return
        if tensor.device.type not in ("cpu", "meta"):
            self._devices.add(tensor.device)
        memory = tensor.detach()
        try:
            content = memory.clone()
        except Exception as error:
            raise ValueError(
                f"restored cannot copy {name}, a {type(tensor).__name__}: {error}"
            ) from error
        self._step(name, partial(_set_class, tensor, type(tensor)))
        self._step(name, partial(_set_content, tensor, memory, content))
        if tensor.is_leaf:
            self._step(name, partial(_set_flag, tensor, tensor.requires_grad))
            self.note(f"{name}.grad", tensor.grad, objects)
            self._step(f"{name}.grad", partial(setattr, tensor, "grad", tensor.grad))
        self._dict(name, tensor.__dict__, objects)  # such as the main_grad of mixed precision

    def _hooks(self, name: str, tensor: Tensor, which: str) -> None:
        """Hooks of a tensor are no part of its `__dict__`; None until the first is registered."""
        hooks = getattr(tensor, which)
        if hooks is not None:
            self._step(name, partial(_refill_dict, hooks, list(hooks.items())))
        self._step(name, partial(_set_hooks, tensor, which, hooks))


def _is_wrapper(module: nn.Module) -> bool:
    return any(cls.__module__.startswith(WRAPPERS) for cls in type(module).__mro__)


def _set_class(value: Any, cls: type) -> None:
    if type(value) is not cls:
        value.__class__ = cls


def _set_hooks(tensor: Tensor, which: str, hooks: dict | None) -> None:
    if (now := getattr(tensor, which)) is not hooks:
        if now is not None:
            now.clear()  # else torch's C++ goes on calling them
        setattr(tensor, which, hooks)


def _refill(value: set | deque, items: list) -> None:
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(items)


def _refill_dict(value: dict, items: list[tuple[Any, Any]]) -> None:
    """The same keys in the same order with the same objects; an untouched dict is not written to."""
    if [(id(key), id(item)) for key, item in value.items()] != [
        (id(key), id(item)) for key, item in items
    ]:
        value.clear()
        for key, item in items:
            value[key] = item


def _make_lazy(tensor: Tensor, cls: type[Tensor], nothing: Tensor) -> None:
    tensor.grad = None
    tensor.data = nothing
    _set_class(tensor, cls)


def _set_flag(tensor: Tensor, flag: bool) -> None:
    if not tensor.is_leaf:  # written to in place by what has a graph
        tensor.detach_()
    if tensor.requires_grad is not flag:
        tensor.requires_grad_(flag)


def _set_content(tensor: Tensor, memory: Tensor, content: Tensor) -> None:
    """The memory the tensor had, if it has another now, and in it the values of `content`, bit by
    bit.
    """
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
            if (
                stride == 0 and tensor.shape[axis] > 1
            ):  # expanded: one value in memory for all of the axis
                tensor, content = tensor.narrow(axis, 0, 1), content.narrow(axis, 0, 1)
    tensor.copy_(content)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    """False where it cannot be told, as for sparse tensors; −0 is not 0, and a NaN is itself."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(left.element_size())
    if whole is None or _is_opaque(left) or left.is_quantized or left.device.type == "meta":
        return False
    return torch.equal(left.detach().view(whole), right.view(whole))


def _is_opaque(tensor: Tensor) -> bool:
    """Sparse, or made of other tensors, as sharded ones are: it has no memory of its own to look
    at.
    """
    return tensor.layout is not torch.strided or hasattr(tensor, "__tensor_flatten__")


def _bytes(tensor: Tensor) -> int:
    """What its memory must hold at least."""
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return int(tensor.storage_offset() + last + 1) * tensor.element_size() if tensor.numel() else 0


def _place(tensor: Tensor) -> tuple:
    """Where a tensor's values lie and how they are read; for a sparse or sharded one how they are
    read alone.
    """
    how = (tensor.dtype, tensor.device, tensor.shape, tensor.layout)
    if _is_opaque(tensor):
        return how
    where = tensor.untyped_storage().data_ptr() if tensor.device.type != "meta" else 0
    return (*how, tensor.stride(), tensor.storage_offset(), where)
