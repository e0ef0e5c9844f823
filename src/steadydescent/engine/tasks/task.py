"""Tasks: a data set, a model and a loss under one name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from steadydescent.checks import check_choice
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.settings import read
from steadydescent.engine.tasks.models import image_convnet, mlp, signal_convnet
from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.normalization import KINDS

IGNORED = -100
"""The label that pads; torch's cross-entropy leaves it out too."""


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all labels but −100, which pad; logits `[B, …, K]`, labels `[B, …]`, nats.

    >>> labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    >>> mean_cross_entropy(torch.zeros(2, 3, 10), labels).item()  # ln 10
    2.302...
    """
    # torch's cross_entropy looks one number up a row, which no compiler of a stack vectorises
    chosen = labels[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    nats = torch.where(chosen, log_softmax(logits, -1), 0.0).sum()
    return -nats / (labels != IGNORED).sum()


def mean_value(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of a surface's values `[B]`; a surface has no labels.

    >>> mean_value(torch.tensor([1.0, 3.0]), torch.zeros(2)).item()
    2.0
    """
    return values.mean()


@dataclass(frozen=True)
class Task:
    """`source` names the data (see `steadydescent.engine.data.load`), `build` makes a freshly
    initialised model.

    `norm` is the model's usual kind of normalisation, None where it has no choice. Inputs are
    standardised unless they are `tokens`, or `features` says otherwise. A `surface` has no data:
    its batches are noise, drawn with replacement. Only the first `examples` of a seed's training
    set are used (0: all), and a share `wrong_labels` of them carries another label, drawn evenly;
    validation and test labels stay right.
    """

    source: str
    build: Callable[..., nn.Module]
    norm: str | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = mean_cross_entropy
    tokens: bool = False
    surface: bool = False
    features: str = "standardised"
    examples: int = 0
    wrong_labels: float = 0.0

    @property
    def score(self) -> Literal["accuracy", "loss"]:
        """What networks on it are compared by: the accuracy, or a surface's height, its loss."""
        return "loss" if self.surface else "accuracy"

    def inputs(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Rows of the data's pool as the model takes them."""
        if self.tokens:
            return x
        return FEATURES[self.features](x, mean, std)


def badly_scaled(x: Tensor) -> Tensor:
    """Standardised features `[…, D]` shifted by one and stretched, feature by feature, from a tenth
    to tenfold.

    The scales are spread evenly in log and dealt out in a fixed order, so that neighbours differ.

    >>> badly_scaled(torch.zeros(4)).tolist()
    [0.1..., 10.0, 2.15..., 0.46...]
    """
    count = x.shape[-1]
    order = torch.arange(count) * SHUFFLE % count if count % SHUFFLE else torch.arange(count)
    scales = 10 ** torch.linspace(-1, 1, count)[order]
    return (x + 1) * scales.to(x.device, x.dtype)


SHUFFLE = 7
"""A stride that visits every feature once where it does not divide their number."""
FEATURES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "standardised": lambda x, mean, std: (x - mean) / std,
    "badly-scaled": lambda x, mean, std: badly_scaled((x - mean) / std),
    "raw": lambda x, mean, std: x.to(mean.dtype),
}
"""Name → the model's inputs, from the data as stored and mean and deviation of the training set.
`raw` inputs are as the data have them: pixels from 0 to 255, signals as they were drawn.
"""


def _transformer() -> nn.Module:
    from steadydescent.engine.data.spelling import vocabulary_sizes
    from steadydescent.engine.tasks.transformer import Transformer

    return Transformer(*vocabulary_sizes())


TASKS = {
    "mnist1d-mlp": Task("mnist1d", partial(mlp, 40, 100, 100, 10), "none"),
    "mnist1d-cnn": Task("mnist1d", signal_convnet, "none"),
    "fashion-mnist-mlp": Task("fashion-mnist", partial(mlp, 784, 128, 10), "none"),
    "fashion-mnist-deep-mlp": Task(
        "fashion-mnist", partial(mlp, 784, 128, 128, 128, 128, 128, 10), "none"
    ),
    "fashion-mnist-cnn": Task("fashion-mnist", image_convnet, "batch"),
    "names-transformer": Task("names", _transformer, tokens=True),
    **{
        name: Task(f"gaussian-{len(build().point)}", build, loss=mean_value, surface=True)
        for name, build in SURFACES.items()
    },
}


def canonical(text: str) -> str:
    """The one way to write a task: `mnist1d-mlp(norm="batch")`; the usual kind of normalisation is
    left out.

    >>> canonical("fashion-mnist-cnn(norm=batch)"), canonical("fashion-mnist-cnn(norm=none)")
    ('fashion-mnist-cnn', 'fashion-mnist-cnn(norm="none")')

    Raises: ValueError: for an unknown task, an option that it does not have, or an unknown kind of
        normalisation.
    """
    setting = read(text)
    check_choice(setting.name, sorted(TASKS), "task")
    usual = _options(TASKS[setting.name])
    if unknown := set(setting.options) - set(usual):
        raise ValueError(
            f"task {setting.name} has no option {sorted(unknown)}, got {text!r}; "
            f"it has {sorted(usual)}"
        )
    _check({**usual, **setting.options}, SPLIT_SIZES[TASKS[setting.name].source]["train"])
    return setting.text(usual)


def _options(task: Task) -> dict[str, str | int | float]:
    """The options that a task has, with their usual values."""
    norm: dict[str, str | int | float] = {"norm": task.norm} if task.norm else {}
    if task.tokens or task.surface:
        return norm
    return norm | {
        "features": task.features,
        "examples": task.examples,
        "wrong_labels": task.wrong_labels,
    }


def _check(options: dict[str, str | int | float], most: int) -> None:
    for name, allowed in (("norm", KINDS), ("features", FEATURES)):
        if str(options.get(name, next(iter(allowed)))) not in allowed:
            raise ValueError(f"{name} must be one of {sorted(allowed)}, got {options[name]!r}")
    examples, wrong = options.get("examples", 0), options.get("wrong_labels", 0)
    if isinstance(examples, bool) or not (isinstance(examples, int) and 0 <= examples <= most):
        raise ValueError(
            f"examples must be a whole number from 1 to {most}, or 0 for all, got {examples!r}"
        )
    if isinstance(wrong, bool) or not (isinstance(wrong, int | float) and 0 <= wrong < 1):
        raise ValueError(f"wrong_labels must be a share, at least 0 and below 1, got {wrong!r}")


@cache
def find(text: str) -> Task:
    """The task that a text names, its model built with the normalisation that the text asks for."""
    name, options = read(canonical(text))
    task = replace(TASKS[name], **options)
    return replace(task, build=partial(task.build, norm=task.norm)) if task.norm else task


def base(text: str) -> str:
    """The task's name without its options.

    >>> base('mnist1d-mlp(norm="batch")')
    'mnist1d-mlp'
    """
    return read(text).name


def initial_model(text: str, seed: int) -> nn.Module:
    """A task's model as initialised with this seed of torch's global generator, which is left as it
    was.

    >>> sum(p.numel() for p in initial_model("mnist1d-mlp", seed=0).parameters())
    15210
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return find(text).build()
