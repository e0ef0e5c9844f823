"""The file under a checkpoint: nested values and tensors in one safetensors file, verified.

Tensors stand under dotted names. The metadata hold the nesting as JSON (`packing`), in which each
tensor's place gives its name and its SHA-256, and the SHA-256 of that JSON: any change of a bit
that matters is found. Nothing is pickled.
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
from torch import Tensor, distributed

from steadydescent.checks import check_count
from steadydescent.files import replacing
from steadydescent.weight_averaging.packing import Packer
from steadydescent.weight_averaging.unpacking import unpacked

FORMAT = "steadydescent checkpoint 2"
READ = ("steadydescent checkpoint 1", FORMAT)
"""Format 1 kept tensors, numbers, texts, lists, tuples and dicts, and other mappings as dicts."""
LONGEST = 80_000_000
"""Characters of JSON; safetensors reads headers of up to 100 MB."""
UNREADABLE = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)
"""What reading raises where the JSON is not what `Packer` writes."""


class DamagedCheckpoint(ValueError):
    """A file that is no checkpoint, or not a whole one; the message names its path."""


class CheckpointFile:
    """An open file; `file[key]` reads and verifies what was written under a key, and only that."""

    def __init__(self, path: Path, handle: Any) -> None:
        metadata = handle.metadata() or {}
        if metadata.get("format") not in READ:
            raise DamagedCheckpoint(
                f"{path} is not a checkpoint: its metadata do not say {FORMAT!r}"
            )
        text = metadata.get("content", "")
        if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
            raise DamagedCheckpoint(f"{path} is damaged: its metadata do not match their SHA-256")
        self.path, self._handle = path, handle
        with _no_nonsense(path, "its metadata"):
            self._packed: dict[str, Any] = dict(json.loads(text))

    @property
    def keys(self) -> list[str]:
        """All keys that something was written under."""
        return list(self._packed)

    @property
    def step(self) -> int:
        """How many updates had been made."""
        with _no_nonsense(self.path, "its step"):
            return check_count(self._packed["step"], "step", least=0)

    def __getitem__(self, key: str) -> Any:
        with _no_nonsense(self.path, repr(key)):
            return unpacked(self._packed[key], self._tensor)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """What was written under a key, if it is a dict."""
        if not isinstance(value := self[key], dict):
            raise DamagedCheckpoint(
                f"{self.path} is damaged: its {key} are a {type(value).__name__}"
            )
        return value

    def _tensor(self, name: str, digest: str) -> Tensor:
        try:
            # a copy, not a window on a file that may be replaced
            tensor: Tensor = self._handle.get_tensor(name).clone()
        except SafetensorError as error:
            raise DamagedCheckpoint(
                f"{self.path} is damaged: it does not hold {name!r} ({error})"
            ) from error
        if _digest(tensor) != digest:
            raise DamagedCheckpoint(f"{self.path} is damaged: {name!r} does not match its SHA-256")
        return tensor


@contextmanager
def opened(path: Path) -> Iterator[CheckpointFile]:
    """A checkpoint for reading; a `DamagedCheckpoint` names the path and what is wrong with it.

    Links are followed: what they lead to is verified as any file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        handle = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is not a whole checkpoint: {error}") from error
    with handle:
        yield CheckpointFile(path, handle)


@contextmanager
def _no_nonsense(path: Path, what: str) -> Iterator[None]:
    """A file may have the right sums and still hold what no checkpoint does."""
    try:
        yield
    except DamagedCheckpoint:
        raise
    except UNREADABLE as error:
        raise DamagedCheckpoint(
            f"{path} is damaged: {what} cannot be read ({type(error).__name__}: {error})"
        ) from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested content to a file that appears whole or not at all.

    Tensors that are spread over processes are gathered: all processes must call this, the first of
    them writes, and the others wait for it. Should it fail, all raise.

    Raises:
        TypeError: for what would not come back as it is, by its dotted name, and for more numbers
            and texts outside tensors than a file's header holds.
        OSError: for a file that cannot be written, as on a full disk.
    """
    packer = Packer(_digest)
    text = json.dumps({key: packer.pack(value, key) for key, value in content.items()})
    if len(json.dumps(text)) > LONGEST:
        raise TypeError(
            f"numbers and texts take {len(text)} characters, more than {LONGEST}; "
            "put them into tensors"
        )
    metadata = {
        "format": FORMAT,
        "content": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    if not packer.sharded:
        return _write_here(path, packer.tensors, metadata)
    failure: list[str | None] = [None]
    first = distributed.get_rank() == 0
    try:
        if first:
            _write_here(path, packer.tensors, metadata)
    except BaseException as error:
        failure = [f"{type(error).__name__}: {error}"]
        raise
    finally:
        distributed.broadcast_object_list(failure, src=0)  # also waits for the first
    if failure[0] is not None:
        raise OSError(f"{path} was not written by the first process: {failure[0]}")


def _write_here(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except SafetensorError as error:  # a full disk, too, is no OSError to safetensors
        raise OSError(f"{path} could not be written, and is as it was: {error}") from error


def _digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    # one value is contiguous with any stride
    values = tensor.contiguous().as_strided((tensor.numel(),), (1,))
    digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
