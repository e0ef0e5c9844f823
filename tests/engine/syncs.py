"""What makes a program wait for its GPU, counted on a CPU: by the call, and by the operation."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CALLS = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "equal"}
CALLS |= {"__bool__", "__float__", "__int__", "__index__", "__contains__", "__array__"}
OPERATIONS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "item"}
OPERATIONS |= {"_unique2", "unique_dim", "unique_consecutive", "bincount", "allclose"}


class _Calls(TorchFunctionMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if (name := getattr(func, "__name__", "")) in CALLS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name == "index" and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if name in OPERATIONS or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Syncs:
    """Names of all that waits inside a `with` block; what copies to a CPU is caught by its call."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __enter__(self) -> list[str]:
        self._modes = [_Calls(self.seen), _Operations(self.seen)]
        for mode in self._modes:
            mode.__enter__()
        return self.seen

    def __exit__(self, *error) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
