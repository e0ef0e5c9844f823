"""The dictionary form, held to the EMA module and to zh-ema's class without its losses."""

import pytest
import torch
from torch import nn

from noisy_training import STEPS, assert_close, assert_equal_bits, fill, network, state, train
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Ramped,
    Shadow,
    load_checkpoint,
    save_checkpoint,
)


class PrintedEMA:
    """The class that zh-ema prints, as printed."""

    def __init__(self, model, decay):
        self.model = model
        self.decay = decay
        self.shadow = {}
        self.backup = {}

    def register(self):
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                self.shadow[name] = param.data.clone()

    def update(self):
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                assert name in self.shadow
                new_average = (1.0 - self.decay) * param.data + self.decay * self.shadow[name]
                self.shadow[name] = new_average.clone()

    def apply_shadow(self):
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                assert name in self.shadow
                self.backup[name] = param.data
                param.data = self.shadow[name]

    def restore(self):
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                assert name in self.backup
                param.data = self.backup[name]
        self.backup = {}


def trained(average_class, steps=13, **options):
    """A model after some steps, and its average."""
    model = network()
    average = average_class(model, 0.9, **options)
    average.register()
    for _ in train(model, steps):
        average.update()
    return model, average


# What it computes


def test_weights_equal_zh_emas_step_by_step():
    model = network()
    ours, theirs = Shadow(model, 0.97), PrintedEMA(model, 0.97)
    ours.register()
    theirs.register()
    for _ in train(model):
        ours.update()
        theirs.update()
        assert_close(theirs.shadow, ours.shadow)


@pytest.mark.parametrize("average_buffers", [True, False])
@pytest.mark.parametrize("mixing", [0.97, Debiased(0.97), Ramped()], ids=str)
def test_shadow_equals_the_module_form_bitwise(mixing, average_buffers):
    model = network(dtype=torch.float32)
    shadow = Shadow(model, mixing, average_buffers=average_buffers)
    ema = EMA(model, mixing, average_buffers=average_buffers)
    shadow.register()
    for _ in train(model, 31):
        shadow.update()
        ema.update(model)
    assert_equal_bits(shadow.shadow, state(ema.module))
    with shadow.applied():
        assert_equal_bits(state(model), state(ema.module))


def test_half_precision_is_averaged_in_single():
    model = nn.Linear(3, 2).to(torch.bfloat16)
    fill(model, 1.0)
    shadow = Shadow(model, 0.9999)
    shadow.register()
    fill(model, 1.5)
    for _ in range(1000):
        shadow.update()
    assert shadow.shadow["weight"].dtype == torch.float32
    assert shadow.shadow["weight"].mean().item() == pytest.approx(
        1.5 - 0.5 * 0.9999**1000, rel=1e-4
    )


def test_registering_again_starts_afresh():
    model, shadow = trained(Shadow)
    shadow.register()
    assert shadow.updates == 0
    assert_equal_bits(shadow.shadow, state(model))


# What zh-ema's class loses


@pytest.mark.slip(14)
def test_batch_norm_statistics_are_averaged_where_zh_emas_stay_those_of_the_last_weights():
    for average_class, covered in ((PrintedEMA, False), (Shadow, True)):
        model, average = trained(average_class)
        last = model[1].running_mean.clone()
        average.apply_shadow()
        assert torch.equal(model[1].running_mean, last) != covered


@pytest.mark.slip(14)
def test_a_weight_frozen_at_registration_and_freed_later_is_averaged_where_zh_emas_stops():
    for average_class in (PrintedEMA, Shadow):
        model = network()
        model[0].requires_grad_(False)
        average = average_class(model, 0.9)
        average.register()
        next(train(model))
        average.update()
        model[0].requires_grad_(True)
        next(train(model))
        if average_class is PrintedEMA:
            with pytest.raises(AssertionError):
                average.update()
            continue
        before = average.shadow["0.weight"].clone()
        average.update()
        assert torch.allclose(average.shadow["0.weight"], 0.9 * before + 0.1 * model[0].weight)


@pytest.mark.slip(14)
def test_applying_twice_is_refused_where_zh_emas_loses_the_trained_weights():
    model, printed = trained(PrintedEMA)
    weights = state(model)
    printed.apply_shadow()
    printed.apply_shadow()
    printed.restore()
    assert not torch.equal(model[0].weight, weights["0.weight"])

    model, shadow = trained(Shadow)
    assert_equal_bits(state(model), weights)
    shadow.apply_shadow()
    with pytest.raises(
        RuntimeError, match="apply_shadow while the shadow is applied would lose weights"
    ):
        shadow.apply_shadow()
    shadow.restore()
    assert_equal_bits(state(model), weights)


@pytest.mark.slip(14)
def test_training_while_applied_corrupts_nothing_where_zh_emas_shadow_moves_along():
    for average_class, corrupted in ((PrintedEMA, True), (Shadow, False)):
        model, average = trained(average_class)
        weights = state(model)
        shadow = {name: value.clone() for name, value in average.shadow.items()}
        average.apply_shadow()
        list(train(model, 3))
        moved = any(not torch.equal(average.shadow[name], value) for name, value in shadow.items())
        assert moved == corrupted
        average.restore()
        assert torch.equal(model[0].weight, weights["0.weight"])
        assert torch.equal(model[1].running_mean, weights["1.running_mean"]) != corrupted


# Swapping, order of the verbs, resuming


def test_applied_restores_after_an_exception():
    model, shadow = trained(Shadow)
    weights = state(model)
    with pytest.raises(ZeroDivisionError), shadow.applied():
        raise ZeroDivisionError
    assert_equal_bits(state(model), weights)
    shadow.update()  # and it is at rest again


def test_verbs_out_of_order_are_refused_and_lose_nothing():
    model = network()
    shadow = Shadow(model, 0.9)
    for verb in (shadow.update, shadow.apply_shadow):
        with pytest.raises(RuntimeError, match="holds no weights yet; call register first"):
            verb()
    with pytest.raises(RuntimeError, match="restore needs apply_shadow first"):
        shadow.restore()
    model, shadow = trained(Shadow)
    weights, average = state(model), shadow.state_dict()
    shadow.apply_shadow()
    for verb in (
        shadow.update,
        shadow.register,
        shadow.apply_shadow,
        lambda: shadow.load_state_dict(average),
    ):
        with pytest.raises(
            RuntimeError, match="while the shadow is applied would lose weights; call restore first"
        ):
            verb()
    shadow.restore()
    with pytest.raises(RuntimeError, match="restore needs apply_shadow first"):
        shadow.restore()
    assert_equal_bits(state(model), weights)
    assert shadow.updates == 13
    assert_equal_bits(shadow.shadow, average["shadow"])


def test_a_state_continues_bitwise_and_is_no_window_on_the_shadow():
    model = network()
    whole, first = Shadow(model, Ramped()), Shadow(model, Ramped())
    whole.register()
    first.register()
    steps = train(model, 31)
    for _ in range(13):
        next(steps)
        whole.update()
        first.update()
    saved = first.state_dict()
    first.update()  # must not move what was saved
    second = Shadow(model, Ramped())
    second.load_state_dict(saved)
    for _ in steps:
        whole.update()
        second.update()
    assert second.updates == 31
    assert_equal_bits(second.shadow, whole.shadow)


def test_what_does_not_fit_is_refused_by_name_and_nothing_changes():
    model, shadow = trained(Shadow)
    other = Shadow(nn.Linear(7, 2), 0.9)
    with pytest.raises(ValueError, match=r"'0.bias' is in the saved shadow but not in the model"):
        other.load_state_dict(shadow.state_dict())
    assert other.shadow == {} and other.updates == 0
    before = shadow.state_dict()
    model[3] = nn.Linear(5, 2)
    for verb in (shadow.update, shadow.apply_shadow):
        with pytest.raises(
            ValueError, match=r"'3.weight' has shape \(3, 5\) in the .* but \(2, 5\) in the model"
        ):
            verb()
    assert shadow.updates == 13
    assert_equal_bits(shadow.shadow, before["shadow"])


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_bad_decays_are_refused_by_name(beta):
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\), got {beta}"):
        Shadow(network(), beta)


# Averages that exist in checkpoints alone


def test_the_average_goes_into_checkpoints_while_training_goes_on_with_its_own_weights(tmp_path):
    """opennmt-tf: smoothed weights replace the trained ones in what is saved, and nowhere else."""
    model, plain = network(), network()
    shadow = Shadow(model, Ramped())
    shadow.register()
    for step, _ in enumerate(zip(train(model), train(plain), strict=True), start=1):
        shadow.update()
        if step % 50 == 0:
            with shadow.applied():
                save_checkpoint(tmp_path / f"{step}.safetensors", model, None, step)
            saved = network(seed=8)
            assert load_checkpoint(tmp_path / f"{step}.safetensors", saved) == step
            assert_equal_bits(state(saved), shadow.shadow)
        assert_equal_bits(state(model), state(plain))
    assert len(list(tmp_path.iterdir())) == STEPS // 50
