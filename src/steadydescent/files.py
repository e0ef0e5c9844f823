"""Files and folders that appear whole or not at all.

They are written beside their place, flushed and renamed. What a system refuses, as a full disk
does, becomes a sentence with the path, the reason and the remedy.
"""

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what killed writers leave stays until it is removed by hand
    fcntl = None  # type: ignore[assignment]

OLD = ".old"
"""Name, inside a folder that takes another's place, of the one whose place it takes."""
PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.partial", re.DOTALL)
"""Names of folders that are being written, and of what a killed writer leaves."""
REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "your quota there is used up, make room",
    errno.EFBIG: "a limit on the size of files is set, see `ulimit -f`",
    errno.EROFS: "make it writable, or work in a copy elsewhere",
    errno.EACCES: "change its owner or its permissions, or work in a copy elsewhere",
    errno.EPERM: "change its owner or its permissions, or work in a copy elsewhere",
    errno.EIO: "the disk may be failing, see the system's log",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "a file stands where a folder must be, move it",
    errno.ENOTEMPTY: "what stands there is no result, move it",
    errno.EISDIR: "a folder stands where a file must be, move it",
    errno.ELOOP: "a link there leads to itself, remove it",
    errno.EEXIST: "what stands there is in the way, move it",
    errno.EMFILE: "too many files are open, see `ulimit -n`",
}
"""What to do about the reasons for which a system refuses to write."""


class DamagedFile(ValueError):
    """A file whose content is not what it must be; the message names the file and both digests."""


class CannotWrite(OSError):
    """A file or folder that cannot be written; its text names the path, the reason and what to do.

    >>> print(CannotWrite(errno.EROFS, "Read-only file system", "/mnt/results"))
    /mnt/results cannot be written: Read-only file system; make it writable, or work in a copy
    elsewhere, and try again. What was finished before is kept
    """

    def __str__(self) -> str:
        reason = self.strerror
        if self.errno == errno.ENOSPC:
            reason = f"{reason}, {_free(Path(self.filename))}"
        remedy = REMEDIES.get(self.errno or 0, "mend that")
        return (
            f"{self.filename} cannot be written: {reason}; {remedy}, and try again. "
            "What was finished before is kept"
        )


def explained(error: Exception) -> str:
    """An error's text; that of an error of the system with the path, if any, and what to do."""
    if isinstance(error, CannotWrite) or not isinstance(error, OSError):
        return str(error)
    if error.errno not in REMEDIES:
        return str(error)
    place = "a file" if error.filename is None else str(error.filename)
    remedy = REMEDIES[error.errno]
    return f"{place} cannot be read or written: {error.strerror}; {remedy}, and try again"


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(standing(path)).free / 1e6:.1f} MB are free"
    except OSError:
        return "nothing is known of its free space"


def standing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a system refuses while `path` is written into `CannotWrite`.

    Other errors stay what they are. Those of `write` and `fsync` name no path, and those of
    libraries in Rust are no `OSError`.
    """
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (rust := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(rust[1])
        if number not in REMEDIES:
            raise
        place = getattr(error, "filename", None)
        if not isinstance(place, str) or _belong_together(path, Path(place)):
            place = str(path)
        raise CannotWrite(number, os.strerror(number), place) from error


def _belong_together(path: Path, place: Path) -> bool:
    """Whether a place lies beside a path, or the path in it."""
    return place.is_relative_to(path.parent) or path.is_relative_to(place)


def require_room(folder: Path, megabytes: float = 0.0) -> None:
    """Refuse, before work starts, a folder that cannot be written or whose disk lacks the room.

    Raises:
        CannotWrite: with the reason, the space needed and the space free.
    """
    with writing(folder), tempfile.TemporaryFile(dir=standing(folder)):
        free = shutil.disk_usage(standing(folder)).free
    if free < megabytes * 1e6:
        raise CannotWrite(errno.ENOSPC, f"{megabytes:.1f} MB are needed", str(folder))


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file near ``path`` to write to, which takes its place at the end.

    It is flushed to disk before; after an error it is removed. Every reader, at any moment, finds
    the old file or the new one. Two processes may write the same path at once: each has its own
    temporary file, and the last rename wins. What killed writers left beside it is removed.

    Raises:
        CannotWrite: when the disk is full or the place is not to be written; the old file stays.
    """
    with writing(path), _partial(path) as folder:
        temporary = folder / f"{path.name}.partial"
        temporary.touch(exist_ok=False)
        # the one that the user's umask gives, whatever the writer makes of it
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)  # the rename itself must survive a power cut


@contextmanager
def replacing_folder(path: Path, whole: str, replace: bool = False) -> Iterator[Path]:
    """A folder beside ``path`` to write to, which takes its place at the end.

    It is flushed to disk before; after an error it is removed. A folder that stands there already,
    with a file named `whole` in it, is kept unless `replace`. Then it is moved into the new one, as
    `.old`, before the new one takes its place: a reader who finds neither calls `completed`, which
    finishes the move, whether the writer is dead or about to do it itself.

    Raises:
        CannotWrite: when the disk is full or the place is not to be written; the old folder stays.
    """
    with writing(path), _partial(path) as folder:
        yield folder
        for place in (*folder.iterdir(), folder):
            flush(place)
        if replace:
            with suppress(FileNotFoundError):
                path.rename(folder / OLD)
        try:
            folder.rename(path)
        except OSError:  # another writer was first, or a reader has finished the move
            if not (completed(path) / whole).exists():
                raise
        _remove(path / OLD)
        flush(path.parent)


def _remove(path: Path) -> None:
    """Remove a folder, or whatever stood in its place: opening a pipe as a folder never ends."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(IsADirectoryError):  # another writer's by now, who removes it
            path.unlink(missing_ok=True)


def completed(path: Path) -> Path:
    """The same path, after finishing a replacement there that a killed writer had begun."""
    while not path.exists():
        replacements = path.parent.glob(f".{glob.escape(path.name)}.*.partial/{OLD}")
        if (old := next(replacements, None)) is None:
            return path  # it is not there, or has come since
        try:
            with writing(path):
                old.parent.rename(path)
        except FileNotFoundError:
            continue  # somebody else has just done it
        except CannotWrite as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else a writer has just put its own there
    return path


def replaced_in(folder: Path) -> set[str]:
    """Names of folders there that are being replaced, or whose writer was killed meanwhile."""
    matches = (PARTIAL.fullmatch(path.name) for path in folder.glob(".*.partial"))
    return {match["name"] for match in matches if match}


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A folder beside `path` under a name that nobody reads, removed at the end.

    It is locked while it is written to. The system takes the lock away with the process, so that
    others can tell what a killed writer has left.
    """
    _make_folder(path.parent)
    _sweep(path.parent)
    partial, lock = _locked_folder(path)
    try:
        yield partial
    finally:
        # where neither holds, it has all that there is of the old and the new
        if path.exists() or not (partial / OLD).exists():
            shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    """A new folder beside `path`, and the descriptor that locks it if the system has such locks."""
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        partial.mkdir()
        if fcntl is None:
            return partial, None
        with suppress(FileNotFoundError):  # swept away before it was locked
            lock = os.open(partial, os.O_RDONLY)
            with suppress(OSError):  # no such locks on this file system
                fcntl.flock(lock, fcntl.LOCK_EX)
            if partial.exists():
                return partial, lock
            os.close(lock)


def _sweep(folder: Path) -> None:
    """Finish or remove what killed writers left in a folder."""
    for remains in list(folder.glob(".*.partial")):
        if match := PARTIAL.fullmatch(remains.name):
            with suppress(OSError), _abandoned(remains):
                completed(remains.with_name(match["name"]))
                shutil.rmtree(remains, ignore_errors=True)


@contextmanager
def _abandoned(partial: Path) -> Iterator[None]:
    """The lock of a folder whose writer is dead; OSError when it lives, or when nobody can tell."""
    if fcntl is None:
        raise BlockingIOError
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, and see that their names survive a power cut."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        flush(place.parent)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk.

    Windows cannot open a folder, nor does it need to.
    """
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
