"""Reading what may be damaged, hostile or gone: it is what was written, or is refused by name.

Everything that the study reads from `results`, `data` and `generated` comes through `read`: a plain
file, no link, of a bounded size. What its bytes must be is known from outside (a digest in a
receipt, in a manifest, in the code), or the file says it itself: `sealed` JSON ends with the
SHA-256 of all that stands before, and any other byte is found.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steadydescent.files import DamagedFile, sha256

MOST_BYTES = 2**28
"""The largest file that is read, 256 MiB; no table of the study comes near."""
SEAL = "sha256"
FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a plain file of at most so many bytes.

    It is looked at before it is opened: opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: when there is none.
        DamagedFile: for a link, a folder, a pipe or a device, and for a larger file.
        OSError: when the system refuses for now, as with too many open files; that says nothing of
            the file.
    """
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            kind = FILE_KINDS.get(stat.S_IFMT(about.st_mode), "a device")
            raise DamagedFile(f"{path} is refused: it is {kind}, expected a plain file")
        if about.st_size > most:
            raise DamagedFile(
                f"{path} is refused: it has {about.st_size} bytes, expected at most {most}"
            )
        return path.read_bytes()
    except NotADirectoryError as error:
        reason = "a file stands in the place of a folder above it"
        raise DamagedFile(f"{path} is refused: {reason}") from error


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path that a link or a `..` leads to another place than below `root`.

    Raises:
        DamagedFile: names both.
    """
    target, below = os.path.realpath(path), Path(os.path.relpath(path, root))
    if below.parts[:1] == (os.pardir,) or target != str(Path(os.path.realpath(root)) / below):
        raise DamagedFile(
            f"{path} is refused: it leads to {target}, expected a place of its own in {root}"
        )


def parsed(content: bytes, path: Path) -> Any:
    """JSON as it was meant: UTF-8, no name twice, finite numbers, no deeper than Python counts.

    Raises:
        DamagedFile: for anything else; names the file.
    """
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is refused: not the JSON that was written ({error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"a name stands twice among {[name for name, _ in pairs]}"[:200])
    return values


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _not_finite(text[:40])


def plain(content: Any) -> Any:
    """What JSON keeps of a value: lists for tuples, None for what is not finite.

    >>> plain({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    return json.loads(json.dumps(content, default=float), parse_constant=lambda _: None)


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON that ends with the digest of all the rest.

    >>> print(sealed({"networks": 3})[:34].decode())
    {
     "networks": 3,
     "sha256": "ca76

    Raises:
        ValueError: when the content has the digest's name itself, or text that is no Unicode.
    """
    if SEAL in content:
        raise ValueError(
            f"content with the name {SEAL!r} cannot be sealed: "
            "the digest of the rest is kept under it"
        )
    values = plain(content)
    return text({**values, SEAL: sha256(text(values))})


def text(content: Any) -> bytes:
    """A JSON value as this study writes it."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def unsealed(content: bytes, path: Path) -> dict[str, Any]:
    """What was `sealed`, byte for byte; `path` is where it was read, for the message.

    Raises:
        DamagedFile: when one byte is another.
    """
    values = parsed(content, path)
    if not isinstance(values, dict) or SEAL not in values:
        raise DamagedFile(
            f"{path} is refused: cut, or from before files held a digest of their own content"
        )
    digest = values.pop(SEAL)
    try:
        same = sealed(values) == content
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise DamagedFile(
            f"{path} is refused: truncated or altered, "
            f"it is not what its SHA-256 {digest!s:.12}… says"
        )
    return values


def read_sealed(path: Path) -> dict[str, Any]:
    """`unsealed` content of a file; raises FileNotFoundError or DamagedFile."""
    return unsealed(read(path), path)
