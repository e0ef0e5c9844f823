"""A running average of a module's weights, as a module: for anyone's own training loop."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.checks import check_count
from steadydescent.weight_averaging.mixing import Mixing, as_mixing, weight_at
from steadydescent.weight_averaging.named_tensors import (
    all_tensors,
    averaged_names,
    check_alike,
    copied,
    kept_dtype,
    live_tensors,
    mix_in,
    named_tensors,
    overwrite,
    put_back,
)


class EMA(nn.Module):
    """An averaged copy of a module: a_t = a_{t−1} + w_t·(θ_t − a_{t−1}), a_0 = θ_0 (viblo-ema; morales2024exponential).

    Call `update(model)` after each optimiser step. The copy is `module`; calling the EMA evaluates it. It stays in
    inference mode and asks for no gradients. The model is only read: training goes as it would without.

    Args:
        model: the module to average, unwrapped (`ddp.module`, not a `DistributedDataParallel`).
        mixing: the decay β, short for `Started(β)`; or `Debiased`, `Ramped`, `TailMean`, or any function of the
            update's number t = 1, 2, … that gives w_t in [0, 1].
        device: where the average is kept; the model's own unless given.
        dtype: of the averaged floating-point tensors. Unless given, float32 for half precision (timm's V3 keeps
            bfloat16 with stochastic rounding instead), else the model's own.
        average_buffers: floating-point buffers, such as batch-norm statistics, are (True) averaged as weights are, or
            (False) those of the last update. A third way is to estimate them afresh for the averaged weights:
            `steadydescent.normalization.reestimate(ema.module, batches)`. Integer and boolean buffers are always
            those of the last update.

    Tied weights stay tied. Weights that are not finite are averaged as any others, and stay in the average.

    Conventions in use: viblo-ema's printed `ModelEmaV2` averages integer buffers too, and truncates; timm's
    `ModelEmaV3` copies them, torch's `AveragedModel` copies every buffer unless told `use_buffers=True`, `ema_pytorch`
    leaves integer buffers as they were in the beginning. torch copies the weights at its first update, we at
    construction. `ema_pytorch` by default looks at every tenth step alone, copies for the first hundred, and then
    ramps its decay as 1 − (1 + t)^(−2/3); here the loop chooses when to update, and the ramp is a `mixing`.

    Raises:
        ValueError: for β outside [0, 1), a class such as `Debiased` in place of `Debiased(β)`, or a dtype that is
            not floating-point.

    >>> from steadydescent.weight_averaging import Debiased
    >>> model = nn.Linear(1, 1, bias=False)
    >>> ema = EMA(model, Debiased(0.98))
    >>> for temperature in (40.0, 49.0):  # °F, uit-slides' first two values
    ...     _ = nn.init.constant_(model.weight, temperature)
    ...     ema.update(model)
    >>> ema.module.weight.item()
    44.545...
    >>> with ema.swapped(model):
    ...     model(torch.ones(1)).item()
    44.545...
    >>> model.weight.item()
    49.0
    """

    def __init__(
        self,
        model: nn.Module,
        mixing: float | Mixing,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        average_buffers: bool = True,
    ) -> None:
        super().__init__()
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating-point, got {dtype}")
        self.mixing = as_mixing(mixing, "mixing")
        self.updates = 0
        self.module = deepcopy(model).requires_grad_(False).to(device)
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            tensor.data = tensor.data.to(kept_dtype(tensor, dtype))  # in place, so that tied ones stay tied
        self._averaged = averaged_names(model, average_buffers)
        self._swapped = False
        self.eval()

    def update(self, model: nn.Module) -> None:
        """Mix the model's weights in; its names and shapes must be those of the average.

        Raises:
            ValueError: for a model that does not fit, naming the tensor, or a mixing weight outside [0, 1].
            RuntimeError: while the average is swapped in.
        """
        self._mix_in(model, weight_at(self.mixing, self.updates + 1))
        self.updates += 1

    def set(self, model: nn.Module) -> None:
        """Start afresh from the model's weights, as if made now: the next update is the first. Raises as `update`."""
        self._mix_in(model, 1.0)
        self.updates = 0

    def _mix_in(self, model: nn.Module, weight: float) -> None:
        self._refuse_if_swapped()
        mix_in(live_tensors(self.module), live_tensors(model), weight, self._averaged)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[nn.Module]:
        """Put the average into the model for the length of a `with` block, then restore weights and buffers bitwise.

        They are restored after an exception too, and so are the buffers that are no part of the state. Both are
        copies: training inside the block moves neither the average nor the kept weights. Mode and gradients are left
        alone: call `model.eval()` where that is meant. A checkpoint saved in the block holds the averaged weights,
        while training goes on with its own (opennmt-tf).

        Raises:
            ValueError: for a model that does not fit.
            RuntimeError: inside another such block of this EMA.
        """
        if self._swapped:
            raise RuntimeError("the average is swapped into a model already; leave that block first")
        average = named_tensors(self.module)
        check_alike(average, named_tensors(model))
        kept = copied(all_tensors(model))
        self._swapped = True
        try:
            overwrite(named_tensors(model), average)
            yield model
        finally:
            put_back(model, kept)
            self._swapped = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged copy computes; its input must have the dtype and device of the average."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> "EMA":
        """Stays in inference mode: batch-norm statistics are averages here, not its own."""
        return super().train(False)

    def get_extra_state(self) -> Tensor:
        """The number of updates, kept with the weights in `state_dict`, on the CPU so that no update waits for a GPU.

        `mixing` and `average_buffers` are the constructor's and not stored.
        """
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the number of updates from a `state_dict`; comes before any weight is taken."""
        self._refuse_if_swapped()
        self.updates = _count(state)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """torch's, but what does not fit is refused before anything changes.

        Raises:
            RuntimeError: while the average is swapped in.
            ValueError: for a number of updates that is none, and, if `strict`, for other names or shapes.
        """
        self._refuse_if_swapped()
        if "_extra_state" in state_dict:
            _count(state_dict["_extra_state"])
        if strict:
            check_alike(state_dict, self.state_dict(), ("the saved average", "the average"))
        return super().load_state_dict(state_dict, strict, assign)

    def _refuse_if_swapped(self) -> None:
        if self._swapped:
            raise RuntimeError(
                "the average is swapped into a model and would be mixed with itself, or replaced; leave that first"
            )


def _count(state: Any) -> int:
    return check_count(state.item() if isinstance(state, Tensor) else state, "updates", least=0)
