"""What has no mean is not averaged: by `EMA`, by `Shadow`, and by the mean of files.

Buffers of every kind.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from noisy_training import assert_same
from steadydescent.normalization import BatchNorm, NoisyBatchNorm, draw_noise
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Shadow,
    average_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def averages(change, make, folder, updates=3, **options):
    """The state that each of the three averages has after some changes of a model."""
    model = make()
    ema, shadow = EMA(model, 0.5, **options), Shadow(model, 0.5, **options)
    shadow.register()
    paths = []
    for step in range(updates):
        change(model, step)
        ema.update(model)
        shadow.update()
        paths.append(folder / f"{step}.safetensors")
        save_checkpoint(paths[-1], model, None, step)
    return model, {
        "EMA": dict(ema.module.state_dict()),
        "Shadow": shadow.shadow,
        "files": average_checkpoints(paths, **options),
    }


class Holding(nn.Module):
    """A weight, and one buffer called `held`."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("held", value)


@torch.no_grad()
def shift(model, step):
    model.weight.fill_(step + 1.0)
    if model.held.dtype == torch.bool:
        model.held.copy_(torch.arange(model.held.numel()).view_as(model.held) % (step + 2) == 0)
    else:
        model.held.copy_((torch.ones(model.held.shape) * (2 * step + 3)).to(model.held.dtype))


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
]
DTYPES += [
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("size", [(), (0,), (1,), (33,), (3, 2)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_buffer_that_nobody_names_is_that_of_the_last_update(tmp_path, dtype, size):
    model, states = averages(shift, lambda: Holding(torch.ones(size).to(dtype)), tmp_path)
    for kind, state in states.items():
        assert torch.equal(
            state["held"].to(dtype).to(torch.complex128), model.held.to(torch.complex128)
        ), kind
        assert not torch.equal(state["weight"], model.weight), kind


@pytest.mark.parametrize("dtype", DTYPES[:6], ids=str)
def test_a_buffer_that_is_named_is_averaged(tmp_path, dtype):
    make = lambda: Holding(torch.zeros(3).to(dtype))
    for named in (["held"], {"he*"}, ["*"]):
        _, states = averages(shift, make, tmp_path, average_buffers=named)
        ours, shadows = states["EMA"]["held"][0], states["Shadow"]["held"][0]
        assert ours == shadows == 0.5 * 7 + 0.25 * 5 + 0.125 * 3
        assert states["files"]["held"][0] == 5.0
        assert (
            states["EMA"]["weight"][0] == 0.5 * 3 + 0.25 * 2 + 0.125
            and states["files"]["weight"][0] == 2.0
        )


NORMS = {
    "torch": lambda: nn.Sequential(nn.BatchNorm1d(3)),
    "ours": lambda: nn.Sequential(BatchNorm(3)),
    "sync": lambda: nn.Sequential(nn.SyncBatchNorm(3)),
    "instance": lambda: nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True)),
    "lazy": lambda: nn.Sequential(nn.LazyBatchNorm1d()),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("average_buffers", [True, False])
def test_statistics_of_batch_norms_are_averaged_or_not(tmp_path, norm, average_buffers):
    def make():
        model = NORMS[norm]()
        if norm == "lazy":
            model(torch.randn(7, 3))
        for buffer in model.buffers():
            buffer.zero_()
        return model

    def change(model, step):
        model[0].running_mean.fill_(4.0 * step)
        model[0].running_var.fill_(8.0 * step)

    _, states = averages(change, make, tmp_path, average_buffers=average_buffers)
    for kind, mean in (("EMA", 5.0), ("Shadow", 5.0), ("files", 4.0)):
        expected = mean if average_buffers else 8.0
        assert states[kind]["0.running_mean"].unique().item() == expected
        assert states[kind]["0.running_var"].unique().item() == 2 * expected


def test_spectral_norms_unit_vectors_stay_units_and_masks_stay_masks(tmp_path):
    torch.manual_seed(0)

    def make():
        model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 5)), nn.Linear(5, 5))
        prune.random_unstructured(model[1], "weight", 0.5)
        return model

    def change(model, step):
        with torch.no_grad():
            model[0].parametrizations.weight.original.normal_()
            model[1].weight_mask.copy_(torch.rand(5, 5) < 0.5)
        model(torch.randn(3, 5))

    _, states = averages(change, make, tmp_path, updates=7)
    for kind, state in states.items():
        units = [
            value.norm().item() for name, value in state.items() if name.endswith(("_u", "_v"))
        ]
        assert units == pytest.approx([1.0, 1.0], abs=1e-6), kind
        assert set(state["1.weight_mask"].unique().tolist()) <= {0.0, 1.0}


def test_averages_of_spectrally_normalised_layers_have_no_larger_norm_than_the_model():
    """Averaged unit vectors that turn are short.

    So the norm that they give, by which weights are divided, is too small.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        *[parametrizations.spectral_norm(nn.Linear(16, 16, bias=False)) for _ in range(4)]
    )
    optimizer, x = torch.optim.Adam(model.parameters()), torch.randn(64, 16)
    ours = EMA(model, Debiased(0.99))
    all_of_them = EMA(model, Debiased(0.99), average_buffers=["*"])
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - x.flip(1)).square().mean().backward()
        optimizer.step()
        ours.update(model)
        all_of_them.update(model)
    norm = lambda of: max(torch.linalg.matrix_norm(layer.weight, 2).item() for layer in of.eval())
    assert norm(ours.module) < norm(model) < 1.1 and norm(all_of_them.module) > 10


@pytest.mark.parametrize("bad", ["held", ["hold"], ["held", "x*"], 3, [3]], ids=str)
def test_names_of_no_buffer_are_refused(tmp_path, bad):
    make = lambda: Holding(torch.ones(2))
    save_checkpoint(tmp_path / "a.safetensors", make(), None, 1)
    for use in (
        lambda: EMA(make(), 0.5, average_buffers=bad),
        lambda: Shadow(make(), 0.5, average_buffers=bad),
        lambda: average_checkpoints([tmp_path / "a.safetensors"], average_buffers=bad),
    ):
        with pytest.raises(
            ValueError, match=r"average_buffers (must be True, False or a list|has '(hold|x\*)')"
        ):
            use()
    with pytest.raises(
        ValueError,
        match=r"has 'held', which is no buffer .* whose values have a mean; there are \[\]",
    ):
        EMA(Holding(torch.tensor(3)), 0.5, average_buffers=["held"])


# Buffers that are no part of the state


class Passing(nn.Module):
    """A weight, and a buffer beside the state."""

    def __init__(self, value=None):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("passing", value, persistent=False)


@pytest.mark.parametrize(
    "values",
    [
        [torch.ones(()), torch.tensor(3.0)],
        [None, torch.ones(2)],
        [torch.ones(2), None, torch.ones(3)],
        [torch.ones(2), torch.ones(5, 3), torch.ones(0)],
        [torch.tensor([1, 2]), torch.tensor([3, 4])],
        [torch.tensor([True]), torch.tensor([False])],
        [torch.tensor([1j]), torch.tensor([2j])],
    ],
    ids=["in place", "lazy", "gone and back", "growing", "integer", "bool", "complex"],
)
@pytest.mark.parametrize("anew", [False, True])
def test_buffers_outside_the_state_follow_the_last_update_in_the_module(values, anew):
    model = Passing(values[0])
    ema = EMA(model, 0.5)
    for value in values[1:]:
        if anew:
            del model.passing
            model.register_buffer("passing", value, persistent=False)
        elif value is not None and model.passing is not None and model.passing.shape == value.shape:
            model.passing.copy_(value)
        else:
            model.passing = value
        ema.update(model)
        assert_same(ema.module.passing, value)
        assert (
            value is None
            or ema.module.passing.data_ptr() != model.passing.data_ptr()
            or value.numel() == 0
        )
    assert set(ema.module.state_dict()) == {"layer.weight", "layer.bias"}


def test_a_buffer_outside_the_state_that_comes_later_is_taken_too():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.5)
    model.register_buffer("late", torch.ones(3), persistent=False)
    ema.update(model)
    assert torch.equal(ema.module.late, model.late) and "late" not in ema.module.state_dict()


def test_half_precision_follows_in_the_dtype_of_the_average():
    model = Passing(torch.ones(2)).to(torch.bfloat16)
    ema = EMA(model, 0.5)
    model.passing = torch.full((3,), 2.0, dtype=torch.bfloat16)
    ema.update(model)
    assert ema.module.passing.dtype == ema.module.layer.weight.dtype == torch.float32
    assert ema.module.passing.unique().item() == 2.0


def test_noise_of_the_next_batch_does_not_disturb_an_average():
    model = nn.Sequential(NoisyBatchNorm(3))
    ema, generator = EMA(model, 0.5), torch.Generator().manual_seed(0)
    for size in (7, 5, 7):
        draw_noise(model, size, generator)
        model(torch.randn(size, 3, generator=generator))
        ema.update(model)
    ema(torch.ones(2, 3))


# Buffers of the state that change in kind


@pytest.mark.parametrize("average", ["EMA", "Shadow"])
def test_buffers_of_the_state_that_come_go_or_grow_are_refused_by_name_and_nothing_changes(average):
    for change, sentence in (
        (
            lambda model: setattr(model, "held", torch.ones(5)),
            r"'held' has shape \(2,\) in .* but \(5,\) in the model",
        ),
        (lambda model: setattr(model, "held", None), r"'held' is in .* but not in the model"),
        (
            lambda model: model.register_buffer("late", torch.ones(1)),
            r"'late' is in the model but not in",
        ),
    ):
        model = Holding(torch.ones(2))
        if average == "EMA":
            made = EMA(model, 0.5)
            update, state = (lambda made=made, model=model: made.update(model)), made.state_dict
        else:
            made = Shadow(model, 0.5)
            made.register()
            update, state = made.update, made.state_dict
        nn.init.constant_(model.weight, 3.0)
        before = {name: str(value) for name, value in state().items()}
        change(model)
        with pytest.raises(ValueError, match=sentence):
            update()
        assert {name: str(value) for name, value in state().items()} == before


def test_a_buffer_registered_anew_is_taken():
    model = Holding(torch.ones(2))
    ema = EMA(model, 0.5)
    del model.held
    model.register_buffer("held", torch.full((2,), 3.0))
    ema.update(model)
    assert ema.module.held.unique().item() == 3.0


def test_buffers_whose_elements_share_memory_are_copied_swapped_and_put_back(tmp_path):
    model = Holding(torch.ones(1).expand(5))
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    model.held = torch.full((1,), 2.0).expand(5)
    ema.update(model)
    shadow.update()
    model.held = torch.full((1,), 3.0).expand(5)
    for block, inside in (
        (ema.swapped(model), ema.module.held),
        (shadow.applied(), shadow.shadow["held"]),
    ):
        assert inside.tolist() == [2.0] * 5
        with block:
            assert model.held.tolist() == [2.0] * 5
        assert model.held.tolist() == [3.0] * 5
    save_checkpoint(tmp_path / "a.safetensors", model, None, 1)
    load_checkpoint(tmp_path / "a.safetensors", Holding(torch.ones(5)))


# Ties


def test_weights_that_are_tied_or_untied_later_are_refused_by_both_names():
    make = lambda: nn.ModuleDict({"e": nn.Embedding(5, 3), "h": nn.Linear(3, 5, bias=False)})
    model = make()
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    model["h"].weight = model["e"].weight
    with pytest.raises(
        ValueError, match=r"'h.weight' is tied to 'e.weight' in the model but not in the average"
    ):
        ema.update(model)
    with pytest.raises(
        ValueError, match=r"'h.weight' is tied to 'e.weight' in the model but not in the shadow"
    ):
        shadow.update()
    tied = EMA(model, 0.5)
    with pytest.raises(
        ValueError, match=r"'h.weight' is tied to 'e.weight' in the average but not in the model"
    ):
        tied.update(make())
    shared = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    ema = EMA(shared, 0.5)
    shared["b"] = shared["a"]  # the layer itself
    with pytest.raises(
        ValueError, match=r"'b.bias' is tied to 'a.bias' in the model but not in the average"
    ):
        ema.update(shared)


def test_a_state_with_two_values_for_tied_names_is_refused_by_both_and_nothing_changes(tmp_path):
    untied, tied = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    tied[1].weight = tied[0].weight
    ema = EMA(tied, 0.5)
    before = copy.deepcopy((tied.state_dict(), ema.state_dict()))
    sentence = (
        r"'1.weight' is tied to '0.weight' in the model but has other values in .*a.safetensors"
    )
    save_checkpoint(tmp_path / "a.safetensors", untied, None, 1, ema=EMA(untied, 0.5))
    with pytest.raises(ValueError, match=sentence):
        load_checkpoint(tmp_path / "a.safetensors", tied)
    with pytest.raises(
        ValueError, match=r"'module.1.weight' is tied to 'module.0.weight' in the average"
    ):
        ema.load_state_dict(EMA(untied, 0.5).state_dict())
    shadow = Shadow(untied, 0.5)
    shadow.register()
    with pytest.raises(ValueError, match=r"'1.weight' is tied to '0.weight' in the model"):
        Shadow(tied, 0.5).load_state_dict(shadow.state_dict())
    assert_same((tied.state_dict(), ema.state_dict()), before)
    nn.init.constant_(tied[0].weight, float("nan"))  # a run that diverged: still one value for both
    save_checkpoint(tmp_path / "b.safetensors", tied, None, 1, ema=EMA(tied, 0.5))
    load_checkpoint(tmp_path / "b.safetensors", tied, ema=ema)
    with torch.no_grad():
        untied[1].weight.copy_(untied[0].weight)
    save_checkpoint(tmp_path / "c.safetensors", untied, None, 1)
    load_checkpoint(tmp_path / "c.safetensors", tied)
