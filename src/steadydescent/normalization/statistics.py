"""Statistics that normalise: those of the training data, and batch norms' estimated afresh."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm
from torch.nn.parameter import is_lazy

from steadydescent.normalization.batch import (
    PRECISIONS,
    GhostBatchNorm,
    NoisyBatchNorm,
    check_momentum,
)


def moments(x: Tensor, per_feature: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of training inputs `[M, D]`.

    Each is `[D]`, or `[1]` over all features.

    Fit them on training data alone. Images share one scalar, because some of their pixels never
    vary. Whole numbers, such as pixels as bytes, are taken as float32.

    Raises:
        ValueError: for fewer than 2 examples, or a feature that is not finite or never varies,
            named by its number.

    >>> mean, std = moments(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> mean.tolist(), std.tolist()
    ([2.0, 20.0], [1.0, 10.0])
    """
    if not isinstance(x, Tensor) or not _is_real(x.dtype):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a tensor [M, D] of real numbers, got {got}; floats have 16 bits at least"
        )
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"x must be at least 2 examples [M, D], got shape {tuple(x.shape)}")
    if odd := (~x.isfinite().all(0)).nonzero().flatten().tolist():
        raise ValueError(f"x must be finite; features {odd} are not")
    x = x if x.is_floating_point() else x.float()
    values = x if per_feature else x.reshape(-1, 1)
    std, mean = torch.std_mean(values, 0, correction=0)
    if still := (~(std > 0)).nonzero().flatten().tolist():
        raise ValueError(
            f"features {still} never vary, so they have no scale; "
            "drop them or use per_feature=False"
        )
    return mean, std


def _is_real(dtype: torch.dtype) -> bool:
    """Whether its numbers are real, and if they are floats, of 16 bits at least."""
    return not dtype.is_complex and (dtype in PRECISIONS or not dtype.is_floating_point)


def standardise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """x ← (x − μ)/σ (uit-slides, where X/σ² is printed).

    Shapes: x `[B, D]`, μ and σ `[D]` or `[1]`.

    Raises:
        ValueError: for a σ that is not positive and finite.

    >>> standardise(torch.tensor([[1.0, 3.0]]), torch.tensor([2.0]), torch.tensor([1.0]))
    tensor([[-1.,  1.]])
    """
    scales = torch.as_tensor(std, device=x.device)
    if not ((scales > 0) & (scales < math.inf)).all():
        raise ValueError(f"std must be positive and finite, got {std}")
    return (x - mean) / std


def _tracking(module: nn.Module) -> list[AnyBatchNorm]:
    """The batch norms that keep running statistics, ours and torch's."""
    layers = [layer for layer in module.modules() if isinstance(layer, AnyBatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


@contextmanager
def statistics_momentum(module: nn.Module, momentum: float) -> Iterator[None]:
    """A `with` block in which all batch norms move their running statistics by this share.

    They may be ours or torch's. With 1 they are those of the last batch; with 1/k at the k-th
    batch, the mean over batches. This is how to estimate them afresh where `reestimate` cannot
    reach, as in a stack under `vmap`. Ghosts stay what they are.

    Raises:
        ValueError: for a momentum outside [0, 1].

    >>> from steadydescent.normalization import BatchNorm
    >>> norm = BatchNorm(1)
    >>> batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])]
    >>> for k, batch in enumerate(batches, start=1):
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
    batches: Iterable[Any],
    device: torch.device | str | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
) -> int:
    """Give every batch norm of a module the statistics of these batches; returns how many.

    Running mean and variance become the mean over the batches of each batch's own, every batch
    counting alike: of one batch its mean and unbiased variance; of several, the variance lacks what
    lies between their means. As `torch.optim.swa_utils.update_bn`, for torch's batch norms and
    ours. Averaged weights need it (izmailov2018averaging), and it adapts a network to shifted
    inputs (schneider2020improving, nado2020evaluating).

    A batch is what the module takes, as a tensor `[B, …]` or a dict of them, or a tuple or list
    that starts with it, as a DataLoader gives them. Of any other batch `forward` says what the
    module gets, as `lambda module, batch: module(**batch)` or `lambda module, batch:
    module(batch[0], batch[1])`. `device` moves a batch there first: its tensors in dicts, lists and
    tuples, and what has a method `to`. A module without running statistics gives 0, and no batch is
    looked at.

    Two conventions for the other layers: (a) training mode, dropout included (`update_bn`); (b)
    inference mode. We use (b), the network as it will be used, which also leaves the global random
    generators alone; without dropout both agree. For the same reason a `NoisyBatchNorm` makes no
    noise, and a `GhostBatchNorm` takes whole batches, of any size, as a loader's last one may have.
    A layer that is used several times in a pass counts each use; one that is not used keeps what it
    had.

    A compiled module (`torch.compile`) runs without its compiled code here: the share of the k-th
    batch, 1/k, would be another constant to compile for at every batch, as it is under `update_bn`.

    Parameters, gradients, training flags and momenta stay as they were; so do statistics, if a
    batch fails.

    Raises:
        ValueError: for no batches at all, or one batch in place of batches; a batch that the module
            does not take as it is, where there is no `forward`; layers that have no shape yet.

    >>> from steadydescent.normalization import BatchNorm
    >>> norm = BatchNorm(1)
    >>> reestimate(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])])
    1
    >>> norm.running_mean.item(), norm.running_var.item()  # means of 2 and 7, of 2 and 8
    (4.5, 5.0)
    >>> batches = [{"x": torch.tensor([[1.0], [3.0]])}]
    >>> reestimate(norm, batches, forward=lambda module, batch: module(batch["x"]))
    1
    """
    if isinstance(batches, Tensor | Mapping):
        kind = "tensor" if isinstance(batches, Tensor) else "dict"
        raise ValueError(
            f"batches must be an iterable of batches, got one {kind}; put it into a list"
        )
    if forward is not None and not callable(forward):
        raise ValueError(f"forward must be a function of module and batch, got {forward!r}")
    layers = _tracking(module)
    if not layers:
        return 0
    if any(is_lazy(buffer) for layer in layers for buffer in layer.buffers()):
        raise ValueError(
            "module must know the shape of every batch norm, but one is lazy still; "
            "run a batch through"
        )
    count = 0
    with _estimating(module, layers) as uses, _without_compiled_code():
        for count, batch in enumerate(batches, start=1):  # noqa: B007
            if forward is None:
                _run(module, batch, device)
            else:
                forward(module, _moved(batch, device))
        if not count:
            raise ValueError("batches must hold at least one batch, got none")
    return len(uses)


def _run(module: nn.Module, batch: Any, device: torch.device | str | None) -> None:
    """Give the module the batch, or its first part; an error names a batch it cannot take."""
    if isinstance(batch, tuple | list) and not batch:
        raise ValueError(f"a batch must hold something, got an empty {type(batch).__name__}")
    x = _moved(batch[0] if isinstance(batch, tuple | list) else batch, device)
    try:
        module(x)
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        lacks = isinstance(error, TypeError) and "missing" in str(error)
        if isinstance(x, Tensor) and not lacks:
            raise
        part = "the first part of a batch" if isinstance(batch, tuple | list) else "the batch"
        raise ValueError(
            f"{type(module).__name__} got {part}, a {type(x).__name__}, and said: {error}; "
            "if it takes it in another form, say so with forward, "
            "such as forward=lambda module, batch: module(*batch)"
        ) from error


def _moved(value: Any, device: torch.device | str | None) -> Any:
    """The same on the device, through dicts, lists and tuples; what cannot move stays."""
    if device is None:
        return value
    if callable(getattr(value, "to", None)):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _without_compiled_code() -> AbstractContextManager:
    """Where nothing was compiled yet, the compiler is not imported for it."""
    is_loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if is_loaded else nullcontext()


@contextmanager
def _estimating(module: nn.Module, layers: list[AnyBatchNorm]) -> Iterator[Counter[nn.Module]]:
    """Of the module these layers alone train; their statistics are means over their uses.

    Yields how often each was used. An exception undoes all.
    """
    uses: Counter[nn.Module] = Counter()

    def count(layer: nn.Module, inputs: tuple) -> None:
        assert isinstance(layer, AnyBatchNorm)
        uses[layer] += 1
        if uses[layer] == 1:
            layer.reset_running_stats()  # else a NaN would stay: 0 · NaN is NaN
        layer.momentum = 1 / uses[layer]

    flags = [(part, part.training) for part in module.modules()]
    before = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        with statistics_momentum(module, 1.0), _plain(layers):
            module.eval()
            for layer in layers:
                layer.train()
            yield uses
    except BaseException:
        for layer, buffers in zip(layers, before, strict=True):
            for name, buffer in buffers.items():
                layer.get_buffer(name).copy_(buffer)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for part, flag in flags:
            part.training = flag


@contextmanager
def _plain(layers: list[AnyBatchNorm]) -> Iterator[None]:
    """Batch norms without their ghosts and their noise for a while."""
    ghosts = [(layer, layer.ghost) for layer in layers if isinstance(layer, GhostBatchNorm)]
    noisy = [(layer, layer.quiet) for layer in layers if isinstance(layer, NoisyBatchNorm)]
    try:
        for with_ghosts, _ in ghosts:
            with_ghosts.ghost = None
        for with_noise, _ in noisy:
            with_noise.quiet = True
        yield
    finally:
        for with_ghosts, ghost in ghosts:
            with_ghosts.ghost = ghost
        for with_noise, quiet in noisy:
            with_noise.quiet = quiet
