"""What is trained inside `restored` leaves as it came in: each thing is put back in place.

Nothing goes through `state_dict` and `load_state_dict`, which cast, rename, leave out, and put new
objects in place of those that a compiled step, a schedule or the user still holds.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler

from steadydescent.lr_search.in_place import (
    make_lazy,
    refill,
    refill_dict,
    set_class,
    set_content,
    set_flag,
    set_hooks,
)

WRAPPERS = ("torch.distributed", "torch.nn.parallel", "torch._dynamo")
"""Modules whose attributes belong with state in C++ or a compiler, which no copy reaches."""
REGISTERED = ("_parameters", "_buffers", "_modules")
"""What is put back of such a wrapper, beside its mode."""
HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps the hooks of a tensor; there is no public way to them."""
NO_DATA = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, partial, Enum)
"""Objects that may have attributes and are no state."""
UNCHANGING = (NoneType, bool, int, float, complex, str, bytes)
"""Values that cannot be changed in place."""


@contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer, *others: Any) -> Iterator[None]:
    """Whatever is trained inside, model and optimiser leave as they came in.

    Also after an exception. Each thing is put back in place, so that whoever holds it goes on
    holding it, in the dtype it had:

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
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if foreign := trained - set(model.parameters()):
        raise ValueError(
            "the optimiser must train the model's parameters alone, "
            f"got {len(foreign)} that are not"
        )
    record = _Record()
    record.note("model", model)
    record.note("optimizer", optimizer, objects=True)
    for number, other in enumerate(others):
        record.note(f"others[{number}]", other, objects=True)
    record.note_random_states()
    try:
        yield
    except BaseException as error:
        if lost := record.put_back():
            error.add_note(_sentence(lost))
        raise
    if lost := record.put_back():
        raise RuntimeError(_sentence(lost)) from next(iter(lost.values()))


def check_optimizer(optimizer: object) -> None:
    """Refuse what is no optimiser of torch's kind."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")


def _sentence(lost: dict[str, Exception]) -> str:
    reasons = "; ".join(f"{name} ({type(error).__name__}: {error})" for name, error in lost.items())
    return (
        f"restored could not put back {reasons}; all else is as it was, "
        "load these from a checkpoint"
    )


class _Record:
    """The steps that put everything back, each with the name of what it puts back."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []
        self._objects: dict[int, object] = {}  # holds them, so that no id is given again
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
        """Note a value and all it holds; with `objects` also the attributes of unknown objects."""
        if isinstance(value, UNCHANGING) or id(value) in self._objects:
            return
        self._objects[id(value)] = value
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
                self._step(name, partial(refill, value, list(value)))
            case np.ndarray() if value.flags.writeable:
                self._step(name, partial(np.copyto, value, value.copy()))
            case torch.Generator():
                self._step(name, partial(value.set_state, value.get_state()))
            case np.random.Generator():
                bits = value.bit_generator
                self._step(name, partial(setattr, bits, "state", bits.state))
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
        self._step(name, partial(set_class, value, type(value)))
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
        numpys = np.random.get_state(legacy=False)
        self._step("numpy's random state", partial(np.random.set_state, numpys))
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
        self._step(name, partial(refill_dict, value, list(value.items())))

    def _tensor(self, name: str, tensor: Tensor, objects: bool) -> None:
        for hooks in HOOKS:
            self._hooks(f"{name}.{hooks}", tensor, hooks)
        if is_lazy(tensor):
            self._step(name, partial(make_lazy, tensor, type(tensor), tensor.data))
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
        self._step(name, partial(set_class, tensor, type(tensor)))
        self._step(name, partial(set_content, tensor, memory, content))
        if tensor.is_leaf:
            self._step(name, partial(set_flag, tensor, tensor.requires_grad))
            self.note(f"{name}.grad", tensor.grad, objects)
            self._step(f"{name}.grad", partial(setattr, tensor, "grad", tensor.grad))
        self._dict(name, tensor.__dict__, objects)  # such as the main_grad of mixed precision

    def _hooks(self, name: str, tensor: Tensor, which: str) -> None:
        """Hooks of a tensor are no part of its `__dict__`; None until the first is registered."""
        hooks = getattr(tensor, which)
        if hooks is not None:
            self._step(name, partial(refill_dict, hooks, list(hooks.items())))
        self._step(name, partial(set_hooks, tensor, which, hooks))


def _is_wrapper(module: nn.Module) -> bool:
    return any(cls.__module__.startswith(WRAPPERS) for cls in type(module).__mro__)
