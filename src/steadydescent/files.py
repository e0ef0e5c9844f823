"""Files that appear whole or not at all, and are checked with SHA-256."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DamagedFile(ValueError):
    """A file whose content is not what it must be; the message names the file and both digests."""


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to; at the end it is flushed to disk and takes its place, after an error it goes.

    Every reader, at any moment, finds the old file, the new one, or none. Two processes may write the same path at
    once: each has its own temporary file, and the last rename wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # the one the user's umask gives, whatever the writer makes of it
        yield temporary
        temporary.chmod(mode)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)  # the rename itself must survive a power cut


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk; Windows cannot open a folder nor needs to."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
