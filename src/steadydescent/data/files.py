"""Files that are whole or absent: written beside their target and renamed, digested with SHA-256."""

import hashlib
import os
import uuid
from pathlib import Path


class DamagedFile(ValueError):
    """A file whose content is not what it must be; the message names the file and both digests."""


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that every reader, at any moment, finds the old file, the new one, or none.

    Two processes may write the same path at once: each has its own temporary file, and the last rename wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself must survive a power cut
    finally:
        os.close(descriptor)
