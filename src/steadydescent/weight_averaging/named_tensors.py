"""A module's parameters and buffers by name: what is averaged, swapped and compared."""

from collections.abc import Collection, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
WRAPPERS = ("_orig_mod.", "module.", "module._orig_mod.")
"""What `torch.compile`, `DistributedDataParallel`, and the second around the first put before a model's names."""


def named_tensors(module: nn.Module) -> Tensors:
    """Parameters and buffers by name, outside autograd, in the module's own memory; tied ones once.

    Buffers that are no part of the module's state, such as the noise of its next batch, are left alone.
    """
    return {name: tensor.detach() for name, tensor in live_tensors(module).items()}


def live_tensors(module: nn.Module) -> Tensors:
    """`named_tensors` as the module itself holds them, for an update: all in one walk, where torch takes three."""
    parameters: Tensors = {}
    buffers: Tensors = {}
    seen: set[int] = set()
    _collect(module, "", parameters, buffers, seen)
    return parameters | buffers


def _collect(module: nn.Module, prefix: str, parameters: Tensors, buffers: Tensors, seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    for found, kept, left_out in (
        (module._parameters, parameters, ()),
        (module._buffers, buffers, module._non_persistent_buffers_set),
    ):
        for name, tensor in found.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                if name not in left_out:
                    kept[prefix + name] = tensor
    for name, child in module._modules.items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", parameters, buffers, seen)


def all_tensors(module: nn.Module) -> Tensors:
    """Parameters and buffers as `named_tensors` gives them, with those buffers that are no part of the state."""
    return {name: tensor.detach() for name, tensor in chain(module.named_parameters(), module.named_buffers())}


def put_back(module: nn.Module, kept: Tensors) -> None:
    """Give a module copies that were made of `all_tensors`; a buffer that has another shape by now is set anew."""
    tensors = all_tensors(module)  # looked up again: a module may have replaced a buffer
    for name, value in kept.items():
        if name in tensors and tensors[name].shape == value.shape:
            tensors[name].copy_(value)
        else:
            owner, _, own_name = name.rpartition(".")
            setattr(module.get_submodule(owner), own_name, value)


def averaged_names(module: nn.Module, average_buffers: bool) -> frozenset[str]:
    """Names of what has a mean: floating-point and complex parameters and, if asked, buffers."""
    candidates = named_tensors(module)
    chosen = candidates if average_buffers else [name for name, _ in module.named_parameters()]
    return frozenset(name for name in chosen if has_mean(candidates[name]))


def has_mean(tensor: Tensor) -> bool:
    """Whether a tensor's values can be averaged; counters and flags cannot."""
    return tensor.is_floating_point() or tensor.is_complex()


def kept_dtype(tensor: Tensor, dtype: torch.dtype | None = None) -> torch.dtype:
    """The dtype that the average of a tensor is kept in: `dtype` if given, else its own but float32 for half precision.

    In half precision w·(θ − a) is below the resolution of a as soon as w is small, and the average stands still.
    """
    if not has_mean(tensor):
        return tensor.dtype
    if dtype is not None and tensor.is_floating_point():
        return dtype
    return torch.promote_types(tensor.dtype, torch.float32)


@torch.no_grad()
def mix_in(averages: Tensors, values: Tensors, weight: float, averaged: Collection[str]) -> None:
    """a ← a + w·(θ − a) in place for the names in `averaged`, a ← θ for the others; all names and shapes must fit.

    As `readouts.mix`, but without a tensor between: by torch's `lerp`, for all tensors of a dtype and device at once.
    """
    check_alike(averages, values)
    together: dict[tuple[torch.dtype, torch.device], list[tuple[Tensor, Tensor]]] = {}
    for name, average in averages.items():
        if weight == 1 or name not in averaged:  # a + 1·(θ − a) would round
            average.copy_(values[name])
        else:
            alike = average.dtype, average.device
            together.setdefault(alike, []).append((average, values[name].to(average.device, average.dtype)))
    for pairs in together.values():
        ours, theirs = zip(*pairs, strict=True)
        torch._foreach_lerp_(ours, theirs, float(weight))


def overwrite(targets: Tensors, values: Tensors) -> None:
    """Copy values into targets in place, by name; dtype and device stay the targets'."""
    for name, target in targets.items():
        target.copy_(values[name])


def copied(tensors: Tensors) -> Tensors:
    """The same tensors in memory of their own."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def check_alike(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    places: tuple[str, str] = ("the average", "the model"),
    dtypes: bool = False,
) -> None:
    """Refuse other names or shapes, and other dtypes if asked; `places` says in words where the two are.

    Raises:
        ValueError: naming the tensor.
    """
    here, there = places
    for name in sorted(ours.keys() ^ theirs.keys()):
        where, missing = (here, there) if name in ours else (there, here)
        raise ValueError(f"{name!r} is in {where} but not in {missing}{_wrapped(ours, theirs, places)}")
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            shapes = tuple(tensor.shape), tuple(theirs[name].shape)
            raise ValueError(f"{name!r} has shape {shapes[0]} in {here} but {shapes[1]} in {there}")
        if dtypes and tensor.dtype != theirs[name].dtype:
            raise ValueError(f"{name!r} is {tensor.dtype} in {here} but {theirs[name].dtype} in {there}")


def _wrapped(ours: Collection[str], theirs: Collection[str], places: tuple[str, str]) -> str:
    """What to do about names that would be the same, were one model not compiled, or wrapped for several devices."""
    for place, names, plain in zip(places, (ours, theirs), (theirs, ours), strict=True):
        for prefix in WRAPPERS:
            if {name.replace(prefix, "", 1) for name in names} == set(plain):
                verb = "begin with" if all(name.startswith(prefix) for name in names) else "contain"
                return f"; the names in {place} {verb} {prefix!r}: pass the unwrapped model there"
    return ""
