"""Any data set, and MNIST-1D: same seed, same bytes; the package's own draws.

Nothing damaged is used.
"""

import random
import socket

import numpy as np
import pytest
import torch

from steadydescent import files
from steadydescent.dataset_shift import mnist1d_signals, shifted_signals
from steadydescent.engine import data
from steadydescent.engine.data import fashion_mnist, mnist1d

# ten times distinct primes: a mixed-up set has the wrong size
SMALL = {
    "train": 70,
    "validation": 110,
    "test": 130,
}
FIRST_LABELS = [8, 5, 5, 6, 6, 5, 4, 2, 7, 2, 2]  # of draw(0, 70)
# its first signal, every eighth point
FIRST_SIGNAL = [0.17671420, 0.00135305, 0.15476199, 0.03200209, -0.34129894]


@pytest.fixture
def small(monkeypatch):
    """MNIST-1D with few examples and no helper processes: a test takes a fraction of a second."""
    monkeypatch.setattr(mnist1d, "COUNTS", SMALL)
    monkeypatch.setattr(mnist1d.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """MNIST-1D at its real size for two seeds, drawn once."""
    return data.load("mnist1d", [3, 8], tmp_path_factory.mktemp("mnist1d"), print)


# ---- seeds and sources ---------------------------------------------------------------------------


@pytest.mark.parametrize("source", data.SOURCES)
@pytest.mark.parametrize(
    ("seeds", "error", "sentence"),
    [
        ([], ValueError, "at least one seed"),
        ([3, -1], ValueError, "at least 0 and below 2.*got -1"),
        ([2**31], ValueError, "got 2147483648"),
        ([1, 5, 1], ValueError, r"differ from one another, got \[1\]"),
        ([1.0], TypeError, "whole numbers, got 1.0 of type float"),
        ([True], TypeError, "whole numbers, got True"),
        ("12", TypeError, "whole numbers, got '1' of type str"),
    ],
)
def test_unusable_seeds_are_refused_with_a_sentence(source, seeds, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        data.load(source, seeds, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_source_names_the_allowed_ones(tmp_path):
    known = r"\['mnist1d', 'fashion-mnist', 'names', 'gaussian-2'"
    message = rf"source 'mnist' is unknown; did you mean '.*'\? Known are {known}"
    with pytest.raises(ValueError, match=message):
        data.load("mnist", [0], tmp_path)
    with pytest.raises(ValueError, match=message):
        data.identity("mnist")
    with pytest.raises(ValueError, match=message):
        data.fetch("mnist", tmp_path, print)


def test_identities_are_known_without_drawing_and_change_with_what_decides_the_data(monkeypatch):
    monkeypatch.setattr(mnist1d, "draw", None)  # would fail if called
    before = {source: data.identity(source) for source in data.SOURCES}
    assert all(len(digest) == 64 for digest in before.values())
    assert len(set(before.values())) == len(data.SOURCES)
    monkeypatch.setitem(mnist1d.ARGUMENTS, "iid_noise_scale", 0.03)
    assert data.identity("mnist1d") != before["mnist1d"]
    monkeypatch.undo()
    monkeypatch.setitem(mnist1d.COUNTS, "test", 19_990)
    assert data.identity("mnist1d") != before["mnist1d"]
    monkeypatch.setattr(mnist1d, "version", lambda package: "0.0.3")
    assert data.identity("mnist1d") != before["mnist1d"]
    monkeypatch.setattr(fashion_mnist, "SPLIT_RULE", "another")
    assert data.identity("fashion-mnist") != before["fashion-mnist"]
    monkeypatch.undo()
    assert {source: data.identity(source) for source in data.SOURCES} == before


# ---- MNIST-1D ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale_coeff": 1.9},
        {"max_translation": list(range(5, 53))},
        {"corr_noise_scale": 1.4, "shear_scale": 3.0},
        {"padding": [40, 60], "iid_noise_scale": 0.2},
    ],
)
def test_signals_are_those_of_the_packages_own_transform_bit_for_bit(change):
    from mnist1d.data import get_templates
    from mnist1d.transform import transform
    from mnist1d.utils import ObjectView, set_seed

    templates = get_templates()
    arguments = ObjectView(mnist1d.ARGUMENTS | change)
    labels = np.repeat(range(10), 7)
    with mnist1d_signals._global_random_states_kept():
        set_seed(11)
        slow = [transform(templates["x"][label], templates["t"], arguments)[0] for label in labels]
        order = np.random.permutation(70)
    signals, drawn_labels = mnist1d.draw(11, 70, change)
    assert np.array_equal(signals, np.stack(slow)[order])
    assert np.array_equal(drawn_labels, labels[order])


@pytest.mark.parametrize(("seed", "count"), [(0, 130), (42, 70), (mnist1d.TEST_SEED, 110)])
def test_raw_draws_centred_and_scaled_are_make_dataset_bit_for_bit(seed, count):
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.seed, arguments.num_samples = seed, count
    expected = make_dataset(arguments)
    signals, labels = mnist1d.draw(seed, count)
    centred = (signals - signals.mean()) / signals.std()
    assert np.array_equal(centred, np.concatenate([expected["x"], expected["x_test"]]))
    assert np.array_equal(labels, np.concatenate([expected["y"], expected["y_test"]]))


def test_our_arguments_are_the_packages_defaults():
    from mnist1d.data import get_dataset_args

    defaults = get_dataset_args(as_dict=True)
    assert {name: defaults[name] for name in mnist1d.ARGUMENTS} == mnist1d.ARGUMENTS
    assert set(defaults) - set(mnist1d.ARGUMENTS) == {"num_samples", "train_split", "seed", "url"}


def test_draws_are_those_of_the_first_publication():
    signals, labels = mnist1d.draw(0, 70)
    assert labels[:11].tolist() == FIRST_LABELS
    # other processors round differently
    assert signals[0, ::8] == pytest.approx(FIRST_SIGNAL, abs=1e-6)


def test_mnist1d_has_the_stated_sizes_and_types(full_size):
    assert (full_size.pool.shape, full_size.pool.dtype) == (
        (4_000 + 20_000 + 2 * 4_000, 40),
        torch.float32,
    )
    assert (full_size.labels.shape, full_size.labels.dtype) == ((32_000,), torch.int64)
    assert full_size.train.shape == full_size.validation.shape == (2, 4_000)
    assert full_size.test.shape == (20_000,)
    assert full_size.mean.shape == full_size.std.shape == (2, 40)
    for rows, each in (
        (full_size.train[0], 400),
        (full_size.validation[1], 400),
        (full_size.test, 2_000),
    ):
        assert full_size.labels[rows].bincount().tolist() == [each] * 10


def test_standardised_training_features_have_mean_zero_and_deviation_one(full_size):
    for rows, mean, std in zip(full_size.train, full_size.mean, full_size.std, strict=True):
        features = ((full_size.pool[rows] - mean) / std).double()
        assert features.mean(0).abs().max() < 1e-6
        assert (features.std(0, correction=0) - 1).abs().max() < 1e-6
    assert not torch.equal(full_size.mean[0], full_size.mean[1])


def test_no_example_is_in_two_of_training_validation_and_test(full_size):
    rows = torch.cat([full_size.train.flatten(), full_size.validation[0], full_size.test])
    assert rows.sort().values.equal(torch.arange(32_000))
    assert torch.equal(full_size.validation[0], full_size.validation[1])
    # not even the same signal under two rows
    assert len(full_size.pool[rows].unique(dim=0)) == 32_000


def test_shared_sets_have_seeds_that_no_training_set_can_have():
    assert mnist1d.VALIDATION_SEED != mnist1d.TEST_SEED
    assert min(mnist1d.VALIDATION_SEED, mnist1d.TEST_SEED) >= data.SEED_LIMIT


def test_a_seed_has_the_same_bytes_in_any_company_and_order(small, tmp_path):
    together = data.load("mnist1d", [2, 11, 5], tmp_path / "a", print)
    alone = data.load("mnist1d", [5], tmp_path / "b", print)
    reordered = data.load("mnist1d", [5, 2], tmp_path / "a", print)
    for other, place in ((alone, 0), (reordered, 0)):
        assert torch.equal(together.pool[together.train[2]], other.pool[other.train[place]])
        assert torch.equal(together.labels[together.train[2]], other.labels[other.train[place]])
        assert torch.equal(together.mean[2], other.mean[place])
        assert torch.equal(together.std[2], other.std[place])
        assert torch.equal(together.pool[together.test], other.pool[other.test])
        assert torch.equal(together.pool[together.validation[0]], other.pool[other.validation[0]])
    assert data.load("mnist1d", [5], tmp_path / "a").checksum == alone.checksum != together.checksum


def test_helper_processes_write_the_same_bytes_as_one_process(small, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist1d.os, "cpu_count", lambda: 2)
    reports: list[str] = []
    many = mnist1d.list_parts([1, 2], tmp_path / "many")
    mnist1d.draw_missing(many, reports.append)
    assert reports == ["MNIST-1D: drawing 4 missing sets, 380 examples, in 2 processes."]
    for part in many:
        alone = mnist1d.Part(
            part.name, part.seed, part.count, tmp_path / part.path.parent.name / part.path.name
        )
        mnist1d.draw_to_file(alone)
        assert alone.path.read_bytes() == part.path.read_bytes()


def test_broken_helper_processes_only_cost_time(small, tmp_path, monkeypatch):
    def broken(*arguments, **keywords):
        raise mnist1d.BrokenProcessPool

    monkeypatch.setattr(mnist1d, "ProcessPoolExecutor", broken)
    monkeypatch.setattr(mnist1d.os, "cpu_count", lambda: 2)
    reports: list[str] = []
    loaded = data.load("mnist1d", [1, 2], tmp_path, reports.append)
    assert any("drawing one by one" in report for report in reports)
    assert loaded.train.shape == (2, 70)


def test_global_random_states_are_left_as_they_were(small, tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    data.load("mnist1d", [0], tmp_path, print)
    fashion_mnist.split([0], 50_010)
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])


def test_drawing_uses_no_network_no_pickle_and_no_ready_made_dataset(small, tmp_path, monkeypatch):
    import mnist1d.data

    def refuse(*arguments, **keywords):
        raise AssertionError("must not be called")

    for name in ("get_dataset", "from_pickle", "to_pickle", "make_dataset"):
        monkeypatch.setattr(mnist1d.data, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    data.load("mnist1d", [0], tmp_path, print)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _alter(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _put_another_seeds_file_there(path):
    path.write_bytes(path.with_name("train-2.safetensors").read_bytes())


@pytest.mark.parametrize("damage", [_truncate, _alter, _put_another_seeds_file_there])
def test_a_damaged_file_is_refused_by_name_and_drawn_again(small, damage, tmp_path):
    sound = data.load("mnist1d", [1, 2], tmp_path, print)
    (path,) = tmp_path.rglob("train-1.safetensors")
    content = path.read_bytes()
    damage(path)
    part = next(part for part in mnist1d.list_parts([1], tmp_path) if part.name == "train-1")
    with pytest.raises(data.DamagedFile, match=rf"{path} is refused: truncated or altered"):
        mnist1d.read(part)
    reports: list[str] = []
    again = data.load("mnist1d", [1, 2], tmp_path, reports.append)
    assert again.checksum == sound.checksum
    assert path.read_bytes() == content
    assert str(path) in reports[0]
    assert reports[0].endswith("It is drawn again.")
    assert reports[1] == "MNIST-1D: drawing 1 missing sets, 70 examples, one by one."


def test_shifted_signals_are_drawn_once_and_read_as_they_were_drawn(small, tmp_path, monkeypatch):
    reports: list[str] = []
    asked = [("shear", 3), ("scale", 3), ("shear", 0)]
    first = [mnist1d.shifted_test_set(*one, tmp_path, reports.append) for one in asked]
    for (knob, severity), drawn in zip(asked, first, strict=True):
        whole = shifted_signals(knob, severity, seed=mnist1d.TEST_SEED, count=SMALL["test"])
        assert torch.equal(drawn.x, whole.x) and torch.equal(drawn.y, whole.y)
        assert torch.equal(drawn.rows, whole.rows)
    usual = data.load("mnist1d", [1], tmp_path, print)
    assert torch.equal(first[2].x, usual.pool[usual.test])
    assert len(reports) == len(asked)
    for name in ("draw", "shifted_signals"):
        monkeypatch.setattr(mnist1d, name, None)
    again = [mnist1d.shifted_test_set(*one, tmp_path, reports.append) for one in asked]
    assert all(torch.equal(one.x, other.x) for one, other in zip(first, again, strict=True))
    assert len(reports) == len(asked)


def test_a_shifted_set_in_anothers_place_is_refused_and_drawn_again(small, tmp_path):
    sound = mnist1d.shifted_test_set("shear", 3, tmp_path, print)
    other = mnist1d.shifted_test_set("shear", 4, tmp_path, print)
    assert not torch.equal(sound.x, other.x)
    (path,) = tmp_path.rglob("shear-3.safetensors")
    path.write_bytes(path.with_name("shear-4.safetensors").read_bytes())
    reports: list[str] = []
    again = mnist1d.shifted_test_set("shear", 3, tmp_path, reports.append)
    assert torch.equal(again.x, sound.x)
    assert reports[0].endswith("It is drawn again.")


def test_nothing_is_said_or_drawn_when_all_is_there(small, tmp_path, monkeypatch, caplog):
    data.load("mnist1d", [1], tmp_path, print)
    monkeypatch.setattr(mnist1d, "draw", None)
    data.load("mnist1d", [1], tmp_path)
    assert not caplog.records


def test_fetching_mnist1d_says_whether_it_drew_or_found(small, tmp_path):
    reports: list[str] = []
    folder = data.fetch("mnist1d", tmp_path, reports.append)
    assert sorted(path.name for path in folder.iterdir()) == [
        "test.safetensors",
        "validation.safetensors",
    ]
    assert "drawn with the package mnist1d" in reports[-1]
    data.fetch("mnist1d", tmp_path, reports.append)
    assert (
        reports[-1]
        == f"MNIST-1D: 110 validation and 130 test examples in {folder}, found and verified."
    )


@pytest.mark.parametrize("count", [0, -10, 73])
def test_a_count_that_the_classes_cannot_share_is_refused(count):
    with pytest.raises(ValueError, match=f"positive multiple of the 10 classes, got {count}"):
        mnist1d.draw(0, count)


# ---- files ---------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    files.write_atomically(path, b"old")

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("file", b"old")]
