"""The file under a checkpoint: nested dicts of tensors and plain values in one safetensors file, verified when read.

Tensors stand under dotted names. The metadata hold the nesting as JSON, in which each tensor's place gives its name and
its SHA-256, and the SHA-256 of that JSON: any change of a bit that matters is found. Nothing is pickled.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steadydescent.files import replacing

FORMAT = "steadydescent checkpoint 1"


class DamagedCheckpoint(ValueError):
    """A file that is no checkpoint, or not a whole one; the message names its path."""


class CheckpointFile:
    """An open file; `file[key]` reads and verifies what was written under a key, and only that."""

    def __init__(self, path: Path, handle: Any) -> None:
        metadata = handle.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise DamagedCheckpoint(f"{path} is not a checkpoint: its metadata do not say {FORMAT!r}")
        text = metadata.get("content", "")
        if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
            raise DamagedCheckpoint(f"{path} is damaged: its metadata do not match their SHA-256")
        self.path, self._handle = path, handle
        self._packed: dict[str, Any] = json.loads(text)

    @property
    def keys(self) -> list[str]:
        """All keys that something was written under."""
        return list(self._packed)

    def __getitem__(self, key: str) -> Any:
        return self._unpack(self._packed[key])

    def _unpack(self, packed: Any) -> Any:
        if not isinstance(packed, dict):
            return packed
        ((kind, content),) = packed.items()
        if kind == "tensor":
            return self._tensor(*content)
        if kind == "dict":
            return {key: self._unpack(value) for key, value in content}
        values = [self._unpack(value) for value in content]
        return tuple(values) if kind == "tuple" else values

    def _tensor(self, name: str, digest: str) -> Tensor:
        tensor: Tensor = self._handle.get_tensor(name).clone()  # not a window on a file that may be replaced
        if _digest(tensor) != digest:
            raise DamagedCheckpoint(f"{self.path} is damaged: {name!r} does not match its SHA-256")
        return tensor


@contextmanager
def opened(path: Path) -> Iterator[CheckpointFile]:
    """A checkpoint for reading; whatever is wrong with it becomes a `DamagedCheckpoint` that names the path."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        with safe_open(path, framework="pt") as handle:
            yield CheckpointFile(path, handle)
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is not a whole checkpoint: {error}") from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested content to a file that appears whole: beside its target, flushed to disk, renamed.

    Raises:
        TypeError: for what is no tensor, number, text, None, or list, tuple or dict of them, by its dotted name.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps({key: _pack(value, key, tensors) for key, value in content.items()})
    metadata = {"format": FORMAT, "content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a nested value; its tensors go to `tensors`, copied: safetensors refuses those that share memory."""
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"two tensors would stand under the name {name!r}")
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": [name, _digest(tensors[name])]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{name}.{position}", tensors) for position, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, Mapping) and all(isinstance(key, int | str) for key in value):
        return {"dict": [[key, _pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint holds tensors, numbers, texts and nests of them")


def _digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
