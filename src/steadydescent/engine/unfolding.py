"""Convolutions as products of unfolded inputs, for several networks at once and for compilers.

Axes: B batch, C channels, O channels out, S positions in, N positions out, K kernel; S, N and K
stand for one axis each dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (torch.conv1d, torch.conv2d)
"""What `nn.Conv1d` and `nn.Conv2d` call."""


class ConvolutionsAsProducts(TorchFunctionMode):
    """While it is entered, convolutions are made by `convolution`, so far as it can; others stay.

    A compiler fuses the unfolding with what stands before and after, and the product is a large
    one, also of many networks at once, where torch's own convolution would become one of many
    groups.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in place of its functions."""
        if func in CONVOLUTIONS and not kwargs and _plain(*args):
            return convolution(*args[:5])
        return func(*args, **(kwargs or {}))


def _plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution of a batch is without dilation and groups, with numbers a dimension."""
    numbers = all(isinstance(value, tuple | list) for value in (stride, padding, dilation))
    return numbers and set(dilation) == {1} and groups == 1 and x.dim() == weight.dim()


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """torch's convolution of `[B, C, *S]` by the weight `[O, C, *K]`, as one product: `[B, O, *N]`.

    In memory channels come last. Equal but for rounding.

    >>> one, kernel = torch.arange(4.0).view(1, 1, 4), torch.tensor([[[1.0, 10.0, 100.0]]])
    >>> convolution(one, kernel, None, stride=[2], padding=[1]).tolist()
    [[[100.0, 321.0]]]
    """
    rows = unfolded(x, weight.shape[2:], stride, padding)
    matrix = weight.movedim((0, 1), (-1, -2)).reshape(-1, len(weight))  # [*K·C, O]
    out = (rows.flatten(0, -2) @ matrix).view(*rows.shape[:-1], -1)
    return (out if bias is None else out + bias).movedim(-1, 1)


def unfolded(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """What each place of a kernel sees: `[B, C, *S]` → `[B, *N, *K·C]`."""
    last = x.movedim(1, -1)
    last = pad(last, [0, 0, *chain.from_iterable((p, p) for p in reversed(padding))])
    counts = [
        (size - k) // s + 1 for size, k, s in zip(last.shape[1:-1], kernel, stride, strict=True)
    ]
    seen = [
        last[
            :,
            *(slice(a, a + s * (n - 1) + 1, s) for a, n, s in zip(at, counts, stride, strict=True)),
        ]
        for at in product(*map(range, kernel))
    ]
    return torch.cat(seen, -1)
