"""Fashion-MNIST: every source in order and by name, pinned content alone, disjoint splits."""

import gzip
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steadydescent import files
from steadydescent.dataset_shift.torchvision_shim import import_torchvision
from steadydescent.engine import data
from steadydescent.engine.data import fashion_mnist

# of the training rows of seeds 0 and 5
SPLIT_DIGEST = "ae224adb592fedaa086795a3a7f031a49c542a743e888c2630beb563d890d3dd"
CHECKOUT_DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    """A folder with the real Fashion-MNIST, from this checkout or the system; no network."""
    for folder in (CHECKOUT_DATA / fashion_mnist.FOLDER, fashion_mnist.PACKAGE_FOLDER):
        try:
            contents = fashion_mnist.read_folder(folder)
        except (FileNotFoundError, files.DamagedFile):
            continue
        if folder == CHECKOUT_DATA / fashion_mnist.FOLDER:
            return CHECKOUT_DATA
        root = tmp_path_factory.mktemp("fashion-mnist")
        for name, content in contents.items():
            files.write_atomically(root / fashion_mnist.FOLDER / name, content)
        return root
    return pytest.skip("Fashion-MNIST: no copy on this machine; `steady data` fetches one")


@pytest.fixture(scope="module")
def fashion(real_root):
    return data.load("fashion-mnist", [0, 5, 7], real_root)


# ---- where it comes from -------------------------------------------------------------------------


def _idx(array):
    return (
        b"\0\0\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.fixture
def tiny(monkeypatch):
    """Four small files in place of the real ones, their digests pinned; returns their contents."""
    arrays = np.random.default_rng(7)
    shapes = [(13, 28, 28), (13,), (5, 28, 28), (5,)]
    contents = [_idx(arrays.integers(0, 10, shape, np.uint8)) for shape in shapes]
    tiny = dict(zip(fashion_mnist.DIGESTS, contents, strict=True))
    monkeypatch.setattr(
        fashion_mnist, "DIGESTS", {name: files.sha256(content) for name, content in tiny.items()}
    )
    return tiny


def _put(folder, contents, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.fixture
def sources(monkeypatch, tmp_path, tiny):
    """Sources that touch nothing outside: put names into ``serving`` to let them serve.

    ``asked`` says who was.
    """
    state = SimpleNamespace(
        serving=set(), asked=[], root=tmp_path / "root", package=tmp_path / "package"
    )
    state.raw = state.root / fashion_mnist.FOLDER

    def serve(name, folder, zipped):
        state.asked.append(name)
        if name not in state.serving:
            raise RuntimeError(f"{name} has\n no network")
        _put(folder, tiny, zipped)

    def torchvision_class(root, download):
        assert download
        assert socket.getdefaulttimeout() == fashion_mnist.NETWORK_TIMEOUT
        serve("torchvision", root / fashion_mnist.FOLDER, zipped=False)

    def run(command, folder):
        if command[0] == "apt-get":
            serve("apt-get", folder / "unpacked" / state.package.relative_to("/"), zipped=True)
            (folder / "package.deb").touch()

    torchvision = SimpleNamespace(datasets=SimpleNamespace(FashionMNIST=torchvision_class))
    monkeypatch.setattr(fashion_mnist, "import_torchvision", lambda: torchvision)
    monkeypatch.setattr(fashion_mnist, "PACKAGE_FOLDER", state.package)
    monkeypatch.setattr(fashion_mnist, "_run", run)
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: tool)
    return state


@pytest.mark.parametrize(
    ("serving", "asked", "name"),
    [
        ({"copy", "package", "torchvision", "apt-get"}, [], "a copy already in place"),
        ({"package", "torchvision", "apt-get"}, [], "the system package dataset-fashion-mnist"),
        ({"torchvision", "apt-get"}, ["torchvision"], "torchvision's download"),
        ({"apt-get"}, ["torchvision", "apt-get"], "apt-get download dataset-fashion-mnist"),
    ],
)
def test_sources_are_tried_in_order_and_the_one_that_served_is_named(
    sources, tiny, serving, asked, name
):
    sources.serving = serving
    if "copy" in serving:
        _put(sources.raw, tiny)
    if "package" in serving:
        _put(sources.package, tiny, zipped=True)
    reports: list[str] = []
    folder = data.fetch("fashion-mnist", sources.root, reports.append)
    assert reports == [f"Fashion-MNIST: served by {name}; four verified files in {folder}."]
    assert sources.asked == asked
    assert folder == sources.raw
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == tiny
    assert socket.getdefaulttimeout() is None


def test_when_no_source_serves_the_error_says_what_was_tried_why_it_failed_and_what_to_do(sources):
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("fashion-mnist", [0], sources.root, print)
    lines = str(caught.value).splitlines()
    assert lines[0] == "Fashion-MNIST is not available. Tried in this order:"
    assert lines[1].startswith(
        f"  1. a copy already in place: neither {sources.raw}/train-images-idx3-ubyte nor"
    )
    assert lines[2].startswith(
        f"  2. the system package dataset-fashion-mnist: neither {sources.package}/"
    )
    assert lines[3] == "  3. torchvision's download: torchvision has no network"
    assert lines[4] == "  4. apt-get download dataset-fashion-mnist: apt-get has no network"
    assert "`sudo apt-get install dataset-fashion-mnist`" in lines[5]
    assert f"into {sources.raw}." in lines[5]
    assert not sources.root.exists()


def test_a_machine_without_apt_is_told_so(sources, monkeypatch):
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: None)
    with pytest.raises(
        data.DataUnavailable, match=r"apt-get is not on this machine.*neither Debian nor Ubuntu"
    ):
        data.fetch("fashion-mnist", sources.root, print)


def test_a_failing_command_is_quoted_with_its_reason(tmp_path):
    with pytest.raises(RuntimeError, match=r"`ls nowhere` ended with status \d+: .*nowhere"):
        fashion_mnist._run(["ls", "nowhere"], tmp_path)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _alter(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _alter])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_copy_is_refused_by_name_with_both_digests_and_replaced(
    sources, tiny, damage, zipped
):
    _put(sources.raw, tiny, zipped)
    name = "t10k-images-idx3-ubyte"
    path = sources.raw / (f"{name}.gz" if zipped else name)
    damage(path)
    with pytest.raises(data.DamagedFile) as refused:
        fashion_mnist.read_folder(sources.raw)
    assert str(path) in str(refused.value)
    assert fashion_mnist.DIGESTS[name] in str(refused.value)
    assert files.sha256(path.read_bytes()) in str(refused.value)
    sources.serving = {"apt-get"}
    reports: list[str] = []
    data.fetch("fashion-mnist", sources.root, reports.append)
    assert reports[0] == f"Fashion-MNIST: {refused.value}"
    assert fashion_mnist.read_folder(sources.raw) == tiny


def test_a_download_of_other_content_is_refused_and_not_kept(sources, tiny):
    sources.serving = {"torchvision"}
    tiny["train-labels-idx1-ubyte"] += b"!"
    with pytest.raises(
        data.DataUnavailable,
        match=r"3\. torchvision's download: .*train-labels-idx1-ubyte is refused",
    ):
        data.fetch("fashion-mnist", sources.root, print)
    assert not sources.root.exists()


def test_a_file_that_is_not_idx_is_refused():
    with pytest.raises(ValueError, match="starts with 00 00 08, got 1f 8b 08"):
        fashion_mnist.parse_idx(b"\x1f\x8b\x08\x00")


# ---- what it is ----------------------------------------------------------------------------------


def test_pixels_and_labels_are_those_torchvision_reads(fashion, real_root):
    torchvision = import_torchvision()
    for rows, train in ((slice(0, 60_000), True), (slice(60_000, 70_000), False)):
        theirs = torchvision.datasets.FashionMNIST(real_root, train=train, download=False)
        assert torch.equal(fashion.pool[rows], theirs.data.flatten(1))
        assert torch.equal(fashion.labels[rows], theirs.targets)
    assert fashion.pool.dtype == torch.uint8
    assert fashion.test.equal(torch.arange(60_000, 70_000))


def test_each_seed_splits_the_sixty_thousand_without_overlap(fashion):
    assert (fashion.train.shape, fashion.validation.shape) == ((3, 50_000), (3, 10_000))
    for train, validation in zip(fashion.train, fashion.validation, strict=True):
        assert torch.cat([train, validation]).sort().values.equal(torch.arange(60_000))
    assert not torch.equal(fashion.train[0], fashion.train[1])


def test_pixel_moments_are_those_of_the_training_images_alone(fashion):
    assert fashion.mean.shape == fashion.std.shape == (3, 1)
    for rows, mean, std in zip(fashion.train[:2], fashion.mean, fashion.std, strict=False):
        pixels = fashion.pool[rows].numpy()
        assert mean.item() == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-7)
        # oracle: the variance from a histogram
        levels = np.bincount(pixels.ravel(), minlength=256) / pixels.size
        variance = (levels * (np.arange(256) - mean.item()) ** 2).sum()
        assert std.item() == pytest.approx(variance**0.5, rel=1e-6)


def test_fashion_splits_do_not_depend_on_company_and_are_those_of_the_first_publication(
    fashion, real_root
):
    alone = data.load("fashion-mnist", [5], real_root)
    for name in ("train", "validation", "mean", "std"):
        assert torch.equal(getattr(alone, name)[0], getattr(fashion, name)[1])
    assert alone.checksum != fashion.checksum
    train, _ = fashion_mnist.split([0, 5], 60_000)
    # else give SPLIT_RULE another name
    assert files.sha256(train.numpy().tobytes()) == SPLIT_DIGEST
