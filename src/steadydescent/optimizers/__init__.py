"""Optimisers: pure update rules, and torch optimisers made of them. Imports `averages`, `checks`.

`rules` has the formulas, each with its source; `facades` the eight classes for a training loop, on
`rule_optimizer`, which is a `torch.optim.Optimizer` with a rule inside. `updates` does what the
rules say in place, by torch's own functions, which `torch_forms` calls; `step_checks` and
`group_keys` refuse by name what cannot be updated or would go unheeded; `torch_twins` reads and
writes the groups of torch's own optimisers, `saved_states` takes saved states over.
"""

from steadydescent.optimizers.facades import (
    SGD,
    Adam,
    AdamW,
    AveragedMomentum,
    CorrectedMomentum,
    Momentum,
    Nesterov,
    RMSProp,
)
from steadydescent.optimizers.rule_optimizer import RuleOptimizer
from steadydescent.optimizers.rules import RULES, Rule, State

__all__ = [
    "RULES",
    "SGD",
    "Adam",
    "AdamW",
    "AveragedMomentum",
    "CorrectedMomentum",
    "Momentum",
    "Nesterov",
    "RMSProp",
    "Rule",
    "RuleOptimizer",
    "State",
]
