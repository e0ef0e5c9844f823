"""Groups of torch's own optimisers, read and written, so that states go both ways."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Group = dict[str, Any]


class Twin(NamedTuple):
    """torch's optimiser that computes a rule: its name, its group's words, what that must hold."""

    name: str
    called: Mapping[str, str]
    fixed: Mapping[str, Any]


_BETAS = {"beta1": "betas", "beta2": "betas"}
TWINS: Mapping[str, Twin] = {
    "sgd": Twin("SGD", {}, {"momentum": 0, "dampening": 0, "nesterov": False}),
    "momentum": Twin("SGD", {"mu": "momentum"}, {"dampening": 0, "nesterov": False}),
    "nesterov": Twin("SGD", {"mu": "momentum"}, {"dampening": 0, "nesterov": True}),
    "rmsprop": Twin("RMSprop", {"beta": "alpha"}, {"momentum": 0, "centered": False}),
    "adam": Twin("Adam", _BETAS, {"amsgrad": False, "decoupled_weight_decay": False}),
    "adamw": Twin("AdamW", _BETAS, {"amsgrad": False, "decoupled_weight_decay": True}),
}
"""Rule → torch's optimiser that does the same.

The averaged momentums have none, since torch starts from u₁ = g₁.
"""
WAYS = {"foreach", "fused", "capturable", "differentiable"}
"""How torch's optimisers compute, whatever they compute."""
LATE = {"decoupled_weight_decay", "maximize"}
"""What groups that an earlier torch has saved may lack."""


def to_torch(rule: str, group: Group) -> Group:
    """A group of ours as torch's optimiser of the same rule would hold it, if there is one."""
    if (twin := TWINS.get(rule)) is None:
        return group
    rest = {key: value for key, value in group.items() if key not in twin.called}
    hyper: Group = {}
    for theirs in twin.called.values():
        values = tuple(group[ours] for ours in _ours(twin, theirs))
        hyper[theirs] = values if len(values) > 1 else values[0]
    return {**rest, **hyper, **twin.fixed}


def from_torch(rule: str, group: Group) -> Group:
    """A group of torch's optimiser as one of ours of the same rule; what is no such group as it is.

    Raises:
        ValueError: for a group that computes something else than the rule.
    """
    twin = TWINS.get(rule)
    if twin is None or not is_torchs(twin, group) or group.get("rule", rule) != rule:
        return group
    if other := _other_rule(rule, twin, group):
        raise ValueError(
            f"{rule} is torch's {twin.name} with {dict(twin.fixed)}; this group has {other}"
        )
    torchs = {*twin.called.values(), *twin.fixed, *WAYS, "maximize"}
    converted = {key: value for key, value in group.items() if key not in torchs}
    for theirs in twin.called.values():
        ours, value = _ours(twin, theirs), group[theirs]
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) != len(ours):
            raise ValueError(f"{theirs} must hold {len(ours)} numbers, got {value!r}")
        converted.update(zip(ours, map(_number, values), strict=True))
    return converted | {"weight_decay": _number(group.get("weight_decay")), "rule": rule}


def is_torchs(twin: Twin, group: Group) -> bool:
    """Whether a group speaks as torch's optimiser does."""
    return ({*twin.called.values(), *twin.fixed} - LATE) <= set(group)


def _other_rule(rule: str, twin: Twin, group: Group) -> Group:
    """What a group of torch's optimiser holds that makes it compute something else."""
    needs = {**twin.fixed, "maximize": False}
    if not group.get("momentum"):  # torch heeds neither then
        needs.pop("dampening", None)
    other = {key: group[key] for key in needs if key in group and group[key] != needs[key]}
    if "momentum" in twin.called.values() and "rule" not in group and not group["momentum"]:
        other["momentum"] = group["momentum"]  # which is SGD
    return other


def _ours(twin: Twin, theirs: str) -> list[str]:
    return [ours for ours, name in twin.called.items() if name == theirs]


def _number(value: Any) -> Any:
    """torch takes hyper-parameters that are tensors, too."""
    return value.item() if isinstance(value, Tensor) else value
