"""Checkpoint files: whole or not at all.

What is damaged, foreign or does not fit is refused by name.
"""

import stat
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from noisy_training import Run, assert_equal_bits, assert_same, network, state, write_weights
from steadydescent import files
from steadydescent.weight_averaging import (
    EMA,
    DamagedCheckpoint,
    Shadow,
    average_checkpoints,
    checkpoint_files,
    load_checkpoint,
    save_checkpoint,
)

# Whole or not at all


@pytest.mark.parametrize(("module", "broken"), [(checkpoint_files, "save_file"), (files, "flush")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, module, broken
):
    run, path = Run(), tmp_path / "a.safetensors"
    run.save(path)
    before = path.read_bytes()
    run.step()

    def interrupted(*arguments):
        if broken == "save_file":
            arguments[1].write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, broken, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(
        files, "flush", lambda path: events.append((path.name, path.is_dir(), target.exists()))
    )
    target = tmp_path / "a.safetensors"
    write_weights(target, 1, [1.0])
    (name, is_folder, renamed), last = events
    assert name.endswith(".partial") and not is_folder and not renamed
    assert last == (tmp_path.name, True, True)


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    path = write_weights(tmp_path / "a.safetensors", 1, [1.0])
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run and the bytes of its checkpoint."""
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    run = Run()
    run.step()
    run.save(path)
    return run, path.read_bytes()


@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_with_one_byte_changed_is_refused_or_reads_the_same(saved, tmp_path, data):
    run, content = saved
    place = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
    other = Run(seed=5)
    before = other.everything()
    try:
        other.load(path)
    except DamagedCheckpoint as refusal:
        sentence, expected = str(refusal), before
    else:
        sentence, expected = str(path), run.everything()
    assert str(path) in sentence
    assert_same(other.everything(), expected)


def test_every_byte_of_a_weight_is_guarded(saved, tmp_path):
    run, content = saved
    value = run.model[0].weight.detach().numpy().tobytes()
    place = content.index(value)
    for offset in range(0, len(value), 13):
        path = tmp_path / "changed.safetensors"
        changed = bytearray(content)
        changed[place + offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(
            DamagedCheckpoint,
            match=r"changed.safetensors is damaged: 'weights.0.weight' does not match",
        ):
            load_checkpoint(path, network(dtype=torch.float32))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_cut_off_file_is_refused_by_its_path(saved, tmp_path, share):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved[1][: int(share * len(saved[1]))])
    for read in (lambda: load_checkpoint(path, network()), lambda: average_checkpoints([path])):
        with pytest.raises(DamagedCheckpoint, match=r"cut.safetensors is not a whole checkpoint"):
            read()


def test_foreign_files_are_refused_by_their_path(tmp_path):
    save_file({"weights.a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("weights: none")
    for name, sentence in (
        ("foreign", "is not a checkpoint"),
        ("text", "is not a whole checkpoint"),
    ):
        with pytest.raises(DamagedCheckpoint, match=rf"{name}.safetensors {sentence}"):
            load_checkpoint(tmp_path / f"{name}.safetensors", network())
    for nowhere in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no file at {nowhere}"):
            load_checkpoint(nowhere, network())


# What does not fit


def narrow(run):
    run.model[3] = nn.Linear(5, 2)
    run.optimizer = torch.optim.Adam(run.model.parameters())


def deeper(run):
    run.model.append(nn.Linear(3, 3))
    run.optimizer = torch.optim.Adam(run.model.parameters())


def double(run):
    run.model.double()
    run.optimizer = torch.optim.Adam(run.model.parameters())


def reversed_order(run):
    run.optimizer = torch.optim.Adam(list(run.model.parameters())[::-1])


def another_optimizer(run):
    run.optimizer = torch.optim.SGD(run.model.parameters(), 0.1, momentum=0.9)


def another_average(run):
    run.ema = EMA(nn.Linear(7, 2), 0.9)


def strange_optimizer(run):
    run.optimizer = torch.optim.Adam(network().parameters())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (narrow, r"'3.weight' has shape \(3, 5\) in .*a.safetensors but \(2, 5\) in the model"),
        (double, r"is torch.float32 in .*a.safetensors but torch.float64 in the model"),
        (deeper, r"'4.bias' is in the model but not in .*a.safetensors"),
        (reversed_order, "groups of the optimizer hold the parameters"),
        (
            another_optimizer,
            r"a.safetensors was written with torch.optim.adam.Adam, not torch.optim.sgd.SGD",
        ),
        (strange_optimizer, "parameter 0 of the optimizer's group 0 is none of the model's"),
        (another_average, r"'module.0.bias' is in .*a.safetensors but not in the part 'ema'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_changes(tmp_path, change, sentence):
    first, second = Run(), Run(seed=5)
    first.step()
    second.step()
    first.save(tmp_path / "a.safetensors")
    change(second)
    before = second.everything()
    with pytest.raises(ValueError, match=sentence):
        second.load(tmp_path / "a.safetensors")
    assert_same(second.everything(), before)


def test_a_part_that_refuses_its_state_leaves_model_and_optimizer_alone(tmp_path):
    first, second = Run(), Run(seed=5)
    first.step()
    first.save(tmp_path / "a.safetensors")
    second.shadow = Shadow(nn.Linear(7, 2), 0.9)
    before = deepcopy((second.model.state_dict(), second.optimizer.state_dict()))
    with pytest.raises(ValueError, match="in the saved shadow but not in the model"):
        second.load(tmp_path / "a.safetensors")
    assert_same((second.model.state_dict(), second.optimizer.state_dict()), before)


def test_what_the_file_does_not_hold_is_refused_and_what_is_not_asked_for_stays_in_it(tmp_path):
    run = Run()
    run.step()
    save_checkpoint(tmp_path / "a.safetensors", run.model, None, 1, ema=run.ema)
    with pytest.raises(ValueError, match=r"a.safetensors was written without an optimizer"):
        load_checkpoint(tmp_path / "a.safetensors", run.model, run.optimizer)
    with pytest.raises(
        ValueError, match=r"a.safetensors holds no part 'average'; it holds \['ema'\]"
    ):
        load_checkpoint(tmp_path / "a.safetensors", run.model, average=run.ema)
    run.save(tmp_path / "b.safetensors")
    other = Run(seed=5)
    slots = deepcopy(other.optimizer.state_dict())
    assert load_checkpoint(tmp_path / "b.safetensors", other.model) == 1
    assert_equal_bits(state(other.model), state(run.model))
    assert_same(other.optimizer.state_dict(), slots)


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        ({"step": -1}, ValueError, "step must be a whole number of at least 0, got -1"),
        (
            {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)},
            ValueError,
            "none of the model's",
        ),
        (
            {"odd": {"rule": print}},
            TypeError,
            "parts.odd.rule is a builtin_function_or_method; a checkpoint holds",
        ),
        (
            {"odd": {"rules": [1, {2: print}]}},
            TypeError,
            "parts.odd.rules.1.2 is a builtin_function_or_method",
        ),
        (
            {"odd": {print: 3}},
            TypeError,
            "the key parts.odd.<built-in function print> is a builtin_function",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused_by_name_and_nothing_is_written(
    tmp_path, content, error, sentence
):
    class Odd:
        def state_dict(self):
            return content["odd"]

        def load_state_dict(self, state_dict):
            raise NotImplementedError

    parts = {"odd": Odd()} if "odd" in content else {}
    with pytest.raises(error, match=sentence):
        save_checkpoint(
            tmp_path / "a" / "b.safetensors",
            network(),
            content.get("optimizer"),
            content.get("step", 0),
            **parts,
        )
    assert list(tmp_path.iterdir()) == []
