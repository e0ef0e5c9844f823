"""The mean of checkpoints, and which are the last ones."""

from copy import deepcopy
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from noisy_training import Run, assert_equal_bits, assert_same, network, state, train, write_weights
from steadydescent.weight_averaging import (
    EMA,
    DamagedCheckpoint,
    TailMean,
    average_checkpoints,
    checkpoint_files,
    last_checkpoints,
    save_checkpoint,
)

# The mean of checkpoints


@pytest.mark.worked("opennmt-tf")
def test_the_average_of_the_last_two_checkpoints_is_the_exact_mean_and_leaves_slots_out(tmp_path):
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    for step, shift in ((5, 9.0), (10, 1.0), (15, 2.0)):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, -3.0], [0.5, 7.0]]) * shift)
            layer.bias.fill_(shift)
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        with torch.no_grad():  # the weights of the example, the slots of a real step
            layer.weight.copy_(torch.tensor([[1.0, -3.0], [0.5, 7.0]]) * shift)
            layer.bias.fill_(shift)
        save_checkpoint(tmp_path / f"{step}.safetensors", layer, optimizer, step)
    mean = average_checkpoints(last_checkpoints(tmp_path, 2))
    assert set(mean) == {"weight", "bias"}
    assert mean["weight"].tolist() == [[1.5, -4.5], [0.75, 10.5]]
    assert mean["bias"].tolist() == [1.5, 1.5]
    slots = deepcopy(optimizer.state_dict())
    layer.load_state_dict(mean)
    assert_same(optimizer.state_dict(), slots)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mean_is_the_rational_mean_rounded_once(tmp_path, values):
    paths = [
        write_weights(tmp_path / f"{i}.safetensors", i, [value]) for i, value in enumerate(values)
    ]
    exact = sum(map(Fraction, values)) / len(values)
    assert average_checkpoints(paths)["w0"].item() == pytest.approx(
        float(exact), rel=2**-23, abs=1e-9
    )


def test_sums_are_kept_in_double_where_those_of_half_precision_would_lose_the_small_ones(tmp_path):
    values = [256.0] + [1.0] * 15
    paths = [
        write_weights(tmp_path / f"{i}.safetensors", i, torch.tensor([value], dtype=torch.bfloat16))
        for i, value in enumerate(values)
    ]
    mean = average_checkpoints(paths)["w0"]
    assert mean.dtype == torch.bfloat16
    assert mean.item() == torch.tensor(271 / 16).bfloat16().item()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_float_buffers_are_averaged_and_integers_and_flags_are_the_newest(tmp_path, order):
    paths = [
        write_weights(
            tmp_path / f"{i}.safetensors", 10 * i, mean=[3.0 * i], count=[i * 7], flag=i == 2
        )
        for i in range(3)
    ]
    mean = average_checkpoints([paths[i] for i in order])
    assert mean["mean"].tolist() == [3.0]
    assert mean["count"].tolist() == [14] and mean["count"].dtype == torch.int64
    assert mean["flag"].item() is True


def test_average_of_one_checkpoint_is_its_weights(tmp_path):
    model = network()
    list(train(model, 7))
    save_checkpoint(tmp_path / "a.safetensors", model, None, 7)
    assert_equal_bits(average_checkpoints([tmp_path / "a.safetensors"]), state(model))


def test_checkpoints_at_every_step_average_to_the_tail_mean(tmp_path):
    """The mean of files is the mean that `EMA` keeps along the way."""
    model = network()
    tail = EMA(model, TailMean(start=8))
    for step, _ in enumerate(train(model, 12), start=1):
        tail.update(model)
        save_checkpoint(tmp_path / f"{step}.safetensors", model, None, step)
    mean = average_checkpoints(last_checkpoints(tmp_path, 5))
    assert mean.keys() == tail.module.state_dict().keys()
    for name, value in tail.module.state_dict().items():
        torch.testing.assert_close(mean[name], value, rtol=1e-12, atol=1e-14)


def test_files_are_read_one_at_a_time_and_slots_not_at_all(tmp_path, monkeypatch):
    run, read = Run(), []
    for step in (1, 2):
        run.step()
        run.save(tmp_path / f"{step}.safetensors")
    tensor = checkpoint_files.CheckpointFile._tensor
    monkeypatch.setattr(
        checkpoint_files.CheckpointFile,
        "_tensor",
        lambda file, name, digest: (
            read.append((file.path.stem, name)),
            tensor(file, name, digest),
        )[1],
    )
    average_checkpoints(last_checkpoints(tmp_path, 2))
    assert {name.partition(".")[0] for _, name in read} == {"weights"}
    assert [stem for stem, _ in read] == ["1"] * 9 + ["2"] * 9  # not once more for the order


def test_averages_that_cannot_be_are_refused_by_name(tmp_path):
    first = write_weights(tmp_path / "1.safetensors", 1, [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one checkpoint, got none"):
        average_checkpoints([])
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match=r"1.safetensors is given twice and would count twice"):
        average_checkpoints([first, tmp_path / "x" / ".." / "1.safetensors"])
    for other, sentence in (
        (
            write_weights(tmp_path / "2.safetensors", 2, [1.0]),
            r"'w0' has shape \(2,\) in .*1.safetensors but \(1,\)",
        ),
        (
            write_weights(tmp_path / "3.safetensors", 2, a=[1.0]),
            r"'a' is in .*3.safetensors but not in .*1.safeten",
        ),
        (
            write_weights(tmp_path / "4.safetensors", 2, torch.zeros(2).double()),
            r"'w0' is torch.float32 in .*1.safetensors but torch.float64 in .*4.safetensors",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            average_checkpoints([first, other])


# The last ones of a folder


def test_last_checkpoints_are_ordered_by_step_not_by_name(tmp_path):
    for step in (100, 20, 3):
        write_weights(tmp_path / f"at-{step}.safetensors", step, [1.0])
    assert [path.name for path in last_checkpoints(tmp_path, 2)] == [
        "at-20.safetensors",
        "at-100.safetensors",
    ]
    assert len(last_checkpoints(tmp_path, 3)) == 3


def test_folders_that_do_not_say_which_are_the_last_are_refused(tmp_path):
    write_weights(tmp_path / "a.safetensors", 3, [1.0])
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, got 0"):
        last_checkpoints(tmp_path, 0)
    with pytest.raises(ValueError, match="holds 1 checkpoints, fewer than the 2 asked for"):
        last_checkpoints(tmp_path, 2)
    write_weights(tmp_path / "best.safetensors", 3, [1.0])
    with pytest.raises(
        ValueError, match=r"a.safetensors and .*best.safetensors are both of step 3"
    ):
        last_checkpoints(tmp_path, 1)
    assert last_checkpoints(tmp_path, 1, pattern="a*") == [tmp_path / "a.safetensors"]
    save_file({"weights.a": torch.zeros(3)}, tmp_path / "c.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"c.safetensors is not a checkpoint"):
        last_checkpoints(tmp_path, 1, pattern="[ac]*")
