"""Whether what was made before is still what would be made now, so that it need not be made again.

A note beside the product holds a digest of all it was made from: the bytes of files, and the texts
of values.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from steadydescent import verified
from steadydescent.files import DamagedFile, write_atomically

NO_SOURCE = {"__pycache__", "node_modules"}
"""Folders that builds leave among the sources."""


def digest(sources: Iterable[Path], *values: object) -> str:
    """SHA-256 of the names and bytes of files, those in folders too, and of the texts of values."""
    whole = hashlib.sha256(repr([str(value) for value in values]).encode())
    for name, path in sorted({found for source in sources for found in _files(source)}):
        content = path.read_bytes()
        whole.update(f"\n{name} {len(content)}\n".encode() + content)
    return whole.hexdigest()


def _files(source: Path) -> Iterable[tuple[str, Path]]:
    paths = [source, *source.rglob("*")] if source.is_dir() else [source]
    kept = (path for path in paths if path.is_file() and not NO_SOURCE & set(path.parts))
    return [(path.relative_to(source.parent).as_posix(), path) for path in kept]


def unchanged(note: Path, made_from: str) -> bool:
    """Whether the note says that the product was made from just this; one that is cut, altered or
    no file does not.
    """
    try:
        return verified.read(note) == made_from.encode()
    except (FileNotFoundError, DamagedFile):
        return False


def remember(note: Path, made_from: str) -> None:
    """Write the note, once the product is whole."""
    write_atomically(note, made_from.encode())
