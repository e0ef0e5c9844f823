"""Finished stacks on their way from one machine's store to another's, in archives of bounded size.

    store-1.tar     ab/ab12…/receipt.json  ab/ab12…/runs.parquet  …

Tables are compressed already, so the archive is not. It is data from elsewhere: nothing in it names
a place, every file is held to the digest in its stack's receipt and every table to its schema, and
a stack goes where its own content says.
"""

import io
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from steadydescent import verified
from steadydescent.files import DamagedFile, require_room, write_atomically
from steadydescent.study.results.store import RECEIPT, Store, Tables, read_folder, read_receipt

NAME = re.compile(r"[0-9a-f]{2}/(?P<stack>[0-9a-f]{24})/(?P<file>receipt\.json|[a-z]+\.parquet)")
"""What a file in an archive is called."""
FILES = {RECEIPT, *(f"{table}.parquet" for table in Tables._fields)}
LARGEST_MEMBER = 2**28
"""Of a file in an archive, as of any that is read."""
BLOCK = 512
"""Bytes that tar rounds a file up to, and those of its header."""


class Packed(NamedTuple):
    """How many stacks are in which archives, and how many found no room."""

    archives: tuple[Path, ...]
    stacks: int
    left_out: int


def pack(stacks: Iterable[Path], folder: Path, most_bytes: int, most_archives: int) -> Packed:
    """Put folders of finished stacks into `store-1.tar`, `store-2.tar`, … of at most so many bytes.

    The stacks come in the order in which they are to be kept; those that no archive has room for
    are left out and counted. An archive whose content is the same stays as it is.

    Raises:
        CannotWrite: when the disk is full; the archives that stood there stay.
    """
    bins: list[list[Path]] = [[]]
    size, left_out = tarfile.RECORDSIZE, 0  # what the end of an archive takes at most
    for stack in stacks:
        more = sum(BLOCK + _rounded(file.stat().st_size) for file in stack.iterdir())
        if bins[-1] and size + more > most_bytes and len(bins) < most_archives:
            bins.append([])
            size = tarfile.RECORDSIZE
        if size + more > most_bytes:
            left_out += 1
            continue
        bins[-1].append(stack)
        size += more
    paths = []
    for number, members in enumerate(filter(None, bins), start=1):
        paths.append(folder / f"store-{number}.tar")
        content = _archive(members)
        if not paths[-1].is_file() or verified.read(paths[-1]) != content:
            write_atomically(paths[-1], content)
    return Packed(tuple(paths), sum(map(len, bins)), left_out)


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _archive(stacks: Sequence[Path]) -> bytes:
    """The bytes of a tar file; the same stacks give the same bytes."""
    stream = io.BytesIO()
    with tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for stack in stacks:
            for file in sorted(stack.iterdir()):
                content = verified.read(file)
                member = tarfile.TarInfo(f"{stack.name[:2]}/{stack.name}/{file.name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def trained_on(device: str, store: Path) -> list[Path]:
    """Folders of the stacks that a device of this name has trained, oldest first.

    One whose receipt is damaged is left where it is.
    """
    found = []
    for path in store.glob(f"[0-9a-f][0-9a-f]/[0-9a-f]*/{RECEIPT}"):
        with suppress(DamagedFile, FileNotFoundError):
            if _trained_on(path.parent) == device:
                found.append((path.stat().st_mtime, path.parent))
    return [folder for _, folder in sorted(found)]


@cache  # a finished stack stays as it is
def _trained_on(folder: Path) -> str:
    return str(read_receipt(folder).get("device"))


class Taken(NamedTuple):
    """What became of the stacks of an archive: taken in, here already, or refused and why."""

    stacks: int
    networks: int
    present: int
    refused: tuple[str, ...]


def take_in(path: Path, store: Store) -> Taken:
    """Take the stacks of an archive into a store, each once it has been verified.

    Raises:
        FileNotFoundError: when there is no such archive.
        DamagedFile: for what is no such archive, or no plain file, or holds what none holds.
        CannotWrite: when the disk is full; what was taken in before stays.
    """
    require_room(store.root, path.stat().st_size / 1e6)
    taken = networks = present = 0
    refused = []
    with tempfile.TemporaryDirectory() as aside:
        for folder in _unpacked(path, Path(aside)):
            try:
                tables, receipt = read_folder(folder, Tables)
                if store.folder_of(tables, receipt).name != folder.name:
                    raise DamagedFile(f"{folder.name} is not the name of what it holds")
            except ValueError as error:
                refused.append(f"{path}: {folder.name} is refused: {error}")
                continue
            if store.put(folder, tables, receipt):
                taken, networks = taken + 1, networks + len(tables.runs)
            else:
                present += 1
    return Taken(taken, networks, present, tuple(refused))


def _unpacked(path: Path, aside: Path) -> Iterator[Path]:
    """The folders of an archive's stacks, written below a folder of our own, one by one."""
    files: dict[str, set[str]] = {}
    content = io.BytesIO(verified.read(path))
    try:
        with tarfile.TarFile(fileobj=content) as archive:
            for member in archive:
                match = NAME.fullmatch(member.name)
                if not (member.isreg() and match and match["file"] in FILES):
                    raise DamagedFile(f"{path} is refused: it holds {member.name[:80]!r}")
                if member.size > LARGEST_MEMBER:
                    raise DamagedFile(f"{path} is refused: {member.name} has {member.size} bytes")
                folder = aside / match["stack"]
                folder.mkdir(exist_ok=True)
                file = archive.extractfile(member)
                (folder / match["file"]).write_bytes(file.read() if file else b"")
                files.setdefault(match["stack"], set()).add(match["file"])
    except tarfile.TarError as error:
        raise DamagedFile(f"{path} is refused: it is no archive of stacks ({error})") from error
    yield from (aside / stack for stack in files)
