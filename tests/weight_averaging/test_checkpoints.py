"""Checkpoints: a run continues bitwise from its file."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from noisy_training import OPTIMIZERS, Run, assert_same, fill, network
from steadydescent.weight_averaging import (
    Debiased,
    load_checkpoint,
    save_checkpoint,
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_continues_bitwise(optimizer, tmp_path):
    whole, first, second = Run(optimizer), Run(optimizer), Run(optimizer, seed=5)
    for _ in range(7):
        first.step()
    first.save(tmp_path / "checkpoint.safetensors")
    second.load(tmp_path / "checkpoint.safetensors")
    assert_same(second.everything(), first.everything())
    for _ in range(7):
        second.step()
    for _ in range(14):
        whole.step()
    assert second.done == 14
    assert_same(second.everything(), whole.everything())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.sampled_from([0.9, Debiased(0.9)]))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_split_of_a_run_into_files_gives_the_same_average_bitwise(tmp_path, lengths, mixing):
    whole, run = Run(mixing=mixing), Run(mixing=mixing)
    for _ in range(sum(lengths)):
        whole.step()
    for length in lengths:
        for _ in range(length):
            run.step()
        run.save(tmp_path / "run.safetensors")
        run = Run(mixing=mixing, seed=9)
        run.load(tmp_path / "run.safetensors")
    assert_same(run.everything(), whole.everything())


def test_parameter_groups_continue_each_with_its_own_options(tmp_path):
    def build(lr):
        model = network()
        groups = [
            {"params": model[3].parameters(), "lr": lr, "betas": (0.8, 0.9)},
            {"params": model[0].parameters()},
        ]
        return model, torch.optim.Adam(groups, lr=lr / 10)

    model, optimizer = build(0.1)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(tmp_path / "a.safetensors", model, optimizer, 1)
    other, theirs = build(7.0)
    load_checkpoint(tmp_path / "a.safetensors", other, theirs)
    assert_same(theirs.state_dict(), optimizer.state_dict())


def test_slots_keep_their_own_precision_beside_half_precision_weights(tmp_path):
    """torch's `load_state_dict` alone would cast them to the weights' dtype."""

    def build():
        model = nn.Linear(3, 2, dtype=torch.bfloat16)
        return model, torch.optim.SGD(model.parameters(), 0.1)

    (model, optimizer), (other, theirs) = build(), build()
    optimizer.state[model.weight]["square"] = torch.full((2, 3), 1 / 3)
    save_checkpoint(tmp_path / "a.safetensors", model, optimizer, 1)
    load_checkpoint(tmp_path / "a.safetensors", other, theirs)
    assert_same(theirs.state[other.weight]["square"], optimizer.state[model.weight]["square"])


def test_the_file_shows_by_name_what_it_holds_and_can_be_read_by_safetensors_alone(tmp_path):
    run = Run()
    run.step()
    run.save(tmp_path / "deep" / "er" / "1.safetensors")
    tensors = load_file(tmp_path / "deep" / "er" / "1.safetensors")
    assert torch.equal(tensors["weights.0.weight"], run.model[0].weight)
    assert tensors["weights.1.num_batches_tracked"] == 1
    assert torch.equal(
        tensors["slots.3.bias.exp_avg"], run.optimizer.state[run.model[3].bias]["exp_avg"]
    )
    assert torch.equal(tensors["parts.ema.module.0.weight"], run.ema.module[0].weight)
    assert torch.equal(tensors["parts.shadow.shadow.0.weight"], run.shadow.shadow["0.weight"])


def test_tied_half_complex_empty_and_single_numbers_come_back(tmp_path):
    def build():
        model = nn.Module()
        model.one = nn.Linear(3, 3, dtype=torch.bfloat16)
        model.tied = nn.Linear(3, 3, dtype=torch.bfloat16)
        model.tied.weight = model.one.weight
        model.register_buffer("wave", torch.tensor([1 + 2j]))
        model.register_buffer("nothing", torch.empty(0, 5))
        model.register_buffer("flag", torch.tensor(True))
        model.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
        return model

    model, other = build(), build()
    fill(model, -0.0)
    fill(other, 1.0)
    other.turned.zero_()
    save_checkpoint(tmp_path / "a.safetensors", model, None, 0)
    load_checkpoint(tmp_path / "a.safetensors", other)
    assert other.tied.weight is other.one.weight
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path):
    run, path = Run("momentum"), tmp_path / "a.safetensors"
    run.step()
    run.save(path)
    other = Run("momentum", seed=5)
    other.load(path)
    before = other.everything()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same(other.everything(), before)


@pytest.mark.gpu
def test_a_run_on_the_gpu_continues_on_the_gpu(tmp_path):
    model = network().cuda()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(11, 7, device="cuda", dtype=torch.float64)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "a.safetensors", model, optimizer, 1)
    other = network(seed=5).cuda()
    theirs = torch.optim.Adam(other.parameters())
    assert load_checkpoint(tmp_path / "a.safetensors", other, theirs) == 1
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items()
    )
    assert theirs.state[other[0].weight]["exp_avg"].is_cuda
