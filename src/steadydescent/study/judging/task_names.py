"""What tasks are called in sentences."""

TASK_NAMES = {
    "mnist1d-mlp": "MNIST-1D's perceptron",
    "mnist1d-cnn": "MNIST-1D's CNN",
    "fashion-mnist-mlp": "Fashion-MNIST's perceptron",
    "fashion-mnist-deep-mlp": "Fashion-MNIST's deep perceptron",
    "fashion-mnist-cnn": "Fashion-MNIST's CNN",
    "names-transformer": "the names' Transformer",
    "ravine": "the ravine",
    "saddle": "the saddle",
    "plateau": "the plateau",
    "double-well": "the double well",
    "double-well-slope": "the double well's slope",
    "double-well-shoulder": "the double well's shoulder",
    "noisy-quadratic": "the noisy quadratic",
    "arithmetic": "arithmetic",
}
"""Task → its name in a sentence."""


def task_name(task: str) -> str:
    """A task in words; by its own name where it has no other.

    >>> task_name("mnist1d-cnn"), task_name("of-ones-own")
    ("MNIST-1D's CNN", 'of-ones-own')
    """
    return TASK_NAMES.get(task, task)
