"""README's loop runs as printed, and a run that was stopped goes on with the same bits."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TOTAL = 57
(LOOP,) = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).resolve().parents[2] / "README.md").read_text(),
    re.DOTALL,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Linear(17, 3))


class Killed(Exception):
    pass


def run_printed(stop_at: int | None = None) -> dict:
    """Everything that README's code leaves behind; stopped in the middle of an update if asked."""
    x = torch.randn(401, 5, generator=torch.Generator().manual_seed(1))
    model, calls = network(), 0

    def loss(batch):
        nonlocal calls
        calls += 1
        if stop_at is not None and calls - 50 > stop_at:  # the range test makes up to 50
            raise Killed
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    names = {"model": model, "data": TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())}
    names |= {
        "loss": loss,
        "total": TOTAL,
        "evaluate": lambda m: [p.detach().clone() for p in m.parameters()],
    }
    try:
        exec(LOOP, names)
    except Killed:
        return {}
    return names


def test_readmes_loop_learns_and_evaluates_the_average(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    left = run_printed()
    assert left["step"] == TOTAL and 1e-5 < left["optimizer"].param_groups[0]["initial_lr"] < 1
    averaged = [p.detach() for p in left["average"].module.parameters()]
    assert all(
        torch.equal(one, other) for one, other in zip(left["accuracy"], averaged, strict=True)
    )
    assert not torch.equal(averaged[0], left["model"][0].weight)
    batch = next(iter(DataLoader(left["data"], batch_size=401)))
    assert left["loss"](batch) < 0.9 * nn.functional.cross_entropy(network()(batch[0]), batch[1])


@pytest.mark.parametrize("stop_at", [13, 37])
def test_readmes_loop_goes_on_where_it_was_killed_with_the_same_bits(
    tmp_path, monkeypatch, stop_at
):
    ends = []
    for stops in ([], [stop_at]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        monkeypatch.chdir(folder)
        for stop in [*stops, None]:
            torch.manual_seed(3)
            left = run_printed(stop)
            assert bool(left) == (stop is None), "the run that was to be killed came to its end"
        assert Path("run.safetensors").exists()
        ends.append(left)
    whole, resumed = ends
    for one, other in zip(
        whole["model"].state_dict().values(), resumed["model"].state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    for one, other in zip(whole["accuracy"], resumed["accuracy"], strict=True):
        assert torch.equal(one, other)
