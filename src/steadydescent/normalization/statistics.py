"""Statistics of data and of activations: input standardisation, and batch norm's statistics estimated afresh."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steadydescent.normalization.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm, check_momentum

Tracking = BatchNorm | _BatchNorm
"""Batch norms that keep running statistics, ours and torch's."""
Batch = Tensor | tuple | list


def moments(x: Tensor, per_feature: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of training inputs `[M, D]`: each `[D]`, or `[1]` over all features.

    Fit them on training data alone. Images share one scalar, because some of their pixels never vary. Whole numbers,
    such as pixels as bytes, are taken as float32.

    Raises:
        ValueError: for fewer than 2 examples, or a feature that is not finite or never varies, named by its number.

    >>> mean, std = moments(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> mean.tolist(), std.tolist()
    ([2.0, 20.0], [1.0, 10.0])
    """
    if not isinstance(x, Tensor) or x.is_complex():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a tensor [M, D] of real numbers, got {found}")
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"x must be at least 2 examples [M, D], got shape {tuple(x.shape)}")
    if odd := (~x.isfinite().all(0)).nonzero().flatten().tolist():
        raise ValueError(f"x must be finite; features {odd} are not")
    x = x if x.is_floating_point() else x.float()
    values = x if per_feature else x.reshape(-1, 1)
    std, mean = torch.std_mean(values, 0, correction=0)
    if still := (~(std > 0)).nonzero().flatten().tolist():
        raise ValueError(f"features {still} never vary, so they have no scale; drop them or use per_feature=False")
    return mean, std


def standardise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """x ← (x − μ)/σ (uit-slides, where X/σ² is printed). Shapes: x `[B, D]`, μ and σ `[D]` or `[1]`.

    Raises:
        ValueError: for a σ that is not positive and finite.

    >>> standardise(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]), torch.tensor([1.0])).flatten().tolist()
    [-1.0, 1.0]
    """
    scales = torch.as_tensor(std)
    if not ((scales > 0) & (scales < math.inf)).all():
        raise ValueError(f"std must be positive and finite, got {std}")
    return (x - mean) / std


def _tracking(module: nn.Module) -> list[Tracking]:
    layers = [layer for layer in module.modules() if isinstance(layer, Tracking)]
    return [layer for layer in layers if layer.running_mean is not None]


@contextmanager
def statistics_momentum(module: nn.Module, momentum: float) -> Iterator[None]:
    """Every batch norm of a module, ours or torch's, moves its running statistics by this share for a while.

    With 1 they are those of the last batch; with 1/k at the k-th batch, the mean over batches. This is how to
    estimate them afresh where `reestimate` cannot reach, as in a stack under `vmap`. Ghosts stay what they are.

    Raises:
        ValueError: for a momentum outside [0, 1].

    >>> norm = BatchNorm(1)
    >>> for k, batch in enumerate([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])], start=1):
    ...     with statistics_momentum(norm, 1 / k):
    ...         _ = norm(batch)
    >>> norm.running_mean.item(), norm.momentum  # the mean of 2 and 7
    (4.5, 0.1)
    """
    check_momentum(momentum)
    before = [(layer, layer.momentum) for layer in _tracking(module)]
    try:
        for layer, _ in before:
            layer.momentum = momentum
        yield
    finally:
        for layer, usual in before:
            layer.momentum = usual


@torch.no_grad()
def reestimate(
    module: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str | None = None,
) -> int:
    """Give every batch norm of a module the statistics of these batches; returns how many layers it were.

    Running mean and variance become the mean over the batches of each batch's own, every batch counting alike: of one
    batch its mean and unbiased variance; of several, the variance lacks what lies between their means. As
    `torch.optim.swa_utils.update_bn`, for torch's batch norms and ours. Averaged weights need it
    (izmailov2018averaging), and it adapts a network to shifted inputs (schneider2020improving, nado2020evaluating).

    A batch is a tensor `[B, …]`, or a tuple or list that starts with it, as a DataLoader gives them; `device` moves it
    there first. A module without running statistics gives 0, and no batch is looked at.

    Two conventions for the other layers: (a) training mode, dropout included (`update_bn`); (b) inference mode. We use
    (b), the network as it will be used, which also leaves the global random generators alone; without dropout both
    agree. For the same reason a `NoisyBatchNorm` makes no noise, and a `GhostBatchNorm` takes whole batches, of any
    size, as a loader's last one may have. A layer that is used several times in a pass counts each use; one that is
    not used keeps what it had.

    Parameters, gradients, training flags and momenta stay as they were; so do statistics, if a batch fails.

    Raises:
        ValueError: for no batches at all, or one tensor in place of batches.

    >>> norm = BatchNorm(1)
    >>> reestimate(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])])
    1
    >>> norm.running_mean.item(), norm.running_var.item()  # means of 2 and 7, of 2 and 8
    (4.5, 5.0)
    """
    if isinstance(batches, Tensor):
        raise ValueError("batches must be an iterable of batches, got one tensor; put it into a list")
    layers = _tracking(module)
    if not layers:
        return 0
    noisy = [layer for layer in layers if isinstance(layer, NoisyBatchNorm)]
    batch = None
    with _estimating(module, layers) as uses:
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) else batch
            for layer in noisy:
                layer.draws = layer.draws.new_zeros(2, 1 + len(x), len(layer.weight))
            module(x if device is None else x.to(device))
        if batch is None:
            raise ValueError("batches must hold at least one batch, got none")
    return len(uses)


@contextmanager
def _estimating(module: nn.Module, layers: list[Tracking]) -> Iterator[Counter[nn.Module]]:
    """Of the module these layers alone train; their statistics are means over their uses. An exception undoes all."""
    uses: Counter[nn.Module] = Counter()

    def count(layer: nn.Module, inputs: tuple) -> None:
        assert isinstance(layer, Tracking)
        uses[layer] += 1
        if uses[layer] == 1:
            layer.reset_running_stats()  # else a NaN would stay: 0 · NaN is NaN
        layer.momentum = 1 / uses[layer]

    flags = [(part, part.training) for part in module.modules()]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    draws = [(layer, layer.draws) for layer in layers if isinstance(layer, NoisyBatchNorm)]
    ghosts = [(layer, layer.ghost) for layer in layers if isinstance(layer, GhostBatchNorm)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        with statistics_momentum(module, 1.0):
            module.eval()
            for layer in layers:
                layer.train()
            for layer, _ in ghosts:
                layer.ghost = None
            yield uses
    except BaseException:
        for layer, buffers in zip(layers, kept, strict=True):
            for name, buffer in buffers.items():
                layer.get_buffer(name).resize_as_(buffer).copy_(buffer)
        raise
    finally:
        for layer, noise in draws:
            layer.draws = noise
        for layer, ghost in ghosts:
            layer.ghost = ghost
        for hook in hooks:
            hook.remove()
        for part, flag in flags:
            part.training = flag
