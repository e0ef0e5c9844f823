"""Batch norm over every precision, size, layout and device, beside torch's class.

And in torch's own tools.
"""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.optim.swa_utils import AveragedModel, update_bn

from activations import BUFFERS, generator, normal
from steadydescent.normalization import (
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    moments,
    reestimate,
)

# A step of each precision, and what its sums may be off by
PRECISIONS = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}
SIZES = [(2, 1), (1, 3, 2), (2, 33), (7, 5, 1), (16, 5), (5, 4_097), (3, 5, 4, 7), (2, 5, 2, 3, 4)]
LAYOUTS = {
    "contiguous": lambda z: z,
    "transposed": lambda z: z.transpose(0, -1).contiguous().transpose(0, -1),
    "every other": lambda z: torch.stack([z, z + 7]).transpose(0, 1).flatten(0, 1)[::2],
    "expanded": lambda z: z[:1].expand(z.shape),
    "channels last": lambda z: z.to(memory_format=torch.channels_last) if z.dim() == 4 else z,
}
NAMES = ["batch", "ghost", "noisy"]
PEERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_precision_size_and_layout_is_as_from_torchs_class(size, layout, dtype):
    """In training, in inference and backwards; nothing is asked of the input but its shape."""
    tolerance, channels = PRECISIONS[dtype], size[1]
    z = LAYOUTS[layout](normal(*size).to(dtype))
    assert z.shape == size
    for training in (True, False):
        ours, theirs = BatchNorm(channels).to(dtype), PEERS[len(size)](channels).to(dtype)
        ours.train(training), theirs.train(training)
        inputs = [z.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
        outputs = [norm(x) for norm, x in zip((ours, theirs), inputs, strict=True)]
        close = {"rtol": 4 * tolerance, "atol": 8 * tolerance}
        # where all values of a channel are equal, what is left is rounding over √ε
        if layout != "expanded":
            torch.testing.assert_close(*outputs, **close)
            for out in outputs:
                out.float().square().mean().backward()
            torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **close)
        assert outputs[0].dtype == dtype and outputs[0].isfinite().all()
        if z.dim() == 4:
            assert outputs[0].is_contiguous(memory_format=torch.channels_last) == z.is_contiguous(
                memory_format=torch.channels_last
            )
        for name in BUFFERS:
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), **close)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "make", [BatchNorm, lambda c: GhostBatchNorm(c, 2), NoisyBatchNorm], ids=NAMES
)
def test_precisions_without_statistics_are_refused_by_name_and_change_nothing(make, dtype):
    norm = make(3)
    with pytest.raises(
        ValueError,
        match=f"^input must be of floating point, got {dtype}; 16, 32 and 64 bits are known",
    ):
        norm(torch.ones(4, 3).to(dtype))
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()
    if dtype.is_complex or (dtype.itemsize == 1 and dtype.is_floating_point):
        norm.weight.data = norm.weight.data.to(dtype)
        with pytest.raises(ValueError, match=f"^weight must be of floating point, got {dtype}"):
            norm(torch.ones(4, 3))
        with pytest.raises(
            ValueError, match=f"^x must be a tensor .M, D. of real numbers, got {dtype}"
        ):
            moments(torch.ones(4, 3).to(dtype))


@pytest.mark.parametrize("size", [(0, 5), (1, 5), (0, 5, 3), (1, 5, 1)], ids=str)
def test_no_or_one_value_is_refused_in_training_and_taken_in_inference_as_by_torch(size):
    """torch refuses one value alone; of none it makes statistics."""
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5)
    with pytest.raises(ValueError, match="at least 2 values a channel"):
        ours(torch.ones(size))
    assert ours.running_mean.eq(0).all()
    torch.testing.assert_close(ours.eval()(torch.ones(size)), theirs.eval()(torch.ones(size)))


def test_one_example_of_two_pixels_is_a_batch():
    z = normal(1, 5, 2)
    torch.testing.assert_close(BatchNorm(5).double()(z), nn.BatchNorm1d(5).double()(z))


def test_on_meta_shapes_and_precisions_come_out():
    norm = BatchNorm(5).to("meta")
    out = norm(torch.empty(7, 5, 3, device="meta", dtype=torch.bfloat16))
    assert (out.shape, out.dtype, out.device.type) == ((7, 5, 3), torch.bfloat16, "meta")


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_moments_of_every_precision_are_the_double_ones_rounded(dtype):
    x = normal(101, 5).to(dtype)
    exact = x.double()
    for value, expected in zip(
        moments(x), (exact.mean(0), exact.std(0, correction=0)), strict=True
    ):
        assert value.dtype == dtype
        torch.testing.assert_close(
            value.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6
        )


# Torch's own tools


def network(norm=BatchNorm):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), norm(7), nn.ReLU(), nn.Linear(7, 3), norm(3))


def batches(count=4):
    return [
        normal(size, 5, seed=k).float() * (1 + k) + k
        for k, size in enumerate([13] * (count - 1) + [7])
    ]


@pytest.mark.parametrize("wrap", [lambda model: model, AveragedModel], ids=["alone", "averaged"])
def test_torchs_update_bn_gives_ours_what_it_gives_its_own(wrap):
    ours, theirs, reestimated = (
        wrap(network(norm)) for norm in (BatchNorm, nn.BatchNorm1d, BatchNorm)
    )
    for _ in range(2):  # the second time as the first
        for model in (ours, theirs):
            update_bn(batches(), model)
        reestimate(reestimated, batches())
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, theirs.state_dict()[name], msg=name)
            torch.testing.assert_close(tensor, reestimated.state_dict()[name], msg=name)
    for module in ours.modules():
        assert not isinstance(module, BatchNorm) or module.momentum == 0.1


def test_update_bn_trains_ghosts_and_asks_for_noise():
    ghosts, plain = network(lambda c: GhostBatchNorm(c, 3)), network()
    update_bn([batch[:6] for batch in batches()], ghosts)
    assert not torch.equal(ghosts[1].running_var, plain[1].running_var)
    with pytest.raises(ValueError, match="a batch must be a multiple of ghost = 3"):
        update_bn(batches(), network(lambda c: GhostBatchNorm(c, 3)))
    with pytest.raises(ValueError, match="needs noise for a batch of 13"):
        update_bn(batches(), network(NoisyBatchNorm))


def test_converted_to_sync_batch_norm_it_computes_the_same():
    model = network()
    model(batches()[0])
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert type(converted[1]) is nn.SyncBatchNorm and converted[1].num_batches_tracked == 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor)
    x = batches()[1]
    torch.testing.assert_close(converted.eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    "norm", [lambda c: GhostBatchNorm(c, 2), NoisyBatchNorm], ids=["ghost", "noisy"]
)
def test_what_conversion_would_lose_is_refused(norm):
    with pytest.raises(
        ValueError, match=r"cannot become a SyncBatchNorm.*put a BatchNorm in its place"
    ):
        nn.SyncBatchNorm.convert_sync_batchnorm(network(norm))


@pytest.mark.parametrize(
    "norm", [BatchNorm, lambda c: GhostBatchNorm(c, 13), NoisyBatchNorm], ids=NAMES
)
def test_states_pass_both_ways_bit_by_bit_and_keep_no_count(norm):
    ours, theirs = network(norm), network(nn.BatchNorm1d)
    draw_noise(ours, 13, generator())
    ours(batches()[0])
    assert not [name for name in ours.state_dict() if "num_batches" in name]
    theirs.load_state_dict(ours.state_dict())
    again = network(norm)
    theirs.load_state_dict(ours.state_dict())
    again.load_state_dict(theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor) and torch.equal(
            theirs.state_dict()[name], tensor
        )


# Batches of every form


class Takes(nn.Module):
    """A model with batch norm that takes its input in a form of its own."""

    def __init__(self, form, norm=nn.BatchNorm1d):
        super().__init__()
        self.norm, self.form = norm(5), form

    def forward(self, *given, **named):
        return self.norm(self.form(*given, **named))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x, y):
        return self.norm(x + y)


class Sample:
    """As a loader's own class of batches: attributes, and a way to move."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Sample(self.x.to(device))


X = normal(13, 5).float()
KEYED = {"x": X, "mask": torch.ones(13), "ids": ["a"] * 13}
FORMS = {
    "a tensor": (X, lambda x: x, None),
    "a pair": ((X, torch.ones(13)), lambda x: x, None),
    "a dict": (KEYED, lambda batch: batch["x"], None),
    "a dict in a pair": ((KEYED, torch.ones(13)), lambda batch: batch["x"], None),
    "an object": (Sample(X), lambda batch: batch.x, None),
    "keywords": (KEYED, lambda x, mask, ids: x, lambda module, batch: module(**batch)),
    "two inputs": ((X / 2, X / 2), lambda x, y: x + y, lambda module, batch: module(*batch)),
    "nested": (({"x": [X]}, 0), lambda x: x, lambda module, batch: module(batch[0]["x"][0])),
}


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, BatchNorm, NoisyBatchNorm, lambda c: GhostBatchNorm(c, 4)]
)
@pytest.mark.parametrize("name", FORMS)
def test_batches_of_every_form_give_the_statistics_of_their_examples(name, norm, device):
    batch, form, forward = FORMS[name]
    module = Takes(form, norm)
    assert reestimate(module, [batch], device, forward) == 1
    torch.testing.assert_close(module.norm.running_mean, X.mean(0))
    torch.testing.assert_close(module.norm.running_var, X.var(0))


@pytest.mark.parametrize(
    ("module", "batch", "sentence"),
    [
        (
            Two(),
            (X, X),
            "Two got the first part of a batch, a Tensor, and said: .*missing 1 .*; .*with forward",
        ),
        (network(), {"x": X}, "Sequential got the batch, a dict, and said: .*with forward"),
        (network(), Sample(X), "Sequential got the batch, a Sample, and said: .*with forward"),
        (network(), "text", "Sequential got the batch, a str, and said: .*with forward"),
        (network(), ({"x": X}, 0), "Sequential got the first part of a batch, a dict, and said"),
        (network(), (), "a batch must hold something, got an empty tuple"),
    ],
)
def test_a_batch_that_does_not_fit_the_module_says_what_to_do_and_changes_nothing(
    module, batch, sentence
):
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=sentence):
        reestimate(module, [batch])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_one_batch_in_place_of_batches_and_lazy_layers_are_refused():
    with pytest.raises(
        ValueError, match="batches must be an iterable of batches, got one dict; put it into a list"
    ):
        reestimate(network(), KEYED)
    with pytest.raises(ValueError, match="forward must be a function of module and batch, got 3"):
        reestimate(network(), [X], forward=3)
    with pytest.raises(ValueError, match="one is lazy still; run a batch through"):
        reestimate(nn.Sequential(nn.LazyBatchNorm1d()), [X])


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_compiled_module_is_not_compiled_again_for_each_batch_and_gets_the_same_statistics(
    fullgraph,
):
    """Twice, with new hooks and momenta: what a compiler keeps of the first shows in the second."""
    torch._dynamo.reset()
    counter, model, plain = CompileCounter(), network(), network()
    compiled = torch.compile(model, backend=counter, fullgraph=fullgraph)
    compiled(batches()[0]), plain(batches()[0])
    before = counter.frame_count
    for count in (9, 5):
        assert reestimate(compiled, batches(count)) == reestimate(plain, batches(count)) == 2
        for name, tensor in plain.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
    assert counter.frame_count == before >= 1
    compiled(batches()[0]), plain(batches()[0])
    assert counter.frame_count == before  # and the compiled code is there as it was
    assert torch.equal(model[1].running_mean, plain[1].running_mean)
