"""Misuse of averages and checkpoints: refused by a sentence, and everything is as it was."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from noisy_training import Run, assert_equal_bits, assert_same, network, state
from steadydescent import optimizers
from steadydescent.averages import SimpleMovingAverage
from steadydescent.minibatches import EpochBatches
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Ramped,
    Shadow,
    TailMean,
    average_checkpoints,
    checkpoint_weights,
    ema_weights,
    last_checkpoints,
    load_checkpoint,
    ramped_weights,
    save_checkpoint,
    tail_weights,
)
from steadydescent.weight_averaging.named_slots import same_class

# A load is whole, or nothing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def trained(optimizer, steps=3):
    """A model and its optimiser after some steps."""
    model = network(dtype=torch.float32)
    chosen = optimizer(model.parameters())
    for step in range(steps):
        model(torch.full((11, 7), step + 1.0)).square().sum().backward()
        chosen.step()
    return model, chosen


class Elsewhere:
    """Another library's optimiser of the same name."""

    class Adam(torch.optim.Adam):
        pass


def test_an_optimizer_of_the_same_name_from_elsewhere_is_refused(path):
    model, optimizer = trained(optimizers.Adam)
    save_checkpoint(path, model, optimizer, 3)
    other, theirs = trained(Elsewhere.Adam)
    before = state(other), theirs.state_dict()
    with pytest.raises(
        ValueError, match=r"written with steadydescent.*\.Adam, not .*Elsewhere\.Adam"
    ):
        load_checkpoint(path, other, theirs)
    assert_same((state(other), theirs.state_dict()), before)


@pytest.mark.parametrize(
    ("saved", "ours", "same"),
    [
        ("torch.optim.adam.Adam", "torch.optim.adam.Adam", True),
        ("torch.optim.adam.Adam", "mine.Adam", False),
        ("__main__.Mine", "train.Mine", True),
        ("pack.train.Mine.Inner", "__main__.Mine.Inner", True),
        ("__main__.Mine", "train.NotMine", False),
        ("__main__.Mine", "__main__.Other", False),
    ],
)
def test_the_scripts_own_classes_go_by_their_name(saved, ours, same):
    assert same_class(saved, ours) == same


def test_a_schedulers_state_does_not_go_into_another_scheduler(path):
    model, optimizer = trained(lambda params: torch.optim.SGD(params, 0.1))
    save_checkpoint(
        path, model, optimizer, 3, schedule=lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    )
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, 37)
    before = schedule.state_dict().copy()
    with pytest.raises(ValueError, match=r"part 'schedule' .*LambdaLR, not .*OneCycleLR"):
        load_checkpoint(path, model, optimizer, schedule=schedule)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(("part", "wrong"), [("ema", Shadow), ("shadow", EMA)])
def test_the_module_and_the_dictionary_form_do_not_take_each_others_state(path, part, wrong):
    run = Run()
    run.save(path)
    with pytest.raises(
        ValueError, match=rf"part '{part}' in .* was written with .*, not .*{wrong.__name__}"
    ):
        load_checkpoint(path, run.model, **{part: wrong(run.model, 0.9)})


@pytest.mark.parametrize(
    "refusing", [EpochBatches(401, 31, 0), SimpleMovingAverage(6)], ids=["batches", "mean"]
)
def test_a_part_that_refuses_its_state_undoes_what_was_loaded_before_it(path, refusing):
    first, second = Run(), Run(seed=5)
    first.step()
    second.step()
    fitting = (
        EpochBatches(401, 32, 0) if isinstance(refusing, EpochBatches) else SimpleMovingAverage(5)
    )
    save_checkpoint(path, first.model, first.optimizer, 1, **first.parts, last=fitting)
    before = second.everything()
    with pytest.raises(ValueError, match=r"the state must be of|window"):
        load_checkpoint(path, second.model, second.optimizer, **second.parts, last=refusing)
    assert_same(second.everything(), before)


@pytest.mark.parametrize("where", ["model", "optimizer"])
def test_what_fails_in_the_middle_is_undone_for_model_and_optimizer_too(path, where, monkeypatch):
    first, second = Run(), Run(seed=5)
    first.step()
    second.step()
    first.save(path)
    before, load = second.everything(), getattr(second, where).load_state_dict

    def interrupted(state_dict):
        monkeypatch.undo()
        load(state_dict)
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(second, where), "load_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        second.load(path)
    assert_same(second.everything(), before)


def test_a_part_that_cannot_be_loaded_now_is_refused_with_its_own_sentence(path):
    run = Run()
    run.save(path)
    with (
        run.shadow.applied(),
        pytest.raises(RuntimeError, match="load_state_dict while the shadow is applied"),
    ):
        run.load(path)
    with run.ema.swapped(run.model), pytest.raises(RuntimeError, match="is swapped into a model"):
        run.load(path)


def test_a_part_that_refuses_even_its_own_state_does_not_hide_why_it_refused_the_files(path):
    class Closed:
        refusals = 0

        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state_dict):
            self.refusals += 1
            raise ValueError(f"refusal {self.refusals}")

    save_checkpoint(path, network(), None, 3, closed=Closed())
    with pytest.raises(ValueError, match="refusal 1"):
        load_checkpoint(path, network(), closed=Closed())


# What is saved


@pytest.mark.parametrize("step", [math.nan, math.inf, 3.5, -1, "3", None, True])
def test_a_step_that_is_no_count_is_refused_and_nothing_is_written(path, step):
    with pytest.raises(
        ValueError, match=f"step must be a whole number of at least 0, got {step!r}"
    ):
        save_checkpoint(path, network(), None, step)
    with pytest.raises(ValueError, match="step must be a whole number of at least 0, got None"):
        save_checkpoint(path, network())
    assert not path.exists()


def test_numpys_whole_numbers_are_steps_and_weights_may_go_without_an_optimizer(path):
    save_checkpoint(path, network(), step=np.int64(7))
    assert load_checkpoint(path, network()) == 7


@pytest.mark.parametrize(
    "part",
    [3, None, {"a": 1}, [1.0], Shadow, np.random.default_rng(0)],
    ids=lambda p: type(p).__name__,
)
def test_a_part_without_a_state_is_refused_by_name(path, part):
    sentence = r"part 'epoch' must have state_dict and load_state_dict, got "
    with pytest.raises(ValueError, match=sentence):
        save_checkpoint(path, network(), None, 3, epoch=part)
    assert not path.exists()
    save_checkpoint(path, network(), None, 3, epoch=network())
    with pytest.raises(ValueError, match=sentence):
        load_checkpoint(path, network(), epoch=part)


def test_one_path_and_no_folder_are_refused_by_sentence(tmp_path):
    for one in ("a.safetensors", Path("a.safetensors")):
        with pytest.raises(
            ValueError, match=r"paths must be several, in a list, got the one path 'a.safetensors'"
        ):
            average_checkpoints(one)
    with pytest.raises(FileNotFoundError, match=f"no folder at {tmp_path / 'none'}"):
        last_checkpoints(tmp_path / "none", 1)
    with pytest.raises(ValueError, match=r"count must be a whole number of at least 1, got 2\.5"):
        last_checkpoints(tmp_path, 2.5)


# Compiled and wrapped models


def wrapped(model, prefix):
    """The model as `torch.compile` or `DistributedDataParallel` wrap it: one module deeper."""
    for name in reversed(prefix.rstrip(".").split(".")):
        model = nn.ModuleDict({name: model})
    return model


PREFIXES = pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])


@PREFIXES
def test_names_that_differ_because_a_model_is_wrapped_say_so(path, prefix):
    plain, deep = network(), wrapped(network(), prefix)
    sentence = f"the names in {{}} begin with '{prefix}': pass the unwrapped model there"
    for model, other, place in ((plain, deep, "the model"), (deep, plain, "the average")):
        with pytest.raises(ValueError, match=sentence.format(place)):
            EMA(model, 0.9).update(other)
        with (
            pytest.raises(ValueError, match=sentence.format(place)),
            EMA(model, 0.9).swapped(other),
        ):
            pass
    for model, other, place in ((plain, deep, "the model"), (deep, plain, r".*a\.safetensors")):
        save_checkpoint(path, model, torch.optim.Adam(model.parameters()), 3)
        with pytest.raises(ValueError, match=sentence.format(place)):
            load_checkpoint(path, other, torch.optim.Adam(other.parameters()))


@PREFIXES
def test_an_average_of_a_wrapped_model_says_so_when_loaded(path, prefix):
    save_checkpoint(path, network(), None, 3, ema=EMA(wrapped(network(), prefix), 0.9))
    with pytest.raises(ValueError, match=rf"the names in .*a\.safetensors contain '{prefix}'"):
        load_checkpoint(path, network(), ema=EMA(network(), 0.9))


def test_torchs_own_compiled_model_is_recognised():
    model = network()
    with pytest.raises(
        ValueError, match=r"names in the model begin with '_orig_mod\.': pass the unwrapped"
    ):
        EMA(model, 0.9).update(torch.compile(model, backend="eager"))


def test_names_that_differ_otherwise_say_nothing_of_wrapping():
    with pytest.raises(ValueError, match=r"is in the average but not in the model$"):
        EMA(network(), 0.9).update(wrapped(nn.Linear(7, 5), "module."))


# Blocks in which a model holds its average


class Caching(nn.Module):
    """Buffers outside the state: one changes in place, one gives way to another of its own size."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(5), persistent=False)
        self.register_buffer("last", torch.empty(0, 3), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.last = x
        return self.layer(x)


def shadow_block(model):
    shadow = Shadow(model, 0.9)
    shadow.register()
    return shadow.applied()


@pytest.mark.parametrize(
    "block", [lambda model: EMA(model, 0.9).swapped(model), shadow_block], ids=["EMA", "Shadow"]
)
@pytest.mark.parametrize("calls_before", [0, 2])
def test_buffers_outside_the_state_come_back_bitwise_too(block, calls_before):
    outer = nn.Sequential(Caching())
    for _ in range(calls_before):
        outer(torch.ones(7, 3))
    before = {name: buffer.clone() for name, buffer in outer.named_buffers()}
    with block(outer):
        outer(torch.full((11, 3), 2.0))
        assert len(outer[0].last) == 11
    assert_equal_bits(dict(outer.named_buffers()), before)
    outer(torch.ones(7, 3))


def test_an_emas_state_is_not_loaded_while_it_is_swapped_in():
    model = network()
    ema, saved = EMA(model, 0.9), EMA(network(seed=5), 0.9).state_dict()
    before, whole = state(ema), nn.ModuleDict({"ema": ema})
    with ema.swapped(model):
        with pytest.raises(RuntimeError, match="is swapped into a model"):
            ema.load_state_dict(saved)
        with pytest.raises(RuntimeError, match="is swapped into a model"):
            whole.load_state_dict({f"ema.{name}": value for name, value in saved.items()})
    assert_equal_bits(state(ema), before)
    ema.load_state_dict(saved)
    assert_equal_bits(state(ema), saved)


# Arguments and states


@pytest.mark.parametrize("kind", [Debiased, Ramped, TailMean])
def test_a_class_is_no_mixing(kind):
    for average, name in ((EMA, "mixing"), (Shadow, "decay")):
        with pytest.raises(
            ValueError,
            match=f"{name} must be a number or a function, got the class {kind.__name__}",
        ):
            average(network(), kind)


@pytest.mark.parametrize("bad", [-1, 1, math.nan, "0.9", None, True])
def test_a_bad_decay_is_called_by_the_parameters_name(bad):
    for average, name in ((EMA, "mixing"), (Shadow, "decay")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            average(network(), bad)


@pytest.mark.parametrize("weight", ["a", None, 2.0, math.nan])
def test_a_mixing_that_gives_no_weight_is_refused_and_the_average_stays(weight):
    model = network()
    ema = EMA(model, lambda step: weight)
    before = state(ema)
    with pytest.raises(
        ValueError, match=rf"mixing must give weights in \[0, 1\], got {weight} at update 1"
    ):
        ema.update(network(seed=5))
    assert_equal_bits(state(ema), before)


@pytest.mark.parametrize("bad", [2.5, True, 0, "3", None])
def test_counts_are_whole_numbers(bad):
    for name, call in {
        "start": lambda: TailMean(bad),
        "total": lambda: ramped_weights(bad),
        "length": lambda: tail_weights(7, bad),
        "count": lambda: checkpoint_weights(7, bad, 1),
        "every": lambda: checkpoint_weights(7, 2, bad),
    }.items():
        with pytest.raises(
            ValueError, match=f"{name} must be a whole number of at least 1, got {bad!r}"
        ):
            call()
    with pytest.raises(ValueError, match="total must be a whole number of at least 1, got -1"):
        ramped_weights(-1)
    with pytest.raises(
        ValueError, match=f"total must be a whole number of at least 1, got {bad!r}"
    ):
        ema_weights(bad, 0.9)
    assert TailMean(np.int64(3))(4) == 0.5


@pytest.mark.parametrize("count", [-4, 1.5, "a"])
def test_a_loaded_number_of_updates_must_be_one(count):
    ema, shadow = EMA(network(), 0.9), Shadow(network(), 0.9)
    shadow.register()
    before = state(ema), shadow.state_dict()
    other = EMA(network(seed=5), 0.9).state_dict()
    extra = count if isinstance(count, str) else torch.tensor(count)
    with pytest.raises(
        ValueError, match=f"updates must be a whole number of at least 0, got {count!r}"
    ):
        ema.load_state_dict({**other, "_extra_state": extra})
    with pytest.raises(
        ValueError, match=f"updates must be a whole number of at least 0, got {count!r}"
    ):
        shadow.load_state_dict({"updates": count, "shadow": {}})
    assert_same((state(ema), shadow.state_dict()), before)


def test_what_is_no_state_is_refused_by_sentence_and_nothing_changes():
    ema, shadow = EMA(network(), 0.9), Shadow(network(), 0.9)
    shadow.register()
    before, other = (state(ema), shadow.state_dict()), EMA(network(seed=5), 0.9).state_dict()
    last = list(other)[-1]
    for bad in ({}, {name: value for name, value in other.items() if name != last}):
        with pytest.raises(ValueError, match="is in the average but not in the saved average"):
            ema.load_state_dict(bad)
    for bad in ({}, None, state(network())):
        with pytest.raises(
            ValueError, match="the state of a Shadow must hold 'shadow' and 'updates', got"
        ):
            shadow.load_state_dict(bad)
    assert_same((state(ema), shadow.state_dict()), before)
    ema.load_state_dict({last: other[last]}, strict=False)  # as torch's: what is there is taken
    assert_equal_bits(state(ema), {**before[0], last: other[last]})
