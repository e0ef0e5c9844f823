"""Batch normalisation whose running statistics survive stacking."""

import torch
from torch import Tensor, nn

from steadydescent.averages import ewa


class BatchNorm(nn.Module):
    """Batch norm over all axes but channels, axis 1 (Ioffe & Szegedy 2015): z ← γ·(z − μ)/√(σ² + ε) + β.

    Equal to `torch.nn.BatchNorm1d/2d` in training and in inference, running statistics included
    (running ← (1−m)·running + m·batch, with the unbiased variance). Written out because torch's own,
    under `vmap` and with buffers that are views of one vector, updates a copy of them and says nothing.
    It keeps no count of batches: a counter is no weight that could be averaged.

    Shapes: input and output `[B, C]` or `[B, C, …]`.

    Raises:
        ValueError: in training, when a channel has one value only; it has no variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, z: Tensor) -> Tensor:
        axes = [axis for axis in range(z.dim()) if axis != 1]
        mean, var = self._batch_statistics(z, axes) if self.training else (self.running_mean, self.running_var)
        across = [1, -1] + [1] * (z.dim() - 2)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return z * scale.view(across) + (self.bias - mean * scale).view(across)

    def _batch_statistics(self, z: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the batch; moves the running statistics towards them."""
        count = z.numel() // z.shape[1]
        if count < 2:
            raise ValueError(f"batch norm in training needs at least 2 values a channel, got input {tuple(z.shape)}")
        var, mean = torch.var_mean(z, axes, correction=0)
        unbiased = var.detach() * count / (count - 1)
        self.running_mean.copy_(ewa(self.running_mean, mean.detach(), 1 - self.momentum))
        self.running_var.copy_(ewa(self.running_var, unbiased, 1 - self.momentum))
        return mean, var
