"""Every technique that takes a user's model, on every row of the matrix of inputs, against torch or
a plain loop.
"""

import copy
import itertools
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facade_training import FACADES, identical
from input_matrix import (
    DTYPES,
    LAYOUTS,
    MODELS,
    NO_MEAN,
    SIZES,
    One,
    Row,
    drawn,
    made,
    one,
)
from steadydescent.lr_search import range_test, rate_step, restored
from steadydescent.minibatches import EpochBatches, IndexStream
from steadydescent.normalization import BatchNorm, GhostBatchNorm
from steadydescent.optimizers import RULES, Adam
from steadydescent.weight_averaging import (
    EMA,
    Debiased,
    Ramped,
    Shadow,
    Started,
    TailMean,
    average_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from torch_twins import TWINS

MIXINGS = {
    "started": Started(0.7),
    "debiased": Debiased(0.7),
    "ramped": Ramped(),
    "tail": TailMean(2),
}
STEPS = 4

every_model = pytest.mark.parametrize("name", MODELS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_mixing = pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS.keys())


def trained(row: Row, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0):
    """Train a row's model; yields after every update."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        row.loss(row.model, generator).backward()
        optimizer.step()
        yield


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adam(model: nn.Module) -> Adam:
    """With an ε that half precision has."""
    return Adam(trainable(model), lr=0.05, eps=1e-3)


def bits(model: nn.Module) -> dict[str, object]:
    """All that a model holds, non-persistent buffers and extra state too, in memory of its own."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rest = {k: v for k, v in model.state_dict().items() if not isinstance(v, torch.Tensor)}
    return copy.deepcopy({key: value.detach() for key, value in tensors.items()} | rest)


def assert_close(
    actual: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype, scale: float = 1.0
) -> None:
    """Equal but for some roundings of a dtype, of values about as large as `scale`."""
    some = 16 * torch.finfo(dtype).eps
    assert actual.shape == wanted.shape
    torch.testing.assert_close(actual.double(), wanted.double(), rtol=some, atol=some * scale)


# Optimisers


@every_layout
@every_dtype
@pytest.mark.parametrize("rule", FACADES)
def test_optimizers_on_every_tensor(rule, dtype, layout):
    """As torch's own in double precision; steps are large, so that a weight which stays put is far
    off.
    """
    for size in SIZES:
        row, exact = one(dtype, size, layout), one(torch.float64, size, layout)
        exact.model.weight.data.copy_(row.model.weight)
        ours = FACADES[rule]([row.model.weight], lr=0.25)
        theirs = TWINS[rule]([exact.model.weight], 0.25, **RULES[rule].checked())
        generator = torch.Generator().manual_seed(size)
        for _ in range(STEPS):
            row.model.weight.grad = drawn(row.model.weight, generator)
            exact.model.weight.grad = row.model.weight.grad.double()
            ours.step()
            theirs.step()
        assert row.model.weight.dtype == dtype
        assert row.model.weight.stride() == one(dtype, size, layout).model.weight.stride()
        assert_close(row.model.weight, exact.model.weight, dtype, scale=4.0)


# in float16 squares of its gradients are 0
@pytest.mark.parametrize("name", [name for name in MODELS if name != "float16"])
@pytest.mark.parametrize("rule", FACADES)
def test_optimizers_on_every_model(rule, name):
    """As torch's own in double precision on the same gradients."""
    row = made(name)
    before, mine = bits(row.model), trainable(row.model)
    exact = [nn.Parameter(parameter.detach().double()) for parameter in mine]
    optimizer, twin = (
        FACADES[rule](mine, lr=0.05),
        TWINS[rule](exact, 0.05, **RULES[rule].checked()),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        row.loss(row.model, generator).backward()
        for parameter, other in zip(mine, exact, strict=True):
            other.grad = None if parameter.grad is None else parameter.grad.double()
        optimizer.step()
        twin.step()
    movable = [(n, p) for n, p in row.model.named_parameters() if p.requires_grad and p.numel()]
    moved = [not torch.equal(parameter, before[key]) for key, parameter in movable]
    assert moved and all(moved)
    for parameter, other in zip(mine, exact, strict=True):
        assert_close(parameter.detach(), other.detach(), parameter.dtype, scale=4.0)


@pytest.mark.parametrize("dtype", NO_MEAN, ids=str)
@pytest.mark.parametrize("facade", FACADES.values(), ids=FACADES.keys())
def test_optimizers_refuse_dtypes_without_a_rule_by_name(facade, dtype):
    odd, plain = One(torch.ones(3).to(dtype)), nn.Linear(2, 1)
    model = nn.ModuleDict({"plain": plain, "odd": odd})
    before = bits(model)

    def train():
        optimizer = facade(model.named_parameters(), lr=0.1)
        plain.weight.grad = torch.ones_like(plain.weight)
        odd.weight.grad = odd.weight.detach().clone()
        optimizer.step()

    with pytest.raises((ValueError, TypeError), match=r"odd\.weight"):
        train()
    assert identical(bits(model), before)


# Averages


def unwrapped(row: Row) -> Row:
    """The row with the model inside `torch.compile`'s wrapper."""
    return Row(getattr(row.model, "_orig_mod", row.model), row.loss)


def has_mean(model: nn.Module, name: str) -> bool:
    """Parameters, and the running statistics of batch norms."""
    owner, _, own = name.rpartition(".")
    layer = model.get_submodule(owner)
    statistics = isinstance(layer, _BatchNorm | BatchNorm) and own in (
        "running_mean",
        "running_var",
    )
    return name in dict(model.named_parameters(remove_duplicate=False)) or statistics


def mean_by_loop(states: list[dict], mixing, model: nn.Module) -> dict[str, torch.Tensor]:
    """θ_0, θ_1, … θ_T → their average in double precision; what has no mean is the last."""
    average = {key: value for key, value in states[0].items() if isinstance(value, torch.Tensor)}
    average = {
        key: value.double() if has_mean(model, key) else value for key, value in average.items()
    }
    for step, state in enumerate(states[1:], start=1):
        for key in average:
            now = state[key]
            weight = float(mixing(step))
            average[key] = (
                average[key] + weight * (now.double() - average[key])
                if has_mean(model, key)
                else now
            )
    return average


def states_of(row: Row, each) -> list[dict]:
    optimizer, states = adam(row.model), [bits(row.model)]
    for _ in trained(row, optimizer, STEPS):
        states.append(bits(row.model))
        each()
    return states


def assert_average(actual: dict, wanted: dict, model: nn.Module) -> None:
    for key, value in wanted.items():
        if has_mean(model, key):
            assert_close(actual[key], value, actual[key].dtype)
            assert actual[key].dtype not in (torch.bfloat16, torch.float16)
        else:
            assert torch.equal(actual[key], value), key


@every_mixing
@every_model
def test_averages_on_every_model(name, mixing):
    row = unwrapped(made(name))
    ema, shadow = EMA(row.model, mixing), Shadow(row.model, mixing)
    shadow.register()

    def each():
        shadow.update()
        ema.update(row.model)

    states = states_of(row, each)
    wanted, last = mean_by_loop(states, mixing, row.model), bits(row.model)
    assert_average(bits(ema.module), wanted, row.model)
    assert_average(shadow.shadow, {k: wanted[k] for k in shadow.shadow}, row.model)
    assert {key for key in wanted if has_mean(row.model, key)} <= shadow.shadow.keys()
    for block in (ema.swapped(row.model), shadow.applied()):
        with block:
            for key, value in bits(row.model).items():
                if key in wanted and has_mean(row.model, key):
                    assert_close(value, wanted[key], value.dtype)
        assert identical(bits(row.model), last)


@every_layout
@every_dtype
def test_averages_on_every_tensor(dtype, layout):
    for size in SIZES:
        row = one(dtype, size, layout)
        ema, shadow = EMA(row.model, 0.7), Shadow(row.model, 0.7)
        shadow.register()
        states = [bits(row.model)]
        for step in range(STEPS):
            row.model.weight.data.copy_(
                drawn(row.model.weight, torch.Generator().manual_seed(step))
            )
            states.append(bits(row.model))
            ema.update(row.model)
            shadow.update()
        wanted = mean_by_loop(states, Started(0.7), row.model)["weight"]
        wide = torch.promote_types(dtype, torch.float32)
        for actual in (ema.module.weight, shadow.shadow["weight"]):
            assert actual.dtype == wide
            assert_close(actual, wanted, wide)


# Checkpoints


@every_model
def test_checkpoints_on_every_model(name, tmp_path):
    """Cut and resumed in a fresh process's objects, training ends with the same bits as without a
    cut.
    """
    whole, cut, fresh = (unwrapped(made(name)) for _ in range(3))
    optimizers = [adam(row.model) for row in (whole, cut, fresh)]
    shadows = [Shadow(row.model, Debiased(0.7)) for row in (whole, cut, fresh)]

    def train(which, seed):
        row, optimizer, shadow = ((whole, cut, fresh)[which], optimizers[which], shadows[which])
        for _ in trained(row, optimizer, STEPS, seed):
            shadow.update()

    for shadow in shadows[:2]:
        shadow.register()
    train(0, seed=1)
    train(0, seed=2)
    train(1, seed=1)
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, cut.model, optimizers[1], STEPS, average=shadows[1])
    assert load_checkpoint(path, fresh.model, optimizers[2], average=shadows[2]) == STEPS
    train(2, seed=2)
    assert identical(fresh.model.state_dict(), whole.model.state_dict())
    assert identical(shadows[2].state_dict(), shadows[0].state_dict())


@every_dtype
@every_layout
def test_checkpoints_on_every_tensor(dtype, layout, tmp_path):
    for size in SIZES:
        row, fresh = (
            one(dtype, size, layout),
            One(torch.zeros_like(one(dtype, size, layout).model.weight)),
        )
        save_checkpoint(tmp_path / "a.safetensors", row.model, None, 1)
        load_checkpoint(tmp_path / "a.safetensors", fresh)
        assert torch.equal(fresh.weight, row.model.weight)


@every_model
def test_means_of_checkpoints_on_every_model(name, tmp_path):
    row, step = unwrapped(made(name)), itertools.count(1)
    plain, states = row.model, []

    def each():
        path = tmp_path / f"{next(step)}.safetensors"
        save_checkpoint(path, plain, None, len(states) + 1)
        states.append(bits(plain))

    states_of(row, each)
    mean = average_checkpoints(sorted(tmp_path.glob("*.safetensors")))
    assert mean.keys() == plain.state_dict().keys()
    for key, value in mean.items():
        if key not in states[-1]:  # tied: under its first name
            continue
        if not isinstance(value, torch.Tensor) or not has_mean(plain, key):
            assert identical({key: value}, {key: states[-1][key]}), key
            continue
        wanted = sum(state[key].double() for state in states) / len(states)
        assert value.dtype == states[-1][key].dtype
        assert_close(value, wanted, value.dtype)


# Range tests


@every_model
def test_range_tests_leave_every_model_as_it_was(name):
    row = made(name)
    optimizer, generator = adam(row.model), torch.Generator().manual_seed(3)
    for _ in trained(row, optimizer, 2):
        pass
    before, slots = bits(row.model), copy.deepcopy(optimizer.state_dict())
    with restored(row.model, optimizer):
        test = range_test(
            rate_step(optimizer, lambda: row.loss(row.model, generator)), 1e-4, 1e-2, 5
        )
        assert not identical(bits(row.model), before)
    assert len(test.losses) and identical(bits(row.model), before)
    assert identical(optimizer.state_dict(), slots)


# Models that hold no values yet


def _meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(2, 2))


UNMADE = {"meta": _meta, "lazy": lambda: nn.Sequential(nn.LazyLinear(2))}


def _average(kind):
    def use(model, folder):
        if kind is EMA:
            EMA(model, 0.5).update(model)
        else:
            shadow = Shadow(model, 0.5)
            shadow.register()
            shadow.update()

    return use


def _restore(model, folder):
    with restored(model, Adam(model.parameters(), lr=0.1)):
        pass


VERBS = {
    "EMA": _average(EMA),
    "Shadow": _average(Shadow),
    "save_checkpoint": lambda model, folder: save_checkpoint(
        folder / "a.safetensors", model, None, 1
    ),
    "restored": _restore,
}


@pytest.mark.parametrize("unmade", UNMADE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_model_without_values_is_refused_by_name_or_works(verb, unmade, tmp_path):
    try:
        VERBS[verb](UNMADE[unmade](), tmp_path)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    else:
        return
    assert "0.weight" in refusal and not list(tmp_path.iterdir())


# Samplers and normalisation


@pytest.mark.parametrize("examples", [1, 2, 7, 8, 9, 33])
def test_samplers_of_every_size(examples):
    for size in {1, 2, examples // 2, examples - 1, examples} & set(range(1, examples + 1)):
        epochs = EpochBatches(examples, size, seed=0)
        for _ in range(2):
            batches = list(epochs)
            assert sorted(itertools.chain(*batches)) == list(range(examples)) and len(
                batches
            ) == len(epochs)
        drawn_ = IndexStream(examples, size, seed=0).take(3)
        assert drawn_.shape == (3, size) and all(
            len(set(batch.tolist())) == size for batch in drawn_
        )


@pytest.mark.parametrize("sizes", [(0, 1), (-1, 1), (3, 0), (3, 4), (1.5, 1), (True, 1), ("3", 1)])
@pytest.mark.parametrize("sampler", [EpochBatches, IndexStream])
def test_samplers_refuse_sizes_by_name(sampler, sizes):
    with pytest.raises(ValueError, match=r"examples|batch_size"):
        sampler(*sizes, seed=0)


@every_dtype
@pytest.mark.parametrize(
    "shape", [(2, 3), (33, 3), (4, 3, 5), (4, 3, 5, 2), (1, 3, 2), (2, 3, 0)], ids=str
)
def test_batch_norm_of_every_dtype_shape_and_layout(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    layouts = [values, values.transpose(0, 1).contiguous().transpose(0, 1)]
    if len(shape) == 4:
        layouts.append(values.contiguous(memory_format=torch.channels_last))
    twin = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    for x in layouts:
        ours, theirs = BatchNorm(3), twin(3).double()
        if 0 in shape:
            with pytest.raises(ValueError, match=r"batch|value"):
                ours(x.to(dtype))
            continue
        actual, wanted = ours(x.to(dtype)), theirs(x.to(dtype).double())
        assert actual.dtype == dtype
        assert_close(
            actual.detach(),
            wanted.detach(),
            max(dtype, torch.float32, key=lambda d: torch.finfo(d).eps),
        )
        for key in ("running_mean", "running_var"):
            assert_close(ours.get_buffer(key), theirs.get_buffer(key), torch.float32)
        actual, wanted = ours.eval()(x.to(dtype)), theirs.eval()(x.to(dtype).double())
        assert_close(
            actual.detach(),
            wanted.detach(),
            max(dtype, torch.float32, key=lambda d: torch.finfo(d).eps),
        )


@pytest.mark.parametrize("dtype", [*NO_MEAN, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize(
    "norm", [lambda: BatchNorm(3), lambda: GhostBatchNorm(3, 2)], ids=["batch", "ghost"]
)
def test_batch_norm_refuses_other_dtypes_by_name(norm, dtype):
    with pytest.raises(ValueError, match=str(dtype).removeprefix("torch.")):
        norm()(torch.ones(4, 3).to(dtype))


# Several processes


def test_sharded_and_replicated_models_on_two_processes(tmp_path):
    """DTensor parameters, DDP and FSDP2, with gloo; a file is the meeting place, so no port is
    needed.
    """
    program = [sys.executable, str(Path(__file__).parents[1] / "support/two_processes.py")]
    both = [
        subprocess.Popen(
            [*program, str(rank), str(tmp_path)], stdout=PIPE, stderr=STDOUT, text=True
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)
    assert all("is done" in text for text in outputs)
