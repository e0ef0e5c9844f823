"""The matrix of inputs: what people's models are made of, as rows that every technique is put
through.

A row is a model and the loss of its next batch. `tensors()` are rows of one parameter for each
dtype, size and layout; `MODELS` are rows for all else that a model may hold.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from steadydescent.normalization import BatchNorm

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NO_MEAN = (torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2)
"""Dtypes that optimisers refuse by name."""
SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 4_097)
"""None, one, and one below, at and above the SIMD blocks of 8, 16 and 32 values; several blocks and
one value.
"""


def contiguous(values: Tensor) -> Tensor:
    return values.clone()


def transposed(values: Tensor) -> Tensor:
    """`[n, 2]`, a view of `[2, n]`."""
    return torch.stack([values, -values]).t()


def channels_last(values: Tensor) -> Tensor:
    """`[1, 3, 2, n]` with the channels side by side in memory."""
    weight = torch.stack([values, -values, 2 * values, values, -values, values]).view(1, 3, 2, -1)
    return weight.contiguous(memory_format=torch.channels_last)


def strided(values: Tensor) -> Tensor:
    """`[n]`, every second value of a longer tensor."""
    return values.repeat_interleave(2)[::2]


LAYOUTS = {made.__name__: made for made in (contiguous, transposed, channels_last, strided)}


class Row(NamedTuple):
    """A model, and the loss on a batch that a generator draws."""

    model: nn.Module
    loss: Callable[[nn.Module, torch.Generator], Tensor]


class One(nn.Module):
    """One parameter, whose gradient is drawn."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal values of a tensor's shape and dtype, the same in every dtype but for rounding."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def one(dtype: torch.dtype, size: int, layout: str) -> Row:
    """A row of one parameter; its gradient is drawn anew from the generator."""
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return Row(
        One(LAYOUTS[layout](values.to(dtype))), lambda m, g: (m.weight * drawn(m.weight, g)).sum()
    )


def tensors() -> Iterator[tuple[torch.dtype, int, str]]:
    """Dtype, size and layout of every row of one parameter."""
    yield from ((dtype, size, layout) for dtype in DTYPES for size in SIZES for layout in LAYOUTS)


# Models


def _fed(features: int, batch: int = 6) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """Mean square of the outputs for normal inputs `[batch, features]`."""

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        return model(torch.randn(batch, features, generator=generator)).square().mean()

    return loss


class Tied(nn.Module):
    """An embedding whose weights are the output layer's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x))


class Buffers(nn.Linear):
    """Buffers that no mean makes sense of: a counter, a mask, a phase, quantised values and their
    scale, a cache.
    """

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
        self.register_buffer("codes", torch.zeros(4, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
            self.flag.logical_not_()
            self.phase.mul_(1j)
            self.codes += 1
            self.scale.copy_(x.detach().abs().max())
            self.cache.copy_(x.detach()[0, :2])
        return super().forward(x) * self.scale + self.cache.sum()


class Growing(nn.Linear):
    """A cache that is as long as the inputs so far, and a buffer that is None before the first of
    them.
    """

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("cache", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.cache = torch.cat([self.cache, x.detach()[:1, 0]])
        return super().forward(x)


class Extra(nn.Linear):
    """State that is no tensor."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x)

    def get_extra_state(self) -> dict[str, object]:
        return {"calls": self.calls, "names": ("a", None)}

    def set_extra_state(self, state: dict[str, object]) -> None:
        self.calls = state["calls"]


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    return model


def _normed(layer: nn.Module, norm: nn.Module | None = None) -> nn.Module:
    """Without a bias before the norm: its gradient would be rounding, which Adam makes whole steps
    of.
    """
    return nn.Sequential(layer, norm or nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))


def _pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3))
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


def _initialised(model: nn.Module, *inputs: Tensor) -> nn.Module:
    model(*inputs)
    return model


def _half(dtype: torch.dtype) -> Row:
    model = nn.Sequential(nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 5)).to(dtype)
    return Row(
        model, lambda m, g: m(torch.randn(6, 40, generator=g).to(dtype)).float().square().mean()
    )


def _tied() -> Row:
    return Row(Tied(), lambda m, g: m(torch.randint(5, (6,), generator=g)).square().mean())


def _images() -> Row:
    layers = nn.Conv2d(3, 17, 3, bias=False), nn.BatchNorm2d(17), nn.ReLU(), nn.Conv2d(17, 2, 3)
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    return Row(model, lambda m, g: m(torch.randn(4, 3, 6, 6, generator=g)).square().mean())


MODELS: dict[str, Callable[[], Row]] = {
    "plain": lambda: Row(nn.Linear(4, 3), _fed(4)),
    "tied": _tied,
    "frozen": lambda: Row(_frozen(), _fed(4)),
    "lazy, seen": lambda: Row(_initialised(nn.LazyLinear(3), torch.ones(2, 4)), _fed(4)),
    "weight norm": lambda: Row(parametrizations.weight_norm(nn.Linear(4, 3)), _fed(4)),
    "spectral norm": lambda: Row(parametrizations.spectral_norm(nn.Linear(4, 3)), _fed(4)),
    "orthogonal": lambda: Row(parametrizations.orthogonal(nn.Linear(4, 4)), _fed(4)),
    "pruned": lambda: Row(_pruned(), _fed(4)),
    "buffers": lambda: Row(Buffers(), _fed(4)),
    "growing buffer": lambda: Row(Growing(), _fed(4)),
    "extra state": lambda: Row(Extra(4, 3), _fed(4)),
    "batch norm": lambda: Row(_normed(nn.Linear(4, 3, bias=False)), _fed(4)),
    "our batch norm": lambda: Row(_normed(nn.Linear(4, 3, bias=False), BatchNorm(3)), _fed(4)),
    "channels last": _images,
    "empty": lambda: Row(nn.ModuleList([nn.Linear(4, 3), nn.Linear(0, 3)])[0], _fed(4)),
    "bfloat16": lambda: _half(torch.bfloat16),
    "float16": lambda: _half(torch.float16),
    "compiled": lambda: Row(torch.compile(nn.Linear(4, 3), backend="eager"), _fed(4)),
}


def made(name: str) -> Row:
    """A row of `MODELS`, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return MODELS[name]()
