"""Fashion-MNIST: 70 000 grey images of 28 x 28 in 10 classes.

By Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747. Wherever the four files come from, only the
pinned content is accepted. The digests are of the unzipped files; zipped with the original names
and times they give the MD5 sums that the data's authors and torchvision publish. Each seed draws
its own 50 000 training and 10 000 validation images from the 60 000; the 10 000 test images are the
authors'.
"""

import gzip
import io
import json
import shutil
import socket
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadydescent import verified
from steadydescent.dataset_shift.torchvision_shim import import_torchvision
from steadydescent.engine.data.task_data import Report, TaskData, checksum
from steadydescent.files import DamagedFile, sha256, write_atomically

DIGESTS = {  # SHA-256 of the unzipped files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 47_040_016  # bytes: the training images, unzipped
FOLDER = Path("FashionMNIST") / "raw"  # torchvision looks here too
PACKAGE = "dataset-fashion-mnist"  # in Debian and Ubuntu
PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TRAIN_COUNT = 50_000
# "Fash": keeps the split apart from other uses of the seed; XOR keeps seeds apart
SPLIT_SEED = 0x46617368
SPLIT_RULE = (
    f"torch.randperm, CPU generator seed XOR {SPLIT_SEED}; first {TRAIN_COUNT} train, rest validate"
)
NETWORK_TIMEOUT = 10  # seconds without an answer
DOWNLOAD_LIMIT = 600  # seconds for the whole package, 31 MB


class DataUnavailable(RuntimeError):
    """No source could serve the data; the message says what was tried, what failed, what to do."""


def identity() -> str:
    """SHA-256 of the pinned digests and the split rule."""
    description = {"source": "fashion-mnist", "files": DIGESTS, "split": SPLIT_RULE}
    return sha256(json.dumps(description, sort_keys=True).encode())


def load(seeds: Sequence[int], root: Path, report: Report) -> TaskData:
    """Pool [70000, 784] uint8 and each seed's split; fetched if need be.

    The pool is the 60 000 images, then the 10 000 test images. mean and std are one scalar a seed
    over all training pixels, shape [S, 1], because many pixels never change. ``seeds`` must have
    been checked.
    """
    try:
        files = read_folder(root / FOLDER)
    except (FileNotFoundError, DamagedFile):
        files = read_folder(fetch(root, report))
    arrays = (parse_idx(files[name]) for name in DIGESTS)
    train_images, train_labels, test_images, test_labels = arrays
    images = np.concatenate([train_images, test_images])
    pool = images.reshape(len(images), -1)
    train, validation = split(seeds, len(train_images))
    mean, std = pixel_moments(pool[: len(train_images)], train)
    fields = {
        "pool": torch.from_numpy(pool),
        "labels": torch.from_numpy(np.concatenate([train_labels, test_labels]).astype(np.int64)),
        "train": train,
        "validation": validation,
        "test": torch.arange(len(train_images), len(pool)),
    }
    return TaskData(**fields, mean=mean, std=std, checksum=checksum(**fields))


def split(seeds: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """Rows [S, 50000] to train on and [S, count - 50000] to validate on, from the seed alone."""
    generators = [torch.Generator().manual_seed(seed ^ SPLIT_SEED) for seed in seeds]
    rows = torch.stack([torch.randperm(count, generator=generator) for generator in generators])
    return rows[:, :TRAIN_COUNT].contiguous(), rows[:, TRAIN_COUNT:].contiguous()


def pixel_moments(images: NDArray[np.uint8], train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [S, 1] of all pixels of each seed's images.

    The images are [n, pixels], ``train`` [S, M] has the rows of each seed.     Sums are whole
    numbers, so exact, and made once an image: mean = a / n, std = sqrt(n b - a^2) / n with n
    pixels, a the sum and b the sum of squares.
    """
    sums = images.sum(1, dtype=np.int64)
    squares = np.einsum("np,np->n", images, images, dtype=np.int64)
    means, stds = [], []
    for rows in train.numpy():
        n, a, b = len(rows) * images.shape[1], int(sums[rows].sum()), int(squares[rows].sum())
        means.append([a / n])
        stds.append([(n * b - a * a) ** 0.5 / n])
    return torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32)


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in an idx file of bytes.

    The file is 0, 0, type 8 (bytes), number of axes, each axis as big-endian uint32, then the data.
    """
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"an idx file of bytes starts with 00 00 08, got {content[:3].hex(' ')}")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(*map(int, shape))


def fetch(root: Path, report: Report) -> Path:
    """Put the four files, unzipped and verified, under ``root``; report what served, return where.

    Raises DataUnavailable when none did.
    """
    folder = root / FOLDER
    failures = []
    for number, (name, find) in enumerate(SUPPLIERS.items(), start=1):
        with tempfile.TemporaryDirectory(prefix="fashion-mnist-") as scratch:
            try:
                files = read_folder(find(folder, Path(scratch)))
            except Exception as error:  # whatever a source does, the next one is tried
                reason = " ".join(str(error).split()) or type(error).__name__
                failures.append(f"  {number}. {name}: {reason}")
                if isinstance(error, DamagedFile):
                    report(f"Fashion-MNIST: {error}")
                continue
        for file_name, content in files.items():
            if not _holds(folder / file_name, content):
                write_atomically(folder / file_name, content)
        report(f"Fashion-MNIST: served by {name}; four verified files in {folder}.")
        return folder
    raise DataUnavailable(
        "\n".join(["Fashion-MNIST is not available. Tried in this order:", *failures])
        + "\nDo one of these and try again: connect to the network; "
        + f"on Debian or Ubuntu run `sudo apt-get install {PACKAGE}`; "
        + f"or put the files {', '.join(DIGESTS)} (unzipped, or with .gz) into {folder}."
    )


def read_folder(folder: Path) -> dict[str, bytes]:
    """Unzipped content of the four files in ``folder``, each there as it is or with .gz.

    Raises FileNotFoundError or DamagedFile, naming the file; a damaged one with the digest found
    and expected.
    """
    return {name: _read_verified(folder / name, digest) for name, digest in DIGESTS.items()}


def _read_verified(path: Path, expected: str) -> bytes:
    zipped = path.with_name(path.name + ".gz")
    if path.exists():
        content = verified.read(path, LARGEST)
    elif zipped.exists():
        path, packed = zipped, verified.read(zipped, LARGEST)
        try:
            with gzip.open(io.BytesIO(packed)) as stream:
                content = stream.read(LARGEST + 1)  # no more, whatever the file unpacks to
        except (EOFError, OSError, zlib.error) as error:
            raise DamagedFile(
                f"{path} is refused: truncated or altered, cannot be unzipped ({error}); "
                f"SHA-256 of the zipped file {sha256(packed)}, "
                f"expected of the unzipped one {expected}."
            ) from error
    else:
        raise FileNotFoundError(f"neither {path} nor {zipped.name} exists")
    digest = sha256(content)
    if digest != expected:
        raise DamagedFile(
            f"{path} is refused: truncated or altered, SHA-256 found {digest}, expected {expected}."
        )
    return content


def _holds(path: Path, content: bytes) -> bool:
    try:
        return verified.read(path, LARGEST) == content
    except (FileNotFoundError, DamagedFile):
        return False


def _existing(folder: Path, scratch: Path) -> Path:
    return folder


def _system_package(folder: Path, scratch: Path) -> Path:
    return PACKAGE_FOLDER


def _torchvision_download(folder: Path, scratch: Path) -> Path:
    torchvision = import_torchvision()
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)  # torchvision itself would wait for minutes
    try:
        torchvision.datasets.FashionMNIST(scratch, download=True)
    finally:
        socket.setdefaulttimeout(timeout)
    return scratch / FOLDER


def _package_download(folder: Path, scratch: Path) -> Path:
    """Download Debian's package and unpack it in ``scratch``; needs no root."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(
                f"{tool} is not on this machine, which seems to be neither Debian nor Ubuntu"
            )
    limits = [f"-oAcquire::{kind}::Timeout={NETWORK_TIMEOUT}" for kind in ("http", "https")]
    _run(["apt-get", "-q", *limits, "-oAcquire::Retries=0", "download", PACKAGE], scratch)
    packages = list(scratch.glob("*.deb"))
    if len(packages) != 1:
        raise FileNotFoundError(f"apt-get left {len(packages)} packages, expected one")
    _run(["dpkg-deb", "-x", packages[0].name, "unpacked"], scratch)
    return scratch / "unpacked" / PACKAGE_FOLDER.relative_to("/")


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT, check=False
    )
    if result.returncode:
        output = result.stderr.strip() or result.stdout.strip()
        raise RuntimeError(
            f"`{' '.join(command)}` ended with status {result.returncode}: {output[-500:]}"
        )


SUPPLIERS: Mapping[str, Callable[[Path, Path], Path]] = {
    "a copy already in place": _existing,
    f"the system package {PACKAGE}": _system_package,
    "torchvision's download": _torchvision_download,
    f"apt-get download {PACKAGE}": _package_download,
}
