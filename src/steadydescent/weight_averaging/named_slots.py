"""An optimiser's state with parameters by name, as in checkpoints, where torch numbers them."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from steadydescent.weight_averaging.checkpoint_files import CheckpointFile
from steadydescent.weight_averaging.named_tensors import placed_like

NAMED = {"optimizer", "slots", "groups"}
"""Some keys of what `named_state` gives."""


def class_name(thing: object) -> str:
    """Module and name of a thing's class: torch's Adam and another Adam are two."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def same_class(saved: str, ours: str) -> bool:
    """Whether two class names mean one class.

    One of the running script goes by another module when it is imported.
    """
    if saved.startswith("__main__.") == ours.startswith("__main__."):
        return saved == ours
    script, imported = (saved, ours) if saved.startswith("__main__.") else (ours, saved)
    return imported.endswith(script.removeprefix("__main__"))


def named_state(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """The optimiser's class, slots by parameter name, and groups.

    Raises:
        ValueError: for a parameter that is none of the model's.
    """
    groups, state = _parameter_names(optimizer, model), optimizer.state_dict()
    names = dict(enumerate(chain.from_iterable(groups)))
    return {
        "optimizer": class_name(optimizer),
        "twin": _twin_name(optimizer),
        "slots": {names.get(key, key): slots for key, slots in state["state"].items()},
        "groups": [
            {**group, "params": names}
            for group, names in zip(state["param_groups"], groups, strict=True)
        ],
    }


def numbered_state(
    content: CheckpointFile | Mapping[str, Any],
    optimizer: Optimizer,
    model: nn.Module,
    places: tuple[str, str],
) -> dict[str, Any]:
    """The reverse of `named_state`; `places` says in words where the state and the optimiser are.

    A state is for its own class. An optimiser that shares its states with one of torch says so by
    `torch_class`: the states of the two then go into each other, and what their groups hold is for
    their `load_state_dict` to judge.

    Raises:
        ValueError: for a state that is not for this optimiser.
    """
    keys = content.keys() if isinstance(content, Mapping) else content.keys
    here, there = places
    if "optimizer" not in keys:
        raise ValueError(f"{here} was written without an optimizer")
    theirs, ours = content["optimizer"], class_name(optimizer)
    are_twins = ("twin" in keys and content["twin"] == ours) or _twin_name(optimizer) == theirs
    if not are_twins and not same_class(theirs, ours):
        raise ValueError(f"{here} was written with {theirs}, not {ours}")
    names, groups = _parameter_names(optimizer, model), content["groups"]
    saved_names = [group["params"] for group in groups]
    if names != saved_names:
        raise ValueError(
            f"the groups of {there} hold the parameters {names}, those in {here} hold {saved_names}"
        )
    numbers = {name: number for number, name in enumerate(chain.from_iterable(names))}
    return {
        "state": {numbers.get(key, key): slots for key, slots in content["slots"].items()},
        "param_groups": [
            {**group, "params": [numbers[name] for name in group["params"]]} for group in groups
        ],
    }


def load_slots(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """torch's `load_state_dict`, but slots keep the dtype that they were saved in.

    torch casts them to their parameter's. Slots of a parameter's shape are spread over processes as
    it is.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, slots in state["state"].items():
        if isinstance(number, int) and isinstance(slots, dict) and number < len(parameters):
            parameter = parameters[number]
            for name, slot in slots.items():
                if isinstance(slot, Tensor) and slot.shape == parameter.shape:
                    slots[name] = placed_like(slot, parameter)
    optimizer.load_state_dict(state)
    for number, parameter in enumerate(parameters):
        if number in state["state"]:
            slots = optimizer.state[parameter]
            optimizer.state[parameter] = _as_saved(slots, state["state"][number])


def _twin_name(optimizer: Optimizer) -> str | None:
    """torch's optimiser whose state an optimiser takes and gives, if it names one."""
    twin = getattr(optimizer, "torch_class", None)
    return f"{twin.__module__}.{twin.__qualname__}" if isinstance(twin, type) else None


def is_numbered(state: Any) -> bool:
    """Whether an optimiser's state is as torch makes it; only its optimiser can read another."""
    return isinstance(state, dict) and state.keys() == {"state", "param_groups"}


def owner_of(optimizer: Optimizer, modules: Iterable[Any]) -> nn.Module | None:
    """The first of several modules that holds all of an optimiser's parameters."""
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for module in modules:
        if isinstance(module, nn.Module) and trained <= set(map(id, module.parameters())):
            return module
    return None


def _parameter_names(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """Names of the parameters in each of the optimiser's groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for number, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            if parameter not in names:
                raise ValueError(
                    f"parameter {position} of the optimizer's group {number} is none of the model's"
                )
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


def _as_saved(loaded: Any, saved: Any) -> Any:
    """The saved tensors, on the devices that torch has chosen for them."""
    if isinstance(loaded, Tensor):
        is_cast = isinstance(saved, Tensor) and saved.dtype != loaded.dtype
        return saved.to(loaded.device) if is_cast else loaded
    if isinstance(loaded, dict):
        return {key: _as_saved(value, saved.get(key, value)) for key, value in loaded.items()}
    if isinstance(loaded, list | tuple):
        return type(loaded)(_as_saved(value, of) for value, of in zip(loaded, saved, strict=True))
    return loaded
