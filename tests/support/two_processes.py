"""Sharded and replicated models on two gloo processes, against the same model on one; run by
`test_input_matrix`.

Every process checks what it holds, and a failing check ends both.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from facade_training import FACADES
from steadydescent.optimizers import RULES, Adam
from steadydescent.weight_averaging import EMA, Shadow, load_checkpoint, save_checkpoint
from torch_twins import TWINS

PROCESSES, STEPS, RATE = 2, 3, 0.1


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6))


def batch(step: int) -> Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(step))


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def same(found: Tensor, wanted: Tensor, where: str = "") -> None:
    told = lambda text: f"{where}: {text}"
    torch.testing.assert_close(
        whole(found.detach()), wanted.detach(), rtol=1e-5, atol=1e-6, msg=told
    )


def sharded(model: nn.Module) -> nn.Module:
    """Parameters as DTensors, cut along their first axis."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.data, mesh, [Shard(0)])))
    return model


def every_rule_on_sharded_parameters() -> None:
    for rule in RULES:
        ours, theirs = sharded(plain()), plain()
        optimizer = FACADES[rule](ours.parameters(), lr=RATE)
        twin = TWINS[rule](list(theirs.parameters()), RATE, **RULES[rule].checked())
        for step in range(STEPS):
            theirs.zero_grad()
            theirs(batch(step)).square().mean().backward()
            for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                mine.grad = distribute_tensor(other.grad, mine.device_mesh, mine.placements)
            optimizer.step()
            twin.step()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            same(mine, other, rule)


def averages_and_checkpoint(model: nn.Module, folder: Path) -> None:
    """Train a wrapped model beside a plain one; averages agree, and the trained weights are back
    after each block.
    """
    reference = plain()
    pairs = [(model, reference), (EMA(model, 0.5), EMA(reference, 0.5))]
    shadows = Shadow(model, 0.5), Shadow(reference, 0.5)
    optimizers = [
        Adam(m.parameters(), lr=RATE) for m, _ in zip((model, reference), range(2), strict=True)
    ]
    for shadow in shadows:
        shadow.register()
    for step in range(STEPS):
        for place, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            pairs[0][place](batch(step)).square().mean().backward()
            optimizer.step()
            pairs[1][place].update(pairs[0][place])
            shadows[place].update()
    for one, other in pairs:
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            same(mine, theirs)
    for mine, theirs in zip(shadows[0].shadow.values(), shadows[1].shadow.values(), strict=True):
        same(mine, theirs)
    for block in (pairs[1][0].swapped(model), shadows[0].applied()):
        with block:
            for mine, theirs in zip(model.parameters(), pairs[1][1].parameters(), strict=True):
                same(mine, theirs)
        for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            same(mine, theirs)
    checkpoint(model, optimizers[0], reference, folder)


def checkpoint(model: nn.Module, optimizer: Adam, reference: nn.Module, folder: Path) -> None:
    """Saved and loaded, or refused by a sentence that names the tensor, with nothing written."""
    # one for all: of sharded models the first process writes
    path = folder / f"{type(model).__name__}.safetensors"
    try:
        save_checkpoint(path, model, optimizer, STEPS)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "0.weight" in refusal or "0.bias" in refusal, refusal
        assert not path.exists()
        return
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_checkpoint(path, model, optimizer)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        same(mine, theirs)


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    every_rule_on_sharded_parameters()
    averages_and_checkpoint(DistributedDataParallel(plain()), Path(folder))
    averages_and_checkpoint(
        fully_shard(plain(), mesh=init_device_mesh("cpu", (PROCESSES,))), Path(folder)
    )
    dist.destroy_process_group()
    print(f"process {rank} is done")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
