"""What a parameter group may hold beside its hyper-parameters: nothing meant to be another.

Users keep their own notes in groups (`lr_mult`, `layer_id`), and torch's optimisers let them.
Refused are the hyper-parameters of other rules, torch's names of them, flags that ask for what no
rule here does, and misspelt names.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from steadydescent.optimizers.rules import RULES
from steadydescent.optimizers.torch_twins import WAYS

HYPER = {name for rule in RULES.values() for name in rule.hyper}
MEANT: Mapping[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "momentum": ("mu", "beta"),
    "alpha": ("beta",),
    "dampening": (),
    "epsilon": ("eps",),
    "nu": ("mu",),
    "learning_rate": ("lr",),
}
"""Other names of hyper-parameters → ours."""
FLAGS = {"amsgrad", "maximize", "nesterov", "centered", "decoupled_weight_decay", *WAYS}
"""torch's words for what an optimiser does and how."""
OTHERS = sorted(HYPER | set(MEANT) | FLAGS)


def refused(
    hyper: Collection[str], fixed: Mapping[str, Any], group: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Keys that a group may not hold, each with the names that may have been meant.

    `hyper` are the rule's hyper-parameters, `fixed` the flags that torch's optimiser of the same
    rule has.

    >>> group = {"lr": 0.1, "lr_mult": 2.0, "foreach": None, "alpha": 0.8, "ep_s": 1e-3, "mu": 1}
    >>> refused(["beta", "eps"], {}, group)
    {'alpha': ['beta'], 'ep_s': ['eps'], 'mu': []}
    """
    known = {"lr", *hyper}
    wrong: dict[str, list[str]] = {}
    for key in [key for key in group if isinstance(key, str) and key not in known]:
        if key in FLAGS:
            if group[key] and group[key] != fixed.get(key):
                wrong[key] = []
        elif key in OTHERS or _may_be_hyper(group[key]):
            near = _nearest(key, (*sorted(known), *OTHERS))
            ours = [name for name in MEANT.get(near, (near,)) if name in known] if near else []
            # `meta` is no misspelt `beta` where there is none
            if near and (ours or _plain(key) == _plain(near)):
                wrong[key] = ours
    return wrong


def _may_be_hyper(value: Any) -> bool:
    return value is not None and not isinstance(value, str | bytes | bool | dict)


@cache
def _nearest(key: str, names: tuple[str, ...]) -> str | None:
    """The first of the names that is the same but for capitals and underscores, or else near."""
    same = (name for name in names if _plain(key) == _plain(name))
    return next(same, next((name for name in names if _is_near(_plain(key), _plain(name))), None))


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _is_near(one: str, other: str) -> bool:
    """Whether two names are one but for a letter: too many, too few, wrong, or two swapped."""
    if one == other or min(len(one), len(other)) < 4:  # short names are near too much
        return one == other
    if len(one) != len(other):
        return one in _shortened(other) or other in _shortened(one)
    wrong = sum(a != b for a, b in zip(one, other, strict=True))
    return wrong == 1 or (wrong == 2 and sorted(one) == sorted(other))


def _shortened(name: str) -> set[str]:
    return {name[:i] + name[i + 1 :] for i in range(len(name))}
