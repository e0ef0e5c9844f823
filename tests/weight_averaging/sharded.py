"""What each process of a group does in the tests of averages and checkpoints of models that are
spread over several.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from steadydescent.weight_averaging import (
    EMA,
    Shadow,
    average_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def plain(seed: int = 0) -> nn.Module:
    """Odd sizes, so that shards differ, and statistics, which are in no shard."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Under `fully_shard`, one layer by itself and the rest around it."""
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def distributed_tensors(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Parameters as `DTensor`s, some in shards and some whole."""
    for number, part in enumerate(model.modules()):
        for name, parameter in list(part.named_parameters(recurse=False)):
            placements = [Shard(0) if number % 2 else Replicate()]
            setattr(part, name, nn.Parameter(distribute_tensor(parameter.data, mesh, placements)))
    return model


WAYS = {"fully_shard": sharded, "DTensor": distributed_tensors}


def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gathered from all processes."""
    return {
        n: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()
        for n, t in tensors.items()
    }


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in whole(ours).items():
        torch.testing.assert_close(
            value, theirs[name], msg=lambda text, name=name: f"{name}: {text}"
        )


@torch.no_grad()
def step(model: nn.Module, number: int) -> None:
    """An update that does the same to shards as to the whole, with optimiser and statistics."""
    for parameter in model.parameters():
        parameter.mul_(1 + 0.1 * number).add_(number)
    model[1].running_mean.add_(number)
    model[1].num_batches_tracked.add_(1)


def check(model: nn.Module, reference: nn.Module, way: str, mesh: DeviceMesh, path: Path) -> None:
    """Averages, swaps and files of a spread model are those of the same model in one piece."""
    ema, theirs, shadow = EMA(model, 0.5), EMA(reference, 0.5), Shadow(model, 0.5)
    shadow.register()
    for number in range(1, 4):
        step(shards_of(model), number)
        step(reference, number)
        if way == "fully_shard":  # leaves gathered weights in the place of the shards
            model(torch.ones(2, 7))
            reference(torch.ones(2, 7))
        for average in (lambda: ema.update(model), lambda: theirs.update(reference), shadow.update):
            average()
    expected = {name: value.clone() for name, value in theirs.module.state_dict().items()}
    assert_close(dict(ema.module.state_dict()), expected)
    assert_close(shadow.shadow, expected)
    trained = {name: value.clone() for name, value in reference.state_dict().items()}
    for block in (ema.swapped(model), shadow.applied()):
        with block:
            assert_close(dict(shards_of(model).state_dict()), expected)
            if way == "fully_shard":
                torch.testing.assert_close(model.eval()(torch.ones(2, 7)), theirs(torch.ones(2, 7)))
                model.train()
        assert_close(dict(shards_of(model).state_dict()), trained)
    optimizer = torch.optim.SGD(shards_of(model).parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    trained = whole(dict(model.state_dict()))
    save_checkpoint(path, model, optimizer, 3, ema=ema, shadow=shadow)
    in_one_piece = plain(seed=5)
    load_checkpoint(
        path, in_one_piece, torch.optim.SGD(in_one_piece.parameters(), 0.1, momentum=0.9)
    )
    assert_close(dict(in_one_piece.state_dict()), trained)
    assert_close(average_checkpoints([path]), trained)
    other = WAYS[way](plain(seed=5), mesh)
    slots = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    new_ema, new_shadow = EMA(other, 0.5), Shadow(other, 0.5)
    assert load_checkpoint(path, other, slots, ema=new_ema, shadow=new_shadow) == 3
    assert_close(dict(other.state_dict()), trained)
    assert_close(dict(new_ema.module.state_dict()), expected)
    assert_close(new_shadow.shadow, expected)
    momenta = [slots.state[parameter]["momentum_buffer"] for parameter in other.parameters()]
    assert all(
        isinstance(momentum, DTensor) and momentum.full_tensor().eq(1).all() for momentum in momenta
    )
    for use in (lambda: EMA(plain(), 0.5).update(model), lambda: ema.update(plain())):
        refused(use, "is spread over processes in")
    if way == "fully_shard":
        refused(lambda: ema(torch.ones(2, 7)), "with ema.swapped(model)")


def refused(use, sentence: str) -> None:
    with pytest.raises((ValueError, RuntimeError, OSError), match=re.escape(sentence)):
        use()


def shards_of(model: nn.Module) -> nn.Module:
    """The model with its shards in their places, as an optimiser finds it after a backward pass."""
    for part in model.modules():
        if hasattr(part, "reshard"):
            part.reshard()
    return model


def work(rank: int, processes: int, folder: str) -> None:
    """All that one process of a group checks."""
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    store = distributed.FileStore(f"{folder}/store", processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    try:
        mesh = init_device_mesh("cpu", (processes,))
        for way, spread in WAYS.items():
            check(spread(plain(), mesh), plain(), way, mesh, Path(folder) / f"{way}.safetensors")
        replicated(rank, Path(folder))
        (Path(folder) / "file").touch()
        refused(
            lambda: save_checkpoint(
                f"{folder}/file/a.safetensors", sharded(plain(), mesh), None, 1
            ),
            "file",
        )
    finally:
        distributed.destroy_process_group()


def replicated(rank: int, folder: Path) -> None:
    """`DistributedDataParallel`: one process may save alone; names say what is wrapped."""
    model = plain()
    ddp = nn.parallel.DistributedDataParallel(model)
    ema, shadow = EMA(model, 0.5), Shadow(ddp, 0.5)
    around = EMA(ddp, 0.5)
    shadow.register()
    ddp(torch.full((2, 7), rank + 1.0)).sum().backward()
    torch.optim.SGD(ddp.parameters(), 0.1).step()
    ema.update(model)
    around.update(ddp)
    shadow.update()
    before = whole(dict(ddp.state_dict()))
    with ema.swapped(model), around.swapped(ddp), shadow.applied():
        ddp(torch.ones(2, 7))
    assert_close(dict(ddp.state_dict()), before)
    for name, value in whole(dict(ema.module.state_dict())).items():
        torch.testing.assert_close(value, shadow.shadow[f"module.{name}"])
    if rank == 0:
        save_checkpoint(folder / "ddp.safetensors", model, None, 1, ema=ema)
        load_checkpoint(folder / "ddp.safetensors", plain(seed=5), ema=EMA(plain(seed=5), 0.5))
        refused(
            lambda: load_checkpoint(folder / "ddp.safetensors", ddp),
            "pass the unwrapped model there",
        )
