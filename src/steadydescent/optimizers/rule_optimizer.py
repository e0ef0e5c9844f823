"""What all optimisers here share: groups, state and steps of torch's `Optimizer`, with a pure rule
inside.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import ParamsT

from steadydescent.optimizers.group_keys import FLAGS, refused
from steadydescent.optimizers.rules import Rule
from steadydescent.optimizers.step_checks import (
    can_be_updated,
    checked_rate,
    checked_step,
    fit,
    refuse_unfit,
)
from steadydescent.optimizers.torch_twins import TWINS, from_torch, to_torch
from steadydescent.optimizers.updates import update_in_place

_FORMERLY = {
    "momentum_buffer": "velocity",
    "square_avg": "square",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
}
"""Names of state tensors → what states saved before they had torch's names call them."""


class RuleOptimizer(torch.optim.Optimizer):
    """A rule as a torch optimiser; a subclass names the `rule` and the tensors of its state.

    What torch's own do, these do: parameter groups with their own rate and hyper-parameters,
    `state_dict`, schedulers, hooks, closures, autocast, a rate that is a 0-dim tensor. A parameter
    without gradient is skipped and its step does not advance; so is one that a lazy module has not
    made yet. One that is given twice is updated twice, as by torch.

    **Weights.** float64, float32, bfloat16 and float16, of any size, layout, device and tensor
    class, sharded ones (`DTensor`) too. Complex, float8 and other dtypes, sparse and nested
    gradients, and weights whose numbers share memory (`expand`) or are negated lazily are refused
    by name before anything changes; so is a weight that was resized (new tokens, pruning) when its
    gradient or state was not. A step is counted when it has been made. Updates go by torch's own
    functions, equal to the rule to rounding; fused kernels are taken where tests prove them right
    (`optimizers.updates`). In bfloat16, as in torch, 0.999·s rounds back to s, so that β₂ = 0.999
    never forgets, and in float16 the square of 1e-4 is 0: keep parameters in float32 and let
    autocast do the rest.

    **State.** For each parameter `step`, the number of its updates (an int), and for each of
    `state_names` one tensor of its shape, dtype and device, changed in place: to keep a
    `state_dict` while training goes on, copy it deeply. What else is there is the user's. torch's
    distributed checkpoints take it as it is, not flattened (`flatten_optimizer_state_dict`): torch
    would look there for our names in groups that have torch's.

    **From torch and back.** States have torch's form. `load_state_dict` takes that of torch's
    `Adam`, `AdamW`, `RMSprop` and `SGD`, and theirs takes ours, where the rule is the same: SGD
    with momentum is `Momentum`, with `nesterov=True` it is `Nesterov`. Refused before anything
    changes: `amsgrad`, `maximize`, `dampening`, `centered`, RMSprop with momentum, another rule's
    state, state for parameters of other shapes. torch's SGD counts no steps; after it, `step` is
    the number of updates by the class here. The averaged momentums have no twin in torch: their
    state is ours alone.

    **Names.** Hyper-parameters go by our names (`mu`, `beta1`, ...), in arguments and in
    `param_groups`; torch's (`betas`, `momentum`, `alpha`) and misspelt ones are refused, with the
    name that may have been meant. All other keys of a group are the user's and stay there. What is
    put into a group later is looked at by the next step, except for a rate tensor that is filled
    anew. torch's flags (`foreach`, `fused`, `amsgrad`, `capturable`, ...) may stand as None or
    False; True is refused.

    **Schedulers.** All of torch's. `OneCycleLR` and `CyclicLR` want `cycle_momentum=False`, and
    refuse without it: they know momentum by torch's names alone. To cycle it, set `group["mu"]` or
    `group["beta1"]` after each of their steps.

    No class is called gradient descent: it is `SGD` when the batch is the whole training set.

    >>> from steadydescent.optimizers import Adam
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Adam(model.parameters(), lr=1e-3)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> model(torch.ones(2, 3)).square().mean().backward()
    >>> optimizer.step()
    >>> scheduler.step()
    >>> optimizer.zero_grad()
    >>> optimizer.param_groups[0]["lr"], optimizer.state[model.bias]["step"]
    (0.0005, 1)
    >>> torch.optim.Adam(model.parameters()).load_state_dict(optimizer.state_dict())  # torch goes on from here
    """

    rule: ClassVar[Rule]
    state_names: ClassVar[tuple[str, ...]]
    _seen: Sequence[tuple[list[str], list[Any]]] = ()
    """Keys and values of each group as the last step found them."""

    def __init__(self, params: ParamsT, lr: float | Tensor, **hyper: Any) -> None:
        if wrong := refused(self.rule.hyper, self._fixed, hyper):
            raise (ValueError if set(wrong) <= FLAGS else TypeError)(self._foreign(wrong))
        if unknown := set(hyper) - set(self.rule.hyper) - FLAGS:
            raise TypeError(self._foreign({name: [] for name in unknown}))
        own = {name: value for name, value in hyper.items() if name in self.rule.hyper}
        super().__init__(params, {"lr": checked_rate(lr), **self.rule.checked(**own)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own `lr` and hyper-parameters; those not given are the
        optimiser's.

        Raises:
            ValueError: for a value that the constructor would refuse, a hyper-parameter of another
                optimiser, or a misspelt one.
        """
        if isinstance(param_group, dict):  # torch says what else is wrong
            checked = self._checked({"rule": self._rule_name, **self.defaults, **param_group})
            param_group.update(
                {"rule": self._rule_name, **checked}
            )  # as with torch, the user's dict is the group
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """State and groups as torch's optimiser of the same rule has them, which can go on from it."""
        saved = super().state_dict()
        return {
            **saved,
            "param_groups": [to_torch(self._rule_name, group) for group in saved["param_groups"]],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch's, with a sentence for tensors without values; what is refused is said at the
        class.
        """
        try:
            super().load_state_dict(state_dict)
        except NotImplementedError as error:  # torch's, for a copy out of the meta device
            raise ValueError(
                f"state on the meta device holds no values to load: {error}"
            ) from error

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, or refuse before anything changes; `load_state_dict` ends
        here, and copies do.
        """
        groups = [from_torch(self._rule_name, group) for group in state["param_groups"]]
        for group in groups:
            self._checked(group)
        own = {key: self._taken_over(key, kept) for key, kept in state["state"].items()}
        super().__setstate__({**state, "param_groups": groups, "state": defaultdict(dict, own)})

    def _taken_over(self, param: Any, kept: Any) -> Any:
        """A parameter's state with copies of its tensors, shared with no other optimiser, that lie
        as it does.
        """
        if not isinstance(param, Tensor):
            return kept  # torch lets other entries through
        if not isinstance(kept, dict):
            raise ValueError(f"state of a parameter must be a dict, got {type(kept).__name__}")
        if self._is_new(kept := {key: value for key, value in kept.items() if value is not None}):
            return kept  # torch's SGD had None for no momentum
        kept |= {name: kept.pop(_FORMERLY[name]) for name in self._formerly_called(kept)}
        if "dampening" in self._fixed:
            kept.setdefault("step", 0)  # torch's SGD counts none
        if missing := {"step", *self.state_names} - set(kept):
            raise ValueError(
                f"state of {type(self).__name__} must have {sorted(missing)}, got {sorted(kept)}"
            )
        if is_lazy(param):
            raise ValueError(
                "state of a lazy module's parameter: run the module once, then load the state"
            )
        for name in self.state_names:
            if not isinstance(kept[name], Tensor):
                raise ValueError(f"{name} must be a tensor, got {type(kept[name]).__name__}")
            if kept[name].shape != param.shape:
                raise ValueError(
                    f"{name} must have the shape {[*param.shape]}, got {[*kept[name].shape]}"
                )
        copies = {name: _copied(kept[name], param) for name in self.state_names}
        return {**kept, "step": checked_step(kept["step"]), **copies}

    def _formerly_called(self, kept: Mapping[str, Any]) -> list[str]:
        return [
            name for name in self.state_names if name not in kept and _FORMERLY.get(name) in kept
        ]

    def _checked(self, group: dict[str, Any]) -> dict[str, Any]:
        """The rate and all hyper-parameters of a group."""
        name = type(self).__name__
        if missing := {"lr", *self.rule.hyper} - set(group):
            raise ValueError(
                f"a parameter group of {name} must have {sorted(missing)}, got {sorted(group)}"
            )
        if wrong := refused(
            self.rule.hyper, self._fixed, {key: v for key, v in group.items() if key != "params"}
        ):
            raise ValueError(self._foreign(wrong))
        if (rule := group.get("rule")) != self._rule_name:
            raise ValueError(
                f"{name} takes groups of the rule {self._rule_name!r} alone, got one of {rule!r}"
            )
        hyper = {key: group[key] for key in self.rule.hyper}
        return {"lr": checked_rate(group["lr"]), **self.rule.checked(**hyper)}

    def _foreign(self, names: Mapping[str, Sequence[str]]) -> str:
        told = f"{type(self).__name__} has no {sorted(names)}; its hyper-parameters are {sorted(self.rule.hyper)}"
        meant = [
            f"{name!r} may mean {' and '.join(map(repr, ours))}"
            for name, ours in sorted(names.items())
            if ours
        ]
        flags = (
            ["torch's flags may be None or False here; to maximise, negate the loss"]
            if FLAGS & set(names)
            else []
        )
        return "; ".join([told, *meant, *flags])

    @property
    def _rule_name(self) -> str:
        return str(self.rule.update.__name__)

    @property
    def torch_class(self) -> type[torch.optim.Optimizer] | None:
        """torch's optimiser of the same rule, whose states and checkpoints this one takes and
        gives; None without.
        """
        return (
            getattr(torch.optim, TWINS[self._rule_name].name) if self._rule_name in TWINS else None
        )

    @property
    def _fixed(self) -> Mapping[str, Any]:
        """What torch's optimiser of the same rule must hold to compute it."""
        return TWINS[self._rule_name].fixed if self._rule_name in TWINS else {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient, in place.

        Args:
            closure: clears the gradients, computes the loss, calls `backward`, returns the loss.

        Returns:
            The closure's loss, if there is one.

        Raises:
            ValueError: for what has been put into a group since and `add_param_group` would refuse,
                for a weight or gradient that cannot be updated, and for a weight that has another
                shape than its gradient or state, by name, before any parameter changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, params, states in self._due():
            hyper = {name: group[name] for name in self.rule.hyper}
            for once, kept in _rounds(params, states):
                for made, alike in self._by_updates(once, kept).items():
                    self._update(*alike, made + 1, group["lr"], hyper)
        return loss

    def _update(
        self,
        params: list[Tensor],
        states: list[dict[str, Any]],
        step: int,
        lr: float | Tensor,
        hyper: Mapping[str, float],
    ) -> None:
        grads = [grad.resolve_neg() for param in params if (grad := param.grad) is not None]
        columns = [params, grads, *[[state[name] for state in states] for name in self.state_names]]
        update_in_place(self.rule.update, columns, step, lr, hyper)
        for state in states:
            state["step"] = step

    def _by_updates(
        self, params: list[Tensor], states: list[Any]
    ) -> dict[int, tuple[list[Tensor], list[dict[str, Any]]]]:
        """Parameters and their states by the number of updates that they have had; state starts
        here.
        """
        for place, (param, state) in enumerate(zip(params, states, strict=True)):
            if not state or "step" not in state:
                state = states[place] = self.state[param]
                if "step" not in state:
                    state.update(zip(self.state_names, self.rule.init(param), strict=True), step=0)
        made = [state["step"] for state in states]
        if len(set(made)) == 1:
            return {made[0]: (params, states)}
        alike: dict[int, tuple[list[Tensor], list[dict[str, Any]]]] = defaultdict(lambda: ([], []))
        for param, state, number in zip(params, states, made, strict=True):
            alike[number][0].append(param)
            alike[number][1].append(state)
        return alike

    def _due(self) -> list[tuple[dict[str, Any], list[Tensor], list[Any]]]:
        """Each group with its parameters that have a gradient, and their states; refused if any
        cannot be updated.
        """
        self._check_changed_groups()
        due = []
        for number, group in enumerate(self.param_groups):
            params = [param for param in group["params"] if param.grad is not None]
            grads, states = [param.grad for param in params], [*map(self.state.get, params)]
            if not can_be_updated(params, grads) or not fit(
                params, grads, states, self.state_names
            ):
                for place, param in enumerate(group["params"]):
                    if param.grad is not None:
                        who = f"parameter {(group.get('param_names') or range(place + 1))[place]} of group {number}"
                        kept = self.state.get(param)
                        begun = None if self._is_new(kept) else kept
                        refuse_unfit(type(self).__name__, who, param, begun, self.state_names)
            due.append((group, params, states))
        return due

    def _check_changed_groups(self) -> None:
        """Refuse what has been put into a group since the last step and would go unheeded, or to
        NaN.
        """
        now = [([*group], [*group.values()]) for group in self.param_groups]
        for number, (group, (keys, values)) in enumerate(zip(self.param_groups, now, strict=True)):
            known, before = self._seen[number] if number < len(self._seen) else ([], [])
            changed = [
                key for key, old, new in zip(keys, before, values, strict=False) if old is not new
            ]
            if changed or keys != known:
                try:
                    self._check_values(group, changed if keys == known else keys)
                except ValueError as error:
                    raise ValueError(f"parameter group {number}: {error}") from None
        self._seen = now

    def _check_values(self, group: dict[str, Any], changed: list[str]) -> None:
        if not {"lr", *self.rule.hyper}.issuperset(changed):
            self._checked(group)
            return
        for key in changed:  # as schedulers do at every step
            if key == "lr":
                checked_rate(group["lr"])
            else:
                self.rule.checked(**{key: group[key]})

    def _is_new(self, kept: Mapping[str, Any] | None) -> bool:
        """Whether a parameter's state holds nothing of an optimiser's; what else is there is the
        user's own.
        """
        return not kept or kept.keys().isdisjoint(
            {"step", *self.state_names, *_FORMERLY, *_FORMERLY.values()}
        )


def _rounds(params: list[Tensor], states: list[Any]) -> Iterator[tuple[list[Tensor], list[Any]]]:
    """Parameters, each once in a round, and their states: one that is given twice is updated twice."""
    while params:
        if len(set(map(id, params))) == len(params):  # as almost always
            yield params, states
            return
        once = {id(param): (param, state) for param, state in zip(params, states, strict=True)}
        yield [param for param, _ in once.values()], [state for _, state in once.values()]
        again = [
            pair for pair in zip(params, states, strict=True) if once.pop(id(pair[0]), None) is None
        ]
        params, states = [param for param, _ in again], [state for _, state in again]


def _copied(kept: Tensor, param: Tensor) -> Tensor:
    return torch.empty_like(param, dtype=kept.dtype, device=kept.device).copy_(kept)
