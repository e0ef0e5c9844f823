"""Where an average's tensors are: shared memory, copies and pickles, casts, devices."""

import copy
import pickle

import pytest
import torch
from torch import nn

from noisy_training import assert_equal_bits, assert_same, network, state
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Shadow,
    average_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

# Memory that is shared


class Viewing(nn.Module):
    """A weight, and buffers of its state in the weight's memory."""

    def __init__(self, view):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 2))
        self.register_buffer("held", view(self.weight.detach()))
        self.register_buffer("beside", torch.zeros(2))


VIEWS = {
    "whole": lambda weight: weight,
    "rows": lambda weight: weight[2:4],
    "columns": lambda weight: weight.t()[1:],
    "expanded": lambda weight: weight[:1, :1].expand(3, 3),
    "bits": lambda weight: weight.view(torch.int32),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_buffer_in_the_memory_of_a_weight_leaves_the_average_standing(tmp_path, view):
    """All three averages of a model's weights are those of a model without the buffer."""
    plain = nn.Module()
    plain.weight = nn.Parameter(torch.zeros(6, 2))
    model = Viewing(VIEWS[view])
    forms = {}
    for one in (plain, model):
        ema, shadow, paths = EMA(one, 0.5), Shadow(one, 0.5), []
        shadow.register()
        for step in (1, 2):
            nn.init.constant_(one.weight, step)
            ema.update(one)
            shadow.update()
            paths.append(tmp_path / f"{step}.safetensors")
            save_checkpoint(paths[-1], one, None, step)
        for form, block in (("EMA", ema.swapped(one)), ("Shadow", shadow.applied())):
            with block:
                forms.setdefault(form, []).append(one.weight.clone())
            assert one.weight.unique().item() == 2.0
        forms.setdefault("files", []).append(average_checkpoints(paths)["weight"])
    for form, (expected, value) in forms.items():
        assert torch.equal(value, expected), form
    if view not in ("bits", "expanded"):  # torch's loader writes into no expanded tensor
        one.load_state_dict(average_checkpoints(paths))
        assert torch.equal(one.weight, forms["files"][0])
    if view != "bits":
        assert torch.equal(ema.module.held, VIEWS[view](ema.module.weight))
    nn.init.constant_(model.weight, 7.0)
    assert torch.equal(model.held, VIEWS[view](model.weight.detach()))  # still one memory


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("names", [["*"], ["first"]])
def test_buffers_that_share_memory_are_mixed_once(names, persistent):
    model, values = nn.Module(), torch.zeros(3)
    model.register_buffer("first", values)
    model.register_buffer("second", values[1:], persistent=persistent)
    ema = EMA(model, 0.75, average_buffers=names)
    shadow = Shadow(model, 0.75, average_buffers=names)
    shadow.register()
    values.fill_(1.0)
    ema.update(model)
    shadow.update()
    for block in (ema.swapped(model), shadow.applied()):
        with block:
            assert model.first.tolist() == [0.25] * 3 and model.second.tolist() == [0.25] * 2
        assert values.tolist() == [1.0] * 3


def test_weights_in_one_storage_that_do_not_overlap_a_buffer_leave_it_alone():
    whole, model = torch.zeros(6), nn.Module()
    model.weight = nn.Parameter(whole[:3])
    model.register_buffer("held", whole[3:])
    ema = EMA(model, 0.5)
    whole.fill_(1.0)
    ema.update(model)
    assert ema.module.weight.tolist() == [0.5] * 3 and ema.module.held.tolist() == [1.0] * 3


def test_an_expanded_buffer_still_follows_its_base_after_a_block():
    model = nn.Module()
    model.register_buffer("held", torch.ones(1))
    model.register_buffer("mask", model.held.expand(3))
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    for value, block in ((2.0, ema.swapped(model)), (3.0, shadow.applied())):
        with block:
            pass
        model.held.fill_(value)
        assert model.mask.tolist() == [value] * 3


# Copies and pickles of averages that are swapped in

WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_made_in_a_block_works_and_has_the_trained_weights(way):
    model = network()
    model[3].weight = nn.Parameter(model[3].weight.detach())
    model.append(nn.Linear(1, 1))
    model.append(model[-1])  # tied
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    before = state(model)
    with ema.swapped(model):
        other = WAYS[way](ema)
    other.update(model)
    with other.swapped(model):
        assert_equal_bits(state(model), state(other.module))
    assert_equal_bits(state(model), before)
    with shadow.applied():
        applied = WAYS[way](shadow)
    applied.restore()
    assert_equal_bits(state(applied.model), before)
    applied.update()
    assert applied.updates == 1 and shadow.updates == 0


# Casts and devices


@pytest.mark.parametrize(
    "cast", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("asked", [None, torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_cast_leaves_an_average_the_bits_that_it_needs(asked, cast):
    parent = nn.ModuleList([EMA(nn.Linear(3, 2), 0.999, dtype=asked)])
    kept = parent[0].module.weight.clone()
    parent.to(cast)
    mean = parent[0].module.weight
    narrow = cast.itemsize < 4 and asked is not torch.bfloat16
    assert mean.dtype == (kept.dtype if narrow else cast)
    assert torch.equal(mean, kept.to(mean.dtype))


def test_the_average_of_a_model_in_half_precision_moves_after_a_cast():
    model = nn.Linear(3, 2).bfloat16()
    nn.init.constant_(model.weight, 1.0)
    ema = EMA(model, 0.999).to(torch.bfloat16)
    nn.init.constant_(model.weight, 2.0)
    ema.update(model)
    assert ema.module.weight.mean().item() == pytest.approx(1.001, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_an_average_in_8_bits_is_refused(dtype):
    with pytest.raises(ValueError, match=f"of 16 bits or more, got {dtype}"):
        EMA(nn.Linear(2, 2), 0.5, dtype=dtype)


def test_weights_stay_where_they_are_under_another_default_device(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    with torch.device("meta"):
        ema, shadow = EMA(model, Debiased(0.9)), Shadow(model, Debiased(0.9))
        shadow.register()
        for _ in range(3):
            ema.update(model)
            shadow.update()
        assert ema.state_dict()["_extra_state"].device.type == "cpu"
        with ema.swapped(model), shadow.applied():
            pass
        parts = {"ema": ema, "shadow": shadow}
        save_checkpoint(tmp_path / "a.safetensors", model, optimizer, 1, **parts)
        before = copy.deepcopy((model.state_dict(), ema.state_dict()))
        load_checkpoint(tmp_path / "a.safetensors", model, optimizer, **parts)
        mean = average_checkpoints([tmp_path / "a.safetensors"])
    assert_same((model.state_dict(), ema.state_dict()), before)
    assert_same({name: mean[name] for name in mean}, dict(model.state_dict()))
