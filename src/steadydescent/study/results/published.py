"""The published folder: a manifest lists every file with its SHA-256, and nothing is read but
through it.

    results/published/SHA256SUMS        checked by `sha256sum -c`, too

A file that was altered, is missing or is not listed is refused by name, and so is a manifest with
another byte in it: it no longer fits its own form, or no longer fits a file. Writers announce what
they are about to write and record it when it is there; in between a file has two lines, the old
content's and the new one's, and either will do: a writer may be killed at any moment.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steadydescent import verified
from steadydescent.files import DamagedFile, sha256, write_atomically
from steadydescent.study.paths import PUBLISHED

MANIFEST = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)*)\n", re.ASCII)
ABSENT = "0" * 64
"""In place of a digest: the file may be missing, its first writing is under way."""
MEND = "git checkout brings back what was published, `make publish` writes one's own results"


def listed(root: Path = PUBLISHED) -> dict[str, tuple[str, ...]]:
    """Name → SHA-256 of every file that the manifest lists, two while it is written; empty without
    a manifest.

    Raises:
        DamagedFile: for a manifest that is not as `record` writes it.
    """
    path = root / MANIFEST
    try:
        text = verified.read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for digest, name in LINE.findall(text):
        found[name] = (*found.get(name, ()), digest)
    if text != _manifest(found):
        raise DamagedFile(
            f"{path} is refused: truncated or altered, its lines are not as they were written; "
            f"{MEND}"
        )
    return found


def _manifest(digests: Mapping[str, Iterable[str]]) -> str:
    return "".join(
        f"{digest}  {name}\n" for name in sorted(digests) for digest in sorted({*digests[name]})
    )


def check(root: Path = PUBLISHED, but: Iterable[str] = ()) -> None:
    """Read every file that the manifest lists, and look for any that it does not.

    Args:
        root: the published folder.
        but: files and folders that are about to be written anew, and need not be sound.

    Raises:
        DamagedFile: for the first that is altered, missing or not listed.
    """
    digests, about = listed(root), tuple(but)
    present = set(_present(root))
    for name in sorted({*digests, *present}):
        under_way = name not in present and ABSENT in digests[name]
        if not under_way and not _at_or_below(name, about):
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


def published(name: str, root: Path = PUBLISHED) -> bool:
    """Whether a file can be read or must be refused; not so before its first writing is done."""
    return os.path.lexists(root / name) or ABSENT not in listed(root).get(name, (ABSENT,))


def read(name: str, root: Path = PUBLISHED) -> bytes:
    """The content of a published file.

    Raises:
        DamagedFile: when it is altered, missing, or not listed.
    """
    return _read(name, root, listed(root))


def _read(name: str, root: Path, digests: Mapping[str, tuple[str, ...]]) -> bytes:
    path = root / name
    if name not in digests:
        raise DamagedFile(f"{path} is refused: {MANIFEST} does not list it; {MEND}")
    verified.check_inside(path, root)
    try:
        content = verified.read(path)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing, but {MANIFEST} lists it; {MEND}") from error
    if (found := sha256(content)) not in digests[name]:
        raise DamagedFile(
            f"{path} is refused: truncated or altered, it has SHA-256 {found[:12]}…, "
            f"{MANIFEST} says {digests[name][-1][:12]}…; {MEND}"
        )
    return content


def table(name: str, root: Path = PUBLISHED) -> pd.DataFrame:
    """A published CSV; raises DamagedFile as `read` does."""
    return pd.read_csv(io.BytesIO(read(name, root)))


def parsed(name: str, root: Path = PUBLISHED, otherwise: Any = None) -> Any:
    """A published JSON file, or `otherwise` where none was published; raises DamagedFile as `read`
    does.
    """
    return verified.parsed(read(name, root), root / name) if published(name, root) else otherwise


def write(name: str, content: bytes, root: Path = PUBLISHED) -> Path:
    """Write a file and list it; returns where it is."""
    announce({name: sha256(content)}, root)
    write_atomically(root / name, content)
    record([name], root)
    return root / name


def write_json(name: str, content: Any, root: Path = PUBLISHED) -> Path:
    """`write` a value as JSON; what is not finite becomes null."""
    return write(name, verified.text(verified.plain(content)), root)


def write_table(name: str, rows: pd.DataFrame, root: Path = PUBLISHED) -> Path:
    """`write` rows as CSV."""
    return write(name, rows.to_csv(index=False).encode(), root)


def announce(new: Mapping[str, str], root: Path = PUBLISHED) -> None:
    """List files, by their SHA-256, that are about to be written, beside what is listed under their
    names now.

    Raises:
        DamagedFile: for a manifest that is not as it was written; nothing is written then.
    """
    digests = listed(root)
    under_way = {name: (*digests.get(name, (ABSENT,))[:1], digest) for name, digest in new.items()}
    write_atomically(root / MANIFEST, _manifest(digests | under_way).encode())


def record(places: Iterable[str], root: Path = PUBLISHED) -> None:
    """List the files at and below these names as they are now, and leave all others as they were
    listed.
    """
    new = tuple(places)
    digests = {name: known for name, known in listed(root).items() if not _at_or_below(name, new)}
    digests |= {
        name: (sha256(verified.read(root / name)),)
        for name in _present(root)
        if _at_or_below(name, new)
    }
    write_atomically(root / MANIFEST, _manifest(digests).encode())
