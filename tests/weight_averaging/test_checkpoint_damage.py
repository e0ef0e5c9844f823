"""Damage, enumerated: every byte cut, every bit flipped, and nonsense under right sums.

The path is always named.
"""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from noisy_training import Run, assert_same
from steadydescent.weight_averaging import (
    DamagedCheckpoint,
    average_checkpoints,
    checkpoint_files,
    last_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from steadydescent.weight_averaging.checkpoint_files import FORMAT


def small(value=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.safetensors"
    save_checkpoint(path, small(3.0), None, 7)
    return path.read_bytes()


def read(path):
    """What a loading finds, and that it leaves all as it was when it refuses."""
    model = small(5.0)
    try:
        step = load_checkpoint(path, model)
    except DamagedCheckpoint as refusal:
        sentence = str(refusal)
    else:
        return step, model.weight.item()
    assert str(path) in sentence
    assert model.weight.item() == 5.0
    return None


def test_a_file_cut_at_any_byte_is_refused_by_its_path(content, tmp_path):
    path = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert read(path) is None
    path.write_bytes(content + b"\0")
    assert read(path) is None


def flips_found(content, path, places):
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert read(path) is None, place


def test_a_flipped_bit_in_every_byte_is_found_by_its_path(content, tmp_path):
    flips_found(content, tmp_path / "flipped.safetensors", range(0, 8 * len(content), 9))


@pytest.mark.slow
def test_every_flipped_bit_is_found_by_its_path(content, tmp_path):
    flips_found(content, tmp_path / "flipped.safetensors", range(8 * len(content)))


def rebuilt(path, change, tensors=None, format_name=FORMAT):
    """A file whose sums are right, whatever it says."""
    weight = torch.tensor([[3.0]])
    digest = hashlib.sha256(b"torch.float32 (1, 1)" + weight.numpy().tobytes()).hexdigest()
    says = {
        "step": 7,
        "weights": {"dict": [["weight", {"tensor": ["weights.weight", digest]}]]},
        "parameters": {"list": ["weight"]},
        "statistics": {"list": []},
        "classes": {"dict": []},
    }
    change(says)
    text = json.dumps(says)
    metadata = {
        "format": format_name,
        "content": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    save_file(tensors or {"weights.weight": weight}, path, metadata)
    return path


def test_the_rebuilt_file_is_right_before_it_is_made_wrong(tmp_path):
    path = rebuilt(tmp_path / "a.safetensors", lambda says: None)
    assert read(path) == (7, 3.0)
    assert average_checkpoints([path])["weight"].item() == 3.0


def deep(levels):
    value = 1
    for _ in range(levels):
        value = {"list": [value]}
    return value


NONSENSE = {
    "step -1": {"step": -1},
    "step NaN": {"step": float("nan")},
    "step 7.5": {"step": 7.5},
    "step true": {"step": True},
    "step text": {"step": "7"},
    "step list": {"step": {"list": [7]}},
    "no step": {"step": ...},
    "no weights": {"weights": ...},
    "weights a number": {"weights": 3},
    "weights a list": {"weights": {"list": [1]}},
    "weights bare": {"weights": [1, 2]},
    "unknown kind": {"weights": {"pickle": "gASV"}},
    "two kinds": {"weights": {"dict": [], "list": []}},
    "no kind": {"weights": {}},
    "tensor without sum": {"weights": {"dict": [["weight", {"tensor": ["weights.weight"]}]]}},
    "tensor that is none": {"weights": {"dict": [["weight", {"tensor": ["nowhere", "0"]}]]}},
    "tensor of another sum": {
        "weights": {"dict": [["weight", {"tensor": ["weights.weight", "0"]}]]}
    },
    "unhashable key": {"weights": {"dict": [[{"list": []}, 1]]}},
    "deep": {"weights": deep(300)},
    "bad dtype": {"weights": {"dtype": "ops"}},
    "bad array": {"weights": {"array": ["O", [1], {"bytes": "00"}]}},
    "bad hex": {"weights": {"bytes": "xyz"}},
    "bad factory": {"weights": {"defaultdict": ["eval", []]}},
    "huge size": {"weights": {"scalar": ["f8", "00"]}},
}


@pytest.mark.parametrize("says", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_under_right_sums_is_refused_by_its_path(tmp_path, says):
    def change(right):
        right.update(says)
        for key in [key for key, value in right.items() if value is ...]:
            del right[key]

    path = rebuilt(tmp_path / "a.safetensors", change)
    assert read(path) is None
    with pytest.raises(DamagedCheckpoint, match=r"a\.safetensors is damaged"):
        average_checkpoints([path])
    if "step" in says:
        with pytest.raises(DamagedCheckpoint, match=r"a\.safetensors is damaged"):
            last_checkpoints(tmp_path, 1)


@pytest.mark.parametrize("strides", [[10**12, 1], [-1, 1], [0, 0], [1], ["a", "b"], [2, 2]])
def test_strides_that_are_none_are_refused_and_take_no_memory(tmp_path, strides):
    def change(says):
        says["weights"]["dict"][0][1]["tensor"] += [None, strides]

    values = torch.ones(2, 3)
    digest = hashlib.sha256(b"torch.float32 (2, 3)" + values.numpy().tobytes()).hexdigest()
    path = rebuilt(
        tmp_path / "a.safetensors",
        lambda says: (
            says["weights"]["dict"][0][1].update(tensor=["weights.weight", digest]),
            change(says),
        ),
        {"weights.weight": values},
    )
    assert read(path) is None


@pytest.mark.parametrize("claimed", [2**63, 2**40, 10**8 + 1, 0])
def test_a_header_that_claims_another_size_is_refused(content, tmp_path, claimed):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + content[8:])
    assert read(path) is None


def test_links_are_followed_to_files_that_are_verified_and_nothing_else(content, tmp_path):
    (tmp_path / "7.safetensors").write_bytes(content)
    (tmp_path / "cut.safetensors").write_bytes(content[:-1])
    for link, to in (("last", "7"), ("bad", "cut"), ("none", "nowhere"), ("loop", "loop")):
        (tmp_path / link).symlink_to(tmp_path / (to if to == link else f"{to}.safetensors"))
    (tmp_path / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert read(tmp_path / "last") == (7, 3.0)
    assert read(tmp_path / "bad") is None
    for name in ("none", "loop", "folder", "pipe"):
        with pytest.raises(FileNotFoundError, match=f"no file at {tmp_path / name}"):
            load_checkpoint(tmp_path / name, small())
    # takes the link's place, not its target's
    save_checkpoint(tmp_path / "last", small(1.0), None, 8)
    assert read(tmp_path / "last") == (8, 1.0) and read(tmp_path / "7.safetensors") == (7, 3.0)


def test_files_of_the_first_format_load():
    """A file of version 0.1: three steps of a `Run` with Adam, schedule, generator and averages."""
    path = Path(__file__).with_name("checkpoint-format-1.safetensors")
    tensors, run = load_file(path), Run(seed=5)
    run.load(path)
    assert run.done == run.ema.updates == run.shadow.updates == run.schedule.last_epoch == 3
    for place, held in (
        ("weights.", run.model.state_dict()),
        ("parts.ema.module.", run.ema.module.state_dict()),
        ("parts.shadow.shadow.", run.shadow.shadow),
        *(
            (f"slots.{name}.", run.optimizer.state[part])
            for name, part in run.model.named_parameters()
        ),
    ):
        assert_same(dict(held), {name: tensors[place + name] for name in held})
    assert torch.equal(tensors["parts.generator"], run.generator.get_state())
    run.step()


def test_files_that_do_not_say_what_are_parameters_are_averaged_whole_with_a_warning(tmp_path):
    def old(says):
        del says["parameters"], says["statistics"]

    paths = [
        rebuilt(tmp_path / f"{n}.safetensors", old, format_name="steadydescent checkpoint 1")
        for n in range(2)
    ]
    with pytest.warns(
        UserWarning, match=r"\d\.safetensors does not say which of its weights are parameters"
    ):
        mean = average_checkpoints(paths)
    assert_same(mean, {"weight": torch.tensor([[3.0]])})


def test_a_file_that_cannot_be_written_is_an_error_of_the_system_with_its_path(
    content, tmp_path, monkeypatch
):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)

    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint_files, "save_file", full)
    with pytest.raises(OSError, match=r"a\.safetensors cannot be written: No space left"):
        save_checkpoint(path, small(), None, 8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"] and read(path) == (
        7,
        3.0,
    )
