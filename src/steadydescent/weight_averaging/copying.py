"""A copy of a model, or a sentence that says what in it cannot be copied."""

from copy import deepcopy
from typing import Any

from torch import nn

from steadydescent.weight_averaging.named_tensors import held, sharded_class

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks")


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy. Modules under `fully_shard` are copied as what they were before, with the shards of this process.

    Raises:
        TypeError: naming the module and its attribute that cannot be copied.
    """
    held(model)  # puts shards in the place of gathered weights
    memo: dict[int, Any] = {}
    try:
        for module in reversed(list(model.modules())):  # what is inside comes first, for what is around it to find
            if isinstance(module, sharded_class()):
                memo[id(module)] = _without_sharding(module, memo)
        return deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"EMA needs a copy of the model, and {_culprit(model)} cannot be copied ({error}); make the average "
            "before the first forward pass, take that attribute away for the copy, or use Shadow, which needs no copy"
        ) from error


def _without_sharding(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`fully_shard` gives a module another class, hooks and a state of its own, none of which can be copied."""
    kind: Any = type(module).__mro__[type(module)._orig_cls_mro_index]  # type: ignore[attr-defined]
    copy: nn.Module = kind.__new__(kind)
    for name, value in vars(module).items():
        if not name.startswith("__composable_api_state_key"):
            vars(copy)[name] = type(value)() if name.startswith(_HOOKS) else deepcopy(value, memo)
    return copy


def _culprit(model: nn.Module) -> str:
    """Which attribute of which module cannot be copied."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            values = value if name in ("_parameters", "_buffers") else {name: value}
            for own_name, one in values.items():
                memo = {id(other): other for other in model.modules()}
                try:
                    deepcopy(one, memo)
                except Exception:
                    where = f"its part {path!r} ({type(module).__name__})" if path else f"the {type(module).__name__}"
                    return f"the attribute {own_name!r} of {where}"
    return f"the {type(model).__name__}"
