"""The published folder: a manifest lists every file with its SHA-256, and nothing is read but through it.

    results/published/SHA256SUMS        checked by `sha256sum -c`, too

Writers here record what they wrote. A file that was altered, is missing or is not listed is refused by name, and so is
a manifest with another byte in it: it no longer fits its own form, or no longer fits a file.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from steadydescent import verified
from steadydescent.files import DamagedFile, sha256, write_atomically
from steadydescent.paths import PUBLISHED

MANIFEST = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)*)\n", re.ASCII)
MEND = "git checkout brings back what was published, `make publish` writes one's own results"


def listed(root: Path = PUBLISHED) -> dict[str, str]:
    """Name → SHA-256 of every file that the manifest lists; empty without a manifest.

    Raises:
        DamagedFile: for a manifest that is not as `record` writes it.
    """
    path = root / MANIFEST
    try:
        text = verified.read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    found = {name: digest for digest, name in LINE.findall(text)}
    if text != _manifest(found):
        raise DamagedFile(f"{path} is refused: truncated or altered, its lines are not as they were written; {MEND}")
    return found


def _manifest(digests: dict[str, str]) -> str:
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def check(root: Path = PUBLISHED, but: Iterable[str] = ()) -> None:
    """Read every file that the manifest lists, and look for any that it does not.

    Args:
        root: the published folder.
        but: files and folders that are about to be written anew, and need not be sound.

    Raises:
        DamagedFile: for the first that is altered, missing or not listed.
    """
    digests, about = listed(root), tuple(but)
    for name in sorted({*digests, *_present(root)}):
        if not _at_or_below(name, about):
            _read(name, root, digests)


def _present(root: Path) -> Iterator[str]:
    """Files and links below a folder, less those that a killed writer left under a hidden name."""
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*links, *names]:
            if not name.startswith(".") and (name != MANIFEST or Path(place) != root):
                yield (Path(place) / name).relative_to(root).as_posix()


def _at_or_below(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def read(name: str, root: Path = PUBLISHED) -> bytes:
    """The content of a published file.

    Raises:
        DamagedFile: when it is altered, missing, or not listed.
    """
    return _read(name, root, listed(root))


def _read(name: str, root: Path, digests: dict[str, str]) -> bytes:
    path = root / name
    if name not in digests:
        raise DamagedFile(f"{path} is refused: {MANIFEST} does not list it; {MEND}")
    verified.check_inside(path, root)
    try:
        content = verified.read(path)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing, but {MANIFEST} lists it; {MEND}") from error
    if (found := sha256(content)) != digests[name]:
        raise DamagedFile(
            f"{path} is refused: truncated or altered, it has SHA-256 {found[:12]}…, "
            f"{MANIFEST} says {digests[name][:12]}…; {MEND}"
        )
    return content


def table(name: str, root: Path = PUBLISHED) -> pd.DataFrame:
    """A published CSV; raises DamagedFile as `read` does."""
    return pd.read_csv(io.BytesIO(read(name, root)))


def parsed(name: str, root: Path = PUBLISHED, otherwise: Any = None) -> Any:
    """A published JSON file, or `otherwise` where none was published; raises DamagedFile as `read` does."""
    if name in listed(root) or os.path.lexists(root / name):
        return verified.parsed(read(name, root), root / name)
    return otherwise


def write(name: str, content: bytes, root: Path = PUBLISHED) -> Path:
    """Write a file and list it; returns where it is."""
    listed(root)  # refuses before anything is written
    write_atomically(root / name, content)
    record([name], root)
    return root / name


def write_json(name: str, content: Any, root: Path = PUBLISHED) -> Path:
    """`write` a value as JSON; what is not finite becomes null."""
    return write(name, verified.text(verified.plain(content)), root)


def write_table(name: str, rows: pd.DataFrame, root: Path = PUBLISHED) -> Path:
    """`write` rows as CSV."""
    return write(name, rows.to_csv(index=False).encode(), root)


def record(places: Iterable[str], root: Path = PUBLISHED) -> None:
    """List the files at and below these names as they are now, and leave all others as they were listed."""
    new = tuple(places)
    digests = {name: digest for name, digest in listed(root).items() if not _at_or_below(name, new)}
    digests |= {name: sha256(verified.read(root / name)) for name in _present(root) if _at_or_below(name, new)}
    write_atomically(root / MANIFEST, _manifest(digests).encode())
