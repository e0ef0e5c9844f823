"""The networks of the study, as plain modules over flat inputs `[B, D]`; each with any kind of
normalisation.

Where normalisation makes a layer's bias redundant, the layer has none. Networks of one seed that
differ in normalisation alone start from the same weights.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from steadydescent.normalization import ABSORBS_BIAS, normalizer


def mlp(*widths: int, norm: str = "none") -> nn.Sequential:
    """Fully connected network, ReLU between layers, normalised before it; `mlp(40, 100, 10)` has
    one hidden layer.

    >>> [type(layer).__name__ for layer in mlp(40, 100, 10, norm="batch")]
    ['Linear', 'BatchNorm', 'ReLU', 'Linear']
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name at least an input and an output, got {widths}")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        linear = nn.Linear(inputs, outputs)
        if norm in ABSORBS_BIAS:
            # drawn and let go, so that the next layer's weights do not depend on it
            linear.register_parameter("bias", None)
        layers += [linear, *_normalized(norm, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _normalized(norm: str, channels: int) -> list[nn.Module]:
    return [] if norm == "none" else [normalizer(norm, channels)]


class ConvNet(nn.Module):
    """Strided convolutions, each normalised and followed by ReLU, then a linear layer; input `[B,
    D]`, output `[B, K]`.

    `convolutions` take an image `[B, 1, *size]`. They come without biases; those that normalisation
    does not make redundant are added, zero at first. Striding instead of pooling keeps it cheap.
    """

    def __init__(
        self,
        convolutions: Sequence[nn.Conv1d | nn.Conv2d],
        size: tuple[int, ...],
        features: int,
        norm: str,
    ) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        for convolution in convolutions:
            channels = convolution.out_channels
            if norm not in ABSORBS_BIAS:
                convolution.bias = nn.Parameter(torch.zeros(channels))
            layers += [convolution, *_normalized(norm, channels), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolutions(x.view(-1, 1, *self.size)).flatten(1))


def image_convnet(channels: tuple[int, int] = (16, 32), norm: str = "batch") -> ConvNet:
    """Two 3×3 convolutions over 28×28 images: 28 → 14 → 7.

    >>> image_convnet()(torch.zeros(2, 784)).shape
    torch.Size([2, 10])
    """
    first, second = channels
    convolutions = [
        nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
    ]
    return ConvNet(convolutions, (28, 28), second * 7 * 7, norm)


def signal_convnet(channels: int = 25, norm: str = "none") -> ConvNet:
    """Three convolutions over signals of 40 points, 40 → 19 → 10 → 5, the network of
    greydanus2024scaling.

    >>> signal_convnet(norm="group")(torch.zeros(2, 40)).shape
    torch.Size([2, 10])
    """
    convolutions = [
        nn.Conv1d(1, channels, 5, stride=2, padding=1, bias=False),
        nn.Conv1d(channels, channels, 3, stride=2, padding=1, bias=False),
        nn.Conv1d(channels, channels, 3, stride=2, padding=1, bias=False),
    ]
    return ConvNet(convolutions, (40,), channels * 5, norm)
