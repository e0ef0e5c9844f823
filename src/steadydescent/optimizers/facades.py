"""The eight rules as torch optimisers for any loop; `RuleOptimizer` says what they do."""

from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from steadydescent.optimizers.rule_optimizer import RuleOptimizer
from steadydescent.optimizers.rules import RULES

_SGD = RULES["sgd"].hyper
_MOMENTUM = RULES["momentum"].hyper
_NESTEROV = RULES["nesterov"].hyper
_AVERAGED_MOMENTUM = RULES["averaged-momentum"].hyper
_CORRECTED_MOMENTUM = RULES["corrected-momentum"].hyper
_RMSPROP = RULES["rmsprop"].hyper
_ADAM = RULES["adam"].hyper
_ADAMW = RULES["adamw"].hyper
"""The defaults, which stand in the rules' signatures."""


class SGD(RuleOptimizer):
    """Stochastic gradient descent, θ ← θ − α·g: `rules.sgd`.

    It is gradient descent when the batch is all the data.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: rate α, at least 0.
        weight_decay: λ of the cost's L2 term λ/2·‖θ‖².
        flags: torch's, such as `foreach` and `maximize`, as long as they ask for nothing: None or
            False.

    Raises:
        TypeError: for an argument of another name, which says which may have been meant.
        ValueError: for a value out of range, or a flag that asks for something; so do all the
            classes here.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SGD([weight], lr=0.1)
    >>> for _ in range(2):
    ...     weight.grad = torch.tensor([1.0])
    ...     _ = optimizer.step()
    >>> round(weight.item(), 4)
    0.8
    """

    rule, state_names = RULES["sgd"], ()

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor,
        *,
        weight_decay: float = _SGD["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, **flags)


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

    rule, state_names = RULES["momentum"], ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor,
        *,
        mu: float = _MOMENTUM["mu"],
        weight_decay: float = _MOMENTUM["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, mu=mu, weight_decay=weight_decay, **flags)


class Nesterov(RuleOptimizer):
    """Nesterov's momentum, u ← μ·u + g, θ ← θ − α·(g + μ·u): torch's `SGD(nesterov=True)`.

    The rule is `rules.nesterov`.

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

    rule, state_names = RULES["nesterov"], ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor,
        *,
        mu: float = _NESTEROV["mu"],
        weight_decay: float = _NESTEROV["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, mu=mu, weight_decay=weight_decay, **flags)


class AveragedMomentum(RuleOptimizer):
    """Momentum as an average of gradients, v ← β·v + (1−β)·g, θ ← θ − α·v.

    The rule is `rules.averaged_momentum`.

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

    rule, state_names = RULES["averaged-momentum"], ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor,
        *,
        beta: float = _AVERAGED_MOMENTUM["beta"],
        weight_decay: float = _AVERAGED_MOMENTUM["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, beta=beta, weight_decay=weight_decay, **flags)


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

    rule, state_names = RULES["corrected-momentum"], ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor,
        *,
        beta: float = _CORRECTED_MOMENTUM["beta"],
        weight_decay: float = _CORRECTED_MOMENTUM["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, beta=beta, weight_decay=weight_decay, **flags)


class RMSProp(RuleOptimizer):
    """RMSProp, s ← β·s + (1−β)·g², θ ← θ − α·g/(√s + ε): torch's `RMSprop(alpha=β)`.

    The rule is `rules.rmsprop`.

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

    rule, state_names = RULES["rmsprop"], ("square_avg",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-2,
        *,
        beta: float = _RMSPROP["beta"],
        eps: float = _RMSPROP["eps"],
        weight_decay: float = _RMSPROP["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(params, lr, beta=beta, eps=eps, weight_decay=weight_decay, **flags)


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

    rule, state_names = RULES["adam"], ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        *,
        beta1: float = _ADAM["beta1"],
        beta2: float = _ADAM["beta2"],
        eps: float = _ADAM["eps"],
        weight_decay: float = _ADAM["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(
            params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, **flags
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, θ ← θ − α·λ·θ, then Adam's update: torch's `AdamW`.

    The rule is `rules.adamw`.

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
        lr: float | torch.Tensor = 1e-3,
        *,
        beta1: float = _ADAMW["beta1"],
        beta2: float = _ADAMW["beta2"],
        eps: float = _ADAMW["eps"],
        weight_decay: float = _ADAMW["weight_decay"],
        **flags: Any,
    ) -> None:
        super().__init__(
            params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, **flags
        )
