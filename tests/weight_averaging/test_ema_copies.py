"""Models that are hard to copy, every dtype and layout, blocks that give the weights back."""

import pickle
import threading

import pytest
import torch
from torch import nn

from noisy_training import assert_equal_bits, assert_same, network, state
from steadydescent.weight_averaging import (
    EMA,
    Shadow,
    load_checkpoint,
    mix,
    save_checkpoint,
    snapshots,
)

# Copies


class Attention(nn.Linear):
    """Keeps its last result on itself, or in a list."""

    def __init__(self, keep):
        super().__init__(2, 2)
        self.keep = keep

    def forward(self, x):
        result = super().forward(x).softmax(-1)
        if self.keep == "buffer":
            self.register_buffer("last", result, persistent=False)
        else:
            self.last = [result] if self.keep == "list" else result
        return result


def weight_normed():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        weight_normed,
        lambda: nn.Sequential(Attention("attribute")),
        lambda: nn.Sequential(Attention("buffer")),
    ],
)
def test_results_that_a_model_keeps_do_not_hinder_its_average(make, seen):
    model, x = make(), torch.randn(5, 2)
    if seen:
        model(x)
    ema = EMA(model, 0.0)  # the last model
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    ema.update(model)
    assert torch.equal(ema(x), model(x)) and not ema(x).requires_grad


def with_lock(path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    model.get_submodule(path).lock = threading.Lock()
    return model


def with_results():
    model = nn.Sequential(Attention("list"))
    model(torch.ones(1, 2))
    return model


class Uncopied(nn.Linear):
    """Says itself that it is not to be copied."""

    def __deepcopy__(self, memo):
        raise NotImplementedError("one of a kind")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: with_lock(""), "the attribute 'lock' of the Sequential cannot be copied"),
        (lambda: with_lock("0"), r"the attribute 'lock' of its part '0' \(Linear\)"),
        (lambda: with_lock("1.0"), r"the attribute 'lock' of its part '1.0' \(Linear\)"),
        (with_results, r"the attribute 'last' of its part '0' \(Attention\)"),
        (lambda: nn.Sequential(Uncopied(2, 2)), r"one of a kind"),
    ],
)
def test_what_cannot_be_copied_is_named_and_a_shadow_needs_no_copy(make, sentence):
    model = make()
    with pytest.raises(TypeError, match=sentence) as refusal:
        EMA(model, 0.5)
    assert "or use Shadow, which needs no copy" in str(refusal.value)
    shadow = Shadow(model, 0.5)
    shadow.register()
    shadow.update()
    with shadow.applied():
        pass


# Dtypes, sizes, layouts

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
]
EIGHT = [torch.float8_e4m3fn, torch.float8_e5m2]


class One(nn.Module):
    """A single parameter."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(value, requires_grad=False)


@pytest.mark.parametrize("layout", ["rows", "columns", "transposed"])
@pytest.mark.parametrize("size", [0, 1, 15, 17, 4097])
@pytest.mark.parametrize("dtype", DTYPES + EIGHT, ids=str)
@pytest.mark.parametrize("average", [EMA, Shadow])
def test_averages_of_every_dtype_size_and_layout_are_the_formula_in_double(
    average, dtype, size, layout
):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    generator = torch.Generator().manual_seed(0)
    arranged = {
        "rows": lambda tensor: tensor,
        "columns": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
        "transposed": lambda tensor: tensor.contiguous().transpose(0, 3),
    }[layout]
    draw = lambda: arranged(torch.randn(1, 3, 1, size, generator=generator, dtype=wide)).to(dtype)
    model = One(draw())
    made = average(model, 0.75)
    if average is Shadow:
        made.register()
    expected = model.weight.data.to(wide)
    for _ in range(3):
        model.weight.data = draw()
        expected = mix(expected, model.weight.data.to(wide), 0.25)
        made.update(*([model] if average is EMA else []))
    mean = made.module.weight if average is EMA else made.shadow["weight"]
    assert mean.dtype.itemsize >= 4
    torch.testing.assert_close(mean.to(wide), expected, rtol=1e-6, atol=1e-6)
    kept = model.weight.data.clone()
    with made.swapped(model) if average is EMA else made.applied():
        assert torch.equal(model.weight.to(wide), mean.to(dtype).to(wide))
    assert torch.equal(model.weight.to(wide), kept.to(wide)) and model.weight.dtype == dtype


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "dtype", [torch.complex32, torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.bool]
)
def test_odd_dtypes_are_copied_or_averaged_and_saved(tmp_path, dtype):
    model = One(torch.ones(3).to(dtype))
    ema = EMA(model, 0.5)
    model.weight.data = torch.zeros(3).to(dtype)
    ema.update(model)
    assert ema.module.weight[0].item() == (0.5 if dtype.is_complex else 0)
    save_checkpoint(tmp_path / "a.safetensors", model, None, 1, ema=ema)
    fresh = One(torch.ones(3).to(dtype))
    other = EMA(fresh, 0.5)
    load_checkpoint(tmp_path / "a.safetensors", fresh, ema=other)
    assert_same(dict(other.state_dict()), dict(ema.state_dict()))
    assert fresh.weight[0].item() == 0


def test_sparse_weights_are_refused_by_name():
    model = One(torch.ones(3, 3).to_sparse())
    for use in (lambda: EMA(model, 0.5), lambda: Shadow(model, 0.5).register()):
        with pytest.raises(
            ValueError, match=r"'weight' in the model has the layout torch.sparse_coo; only dense"
        ):
            use()


def test_strides_of_a_models_weights_are_those_of_its_average():
    model = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
    shadow.register()
    assert ema.module.weight.stride() == shadow.shadow["weight"].stride() == model.weight.stride()


# Blocks give everything back


def blocks():
    def ema_block(model):
        return EMA(model, 0.9).swapped(model)

    def shadow_block(model):
        shadow = Shadow(model, 0.9)
        shadow.register()
        return shadow.applied()

    return pytest.mark.parametrize("block", [ema_block, shadow_block], ids=["EMA", "Shadow"])


def new_layer(model):
    model[0] = nn.Linear(7, 5, dtype=torch.float64)


def new_parameter(model):
    model[0].weight = nn.Parameter(torch.zeros(2, 2))


def removed(model):
    del model[0].bias


def cast(model):
    model.half()


def resized(model):
    model[1].running_mean.resize_(3)
    model[0].weight.data = torch.zeros(9)


def made_parametrised(model):
    nn.utils.parametrizations.weight_norm(model[0])


def frozen(model):
    model.requires_grad_(False)


def assigned(model):
    model.load_state_dict(
        {name: value + 1 for name, value in model.state_dict().items()}, assign=True
    )


def without_buffers(model):
    model[1].running_mean = None


@blocks()
@pytest.mark.parametrize(
    "change",
    [
        new_layer,
        new_parameter,
        removed,
        cast,
        resized,
        made_parametrised,
        frozen,
        assigned,
        without_buffers,
    ],
)
def test_the_weights_that_were_there_come_back_bitwise_whatever_happens_in_the_block(block, change):
    model = network()
    parameters = dict(model.named_parameters())
    before, layer = state(model), model[0]
    with block(model):
        change(model)
    model[0] = layer
    assert_equal_bits(
        {name: parameters[name].detach() for name in parameters}, {n: before[n] for n in parameters}
    )
    buffers = {name: value for name, value in before.items() if name not in parameters}
    assert_equal_bits({name: model.get_buffer(name) for name in buffers}, buffers)
    if change is not made_parametrised:
        assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())


class Stubborn(torch.Tensor):
    """A buffer that takes no values but once."""

    taken = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_ and isinstance(args[0], cls):
            cls.taken += 1
            if cls.taken > 1:
                raise RuntimeError("no more")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("average", ["EMA", "Shadow"])
def test_one_tensor_that_cannot_be_put_back_keeps_no_other_from_it_and_is_named(average):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    if average == "EMA":
        made = EMA(model, 0.5)
        block, again = (lambda: made.swapped(model)), None
    else:
        made = Shadow(model, 0.5)
        made.register()
        block, again = made.applied, made.restore
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    Stubborn.taken = 0
    model[1].register_buffer("odd", torch.ones(2).as_subclass(Stubborn), persistent=False)
    Stubborn.taken = 1
    with pytest.raises(RuntimeError, match=r"all was put back but '1.odd' \(no more\)"), block():
        assert model[2].weight.unique().item() != 7.0
    assert all(parameter.unique().item() == 7.0 for parameter in model.parameters())
    if again:
        with pytest.raises(RuntimeError, match="while the shadow is applied"):
            made.update()
        Stubborn.taken = 0
        again()
        made.update()


@pytest.mark.parametrize("average", ["EMA", "Shadow"])
def test_a_swap_that_fails_half_way_is_undone(average, monkeypatch):
    model = network()
    ema, shadow = EMA(network(seed=5), 0.5), Shadow(model, 0.5)
    shadow.register()
    before, written, write = state(model), [], snapshots.write

    def failing(target, value):
        written.append(1)
        if len(written) == 4:
            raise KeyboardInterrupt
        write(target, value)

    monkeypatch.setattr(snapshots, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        (ema.swapped(model) if average == "EMA" else shadow.applied()).__enter__()
    monkeypatch.undo()
    assert_equal_bits(state(model), before)
    with ema.swapped(model):
        pass
    shadow.update()


# Inference mode


class Caching(nn.Linear):
    """Keeps its last input in a buffer: in the state, and beside it."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("last", torch.zeros(3, 2))
        self.register_buffer("beside", torch.zeros(3, 2), persistent=False)

    def forward(self, x):
        self.last, self.beside = x.clone(), x.clone()
        return super().forward(x)


def test_what_a_model_has_made_in_inference_mode_is_averaged_swapped_and_put_back(tmp_path):
    model = Caching()
    with torch.inference_mode():
        model(torch.ones(3, 2))
        ema, shadow = EMA(model, 0.5), Shadow(model, 0.5)
        shadow.register()
    assert model.last.is_inference()
    for number in range(3):
        with torch.inference_mode(number == 1):
            model(torch.full((3, 2), number + 2.0))
            ema.update(model)
            shadow.update()
    with torch.inference_mode():
        model(torch.full((3, 2), 9.0))
    before = state(model)
    for block in (lambda: ema.swapped(model), shadow.applied):
        for mode in (False, True):
            with torch.inference_mode(mode), block():
                assert model.last.unique().item() == 4.0
                model(torch.zeros(3, 2))
            assert_equal_bits(state(model), before)
            assert model.beside.unique().item() == 9.0
    save_checkpoint(tmp_path / "a.safetensors", model, None, 1, ema=ema, shadow=shadow)
    load_checkpoint(tmp_path / "a.safetensors", Caching(), ema=ema, shadow=shadow)
    ema.update(model)


# Averages in averages, and in pickles


def test_an_average_of_an_average_follows_its_count_and_goes_through_pickle():
    model = network()
    inner = EMA(model, 0.5)
    outer = EMA(inner, 0.5)
    for _ in range(3):
        inner.update(model)
        outer.update(inner)
    assert outer.module.updates == outer.updates == 3
    again = pickle.loads(pickle.dumps(outer))
    again.update(inner)
    assert again.module.updates == 3 and again.updates == 4
