"""Loading is all or nothing: the model's own loader judges names, and extra state travels."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from noisy_training import assert_same
from steadydescent import optimizers
from steadydescent.normalization import BatchNorm
from steadydescent.weight_averaging import (
    EMA,
    Shadow,
    average_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


# Extra state of any kind


class Keeping(nn.Linear):
    """A layer with an extra state."""

    def __init__(self, kept=None):
        super().__init__(2, 2)
        self.kept = kept

    def get_extra_state(self):
        return self.kept

    def set_extra_state(self, state):
        self.kept = state


KEPT = [
    {"calls": 7},
    3,
    "a",
    None,
    [1, (2, None)],
    torch.ones(3),
    torch.tensor(4),
    b"scales",
    {1: torch.ones(2)},
]


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: type(kept).__name__)
def test_extra_state_travels_in_files_averages_and_means(path, kept):
    model, fresh = nn.Sequential(Keeping(kept)), nn.Sequential(Keeping())
    shadow = Shadow(model, 0.5)
    shadow.register()
    ema = EMA(model, 0.5)
    save_checkpoint(path, model, None, 1, ema=ema, shadow=shadow)
    other = EMA(fresh, 0.5)
    load_checkpoint(path, fresh, ema=other, shadow=Shadow(fresh, 0.5))
    assert_same(fresh[0].kept, kept)
    assert_same(other.module[0].kept, kept)
    other = EMA(nn.Sequential(Keeping()), 0.5)
    other.load_state_dict(ema.state_dict())
    assert_same(other.module[0].kept, kept)
    with shadow.applied(), ema.swapped(model):
        pass
    mean = average_checkpoints([path])
    assert_same(mean["0._extra_state"], kept)
    fresh.load_state_dict(mean)


def test_an_average_holds_the_extra_state_of_the_last_update_and_shares_it_with_nobody():
    model = Keeping({"calls": 1})
    ema = EMA(model, 0.5)
    model.kept["calls"] = 2
    assert ema.module.kept == {"calls": 1}
    ema.update(model)
    assert ema.module.kept == {"calls": 2}
    model.kept["calls"] = 3
    assert ema.module.kept == {"calls": 2}


def test_the_mean_of_files_has_the_extra_state_of_the_newest(tmp_path):
    for step, kept in ((2, "new"), (1, "old")):
        save_checkpoint(tmp_path / f"{kept}.safetensors", Keeping(kept), None, step)
    for order in (("new", "old"), ("old", "new")):
        mean = average_checkpoints([tmp_path / f"{kept}.safetensors" for kept in order])
        assert mean["_extra_state"] == "new"


# Names


def torchs():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def ours():
    return nn.Sequential(nn.Linear(2, 2), BatchNorm(2))


def test_torchs_batch_norm_and_ours_load_each_others_files_and_averages(path):
    for first, second in ((torchs, ours), (ours, torchs)):
        model, other = first(), second()
        model(torch.randn(7, 2))
        ema, theirs = EMA(model, 0.5), EMA(other, 0.5)
        save_checkpoint(path, model, torch.optim.Adam(model.parameters()), 1, ema=ema)
        load_checkpoint(path, other, torch.optim.Adam(other.parameters()), ema=theirs)
        fresh = EMA(second(), 0.5)
        fresh.load_state_dict(ema.state_dict())
        for loaded in (other, theirs.module, fresh.module):
            assert torch.equal(loaded[1].running_mean, model[1].running_mean)
            assert torch.equal(loaded[0].weight, model[0].weight)


@pytest.mark.filterwarnings("ignore")
def test_a_modules_own_hooks_rename_old_weights(path):
    old = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 3)))
    new = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 3)))
    ema = EMA(old, 0.5)
    save_checkpoint(path, old, None, 1, ema=ema)
    theirs = EMA(copy.deepcopy(new), 0.5)
    load_checkpoint(path, new, ema=theirs)
    for loaded in (new, theirs.module):
        torch.testing.assert_close(loaded[0].weight, old[0].weight)


@pytest.mark.filterwarnings("ignore")
def test_versions_that_loaders_ask_for_are_kept(path):
    """torch's older spectral norm tells by its version what its state holds."""
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 3)))
    model, other = make(), make()
    model(torch.ones(1, 2))
    save_checkpoint(path, model, None, 1)
    load_checkpoint(path, other)
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


class Renaming(nn.Linear):
    """Calls its weight by another name in its state."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_state_dict_post_hook(
            lambda module, state, prefix, _: state.update(w=state.pop("weight"))
        )
        self.register_load_state_dict_pre_hook(
            lambda module, state, *_: state.update(weight=state.pop("w"))
        )


def test_weights_that_a_hook_renames_are_averaged_as_weights(tmp_path):
    model = Renaming()
    for step, value in enumerate((1.0, 3.0)):
        nn.init.constant_(model.weight, value)
        save_checkpoint(tmp_path / f"{step}.safetensors", model, None, step)
    mean = average_checkpoints([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert mean["w"].unique().item() == 2.0
    load_checkpoint(tmp_path / "0.safetensors", model)
    assert model.weight.unique().item() == 1.0


# All or nothing


class Refusing(nn.Linear):
    """Takes all its tensors and then says no."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_load_state_dict_post_hook(self.refuse)
        self.willing = True

    def refuse(self, module, keys):
        if not self.willing:
            raise RuntimeError("not today")


def test_a_loader_that_refuses_in_the_middle_leaves_model_optimizer_and_parts_as_they_were(path):
    model = nn.Sequential(nn.Linear(2, 2), Refusing(), Keeping({"calls": 3}))
    ema, optimizer = EMA(model, 0.5), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    save_checkpoint(path, model, optimizer, 1, ema=ema)
    model[1].willing = False
    nn.init.constant_(model[0].weight, 5.0)
    model[2].kept = {"calls": 4}
    ema.update(model)
    identities = [id(tensor) for tensor in model.parameters()]
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), ema.state_dict()))
    with pytest.raises(RuntimeError, match="not today"):
        load_checkpoint(path, model, optimizer, ema=ema)
    assert_same((model.state_dict(), optimizer.state_dict(), ema.state_dict()), before)
    assert identities == [id(tensor) for tensor in model.parameters()]


@pytest.mark.parametrize("assign", [False, True])
def test_an_averages_load_that_is_refused_changes_nothing(assign):
    ema, before = EMA(torchs(), 0.5), None
    before = copy.deepcopy(ema.state_dict())
    bad = EMA(torchs(), 0.5).state_dict()
    bad["_extra_state"] = torch.tensor(7)
    bad["module.1.running_var"] = torch.ones(3)
    with pytest.raises(
        ValueError, match=r"'module.1.running_var' has shape \(3,\) in the saved average but \(2,\)"
    ):
        ema.load_state_dict(bad, assign=assign)
    assert_same(dict(ema.state_dict()), dict(before))
    assert ema.updates == 0


# An optimiser as a part


def wide_momentum(parameters, **options):
    """SGD whose momentum has more bits than its weights."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, **options)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            momentum = torch.full_like(parameter, 1.0009765625, dtype=torch.float32)
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return optimizer


@pytest.mark.parametrize("owner", ["model", "part", "nobody"])
def test_an_optimizer_comes_back_as_a_part_as_it_does_as_the_optimizer(path, owner):
    model, other = nn.Linear(3, 2).bfloat16(), nn.Linear(3, 2).bfloat16()
    optimizer = wide_momentum((model if owner == "model" else other).parameters())
    before = copy.deepcopy(optimizer.state_dict())
    parts = {"optimizer_2": optimizer, **({"other": other} if owner == "part" else {})}
    save_checkpoint(path, model, None, 1, **parts)
    for slots in optimizer.state.values():
        slots["momentum_buffer"] = torch.zeros_like(slots["momentum_buffer"])
    load_checkpoint(path, model, None, **parts)
    assert_same(optimizer.state_dict(), before)


def test_a_failed_load_gives_an_optimizer_that_is_a_part_its_slots_back(path):
    model = nn.Sequential(nn.Linear(3, 2).bfloat16(), Refusing())
    optimizer, last = wide_momentum(model.parameters()), Refusing()
    save_checkpoint(path, model, None, 1, second=optimizer, last=last)
    optimizer.param_groups[0]["lr"] = 7.0
    before, last.willing = copy.deepcopy(optimizer.state_dict()), False
    with pytest.raises(RuntimeError, match="not today"):
        load_checkpoint(path, model, None, second=optimizer, last=last)
    assert_same(optimizer.state_dict(), before)


def test_groups_in_another_order_are_refused_of_a_part_too(path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": layer.parameters()} for layer in model]
    save_checkpoint(path, model, None, 1, second=torch.optim.SGD(groups, lr=0.1))
    groups = [{"params": layer.parameters()} for layer in reversed(model)]
    with pytest.raises(
        ValueError, match=r"groups of the part 'second' hold the parameters \[\['1.weight'"
    ):
        load_checkpoint(path, model, None, second=torch.optim.SGD(groups, lr=0.1))


class Counting(torch.optim.SGD):
    """Adds to torch's state."""

    seen = 0

    def state_dict(self):
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state.pop("seen")
        super().load_state_dict(state)


def test_what_an_optimizer_adds_to_its_state_comes_back_of_a_part(path):
    model = nn.Linear(2, 2)
    optimizer, other = Counting(model.parameters(), 0.1), Counting(model.parameters(), 0.1)
    optimizer.seen = 5
    save_checkpoint(path, model, None, 1, second=optimizer)
    load_checkpoint(path, model, None, second=other)
    assert other.seen == 5


# Models that hold no values


def test_a_model_on_the_meta_device_is_refused_by_name(path):
    save_checkpoint(path, nn.Linear(2, 2), None, 1)
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    sentence = (
        "'weight' in the model is on the meta device and holds no values; give it memory before"
    )
    for use in (
        lambda: load_checkpoint(path, model),
        lambda: save_checkpoint(path, model, None, 2),
        lambda: EMA(model, 0.5),
        lambda: Shadow(model, 0.5).register(),
        lambda: EMA(nn.Linear(2, 2), 0.5).update(model),
    ):
        with pytest.raises(ValueError, match=sentence):
            use()
    assert load_checkpoint(path, model.to_empty(device="cpu")) == 1


def test_a_lazy_model_is_refused_by_name_until_it_has_seen_a_batch(path):
    model = nn.Sequential(nn.LazyLinear(2))
    for use in (
        lambda: save_checkpoint(path, model, None, 2),
        lambda: EMA(model, 0.5),
        lambda: Shadow(model, 0.5).register(),
    ):
        with pytest.raises(
            ValueError, match=r"'0.weight' in the model is not initialised yet; call the model once"
        ):
            use()
    known = nn.Sequential(nn.Linear(3, 2))
    save_checkpoint(path, known, None, 2)
    load_checkpoint(path, model)  # torch's lazy layers take shapes from a state
    assert torch.equal(model[0].weight, known[0].weight)
    EMA(model, 0.5).update(model)


# Optimisers that share their states with torch's


class Twin(torch.optim.SGD):
    torch_class = torch.optim.SGD


class Other(torch.optim.SGD):
    torch_class = torch.optim.SGD


def test_an_optimizer_takes_and_gives_the_state_of_the_one_of_torchs_that_it_names(path):
    model = nn.Linear(2, 2)
    made = {
        kind: kind(model.parameters(), 0.1, momentum=0.9) for kind in (Twin, Other, torch.optim.SGD)
    }
    for kind, optimizer in made.items():
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        save_checkpoint(path, model, optimizer, 1)
        for other in {Twin, torch.optim.SGD} if kind is not Other else {Other, torch.optim.SGD}:
            fresh = other(model.parameters(), 0.3, momentum=0.5)
            load_checkpoint(path, model, fresh)
            assert_same(fresh.state_dict(), optimizer.state_dict())
        if kind is not torch.optim.SGD:
            with pytest.raises(ValueError, match="was written with"):
                load_checkpoint(path, model, made[Other if kind is Twin else Twin])


TWINS = {
    "adam": (optimizers.Adam, torch.optim.Adam, {}),
    "adamw": (optimizers.AdamW, torch.optim.AdamW, {}),
    "rmsprop": (optimizers.RMSProp, torch.optim.RMSprop, {}),
    "sgd": (optimizers.SGD, torch.optim.SGD, {}),
    "momentum": (optimizers.Momentum, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (optimizers.Nesterov, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


@pytest.mark.parametrize("back", [False, True], ids=["from torch", "to torch"])
@pytest.mark.parametrize("rule", TWINS)
def test_a_checkpoint_of_torchs_optimizer_goes_on_with_ours_and_back(rule, back, tmp_path):
    ours, theirs, hyper = TWINS[rule]
    makes = [
        lambda m: theirs(m.parameters(), lr=0.1, **hyper),
        lambda m: ours(m.parameters(), lr=0.1),
    ]
    before, after = reversed(makes) if back else makes
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    def train(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer, other = before(whole), after(fresh)
    train(whole, optimizer)
    save_checkpoint(tmp_path / "a.safetensors", whole, optimizer, 3)
    train(whole, optimizer)
    load_checkpoint(tmp_path / "a.safetensors", fresh, other)
    train(fresh, other)
    torch.testing.assert_close(fresh.weight, whole.weight, rtol=1e-6, atol=1e-7)
