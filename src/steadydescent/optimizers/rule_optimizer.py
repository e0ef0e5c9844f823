"""What all optimisers here share: torch's `Optimizer` with a pure rule inside."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from steadydescent.optimizers.group_keys import FLAGS, refused
from steadydescent.optimizers.rules import Rule
from steadydescent.optimizers.saved_states import is_new, state_for
from steadydescent.optimizers.step_checks import (
    can_be_updated,
    checked_rate,
    fit,
    refuse_unfit,
)
from steadydescent.optimizers.torch_twins import TWINS, from_torch, to_torch
from steadydescent.optimizers.updates import update_in_place


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
    >>> torchs = torch.optim.Adam(model.parameters())
    >>> torchs.load_state_dict(optimizer.state_dict())  # torch goes on from here
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
        """Add parameters with their own `lr` and hyper-parameters, else the optimiser's.

        Raises:
            ValueError: for a value that the constructor would refuse, a hyper-parameter of another
                optimiser, or a misspelt one.
        """
        if isinstance(param_group, dict):  # torch says what else is wrong
            checked = self._checked({"rule": self._rule_name, **self.defaults, **param_group})
            # as with torch, the user's dict is the group
            param_group.update({"rule": self._rule_name, **checked})
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """State and groups as torch's optimiser of the same rule has them, to go on from."""
        saved = super().state_dict()
        groups = [to_torch(self._rule_name, group) for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch's, with a sentence for tensors without values; the class says what it refuses."""
        try:
            super().load_state_dict(state_dict)
        except NotImplementedError as error:  # torch's, for a copy out of the meta device
            raise ValueError(
                f"state on the meta device holds no values to load: {error}"
            ) from error

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, or refuse before anything changes.

        `load_state_dict` ends here, and so do copies.
        """
        groups = [from_torch(self._rule_name, group) for group in state["param_groups"]]
        for group in groups:
            self._checked(group)
        name, counted = type(self).__name__, "dampening" not in self._fixed
        states = {
            param: state_for(param, saved, name, self.state_names, counted)
            for param, saved in state["state"].items()
        }
        super().__setstate__({**state, "param_groups": groups, "state": defaultdict(dict, states)})

    def _checked(self, group: dict[str, Any]) -> dict[str, Any]:
        """The rate and all hyper-parameters of a group."""
        name = type(self).__name__
        if missing := {"lr", *self.rule.hyper} - set(group):
            raise ValueError(
                f"a parameter group of {name} must have {sorted(missing)}, got {sorted(group)}"
            )
        keys = {key: value for key, value in group.items() if key != "params"}
        if wrong := refused(self.rule.hyper, self._fixed, keys):
            raise ValueError(self._foreign(wrong))
        if (rule := group.get("rule")) != self._rule_name:
            raise ValueError(
                f"{name} takes groups of the rule {self._rule_name!r} alone, got one of {rule!r}"
            )
        hyper = {key: group[key] for key in self.rule.hyper}
        return {"lr": checked_rate(group["lr"]), **self.rule.checked(**hyper)}

    def _foreign(self, names: Mapping[str, Sequence[str]]) -> str:
        sentences = [
            f"{type(self).__name__} has no {sorted(names)}",
            f"its hyper-parameters are {sorted(self.rule.hyper)}",
        ]
        for name, ours in sorted(names.items()):
            if ours:
                sentences.append(f"{name!r} may mean {' and '.join(map(repr, ours))}")
        if FLAGS & set(names):
            sentences.append("torch's flags may be None or False here")
            sentences.append("to maximise, negate the loss")
        return "; ".join(sentences)

    @property
    def _rule_name(self) -> str:
        return str(self.rule.update.__name__)

    @property
    def torch_class(self) -> type[torch.optim.Optimizer] | None:
        """torch's optimiser whose states this one takes and gives, of the same rule; else None."""
        twin = TWINS.get(self._rule_name)
        return None if twin is None else getattr(torch.optim, twin.name)

    @property
    def _fixed(self) -> Mapping[str, Any]:
        """What torch's optimiser of the same rule must hold to compute it."""
        return TWINS[self._rule_name].fixed if self._rule_name in TWINS else {}

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
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
            for distinct, their_states in _rounds(params, states):
                for updates, alike in self._by_updates(distinct, their_states).items():
                    self._update(*alike, updates + 1, group["lr"], hyper)
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
        """Parameters and their states by the number of their updates; state starts here."""
        for place, (param, state) in enumerate(zip(params, states, strict=True)):
            if not state or "step" not in state:
                state = states[place] = self.state[param]
                if "step" not in state:
                    state.update(zip(self.state_names, self.rule.init(param), strict=True), step=0)
        counts = [state["step"] for state in states]
        if len(set(counts)) == 1:
            return {counts[0]: (params, states)}
        alike: dict[int, tuple[list[Tensor], list[dict[str, Any]]]] = defaultdict(lambda: ([], []))
        for param, state, count in zip(params, states, counts, strict=True):
            alike[count][0].append(param)
            alike[count][1].append(state)
        return alike

    def _due(self) -> list[tuple[dict[str, Any], list[Tensor], list[Any]]]:
        """Each group with its parameters that have a gradient, and their states.

        Raises:
            ValueError: naming a parameter that cannot be updated.
        """
        self._check_changed_groups()
        due = []
        for number, group in enumerate(self.param_groups):
            params = [param for param in group["params"] if param.grad is not None]
            grads, states = [param.grad for param in params], [*map(self.state.get, params)]
            if not can_be_updated(params, grads) or not fit(
                params, grads, states, self.state_names
            ):
                self._refuse_unfit(group, number)
            due.append((group, params, states))
        return due

    def _refuse_unfit(self, group: dict[str, Any], number: int) -> None:
        for place, param in enumerate(group["params"]):
            if param.grad is None:
                continue
            names = group.get("param_names") or range(place + 1)
            who = f"parameter {names[place]} of group {number}"
            state = self.state.get(param)
            if is_new(state, self.state_names):
                state = None
            refuse_unfit(type(self).__name__, who, param, state, self.state_names)

    def _check_changed_groups(self) -> None:
        """Refuse what was put into a group since the last step and would go unheeded, or to NaN."""
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


def _rounds(params: list[Tensor], states: list[Any]) -> Iterator[tuple[list[Tensor], list[Any]]]:
    """Parameters, each once in a round, and their states: one given twice is updated twice."""
    while params:
        if len(set(map(id, params))) == len(params):  # as almost always
            yield params, states
            return
        pairs = [*zip(params, states, strict=True)]
        once = {id(param): (param, state) for param, state in pairs}
        yield [param for param, _ in once.values()], [state for _, state in once.values()]
        again = [pair for pair in pairs if once.pop(id(pair[0]), None) is None]
        params, states = [param for param, _ in again], [state for _, state in again]
