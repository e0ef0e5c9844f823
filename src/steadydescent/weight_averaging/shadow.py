"""A running average of weights as tensors beside the model, put into it for evaluation."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.checks import check_count
from steadydescent.weight_averaging.comparing import check_alike, refuse_unready
from steadydescent.weight_averaging.mixing import Mixing, as_mixing, weight_at
from steadydescent.weight_averaging.named_tensors import (
    Tensors,
    averaged_names,
    copied,
    copy_as,
    held,
    kept_dtype,
    mix_in,
    placed_like,
)
from steadydescent.weight_averaging.snapshots import Snapshot, put


class Shadow:
    """The average in zh-ema's form: shadow weights by name, beside the model.

    They are put into the model for evaluation, then taken out again. Against zh-ema's class:
    buffers are covered (batch-norm statistics there stay those of the last weights), and frozen
    parameters, whose average is their value; nothing is aliased, so training while the shadow is
    applied corrupts neither shadow nor kept weights; a verb out of its order is refused instead of
    losing the trained weights. It holds no second module, only tensors; for one that can be called,
    see `EMA`.

    Args:
        model: the module whose weights are averaged; it must keep its names and shapes.
        decay: β, short for `Started(β)`, or any other mixing weights.
        average_buffers: which buffers are averaged, as for `EMA`: True for the statistics of batch
            norms, False for none, names or patterns for these beside them. All others are those of
            the last update.

    `shadow` is empty until `register`; half-precision weights are averaged in float32. Sharded
    models (`fully_shard`, `DTensor`) are averaged shard by shard, each process its own. Buffers
    that are no part of the state stay the model's own.

    Raises:
        ValueError: for β outside [0, 1), or a class such as `Debiased` in place of `Debiased(β)`.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 1.0)
    >>> shadow = Shadow(model, decay=0.75)
    >>> shadow.register()
    >>> _ = nn.init.constant_(model.weight, 5.0)  # a training step
    >>> shadow.update()
    >>> shadow.apply_shadow()
    >>> model.weight.item()
    2.0
    >>> shadow.restore()
    >>> model.weight.item()
    5.0
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float | Mixing,
        *,
        average_buffers: bool | Collection[str] = True,
    ) -> None:
        self.model = model
        self.mixing = as_mixing(decay, "decay")
        self.updates = 0
        self.shadow: Tensors = {}
        self._average_buffers = average_buffers
        self._averaged = averaged_names(held(model), average_buffers)
        self._trained: Snapshot | None = None

    def register(self) -> None:
        """Start the average at the model's weights; registering again starts afresh.

        Raises:
            RuntimeError: while the shadow is applied.
            ValueError: for a tensor on the meta device or of a lazy module before its first batch,
                by name.
        """
        self._refuse_if_applied("register")
        contents = held(self.model)
        refuse_unready(contents.state, "the model")
        self._averaged = averaged_names(contents, self._average_buffers)
        self.shadow = {
            name: copy_as(tensor, self._dtype_of(name, tensor))
            for name, tensor in contents.state.items()
        }
        self.updates = 0

    def update(self) -> None:
        """Mix the model's weights into the shadow; call it after each optimiser step.

        Raises:
            RuntimeError: before `register` or while the shadow is applied.
            ValueError: if the model's names or shapes have changed, or for a mixing weight outside
                [0, 1].
        """
        self._refuse_if_applied("update")
        self._refuse_if_unregistered()
        weights, share = self._fitting(), weight_at(self.mixing, self.updates + 1)
        mix_in(self.shadow, weights, share, self._averaged)
        self.updates += 1

    def apply_shadow(self) -> None:
        """Put the shadow weights into the model; the trained ones are kept until `restore`.

        Raises:
            RuntimeError: before `register`, or when it is applied already.
            ValueError: if the model's names or shapes have changed.
        """
        self._refuse_if_applied("apply_shadow")
        self._refuse_if_unregistered()
        self._fitting()
        trained = Snapshot(self.model)
        try:
            put(self.model, self.shadow, self._averaged)
        except BaseException:
            trained.restore()
            raise
        self._trained = trained

    def restore(self) -> None:
        """Put the trained weights and all buffers back, bitwise, whatever the model went through.

        Each tensor is put back for itself, so that one that fails leaves no other averaged.

        Raises:
            RuntimeError: when no shadow is applied; for tensors that could not be put back, by
                name: `restore` may then be called again.
        """
        if self._trained is None:
            raise RuntimeError(
                "restore needs apply_shadow first; the model holds its trained weights"
            )
        self._trained.restore()
        self._trained = None

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """`apply_shadow` for the length of a `with` block, and `restore` at its end.

        Also after an exception. A checkpoint saved in the block holds the averaged weights, while
        training goes on with its own (opennmt-tf).
        """
        self.apply_shadow()
        try:
            yield self.model
        finally:
            self.restore()

    def state_dict(self) -> dict[str, Any]:
        """Copies of the shadow weights, and the number of updates; not the model, nor the decay."""
        return {"updates": self.updates, "shadow": copied(self.shadow)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`; needs no `register`.

        Raises:
            RuntimeError: while the shadow is applied.
            ValueError: for what is no shadow's state, and for shadow weights that do not fit the
                model, by name.
        """
        self._refuse_if_applied("load_state_dict")
        if not isinstance(state, Mapping) or not {"shadow", "updates"} <= state.keys():
            keys = sorted(state) if isinstance(state, Mapping) else state
            raise ValueError(f"the state of a Shadow must hold 'shadow' and 'updates', got {keys}")
        updates = check_count(state["updates"], "updates", least=0)
        contents = held(self.model)
        weights = contents.state
        saved = {
            name: placed_like(tensor, weights.get(name)) for name, tensor in state["shadow"].items()
        }
        if saved:  # empty before `register`
            check_alike(saved, weights, ("the saved shadow", "the model"), ties=({}, contents.ties))
        self.shadow = {
            name: copy_as(tensor, self._dtype_of(name, weights[name]), weights[name].device)
            for name, tensor in saved.items()
        }
        self.updates = updates

    def _fitting(self) -> Tensors:
        """The model's tensors, if they are those of the shadow."""
        contents = held(self.model)
        check_alike(
            self.shadow, contents.state, ("the shadow", "the model"), ties=({}, contents.ties)
        )
        return contents.state

    def _dtype_of(self, name: str, tensor: Tensor) -> torch.dtype:
        """That of the average; what is copied, as a quantised layer's scales, keeps its own."""
        return kept_dtype(tensor) if name in self._averaged else tensor.dtype

    def _refuse_if_applied(self, verb: str) -> None:
        if self._trained is not None:
            raise RuntimeError(
                f"{verb} while the shadow is applied would lose weights; call restore first"
            )

    def _refuse_if_unregistered(self) -> None:
        if not self.shadow:
            raise RuntimeError("the shadow holds no weights yet; call register first")
