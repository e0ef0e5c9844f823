"""Ways to spoil a file: bytes changed or cut off, and a receipt forged so that its digests hold."""

import hashlib
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.study.results.store import file_digest


def flip(path: Path, place: int = -1, mask: int = 0x20) -> None:
    """Another byte at a place, the middle unless told."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place < 0 else place] ^= mask
    path.write_bytes(bytes(content))


def cut(path: Path, length: int = -1) -> None:
    """The first bytes alone, half of them unless told."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if length < 0 else length])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def forge(folder: Path, **changes: Any) -> None:
    """Change a receipt, and vouch anew for it and for all files as they are now: what digests
    cannot find.
    """
    receipt = verified.read_sealed(folder / "receipt.json")
    receipt["files"] = {path.name: file_digest(path) for path in sorted(folder.glob("*.parquet"))}
    (folder / "receipt.json").write_bytes(verified.sealed(receipt | changes))


def places(size: int, count: int, *about: object) -> list[int]:
    """Places in a file of this size, the same each time: the first, the last, some between."""
    drawn = (
        int.from_bytes(hashlib.sha256(repr((i, *about)).encode()).digest()[:8]) % size
        for i in range(count)
    )
    return sorted({0, size - 1, *drawn})
