"""The optimisers on sharded weights, in torch's ZeRO, compiled, in distributed checkpoints."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from facade_training import FACADES, assert_same, every_facade, parameters, walk

pytestmark = pytest.mark.skipif(
    not dist.is_available(), reason="this torch has no torch.distributed"
)


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train_sharded(rank, processes, store, dtype):
    """Weights of both ranks after a few steps are those of the whole tensors."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    dist.init_process_group(
        "gloo", store=dist.FileStore(store, processes), rank=rank, world_size=processes
    )
    mesh = init_device_mesh("cpu", (processes,))
    for name, facade in FACADES.items():
        whole = [torch.linspace(-1, 1, 15).view(5, 3).to(dtype), torch.ones(7, dtype=dtype)]
        plain = [nn.Parameter(t.clone()) for t in whole]
        placements = [[Shard(0)], [Replicate()]]  # five rows on two ranks: shards of two sizes
        sharded = [
            nn.Parameter(distribute_tensor(t, mesh, p))
            for t, p in zip(whole, placements, strict=True)
        ]
        one, other = facade(plain, 0.05, weight_decay=0.1), facade(sharded, 0.05, weight_decay=0.1)
        for step in range(1, 4):
            for param, split, placement in zip(plain, sharded, placements, strict=True):
                param.grad = torch.full_like(param, step)
                split.grad = distribute_tensor(param.grad.clone(), mesh, placement)
            one.step()
            other.step()
        for param, split in zip(plain, sharded, strict=True):
            close = {"rtol": 1e-2, "atol": 1e-2} if dtype != torch.float32 else {}
            torch.testing.assert_close(split.full_tensor(), param, **close, msg=f"{name} on {rank}")
            assert other.state[split]["step"] == 3
        again = facade(sharded, 0.05)
        again.load_state_dict(copy.deepcopy(other.state_dict()))
        again.step()
    dist.destroy_process_group()


def test_sharded_weights_on_two_processes_train_as_whole_ones(tmp_path):
    multiprocessing.spawn(train_sharded, (2, str(tmp_path / "store"), torch.float32), nprocs=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_sharded_weights_train_in_every_dtype(dtype, tmp_path):
    train_sharded(0, 1, str(tmp_path / "store"), dtype)


@every_facade
@pytest.mark.filterwarnings("ignore")
def test_torchs_zero_redundancy_optimizer_takes_ours(facade, one_process):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    params, alone = parameters(), parameters()
    wrapped, optimizer = ZeroRedundancyOptimizer(params, facade, lr=0.05), facade(alone, 0.05)
    walk(wrapped, params, range(3))
    walk(optimizer, alone, range(3))
    wrapped.consolidate_state_dict()
    wrapped.load_state_dict(wrapped.state_dict())
    walk(wrapped, params, range(3, 5))
    walk(optimizer, alone, range(3, 5))
    assert_same(params, alone)


@every_facade
@pytest.mark.filterwarnings("ignore")
def test_state_goes_through_torchs_distributed_checkpoints(facade, one_process):
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    def trained(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = facade(model.parameters(), 0.05)
    trained(model, optimizer, 3)
    other = copy.deepcopy(model)
    resumed = facade(other.parameters(), 0.05)
    set_optimizer_state_dict(
        other, resumed, copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    )
    trained(model, optimizer, 2)
    trained(other, resumed, 2)
    assert_same(other.parameters(), model.parameters())
