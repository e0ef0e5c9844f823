"""What a box must have installed, and what is left out where something is not; it imports nothing
that may be missing.
"""

import importlib.metadata
from collections.abc import Sequence

LEFT_OUT = {
    "jax": "the peer P4 (JAX)",
    "pytest": "the tests that need a GPU",
    "hypothesis": "the tests that need a GPU",
    "torchvision": "Fashion-MNIST's shifted test sets",
}
"""Package → what the box does without it."""
NEEDED = (
    *("torch", "numpy", "pandas", "pyarrow", "scipy", "pydantic", "PyYAML", "click", "tqdm"),
    *("filelock", "safetensors", "psutil", "pycountry", "mnist1d"),
)
"""Packages without which nothing runs; notebooks, kernels and the book are not among them."""


def missing(names: Sequence[str]) -> list[str]:
    """Those of some packages that are not installed."""

    def there(name: str) -> bool:
        try:
            return bool(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            return False

    return [name for name in names if not there(name)]


def check_needs() -> None:
    """Refuse to start where nothing could be trained.

    Raises:
        RuntimeError: names the packages that are missing, and how to bring them.
    """
    if gone := missing(NEEDED):
        raise RuntimeError(
            f"{', '.join(gone)} not installed, without which nothing can be trained; run "
            f"pip install {' '.join(gone)}; without a network bring them as wheels, "
            "which `pip download` fetches elsewhere"
        )
