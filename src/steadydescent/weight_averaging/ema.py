"""A running average of a module's weights, as a module: for anyone's own training loop."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.checks import check_count
from steadydescent.weight_averaging.comparing import check_fit, refuse_unready
from steadydescent.weight_averaging.copying import copy_of
from steadydescent.weight_averaging.loading import load_whole
from steadydescent.weight_averaging.mixing import Mixing, as_mixing, weight_at
from steadydescent.weight_averaging.named_tensors import (
    Held,
    averaged_names,
    copy_as,
    held,
    kept_dtype,
    mix_in,
    sharded_class,
    write,
)
from steadydescent.weight_averaging.snapshots import replaced


class EMA(nn.Module):
    """An averaged copy of a module: a_t = a_{t−1} + w_t·(θ_t − a_{t−1}), a_0 = θ_0.

    From viblo-ema and morales2024exponential. Call `update(model)` after each optimiser step. The
    copy is `module`; calling the EMA evaluates it. It stays in inference mode and asks for no
    gradients. The model is only read: training goes as it would without.

    Args:
        model: the module to average, unwrapped (`ddp.module`, not a `DistributedDataParallel`).
        mixing: the decay β, short for `Started(β)`; or `Debiased`, `Ramped`, `TailMean`, or any
            function of the update's number t = 1, 2, … that gives w_t in [0, 1].
        device: where the average is kept; the model's own unless given.
        dtype: of the averaged floating-point tensors. Unless given, float32 for half precision
            (timm's V3 keeps bfloat16 with stochastic rounding instead), else the model's own.
        average_buffers: which buffers are averaged as weights are; all others are those of the last
            update. True: what is known to have a mean, the running means and variances of batch
            norms. False: none. Names or patterns, such as `["scale", "*.centre"]`: batch norms' and
            these. `["*"]`: all of floating point, as timm does and this class did before. Unit
            vectors of spectral norms, masks of 0 and 1, caches and quantisation scales have no
            mean: an average of spectral norm's vectors is too short, and layers that should have
            norm 1 have more. A third way for batch norms is to estimate their statistics afresh:
            `steadydescent.normalization.reestimate(ema.module, batches)`.

    - Tied weights stay tied; one that is tied or untied later is refused, since it would have two
      averages.
    - Buffers that are no part of the state (`persistent=False`) and extra state (`get_extra_state`)
      follow the last update, whatever their shape. A buffer of the state must keep its shape, and
      be there, when the average is made.
    - Weights that are not finite are averaged as any others, and stay in the average.
    - Parameters of 8 and 16 bits are averaged in float32, those of complex32 in complex64; others
      as they are. So it stays when the EMA is cast, as by `ema.to(torch.bfloat16)`: the average
      would stand still. Only where `dtype` asks for 16 bits is it cast as other modules are.
    - A buffer in the memory of a weight is averaged as the weight is, and has memory of its own in
      the average.
    - A copy or pickle is swapped into no model, though it be made inside `swapped`.
    - The model must be one that `copy.deepcopy` can copy; `Shadow` needs no copy. One under
      `fully_shard`, or of `DTensor` weights, is averaged shard by shard, each process its own; the
      average of the former cannot be called, but swapped in. Make the average after sharding.

    Conventions in use: viblo-ema's printed `ModelEmaV2` averages integer buffers too, and
    truncates; timm's `ModelEmaV3` copies them, torch's `AveragedModel` copies every buffer unless
    told `use_buffers=True`, `ema_pytorch` leaves integer buffers as they were in the beginning.
    torch copies the weights at its first update, we at construction. `ema_pytorch` by default looks
    at every tenth step alone, copies for the first hundred, and then ramps its decay as 1 − (1 +
    t)^(−2/3); here the loop chooses when to update, and the ramp is a `mixing`.

    Raises:
        ValueError: for β outside [0, 1), a class such as `Debiased` in place of `Debiased(β)`, a
            dtype that is not floating-point or has fewer than 16 bits, a name in `average_buffers`
            that no such buffer has, or a parameter on the meta device or of a lazy module before
            its first batch, by name.
        TypeError: for a model that cannot be copied, naming the module and its attribute.

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
        average_buffers: bool | Collection[str] = True,
    ) -> None:
        super().__init__()
        if dtype is not None and not (dtype.is_floating_point and dtype.itemsize > 1):
            raise ValueError(f"dtype must be floating-point, of 16 bits or more, got {dtype}")
        self._dtype = dtype
        self.mixing = as_mixing(mixing, "mixing")
        self.updates = 0
        contents = held(model)
        refuse_unready(contents.state, "the model")
        self._averaged = averaged_names(contents, average_buffers)
        self._in_shards = any(isinstance(part, sharded_class()) for part in model.modules())
        self.module = copy_of(model)
        for parameter in self.module.parameters():  # scripted modules refuse `requires_grad_`
            parameter.requires_grad_(False)
        if device is not None:
            self.module.to(device)
        self._own_tensors()
        self._swapped = False
        self.eval()

    def _own_tensors(self) -> None:
        """Give each tensor memory of its own, and the dtype that its average needs."""
        own = held(self.module)
        refuse_unready(own.state, "the average")
        transient = {
            name: tensor for name, (_, tensor) in own.transient.items() if tensor is not None
        }
        for tensor in (*own.buffers.values(), *transient.values()):
            tensor.data = tensor.data.clone()  # those that share memory would be mixed twice
        for name, tensor in {**own.state, **transient}.items():
            # of 8 bits are the scales of a quantised layer
            if name in self._averaged or tensor.dtype.itemsize > 1:
                # in place, so that tied ones stay tied
                tensor.data = tensor.data.to(kept_dtype(tensor, self._dtype))

    def update(self, model: nn.Module) -> None:
        """Mix the model's weights in; its names and shapes must be those of the average.

        Raises:
            ValueError: for a model that does not fit, naming the tensor, or a mixing weight outside
                [0, 1].
            RuntimeError: while the average is swapped in.
        """
        self._mix_in(model, weight_at(self.mixing, self.updates + 1))
        self.updates += 1

    def set(self, model: nn.Module) -> None:
        """Start afresh from the model's weights: the next update is the first.

        Raises as `update`.
        """
        self._mix_in(model, 1.0)
        self.updates = 0

    def _mix_in(self, model: nn.Module, weight: float) -> None:
        self._refuse_if_swapped()
        ours, theirs = held(self.module), held(model)
        check_fit(ours, theirs)
        _follow(self.module, ours, theirs)
        mix_in(ours.state, theirs.state, weight, self._averaged)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[nn.Module]:
        """Put the average into the model for the length of a `with` block.

        Then weights and buffers are restored bitwise. They are restored after an exception too,
        each tensor for itself, and so are the buffers that are no part of the state. Both are
        copies: training inside the block moves neither the average nor the kept weights. Mode and
        gradients are left alone: call `model.eval()` where that is meant. A checkpoint saved in the
        block holds the averaged weights, while training goes on with its own (opennmt-tf).

        Raises:
            ValueError: for a model that does not fit.
            RuntimeError: inside another such block of this EMA; at its end, for tensors that could
                not be put back, by name.
        """
        if self._swapped:
            raise RuntimeError(
                "the average is swapped into a model already; leave that block first"
            )
        average = held(self.module)
        check_fit(average, held(model))
        self._swapped = True
        try:
            with replaced(model, average.state, self._averaged):
                yield model
        finally:
            self._swapped = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged copy computes; its input must have the dtype and device of the average.

        Raises:
            RuntimeError: for the average of a model under `fully_shard`, of which each process
                holds its shards alone.
        """
        if self._in_shards:
            raise RuntimeError(
                "the average of a model under fully_shard is kept as shards and cannot be called; "
                "evaluate it inside `with ema.swapped(model):`"
            )
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EMA":
        """What `to` and `cuda` go through; no cast leaves fewer bits than an average needs."""

        def keeping(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            narrow = kept_dtype(result) != result.dtype and kept_dtype(tensor) == tensor.dtype
            return torch.empty_like(result, dtype=tensor.dtype).copy_(tensor) if narrow else result

        may_be_narrow = self._dtype is not None and self._dtype.itemsize < 4
        average: EMA = super()._apply(fn if may_be_narrow else keeping, recurse)
        return average

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, or what comes from a pickle, is swapped into no model."""
        super().__setstate__({**state, "_swapped": False})

    def train(self, mode: bool = True) -> "EMA":
        """Stays in inference mode: batch-norm statistics are averages here, not its own."""
        return super().train(False)

    def get_extra_state(self) -> Tensor:
        """The number of updates, which `state_dict` has with the weights.

        It is on the CPU, so that no update waits for a GPU. `mixing` and `average_buffers` are the
        constructor's and not stored.
        """
        return torch.tensor(self.updates, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take the number of updates from a `state_dict`; comes before any weight is taken."""
        self._refuse_if_swapped()
        self.updates = _count(state)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """torch's, whole or not at all: what does not fit is refused, and nothing is changed then.

        Which names fit is for the averaged module's own loader to say: our `BatchNorm` lets torch's
        count of batches go, hooks may rename weights.

        Raises:
            RuntimeError: while the average is swapped in.
            ValueError: for a number of updates that is none, and, if `strict`, for other names; for
                other shapes.
        """
        self._refuse_if_swapped()
        if "_extra_state" in state_dict:
            _count(state_dict["_extra_state"])
        load = partial(super().load_state_dict, strict=strict, assign=assign)
        return load_whole(self, state_dict, ("the saved average", "the average"), load)

    def _refuse_if_swapped(self) -> None:
        if self._swapped:
            raise RuntimeError(
                "the average is swapped into a model and would be mixed with itself, or replaced; "
                "leave that first"
            )


def _follow(average: nn.Module, ours: Held, theirs: Held) -> None:
    """Give an average what a model has beside its state: unsaved buffers, and extra state."""
    for name, module in theirs.extra.items():
        if name in ours.extra:
            ours.extra[name].set_extra_state(deepcopy(module.get_extra_state()))
    for name, (_, value) in theirs.transient.items():
        path, _, own_name = name.rpartition(".")
        owner, buffer = ours.transient.get(name) or (average.get_submodule(path), None)
        if buffer is not None and value is not None and buffer.shape == value.shape:
            write(buffer, value)
        elif name not in ours.ties:
            like = next(iter(ours.parameters.values()), value) if buffer is None else buffer
            follower = None if value is None or like is None else _as_kept(value, like)
            owner._buffers[own_name] = follower
            owner._non_persistent_buffers_set.add(own_name)


def _as_kept(value: Tensor, like: Tensor) -> Tensor:
    """A copy on the device of the average, and in its dtype if both are real numbers."""
    real = value.is_floating_point() and like.is_floating_point()
    return copy_as(value, like.dtype if real else value.dtype, like.device)


def _count(state: Any) -> int:
    return check_count(state.item() if isinstance(state, Tensor) else state, "updates", least=0)
