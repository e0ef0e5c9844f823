"""A module's parameters and buffers by name: what is averaged, swapped and compared."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import Buffer, is_lazy

Tensors = dict[str, Tensor]
_PLAIN = (Tensor, nn.Parameter, Buffer)
_STATISTICS = ("running_mean", "running_var")


@dataclass
class Held:
    """What a module holds, found in one walk; each tensor once, under the first of its names."""

    parameters: Tensors = field(default_factory=dict)
    buffers: Tensors = field(default_factory=dict)
    """Those of the state, `persistent` to torch."""
    transient: dict[str, tuple[nn.Module, Tensor | None]] = field(default_factory=dict)
    """The others, each with the module that it belongs to."""
    ties: dict[str, str] = field(default_factory=dict)
    """Every further name of a tensor → its first."""
    statistics: set[str] = field(default_factory=set)
    """Running means and variances: torch's batch norms', ours, and all under these names."""
    extra: dict[str, nn.Module] = field(default_factory=dict)
    """Modules with a `get_extra_state` of their own."""

    @property
    def state(self) -> Tensors:
        """Parameters and buffers of the state."""
        return self.parameters | self.buffers


def held(module: nn.Module) -> Held:
    """What a module holds, in one walk where torch takes three.

    Parameters under `fully_shard` are its shards. After a forward pass `fully_shard` may leave the
    gathered weights in their place: they go before they are read, since what is written into them
    would be lost.
    """
    contents = Held()
    _collect(module, "", contents, {}, sharded_class())
    return contents


def sharded_class() -> Any:
    """torch's class of modules under `fully_shard`; an empty tuple until somebody imports it."""
    return getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", ())


def _collect(
    module: nn.Module, prefix: str, contents: Held, first_names: dict[int, str], sharded: Any
) -> None:
    if isinstance(module, sharded):
        module.reshard()
    if type(module).get_extra_state is not nn.Module.get_extra_state:
        contents.extra[prefix[:-1]] = module
    buffers = module._buffers
    if all(name in buffers for name in _STATISTICS):
        contents.statistics.update(prefix + name for name in _STATISTICS)
    for name, parameter in module._parameters.items():
        if parameter is not None and _is_first(parameter, prefix + name, contents, first_names):
            contents.parameters[prefix + name] = parameter
    for name, tensor in buffers.items():
        if name in module._non_persistent_buffers_set:
            if tensor is None or _is_first(tensor, prefix + name, contents, first_names):
                contents.transient[prefix + name] = module, tensor
        elif tensor is not None and _is_first(tensor, prefix + name, contents, first_names):
            contents.buffers[prefix + name] = tensor
    for name, child in module._modules.items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", contents, first_names, sharded)


def _is_first(tensor: Tensor, name: str, contents: Held, first_names: dict[int, str]) -> bool:
    first = first_names.setdefault(id(tensor), name)
    if first != name:
        contents.ties[name] = first
    return first == name


def live_tensors(module: nn.Module) -> Tensors:
    """Parameters and buffers of the state by name, the module's own; tied ones once."""
    return held(module).state


def named_tensors(module: nn.Module) -> Tensors:
    """`live_tensors` outside autograd, in the module's own memory."""
    return {name: tensor.detach() for name, tensor in live_tensors(module).items()}


# What has a mean


def has_mean(tensor: Any) -> bool:
    """Whether such values can be averaged: real or complex numbers; no counters, no flags."""
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def averaged_names(of: Held, average_buffers: bool | Collection[str]) -> frozenset[str]:
    """Names of what is averaged: parameters, batch norms' statistics, buffers that are named.

    No statistics where `average_buffers` is False. A buffer in the memory of one of these is
    averaged as it is: two values of one place would undo each other.

    Raises:
        ValueError: for text in place of a list of names, and a name or pattern that no buffer of
            real or complex numbers has.
    """
    names = {name for name, tensor in of.parameters.items() if has_mean(tensor)}
    buffers = {name: tensor for name, tensor in of.buffers.items() if has_mean(tensor)}
    if average_buffers is not False:
        names |= of.statistics & buffers.keys()
    if not isinstance(average_buffers, bool):
        names |= named_buffers(average_buffers, buffers.keys())
    return frozenset(names | sharing(buffers, {name: of.state[name] for name in names}))


def named_buffers(patterns: Collection[str], names: Collection[str]) -> set[str]:
    """Those of the names that match one of the patterns, such as `*.scale`.

    Raises:
        ValueError: for what is no collection of texts, and for a pattern that matches none.
    """
    several = isinstance(patterns, Collection) and not isinstance(patterns, str)
    if not several or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(
            f"average_buffers must be True, False or a list of names or patterns, got {patterns!r}"
        )
    matches = {
        pattern: {name for name in names if fnmatchcase(name, pattern)} for pattern in patterns
    }
    for pattern, matching in matches.items():
        if not matching:
            raise ValueError(
                f"average_buffers has {pattern!r}, "
                "which is no buffer of the state whose values have a mean; "
                f"there are {sorted(names)}"
            )
    return set().union(*matches.values())


def kept_dtype(tensor: Tensor, dtype: torch.dtype | None = None) -> torch.dtype:
    """The dtype of a tensor's average: `dtype` if given, else its own but float32 for fewer bits.

    In half precision w·(θ − a) is below the resolution of a as soon as w is small, and the average
    stands still.
    """
    if not has_mean(tensor):
        return tensor.dtype
    if tensor.is_complex():
        return torch.promote_types(tensor.dtype, torch.complex64)
    return dtype or (torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype)


# Memory


def sharing(tensors: Mapping[str, Any], others: Tensors) -> set[str]:
    """Names of the tensors whose memory overlaps that of one of the others."""
    spans: dict[Any, list[tuple[int, int]]] = {}
    for other in others.values():
        for storage, *span in _spans(other):
            spans.setdefault(storage, []).append((span[0], span[1]))
    return {
        name
        for name, tensor in tensors.items()
        for storage, start, end in _spans(tensor)
        if any(start < last and first < end for first, last in spans.get(storage, ()))
    }


def _spans(tensor: Any) -> list[tuple[Any, int, int]]:
    """A dense tensor's storage, and between which addresses its values lie; else nothing."""
    if not isinstance(tensor, Tensor) or is_lazy(tensor) or tensor.is_nested:
        return []
    if tensor.layout != torch.strided:
        return []
    if (here := local(tensor)).is_meta or here.numel() == 0:
        return []
    start, storage = here.data_ptr(), (here.device, here.untyped_storage().data_ptr())
    reach = 1 + sum(
        (size - 1) * stride for size, stride in zip(here.shape, here.stride(), strict=True)
    )
    return [(storage, start, start + reach * here.itemsize)]


# Moving values


@torch.no_grad()
def mix_in(averages: Tensors, values: Tensors, weight: float, averaged: Collection[str]) -> None:
    """a ← a + w·(θ − a) in place for the names in `averaged`, a ← θ for the others.

    All names and shapes must fit. As `readouts.mix`, but without a tensor between: by torch's
    `lerp`, for all tensors that are alike at once.
    """
    together: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
    for name, average in averages.items():
        value = values[name]
        if weight == 1 or name not in averaged:  # a + 1·(θ − a) would round
            write(average, value)
            continue
        if value.dtype != average.dtype or value.device != average.device:
            value = value.to(average.device, average.dtype)
        alike = average.dtype, average.device, mesh_of(average)
        together.setdefault(alike, []).append((average, value))
    for pairs in together.values():
        ours, theirs = zip(*pairs, strict=True)
        torch._foreach_lerp_(ours, theirs, float(weight))


@torch.no_grad()
def write(target: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor in place.

    One whose elements share memory, as `expand` makes, stays so if these are equal in the value,
    else it gets its own. What a model has made in torch's inference mode can be changed in that
    mode alone.
    """
    if _is_expanded(target):
        value = value.to(target.device, target.dtype)
        once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in target.stride())
        if torch.equal(value[once].expand_as(value), value):
            write(target[once], value[once])
        else:
            target.data = value.clone(memory_format=torch.contiguous_format)
    elif target.is_inference():
        with torch.inference_mode():
            target.copy_(value)
    else:
        target.copy_(value)


def _is_expanded(tensor: Tensor) -> bool:
    """Whether elements along an axis share memory, as `expand` makes them."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(stride == 0 and size > 1 for size, stride in axes)


def copied(tensors: Tensors) -> Tensors:
    """The same tensors in memory of their own."""
    return {name: copy_as(tensor, tensor.dtype) for name, tensor in tensors.items()}


def copy_as(tensor: Tensor, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """A copy outside autograd that can be changed in place, even if made in inference mode."""
    with torch.inference_mode(False):
        return tensor.detach().to(device or tensor.device, dtype, copy=True)


def mesh_of(tensor: Tensor) -> Any:
    """The device mesh over which a `DTensor` is spread, None for an ordinary tensor."""
    return None if type(tensor) in _PLAIN else getattr(tensor, "device_mesh", None)


def local(tensor: Tensor) -> Tensor:
    """Outside autograd, and of a `DTensor` what this process has."""
    detached: Any = tensor.detach()
    mine: Tensor = detached if mesh_of(tensor) is None else detached.to_local()
    return mine


def placed_like(value: Any, like: Any) -> Any:
    """A whole tensor as shards on the mesh of another, if that is a `DTensor`; else as it is."""
    if not isinstance(like, Tensor) or mesh_of(like) is None or mesh_of(value) is not None:
        return value
    from torch.distributed.tensor import distribute_tensor  # loads much, and nobody else needs it

    mesh = like.device_mesh  # type: ignore[attr-defined]
    placements = like.placements  # type: ignore[attr-defined]
    return distribute_tensor(value.to(like.device), mesh, placements, src_data_rank=None)
