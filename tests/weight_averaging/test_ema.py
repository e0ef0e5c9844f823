"""EMA as a module: held to timm, torch and ema_pytorch over hundreds of steps.

Which average it keeps.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from noisy_training import (
    SINGLE,
    STEPS,
    assert_close,
    assert_equal_bits,
    fill,
    network,
    state,
    train,
)
from steadydescent.dataset_shift.torchvision_shim import import_torchvision
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Ramped,
    Started,
    TailMean,
    coefficients,
    ema_weights,
    ramped_weights,
    tail_weights,
)

# References


@pytest.fixture(scope="module")
def timm_ema():
    import_torchvision()
    return pytest.importorskip("timm.utils.model_ema")


class PrintedModelEmaV2(nn.Module):
    """The class that viblo-ema prints, as printed."""

    def __init__(self, model, decay=0.9999, device=None):
        super().__init__()
        self.module = deepcopy(model)
        self.module.eval()
        self.decay = decay
        self.device = device
        if self.device is not None:
            self.module.to(device=device)

    def _update(self, model, update_fn):
        with torch.no_grad():
            for ema_v, model_v in zip(
                self.module.state_dict().values(), model.state_dict().values(), strict=True
            ):
                if self.device is not None:
                    model_v = model_v.to(device=self.device)
                ema_v.copy_(update_fn(ema_v, model_v))

    def update(self, model):
        self._update(model, update_fn=lambda e, m: self.decay * e + (1.0 - self.decay) * m)

    def set(self, model):
        self._update(model, update_fn=lambda e, m: m)


def test_fixed_decay_equals_timms_v2_and_the_printed_one_but_for_integers(timm_ema):
    model = network()
    ours = EMA(model, 0.97)
    theirs = timm_ema.ModelEmaV2(model, 0.97)
    printed = PrintedModelEmaV2(model, 0.97)
    for _ in train(model):
        for average in (ours, theirs, printed):
            average.update(model)
        assert_close(state(ours.module), state(theirs.module), only_floats=True)
        assert_close(state(ours.module), state(printed.module), only_floats=True)
    for average in (ours, theirs, printed):
        average.set(model)
        assert_equal_bits(state(average.module), state(model))


@pytest.mark.parametrize("average_buffers", [True, False])
def test_fixed_decay_equals_timms_v3(timm_ema, average_buffers):
    model = network()
    ours = EMA(model, 0.97, average_buffers=average_buffers)
    theirs = timm_ema.ModelEmaV3(model, 0.97, exclude_buffers=not average_buffers)
    for _ in train(model):
        ours.update(model)
        theirs.update(model)
        assert_close(state(ours.module), state(theirs.module))


def test_timms_warmup_is_a_mixing(timm_ema):
    """V3 with `use_warmup`: its steps count from 0, its first two updates copy."""
    model = network()
    theirs = timm_ema.ModelEmaV3(model, 0.98, use_warmup=True)
    ours = EMA(model, lambda step: 1.0 if step <= 2 else 1 - min(1 - (step - 1) ** (-2 / 3), 0.98))
    for step, _ in enumerate(train(model, 397)):
        ours.update(model)
        theirs.update(model, step)
    assert 1 - 396 ** (-2 / 3) > 0.98  # the cap was reached
    assert_close(state(ours.module), state(theirs.module))


@pytest.mark.parametrize("use_buffers", [True, False])
def test_fixed_decay_equals_torchs_averaged_model(use_buffers):
    model = network()
    ours = EMA(model, 0.97, average_buffers=use_buffers)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.97), use_buffers=use_buffers)
    theirs.update_parameters(model)  # torch's first update copies: that is θ_0
    for _ in train(model):
        ours.update(model)
        theirs.update_parameters(model)
        assert_close(state(ours.module), state(theirs.module), only_floats=use_buffers)


@pytest.mark.parametrize("use_buffers", [True, False])
def test_tail_mean_equals_torchs_swa(use_buffers):
    model = network()
    ours = EMA(model, TailMean(start=101), average_buffers=use_buffers)
    theirs = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn(), use_buffers=use_buffers)
    for name, buffer in theirs.module.named_buffers():
        # torch's mean of integers stops with an error
        if use_buffers and not buffer.is_floating_point():
            parent, _, leaf = name.rpartition(".")
            theirs.module.get_submodule(parent).register_buffer(leaf, None)
    counters = ours.module[1].num_batches_tracked
    for step, _ in enumerate(train(model), start=1):
        ours.update(model)
        if step < 101:
            assert_equal_bits(state(ours.module), state(model))
            continue
        kept = model[1].num_batches_tracked
        if use_buffers:
            model[1].num_batches_tracked = None
        theirs.update_parameters(model)
        model[1].num_batches_tracked = kept
        assert counters == step
        floats = {
            name: value for name, value in state(ours.module).items() if value.is_floating_point()
        }
        assert_close(floats, state(theirs.module), **SINGLE)


def test_fixed_decay_equals_ema_pytorch_without_its_ramp():
    """`min_value=beta` takes the ramp away; the first `update` copies θ_0.

    Β is rounded to single precision: 31/32.
    """
    reference = pytest.importorskip("ema_pytorch").EMA
    model = network()
    theirs = reference(model, beta=31 / 32, min_value=31 / 32, update_after_step=0, update_every=1)
    theirs.update()
    ours = EMA(model, 31 / 32)
    for _ in train(model):
        ours.update(model)
        theirs.update()
        assert_close(state(ours.module), state(theirs.ema_model), only_floats=True)
    assert (
        theirs.ema_model[1].num_batches_tracked == 0 and ours.module[1].num_batches_tracked == STEPS
    )


def test_ema_pytorchs_defaults_are_a_mixing_and_a_loop_that_updates_every_tenth_step():
    """Copies until step 100, then the decay 1 − (1 + t − 100)^(−2/3) at every tenth step."""
    reference = pytest.importorskip("ema_pytorch").EMA
    model = network()
    theirs = reference(model)
    ours = EMA(model, lambda tenth: (1 + 10 * tenth - 100) ** (-2 / 3) if tenth > 10 else 1.0)
    theirs.update()
    for step, _ in enumerate(train(model), start=1):
        theirs.update()
        if step % 10 == 0:
            ours.update(model)
            assert_close(state(ours.module), state(theirs.ema_model), only_floats=True, **SINGLE)


@pytest.mark.slip(13)
def test_integer_buffers_are_copied_where_the_printed_class_truncates_an_average():
    """After 17 updates the counter says 14 with β = 0.75, and 0 with the printed 0.9999."""
    model = network()
    printed = PrintedModelEmaV2(model, 0.75)
    ours = EMA(model, 0.75)
    default = PrintedModelEmaV2(model)
    for _ in train(model, 17):
        for average in (printed, ours, default):
            average.update(model)
    assert printed.module[1].num_batches_tracked == 14
    assert default.module[1].num_batches_tracked == 0
    assert ours.module[1].num_batches_tracked == 17


# Which average


@pytest.mark.parametrize(
    ("mixing", "shares"),
    [
        (Debiased(0.93), coefficients(ema_weights(STEPS, 0.93))),
        (Debiased(0.0), coefficients(ema_weights(STEPS, 0.0))),
        (Ramped(), coefficients(ramped_weights(STEPS))),
        (Ramped(cap=0.9), coefficients(ramped_weights(STEPS, 0.9))),
        (TailMean(start=171), coefficients(tail_weights(STEPS, 41))),
        (TailMean(), np.full(STEPS, 1 / STEPS)),
        (Started(0.93), 0.07 * 0.93 ** np.arange(STEPS - 1, -1, -1)),
    ],
    ids=str,
)
def test_average_is_the_weighted_sum_of_the_trajectory(mixing, shares):
    """θ_0 has what is left to 1: β^T for `Started`, nothing for the others."""
    model = network()
    ema, first, trajectory = EMA(model, mixing), state(model), []
    for _ in train(model):
        ema.update(model)
        trajectory.append(state(model))
    for name, average in ema.module.named_parameters():
        sums = sum(share * weights[name] for share, weights in zip(shares, trajectory, strict=True))
        torch.testing.assert_close(
            average, sums + (1 - shares.sum()) * first[name], rtol=1e-10, atol=1e-12
        )


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10**6))
def test_debiased_weights_are_those_of_the_readouts_and_fall_from_1_to_1_minus_beta(beta, step):
    weight = Debiased(beta)(step)
    assert 1 - beta <= weight <= 1
    if step < 1000:
        assert weight == pytest.approx(ema_weights(step, beta)[-1], rel=1e-13)


@pytest.mark.parametrize(
    "mixing", [Debiased(0.999), Ramped(), TailMean(), TailMean(start=3), Started(0.0)], ids=str
)
def test_first_update_copies_the_weights_bitwise(mixing):
    model = network(dtype=torch.float32)
    ema = EMA(model, mixing)
    next(train(model))
    ema.update(model)
    assert_equal_bits(state(ema.module), state(model))


@pytest.mark.parametrize("average_buffers", [True, False])
def test_batch_norm_statistics_are_averaged_or_those_of_the_last_update(average_buffers):
    model = network()
    ema = EMA(model, 0.9, average_buffers=average_buffers)
    expected = model[1].running_mean.clone()
    for _ in train(model, 31):
        ema.update(model)
        expected = 0.9 * expected + 0.1 * model[1].running_mean
    assert torch.equal(ema.module[1].running_mean, model[1].running_mean) != average_buffers
    if average_buffers:
        torch.testing.assert_close(ema.module[1].running_mean, expected, rtol=1e-12, atol=1e-14)


@given(
    st.floats(-(2.0**99), 2.0**99, width=32), st.floats(0, 1, exclude_max=True), st.integers(1, 30)
)
@settings(max_examples=60, deadline=None)
def test_average_of_a_constant_is_the_constant(value, beta, updates):
    model = nn.Linear(3, 2)
    fill(model, value)
    for mixing in (Started(beta), Debiased(beta), Ramped(beta), TailMean(2)):
        ema = EMA(model, mixing)
        for _ in range(updates):
            ema.update(model)
        assert torch.equal(ema.module.weight, model.weight)  # −0 may become 0


def test_set_starts_afresh():
    model = network()
    ema = EMA(model, Debiased(0.9))
    for _ in train(model, 13):
        ema.update(model)
    ema.set(model)
    fresh = EMA(model, Debiased(0.9))
    for _ in train(model, 7, seed=2):
        ema.update(model)
        fresh.update(model)
    assert ema.updates == 7
    assert_equal_bits(state(ema), state(fresh))
