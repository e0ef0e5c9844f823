"""Archives of finished stacks: what comes out is what went in, and what was altered stays out."""

import io
import tarfile
from pathlib import Path

import pytest

from fabricated import a_run, stack_receipt, tables
from steadydescent.files import DamagedFile
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.results.store_archive import pack, take_in, trained_on

SIZE = 2**20
DEVICE = stack_receipt([a_run()])["device"]


@pytest.fixture
def sent(tmp_path) -> Store:
    """A store of three stacks of two, three and five networks."""
    store, first = Store(tmp_path / "sent"), 0
    for count in (2, 3, 5):
        runs = [a_run(seed=seed, curve_points=2) for seed in range(first, first + count)]
        store.save(Tables(*tables(runs)), stack_receipt(runs))
        first += count
    return store


@pytest.fixture
def archive(sent, tmp_path) -> Path:
    packed = pack(trained_on(DEVICE, sent.root), tmp_path, SIZE, 1)
    assert (packed.stacks, packed.left_out) == (3, 0)
    return packed.archives[0]


def folders(store: Store) -> dict[str, dict[str, bytes]]:
    """Every finished stack, file by file."""
    return {
        path.parent.name: {file.name: file.read_bytes() for file in path.parent.iterdir()}
        for path in store.root.glob("*/*/receipt.json")
    }


def test_what_is_taken_in_is_what_was_trained_to_the_byte(sent, archive, tmp_path):
    store = Store(tmp_path / "here")
    assert take_in(archive, store) == (3, 10, 0, ())
    assert folders(store) == folders(sent) and len(store.keys()) == 10
    assert take_in(archive, store) == (0, 0, 3, ())
    assert [path.name for path in store.root.glob(".*")] == []


def test_archives_are_bounded_and_count_what_they_leave_out(sent, tmp_path):
    stacks = trained_on(DEVICE, sent.root)
    one = tarfile.RECORDSIZE + 512 * 2 * 6 + sum(f.stat().st_size for f in stacks[-1].iterdir())
    packed = pack(stacks, tmp_path, one, 2)
    assert (packed.stacks, packed.left_out) == (2, 1)
    assert [path.name for path in packed.archives] == ["store-1.tar", "store-2.tar"]
    assert all(path.stat().st_size <= one for path in packed.archives)
    assert pack(stacks, tmp_path, 100, 2) == ((), 0, 3)


def test_an_archive_whose_stacks_are_the_same_is_left_as_it_is(sent, archive):
    before = archive.stat()
    assert pack(trained_on(DEVICE, sent.root), archive.parent, SIZE, 1).archives == (archive,)
    assert archive.stat().st_ino == before.st_ino


def test_what_another_device_has_trained_is_not_packed(sent):
    run = a_run(seed=99, curve_points=2)
    sent.save(Tables(*tables([run])), stack_receipt([run], device="another device"))
    assert len(trained_on(DEVICE, sent.root)) == 3
    assert len(trained_on("another device", sent.root)) == 1


def rewritten(archive: Path, change) -> None:
    """The same archive with each member (name, content) changed."""
    with tarfile.open(archive) as old:
        members = [(m.name, old.extractfile(m).read()) for m in old]
    with tarfile.open(archive, "w") as new:
        for name, content in (change(*member) for member in members):
            made = tarfile.TarInfo(name)
            made.size = len(content)
            new.addfile(made, io.BytesIO(content))


@pytest.mark.parametrize("file", ["runs.parquet", "receipt.json", "finals.parquet"])
def test_a_stack_with_another_byte_is_refused_and_the_others_are_taken(archive, tmp_path, file):
    flipped = []

    def change(name, content):
        if name.endswith(file) and not flipped:
            flipped.append(name)
            content = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        return name, content

    rewritten(archive, change)
    store = Store(tmp_path / "here")
    found = take_in(archive, store)
    assert (found.stacks, len(found.refused)) == (2, 1) and file in found.refused[0]
    assert len(folders(store)) == 2


def test_a_stack_under_anothers_name_is_refused(archive, tmp_path):
    other = "ab" * 12
    first = []

    def change(name, content):
        stack = name.split("/")[1]
        first.append(stack)
        return (name.replace(stack, other) if stack == first[0] else name), content

    rewritten(archive, change)
    found = take_in(archive, Store(tmp_path / "here"))
    assert found.stacks == 2 and f"{other} is not the name" in found.refused[0]


@pytest.mark.parametrize(
    "name",
    [
        "../../outside/receipt.json",
        "/etc/receipt.json",
        "ab/" + "ab" * 12 + "/more.parquet",
        "ab/" + "ab" * 12 + "/../receipt.json",
        "receipt.json",
    ],
)
def test_a_file_of_another_place_or_name_is_refused_before_anything_is_taken(
    archive, tmp_path, name
):
    rewritten(archive, lambda _, content: (name, content))
    with pytest.raises(DamagedFile, match="it holds"):
        take_in(archive, Store(tmp_path / "here"))
    assert not list((tmp_path / "here").rglob("*"))


def test_links_are_refused(tmp_path):
    path = tmp_path / "store-1.tar"
    with tarfile.open(path, "w") as made:
        link = tarfile.TarInfo("ab/" + "ab" * 12 + "/receipt.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    with pytest.raises(DamagedFile, match="it holds"):
        take_in(path, Store(tmp_path / "here"))


def test_a_cut_archive_is_refused_by_name(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(DamagedFile, match=r"store-1\.tar is refused"):
        take_in(archive, Store(tmp_path / "here"))
