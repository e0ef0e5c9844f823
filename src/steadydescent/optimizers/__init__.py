"""Optimisers: pure update rules, and classes of `torch.optim.Optimizer` made of them."""

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
