"""Whether tensors of one place fit those of another; if not, the sentence that says where."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from steadydescent.weight_averaging.named_tensors import Held, mesh_of

WRAPPERS = ("_orig_mod.", "module.", "module._orig_mod.")
"""What `torch.compile`, `DistributedDataParallel`, and both put before a model's names."""
PLACES = ("the average", "the model")


def refuse_unready(tensors: Mapping[str, Any], where: str) -> None:
    """Refuse tensors that hold no values, on the meta device or not yet made, and all not dense.

    Raises:
        ValueError: naming the tensor.
    """
    for name, tensor in tensors.items():
        if is_lazy(tensor):
            raise ValueError(
                f"{name!r} in {where} is not initialised yet; call the model once on a batch before"
            )
        if isinstance(tensor, Tensor) and tensor.is_meta:
            raise ValueError(
                f"{name!r} in {where} is on the meta device and holds no values; "
                "give it memory before, as model.to_empty(device='cpu') does"
            )
        if isinstance(tensor, Tensor) and tensor.is_nested:
            raise ValueError(
                f"{name!r} in {where} is a nested tensor; only dense tensors are taken"
            )
        if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
            raise ValueError(
                f"{name!r} in {where} has the layout {tensor.layout}; only dense tensors are taken"
            )


def check_fit(ours: Held, theirs: Held, places: tuple[str, str] = PLACES) -> None:
    """Refuse other names, shapes or ties, and missing values, before anything is written.

    Raises:
        ValueError: naming the tensor.
    """
    check_alike(ours.state, theirs.state, places, ties=(ours.ties, theirs.ties))


def check_alike(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    places: tuple[str, str] = PLACES,
    dtypes: bool = False,
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> None:
    """Refuse other names or shapes, and with `dtypes` other dtypes.

    `places` says in words where the two are.

    Raises:
        ValueError: naming the tensor.
    """
    for _, sentence in differences(ours, theirs, places, dtypes, ties):
        raise ValueError(sentence)


def differences(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    places: tuple[str, str],
    dtypes: bool = False,
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> Iterator[tuple[str, str]]:
    """Where two sets of tensors differ: each name, and the sentence that says how.

    What is no tensor may differ.
    """
    here, there = places
    if ours.keys() != theirs.keys():
        for name in sorted(ours.keys() ^ theirs.keys()):
            yield name, _missing(name, ours, theirs, places, ties)
    for name, tensor in ours.items():
        other = theirs.get(name)
        if not isinstance(tensor, Tensor) or not isinstance(other, Tensor):
            continue
        if is_lazy(other) or (other.is_meta and not tensor.is_meta):
            refuse_unready({name: other}, there)
        elif tensor.shape != other.shape:
            shapes = tuple(tensor.shape), tuple(other.shape)
            yield name, f"{name!r} has shape {shapes[0]} in {here} but {shapes[1]} in {there}"
        elif dtypes and tensor.dtype != other.dtype:
            yield name, f"{name!r} is {tensor.dtype} in {here} but {other.dtype} in {there}"
        elif mesh_of(tensor) != mesh_of(other):
            shards, whole = (here, there) if mesh_of(tensor) is not None else (there, here)
            spread = f"is spread over processes in {shards} but not in {whole}, or over others"
            yield name, f"{name!r} {spread}"


def _missing(
    name: str,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    places: tuple[str, str],
    ties: tuple[Mapping[str, str], Mapping[str, str]],
) -> str:
    number = 0 if name in ours else 1
    where, missing = places[number], places[1 - number]
    firsts = ties[1 - number]
    if name in firsts:
        advice = "tie or untie weights before the average is made"
        return f"{name!r} is tied to {firsts[name]!r} in {missing} but not in {where}; {advice}"
    return f"{name!r} is in {where} but not in {missing}{_wrapped(ours, theirs, places)}"


def _wrapped(ours: Collection[str], theirs: Collection[str], places: tuple[str, str]) -> str:
    """What to do about names that differ by a wrapper's prefix alone; empty if they do not."""
    for place, names, plain in zip(places, (ours, theirs), (theirs, ours), strict=True):
        for prefix in WRAPPERS:
            if {name.replace(prefix, "", 1) for name in names} == set(plain):
                verb = "begin with" if all(name.startswith(prefix) for name in names) else "contain"
                return f"; the names in {place} {verb} {prefix!r}: pass the unwrapped model there"
    return ""
