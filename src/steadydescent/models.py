"""The networks of the study, as plain modules over flat inputs `[B, D]`."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from steadydescent.normalization import BatchNorm


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected network with ReLU between layers; `mlp(40, 100, 10)` has one hidden layer of 100."""
    if len(widths) < 2:
        raise ValueError(f"widths must name at least an input and an output, got {widths}")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ConvNet(nn.Module):
    """Two strided 3×3 convolutions with batch norm, then a linear layer; input `[B, 784]`, output `[B, 10]`.

    Striding instead of pooling keeps it cheap.
    """

    def __init__(self, channels: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        first, second = channels
        self.conv1 = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        self.norm1 = BatchNorm(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.norm2 = BatchNorm(second)
        self.head = nn.Linear(second * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 28, 28)
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.head(x.flatten(1))
