"""Batch normalisation in three forms: of whole batches, of ghost batches, and with noise.

The noise tests an explanation of why batch norm helps. Their running statistics survive stacking:
under `vmap` and with buffers that are views of one vector, torch's own modules update a copy and
say nothing.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steadydescent.averages import ewa
from steadydescent.checks import (
    check_count,
    check_generator,
    check_number,
    check_positive,
    check_size,
)

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What batch norm takes; of integers, complex numbers and 8 bits no statistics are made."""


class BatchNorm(_BatchNorm):
    """Batch norm, z ← γ·(z − μ)/√(σ² + ε) + β, over all axes but channels (ioffe2015batch).

    Channels are axis 1 (uit-slides, too). γ (`weight`) and β (`bias`) are learned; a bias of the
    layer before is redundant. Equal to `torch.nn.BatchNorm1d/2d` in training and in inference,
    running statistics included (running ← (1−m)·running + m·batch, with the unbiased variance). It
    keeps no count of batches: a counter is no weight that could be averaged. So torch's
    `momentum=None`, the mean over all batches, is refused; `reestimate` and `statistics_momentum`
    give that mean. State dictionaries of torch's modules can be loaded, their count is let go, and
    torch's modules load ours (`load_state_dict`, strict as ever).

    To torch's own tools it is a batch norm: `torch.optim.swa_utils.update_bn` gives it the mean
    over the batches, as `reestimate` does, and `SyncBatchNorm.convert_sync_batchnorm` makes a
    `SyncBatchNorm` of it. The forms with ghosts or noise refuse to be converted, for they would be
    lost; `update_bn` trains them, ghosts and noise included, where `reestimate` estimates what
    inference uses. `torch.func.replace_all_batch_norm_modules_` does not work on any.

    The output has the input's dtype. Statistics are computed in that of input or parameters,
    whichever is wider, and in float32 at least: bfloat16 activations, as under autocast, come out
    as bfloat16, rounded once.

    Two conventions for m: (a) the share of the new batch, usually 0.1 (torch); (b) the share that
    is kept, usually 0.9 or 0.99 (TensorFlow, Flax). We use (a), as torch does.

    Shapes: input and output `[B, C]` or `[B, C, …]`.

    Raises:
        ValueError: for fewer than 1 channel, ε that is not positive, a momentum outside [0, 1]; an
            input or parameters of whole or complex numbers or of 8 bits, an input with other
            channels; in training, when a channel has one value only, as at n = 1: it has no
            variance.

    >>> norm = BatchNorm(2)
    >>> norm(torch.tensor([[1.0, 10.0], [3.0, 30.0]])).detach().round(decimals=3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    running_mean: Tensor
    running_var: Tensor
    # of the state: torch's second has a count of batches, which its modules then ask for
    _version = 1

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        nn.Module.__init__(self)  # torch's own would register the count
        self.channels = self.num_features = channels = check_count(channels, "channels")
        self.eps, self.momentum = check_positive(eps, "eps"), check_momentum(momentum)
        self.affine = self.track_running_stats = True
        # since the last reset, for the momentum None that `update_bn` sets for a while
        self._batches = 0
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, z: Tensor) -> Tensor:
        self._check_input(z)
        wider = torch.promote_types(z.dtype, self.weight.dtype)
        precision = torch.promote_types(wider, torch.float32)
        return self._normalise(z.to(precision)).to(z.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}"

    def reset_running_stats(self) -> None:
        """Running statistics as at the start, mean 0 and variance 1; torch's name for it."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self._batches = 0

    @property
    def num_batches_tracked(self) -> Tensor:  # type: ignore[override]
        """None were counted: what a `SyncBatchNorm` made of it starts with."""
        if type(self) is not BatchNorm:
            raise ValueError(
                f"{type(self).__name__} cannot become a SyncBatchNorm, "
                "which has no ghosts and no noise; "
                "put a BatchNorm in its place first, whose state is the same"
            )
        return torch.zeros((), dtype=torch.int64, device=self.running_mean.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # torch's; this is the loader's own copy
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        nn.Module._load_from_state_dict(self, state_dict, prefix, *others)

    def _check_input(self, z: Tensor) -> None:
        if z.dim() < 2 or z.shape[1] != self.channels:  # one channel would be spread over all
            raise ValueError(f"input must be [B, {self.channels}, …], got {tuple(z.shape)}")
        for name, dtype in (("input", z.dtype), ("weight", self.weight.dtype)):
            if dtype not in PRECISIONS:
                raise ValueError(
                    f"{name} must be of floating point, got {dtype}; 16, 32 and 64 bits are known"
                )

    def _normalise(self, z: Tensor) -> Tensor:
        axes = [axis for axis in range(z.dim()) if axis != 1]
        if self.training:
            mean, var = self._batch_statistics(z, axes)
        else:
            mean, var = self.running_mean.to(z.dtype), self.running_var.to(z.dtype)
        across = [1, -1] + [1] * (z.dim() - 2)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return z * scale.view(across) + (self.bias - mean * scale).view(across)

    def _batch_statistics(self, z: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the batch; moves the running statistics towards them."""
        count = _values(z.numel() // z.shape[1], z)
        var, mean = _var_mean(z, axes)
        self._remember(mean.detach(), var.detach() * count / (count - 1))
        return mean, var

    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        share = self.momentum
        if share is None:
            self._batches += 1
            share = 1 / self._batches
        self.running_mean.copy_(ewa(self.running_mean, mean, 1 - share))
        self.running_var.copy_(ewa(self.running_var, unbiased, 1 - share))


def _var_mean(z: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Biased variance and mean; on a CPU torch's own `var_mean` is several times as slow."""
    mean = z.mean(axes, keepdim=True)
    return (z - mean).square().mean(axes), mean.squeeze(axes)


class GhostBatchNorm(BatchNorm):
    """Batch norm over ghosts, parts of the batch with statistics of their own (hoffer2017train).

    Each has `ghost` examples. A large batch then has the noise of small ones. In inference there
    are no ghosts, nor are there when `reestimate` estimates what inference uses: batches may then
    have any size.

    Two conventions for the running statistics: (a) they move once a batch, towards the mean over
    its ghosts (to keep one for each ghost and average those, as D. Page's cifar10-fast does, is the
    same); (b) once a ghost, one after the other, so that (1−m)^(B/ghost) is kept and the last ghost
    weighs most (the code of hoffer2017train; Composer). We use (a): `momentum` means what it means
    in `BatchNorm`, the ghosts' order does not matter, and m = 1 gives the statistics of the whole
    batch.

    Raises:
        ValueError: as `BatchNorm`; for a ghost of fewer than 1 example; in training, for a batch
            that ghosts do not divide, or a ghost in which a channel has one value only.

    >>> norm = GhostBatchNorm(1, ghost=2)
    >>> norm(torch.tensor([[1.0], [3.0], [100.0], [300.0]])).flatten().round(decimals=3).tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(self, channels: int, ghost: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        # None: the whole batch, while it is re-estimated
        self.ghost: int | None = check_count(ghost, "ghost")

    def extra_repr(self) -> str:
        return f"{self.channels}, ghost={self.ghost}, eps={self.eps}, momentum={self.momentum}"

    def _normalise(self, z: Tensor) -> Tensor:
        if not self.training or self.ghost is None:
            return super()._normalise(z)
        if len(z) < 1 or len(z) % self.ghost:
            raise ValueError(
                f"a batch must be a multiple of ghost = {self.ghost} examples, got {z.shape[0]}"
            )
        parts = z.unflatten(0, (-1, self.ghost))  # [G, ghost, C, …]
        axes = [axis for axis in range(parts.dim()) if axis not in (0, 2)]
        count = _values(self.ghost * z[0, 0].numel(), z, f" in ghosts of ghost = {self.ghost}")
        var, mean = _var_mean(parts, axes)  # [G, C]
        self._remember(mean.detach().mean(0), var.detach().mean(0) * count / (count - 1))
        across = [len(mean), 1, -1] + [1] * (z.dim() - 2)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (parts * scale.view(across) + (self.bias - mean * scale).view(across)).flatten(0, 1)


class NoisyBatchNorm(BatchNorm):
    """Batch norm whose outputs are then shaken, a ← s·a + m (santurkar2018how).

    The noise brings back the shift that batch norm takes away. If batch norm helped by steadying
    the distribution of layer inputs, this noise would undo the help. It is drawn for every example
    and channel from a distribution that itself moves from step to step and channel to channel:

        m ~ U(μ − r, μ + r), s ~ U(σ − r, σ + r),   μ ~ U(−shift, shift), σ ~ U(1, scale)

    with r = `spread`.

    From the paper is the idea: noise after batch norm, independent for every example, of a mean
    that is not 0 and a variance that is not 1, by a law of each unit's own that changes at every
    step. These laws and amplitudes are ours. In inference there is no noise.

    Draws are an input, so that a compiled and stacked step can take them: the buffer `draws`, of
    shape `[2, 1 + B, C]` and uniform on (−1, 1), which `draw_noise` fills for the next batch and
    which is no part of the state. Zeros are no noise.

    >>> norm, z = NoisyBatchNorm(1), torch.tensor([[1.0], [3.0]])
    >>> draw_noise(norm, batch_size=2, generator=torch.Generator().manual_seed(0))
    >>> norm(z).flatten().tolist() == BatchNorm(1)(z).flatten().tolist()
    False

    Raises:
        ValueError: as `BatchNorm`; for negative amplitudes or a scale below 1; in training, without
            noise drawn for a batch of this size.
    """

    draws: Tensor

    def __init__(
        self,
        channels: int,
        shift: float = 0.5,
        scale: float = 1.25,
        spread: float = 0.1,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, eps, momentum)
        if check_size(scale, "scale") < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        self.shift, self.spread = check_size(shift, "shift"), check_size(spread, "spread")
        self.scale = float(scale)
        self.register_buffer("draws", torch.empty(2, 0, self.channels), persistent=False)
        self.quiet = False  # True: no noise, while it is re-estimated

    def extra_repr(self) -> str:
        amplitudes = f"shift={self.shift}, scale={self.scale}, spread={self.spread}"
        return f"{self.channels}, {amplitudes}, eps={self.eps}, momentum={self.momentum}"

    def _normalise(self, z: Tensor) -> Tensor:
        if not self.training or self.quiet:
            return super()._normalise(z)
        if self.draws.shape[1] != 1 + len(z):
            raise ValueError(
                f"noisy batch norm in training needs noise for a batch of {len(z)}, "
                f"got draws of shape {tuple(self.draws.shape)}; "
                "call draw_noise(module, batch_size, generator) before each step"
            )
        # each [1 + B, C]: the distribution's draw, then one for each example
        means, deviations = self.draws
        m = self.shift * means[:1] + self.spread * means[1:]
        s = 1 + (self.scale - 1) * deviations[:1].abs() + self.spread * deviations[1:]
        across = [len(z), -1] + [1] * (z.dim() - 2)
        return s.view(across) * super()._normalise(z) + m.view(across)


def noise_shapes(module: nn.Module, batch_size: int) -> dict[str, tuple[int, int, int]]:
    """Name of each noise buffer of a module → the shape that a batch of this size needs.

    >>> noise_shapes(nn.Sequential(nn.Linear(3, 5), NoisyBatchNorm(5)), batch_size=7)
    {'1.draws': (2, 8, 5)}
    """
    check_count(batch_size, "batch_size")
    return {
        f"{name}.draws".lstrip("."): (2, 1 + batch_size, len(layer.weight))
        for name, layer in module.named_modules()
        if isinstance(layer, NoisyBatchNorm)
    }


def draw_noise(module: nn.Module, batch_size: int, generator: torch.Generator) -> None:
    """Draw the noise of the next training batch for every `NoisyBatchNorm` of a module.

    Raises:
        ValueError: for a batch of fewer than 1 example, or without a torch generator.

    >>> norm = NoisyBatchNorm(5)
    >>> draw_noise(norm, batch_size=7, generator=torch.Generator().manual_seed(0))
    >>> norm.draws.shape
    torch.Size([2, 8, 5])
    """
    check_count(batch_size, "batch_size")
    check_generator(generator)
    for layer in module.modules():
        if isinstance(layer, NoisyBatchNorm):
            shape = (2, 1 + batch_size, len(layer.weight))
            like: dict[str, Any] = {"device": generator.device, "dtype": layer.draws.dtype}
            draws = torch.rand(shape, generator=generator, **like)
            layer.draws = (2 * draws - 1).to(layer.draws.device)


def check_momentum(momentum: float) -> float:
    """Return `momentum` if it is in [0, 1], else raise a ValueError."""
    if not 0 <= (share := check_number(momentum, "momentum")) <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    return share


def _values(count: int, z: Tensor, where: str = "") -> int:
    """The number of values a channel has, if it is enough for a variance."""
    if count < 2:
        shape = tuple(z.shape)
        raise ValueError(
            f"batch norm in training needs at least 2 values a channel, got input {shape}{where}"
        )
    return count
