"""Optimisers: pure update rules, and `torch.optim.Optimizer`s made of them."""

from steadydescent.optimizers.rules import RULES, Rule, State

__all__ = ["RULES", "Rule", "State"]
