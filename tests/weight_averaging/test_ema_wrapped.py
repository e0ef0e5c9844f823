"""Averages and checkpoints of models that are spread over processes, replicated, or compiled."""

import pytest
import torch
from torch import nn

from noisy_training import assert_equal_bits, network, state, train
from steadydescent.weight_averaging import EMA, Shadow, load_checkpoint, save_checkpoint

distributed = pytest.importorskip("torch.distributed")
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("processes", [1, 2])
def test_models_spread_over_processes_are_averaged_swapped_saved_and_loaded_as_in_one_piece(
    tmp_path, processes
):
    from sharded import work

    if processes == 1:
        work(0, 1, str(tmp_path))
    else:
        torch.multiprocessing.spawn(work, (processes, str(tmp_path)), nprocs=processes)


def test_compiled_models_are_averaged_swapped_saved_and_loaded(tmp_path):
    plain, model = network(), network()
    compiled = torch.compile(model, backend="eager")
    theirs = EMA(plain, 0.5)
    inner = EMA(model, 0.5)
    around = EMA(compiled, 0.5)
    shadow = Shadow(compiled, 0.5)
    shadow.register()
    for _ in zip(train(plain, 3), train(compiled, 3), strict=True):
        theirs.update(plain)
        inner.update(model)
        around.update(compiled)
        shadow.update()
    expected = state(theirs.module)
    assert_equal_bits(state(inner.module), expected)
    assert_equal_bits(
        {name.removeprefix("_orig_mod."): value for name, value in state(around.module).items()},
        expected,
    )
    x = torch.ones(2, 7, dtype=torch.float64)
    for block in (inner.swapped(model), around.swapped(compiled), shadow.applied()):
        with block:
            assert torch.equal(compiled.eval()(x), theirs(x))
    assert_equal_bits(state(model), state(plain))
    save_checkpoint(tmp_path / "a.safetensors", compiled, None, 1, around=around, shadow=shadow)
    fresh = torch.compile(network(seed=5), backend="eager")
    load_checkpoint(
        tmp_path / "a.safetensors", fresh, around=EMA(fresh, 0.5), shadow=Shadow(fresh, 0.5)
    )
    assert_equal_bits(state(fresh), state(compiled))


def test_scripted_models_are_averaged():
    model = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    before = state(model)
    model(torch.randn(5, 2))
    moved = state(model)
    ema.update(model)
    shadow.update()
    mean = 0.5 * (before["1.running_mean"] + moved["1.running_mean"])
    torch.testing.assert_close(ema.module.state_dict()["1.running_mean"], mean)
    for block in (ema.swapped(model), shadow.applied()):
        with block:
            torch.testing.assert_close(model.state_dict()["1.running_mean"], mean)
        assert_equal_bits(state(model), moved)
