"""A copy of a model, or a sentence that says what in it cannot be copied."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.weight_averaging.named_tensors import held, sharded_class

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
)


@torch.inference_mode(False)
@torch.no_grad()  # torch copies scripted modules by clones, which would have a graph
def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy.

    Results of computations that a module keeps, as an attribute or buffer, are copied without their
    graph: the weight that torch's older `weight_norm` makes, a last attention map. Modules under
    `fully_shard` are copied as what they were before, with the shards of this process.

    Raises:
        TypeError: naming the module and its attribute that cannot be copied.
    """
    held(model)  # puts shards in the place of gathered weights
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in (*vars(module).values(), *module._buffers.values())
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        # what is inside comes first, for what is around it to find
        for module in reversed(list(model.modules())):
            if isinstance(module, sharded_class()):
                memo[id(module)] = _without_sharding(module, memo)
        return deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"EMA needs a copy of the model, and {_culprit(model)} cannot be copied ({error}); "
            "take it away or detach it before the average is made, "
            "or use Shadow, which needs no copy"
        ) from error


def _without_sharding(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A copy without the class, hooks and state that `fully_shard` gives, which have no copies."""
    kind: Any = type(module).__mro__[type(module)._orig_cls_mro_index]  # type: ignore[attr-defined]
    copy: nn.Module = kind.__new__(kind)
    for name, value in vars(module).items():
        if not name.startswith("__composable_api_state_key"):
            vars(copy)[name] = type(value)() if name.startswith(_HOOKS) else deepcopy(value, memo)
    return copy


def _culprit(model: nn.Module) -> str:
    """Which attribute of which module cannot be copied."""
    for path, module in model.named_modules():
        if isinstance(module, sharded_class()):
            continue
        for name, value in vars(module).items():
            values = value if name in ("_parameters", "_buffers") else {name: value}
            for own_name, one in values.items():
                if isinstance(one, Tensor) and not one.is_leaf:
                    continue
                memo = {id(other): other for other in model.modules()}
                try:
                    deepcopy(one, memo)
                except Exception:
                    kind = type(module).__name__
                    where = f"its part {path!r} ({kind})" if path else f"the {kind}"
                    return f"the attribute {own_name!r} of {where}"
    return f"the {type(model).__name__}"
