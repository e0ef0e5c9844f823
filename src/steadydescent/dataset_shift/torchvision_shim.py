"""Importing torchvision beside a torch without CUDA, in one place.

torchvision's wheel on the package index carries CUDA operators. Beside a CPU-only torch its library
does not load, and the import stops with "operator torchvision::nms does not exist", although data
sets, transforms and models need no operator at all. Declaring the schemas of the two operators that
the import mentions is enough for those to work.
"""

import importlib
import sys
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a Library that is collected takes its schemas with it


def import_torchvision() -> ModuleType:
    """Return the module torchvision; its data sets, transforms and models work with any torch.

    The schemas are declared only after a plain import failed for want of them: declaring them first
    would clash with a torchvision whose own operators do load. Raises ImportError if torchvision is
    not installed, and whatever the import raises for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # left half imported
    _declare_missing_schemas()
    return importlib.import_module("torchvision")


def _declare_missing_schemas() -> None:
    # a fragment: someone else may own the namespace already
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declared.append(library)
