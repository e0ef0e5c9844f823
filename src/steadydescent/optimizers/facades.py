"""The update rules as torch optimisers, to drop into any training script: `RuleOptimizer` says what they do."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from steadydescent.checks import check_size
from steadydescent.optimizers.fused import fit, is_fused, update_in_place
from steadydescent.optimizers.rules import RULES, Rule

_OTHERS = {"alpha", "betas", "dampening", "momentum"}.union(*(rule.hyper for rule in RULES.values()))
"""Names of hyper-parameters, torch's and ours: in a group, one that its rule does not have would go unheeded."""

_NOTES = {"params", "param_names", "name", "rule", "lr", "initial_lr", "max_lr", "min_lr", "swa_lr", "lr_scale"} | {
    "base_momentum",
    "max_momentum",
}
"""What else a new group may hold: torch's keys, its schedulers' (and timm's `lr_scale`), a name, the rule's name."""


class RuleOptimizer(torch.optim.Optimizer):
    """A rule as a torch optimiser; a subclass names the `rule` and the tensors of its state.

    What torch's own do, these do: parameter groups with their own rate and hyper-parameters, `state_dict`, schedulers,
    hooks, closures, autocast, a rate that is a 0-dim tensor. A parameter without gradient is skipped and its step does
    not advance. The state of another optimiser (each group holds the name of its `rule`), or of parameters of other
    shapes, is refused by `load_state_dict` before anything changes. Left out: `maximize` (negate the loss), `foreach`,
    `fused`, `capturable`, `differentiable`.

    - Dense parameters on a CPU or a CUDA device are updated by torch's fused kernels, equal to the rule to rounding
      (`optimizers.fused`); all others, and momentum with a memory of 0, by the rule itself, one after another.
    - State of each parameter: `step`, the number of its updates (an int), and for each of `state_names` one tensor of
      its shape, dtype and device, changed in place: to keep a `state_dict` while training goes on, copy it deeply.
      In bfloat16, as in torch, 0.999·s rounds back to s, so that β₂ = 0.999 never forgets: keep parameters in float32
      and let autocast do the rest.
    - Hyper-parameters go by our names (`mu`, `beta1`, ...), which `OneCycleLR` and `CyclicLR` do not know. With
      `cycle_momentum=False` they work; without it they refuse.
    - No class is called gradient descent: it is `SGD` when the batch is the whole training set.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Adam(model.parameters(), lr=1e-3)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> model(torch.ones(2, 3)).square().mean().backward()
    >>> optimizer.step()
    >>> scheduler.step()
    >>> optimizer.zero_grad()
    >>> optimizer.param_groups[0]["lr"], optimizer.state[model.bias]["step"]
    (0.0005, 1)
    """

    rule: ClassVar[Rule]
    state_names: ClassVar[tuple[str, ...]]

    def __init__(self, params: ParamsT, lr: float | Tensor, **hyper: float) -> None:
        super().__init__(params, {"lr": _checked_rate(lr), **self.rule.checked(**hyper), "rule": self._rule_name})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own `lr` and hyper-parameters; those not given are the optimiser's.

        Raises:
            ValueError: for a value that the constructor would refuse, a hyper-parameter of another optimiser, or
                one that none has, such as a misspelt one.
        """
        if isinstance(param_group, dict):  # torch says what else is wrong
            if unknown := set(param_group) - _NOTES - set(self.rule.hyper):
                raise ValueError(self._foreign(unknown))
            param_group = {**param_group, **self._checked({**self.defaults, **param_group})}
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, or refuse before anything changes; `load_state_dict` ends here, and copies do."""
        for group in state["param_groups"]:
            self._checked(group)
        for param, kept in state["state"].items():
            if isinstance(param, Tensor) and kept:  # torch lets other entries through
                self._check_state(param, kept)
                kept.update({name: kept[name].clone() for name in self.state_names})  # shared with no other optimiser
        super().__setstate__(state)

    def _check_state(self, param: Tensor, kept: dict[str, Any]) -> None:
        if missing := {"step", *self.state_names} - set(kept):
            raise ValueError(f"state of {type(self).__name__} must have {sorted(missing)}, got {sorted(kept)}")
        for name in self.state_names:
            if kept[name].shape != param.shape:
                raise ValueError(f"{name} must have the shape {[*param.shape]}, got {[*kept[name].shape]}")

    def _checked(self, group: dict[str, Any]) -> dict[str, Any]:
        """The rate and all hyper-parameters of a group."""
        name = type(self).__name__
        if missing := {"lr", *self.rule.hyper} - set(group):
            raise ValueError(f"a parameter group of {name} must have {sorted(missing)}, got {sorted(group)}")
        if foreign := (_OTHERS & set(group)) - set(self.rule.hyper):
            raise ValueError(self._foreign(foreign))
        if (rule := group.get("rule")) != self._rule_name:
            raise ValueError(f"{name} takes groups of the rule {self._rule_name!r} alone, got one of {rule!r}")
        hyper = {key: group[key] for key in self.rule.hyper}
        return {"lr": _checked_rate(group["lr"]), **self.rule.checked(**hyper)}

    def _foreign(self, names: set[str]) -> str:
        return f"{type(self).__name__} has no {sorted(names)}; its hyper-parameters are {sorted(self.rule.hyper)}"

    @property
    def _rule_name(self) -> str:
        return str(self.rule.update.__name__)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient, in place.

        Args:
            closure: clears the gradients, computes the loss, calls `backward`, returns the loss.

        Returns:
            The closure's loss, if there is one.

        Raises:
            ValueError: for a sparse or complex gradient, before any parameter changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for (number, *_), params in self._alike().items():
            self._update(params, self.param_groups[number])
        return loss

    def _alike(self) -> dict[tuple[Any, ...], list[Tensor]]:
        """Parameters with a gradient, one update further, by group and by what a kernel wants to be the same."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for number, param in list(self._with_gradients()):
            state = self.state[param]
            if not state:
                state.update(step=0, **dict(zip(self.state_names, self.rule.init(param), strict=True)))
            state["step"] += 1
            key = (number, state["step"], param.dtype, param.device, param.is_contiguous())
            alike.setdefault(key, []).append(param)
        return alike

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters that are alike: by a kernel all at once, or by the rule one after another."""
        rule, lr, hyper = self.rule.update, group["lr"], {name: group[name] for name in self.rule.hyper}
        states = [self.state[param] for param in params]
        grads, step = [grad for param in params if (grad := param.grad) is not None], states[0]["step"]
        columns = [[state[name] for state in states] for name in self.state_names]
        if is_fused(rule, lr, hyper) and fit(params, grads, *columns):
            update_in_place(rule, params, grads, columns, step, lr, **hyper)
            return
        for param, grad, state in zip(params, grads, states, strict=True):
            theta, after = rule(param, grad, tuple(state[name] for name in self.state_names), step, lr, **hyper)
            param.copy_(theta)
            state.update(zip(self.state_names, after, strict=True))

    def _with_gradients(self) -> Iterator[tuple[int, Tensor]]:
        """Each parameter that has a gradient, with the number of its group."""
        for number, group in enumerate(self.param_groups):
            for place, param in enumerate(group["params"]):
                if (grad := param.grad) is None:
                    continue
                if grad.layout != torch.strided or grad.is_complex():
                    kind = "complex" if grad.is_complex() else "sparse"
                    who = f"parameter {(group.get('param_names') or range(place + 1))[place]} of group {number}"
                    raise ValueError(f"{type(self).__name__} needs dense real gradients; that of {who} is {kind}")
                yield number, param


def _checked_rate(lr: float | Tensor) -> float | Tensor:
    """A number, or a 0-dim tensor as it is, so that whoever changes it in place changes the rate."""
    if not isinstance(lr, Tensor):
        return check_size(lr, "lr")
    if lr.ndim:
        raise ValueError(f"lr must be a number or a tensor without axes, got one of shape {[*lr.shape]}")
    check_size(lr.item(), "lr")
    return lr


class SGD(RuleOptimizer):
    """Stochastic gradient descent, θ ← θ − α·g: `rules.sgd`; gradient descent when the batch is all the data.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: rate α, at least 0.
        weight_decay: λ of the cost's L2 term λ/2·‖θ‖².

    Raises:
        ValueError: for a value out of range; so do all the classes here.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SGD([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.8
    """

    rule, state_names = RULES["sgd"], ()

    def __init__(self, params: ParamsT, lr: float | Tensor, *, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay=weight_decay)


class Momentum(RuleOptimizer):
    """Heavy-ball momentum, u ← μ·u + g, θ ← θ − α·u: `rules.momentum`, torch's `SGD(momentum=μ)`.

    Args:
        params, lr, weight_decay: as for `SGD`.
        mu: μ in [0, 1).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = Momentum([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.71
    """

    rule, state_names = RULES["momentum"], ("velocity",)

    def __init__(self, params: ParamsT, lr: float | Tensor, *, mu: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, mu=mu, weight_decay=weight_decay)


class Nesterov(RuleOptimizer):
    """Nesterov's momentum, u ← μ·u + g, θ ← θ − α·(g + μ·u): `rules.nesterov`, torch's `SGD(nesterov=True)`.

    Args:
        params, lr, weight_decay: as for `SGD`.
        mu: μ in [0, 1).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = Nesterov([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.539
    """

    rule, state_names = RULES["nesterov"], ("velocity",)

    def __init__(self, params: ParamsT, lr: float | Tensor, *, mu: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, mu=mu, weight_decay=weight_decay)


class AveragedMomentum(RuleOptimizer):
    """Momentum as an average of gradients, v ← β·v + (1−β)·g, θ ← θ − α·v: `rules.averaged_momentum`.

    Args:
        params, weight_decay: as for `SGD`.
        lr: rate α, 1/(1−β) times as large as heavy-ball's for the same weights.
        beta: β in [0, 1).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = AveragedMomentum([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.971
    """

    rule, state_names = RULES["averaged-momentum"], ("velocity",)

    def __init__(self, params: ParamsT, lr: float | Tensor, *, beta: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, beta=beta, weight_decay=weight_decay)


class CorrectedMomentum(RuleOptimizer):
    """Averaged momentum with bias correction, θ ← θ − α·v/(1 − β^t): `rules.corrected_momentum`.

    Args:
        params, lr, beta, weight_decay: as for `AveragedMomentum`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = CorrectedMomentum([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.8
    """

    rule, state_names = RULES["corrected-momentum"], ("velocity",)

    def __init__(self, params: ParamsT, lr: float | Tensor, *, beta: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, beta=beta, weight_decay=weight_decay)


class RMSProp(RuleOptimizer):
    """RMSProp, s ← β·s + (1−β)·g², θ ← θ − α·g/(√s + ε): `rules.rmsprop`, torch's `RMSprop(alpha=β)`.

    Args:
        params, weight_decay: as for `SGD`.
        lr: rate α, about the size of a step; torch's default.
        beta: β in [0, 1).
        eps: ε, at least 0.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = RMSProp([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    -0.7089
    """

    rule, state_names = RULES["rmsprop"], ("square",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        beta: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, beta=beta, eps=eps, weight_decay=weight_decay)


class Adam(RuleOptimizer):
    """Adam, θ ← θ − α·m̂/(√ŝ + ε): `rules.adam`, torch's `Adam(betas=(β₁, β₂))`.

    Args:
        params, weight_decay: as for `SGD`.
        lr: rate α, about the size of a step; torch's default.
        beta1: β₁ in [0, 1), of the mean gradient.
        beta2: β₂ in [0, 1), of the mean squared gradient.
        eps: ε, at least 0.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = Adam([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.8
    """

    rule, state_names = RULES["adam"], ("mean", "square")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


class AdamW(Adam):
    """Adam with decoupled weight decay: θ ← θ − α·λ·θ, then Adam's update: `rules.adamw`, torch's `AdamW`.

    Args:
        params, lr, beta1, beta2, eps: as for `Adam`.
        weight_decay: λ, torch's default; it acts on the weights, not on the gradient.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = AdamW([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.7981
    """

    rule = RULES["adamw"]

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
