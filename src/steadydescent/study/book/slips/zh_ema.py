"""Slips of zh-ema."""

import torch
from pandas import DataFrame
from torch import nn

from steadydescent.averages import SimpleMovingAverage, ewa, mean_length, window
from steadydescent.study.book.slips.slip import Slip
from steadydescent.weight_averaging import Shadow

BETAS = (0.5, 0.9, 0.98, 0.999)
PRINTED_WEIGHTS = (40.0, 49.0, 45.0)


def _swapped() -> tuple[float, float]:
    """Shadow and weight after a training step of +10 while the shadow is applied; they were 2 and
    5.
    """
    layer, shadow = _averaged()
    with shadow.applied():
        layer.weight.data += 10
    return shadow.shadow["weight"].item(), layer.weight.item()


def _averaged() -> tuple[nn.BatchNorm1d, Shadow]:
    """A layer whose weight and running mean go from 1 to 5, and their average with β = 0.75, which
    is 2.
    """
    layer = nn.BatchNorm1d(1)
    _set(layer, 1.0)
    shadow = Shadow(layer, decay=0.75)
    shadow.register()
    _set(layer, 5.0)
    shadow.update()
    return layer, shadow


def _set(layer: nn.BatchNorm1d, value: float) -> None:
    nn.init.constant_(layer.weight, value)
    layer.get_buffer("running_mean").fill_(value)


def _swapped_as_printed() -> tuple[float, float, float]:
    """The same shadow, the weight that a second swap leaves to restore, and the statistic that
    evaluation sees.
    """
    layer, _ = _averaged()
    shadow = torch.tensor([2.0])
    layer.weight.data = shadow  # shared, not copied
    layer.weight.data += 10
    corrupted = shadow.item()

    layer, _ = _averaged()
    shadow = torch.tensor([2.0])
    for _ in range(2):
        backup = layer.weight.data
        layer.weight.data = shadow
    return corrupted, backup.item(), layer.get_buffer("running_mean").item()


def _damages() -> DataFrame:
    shadow, weight = _swapped()
    statistic = _averaged()[1].shadow["running_mean"].item()
    return DataFrame(
        {
            "value of": [
                "shadow, after a step of +10 while it is applied",
                "trained weight 5, after applying twice and restoring",
                "running mean in evaluation, averaged from 1 and 5",
            ],
            "printed code": _swapped_as_printed(),
            "right": [shadow, weight, statistic],
        }
    )


def _lags() -> DataFrame:
    return DataFrame(
        {
            "β": BETAS,
            "1/(1 − β)": [window(beta) for beta in BETAS],
            "lag of their mean": [(window(beta) - 1) / 2 for beta in BETAS],
            "lag of the EMA": [beta / (1 - beta) for beta in BETAS],
            "(1 + β)/(1 − β)": [mean_length(beta) for beta in BETAS],
        }
    )


def _shadows(beta: float = 0.9) -> list[float]:
    """The shadow after each of the weights, registered at the first."""
    shadows = [torch.tensor(PRINTED_WEIGHTS[0], dtype=torch.float64)]
    for weight in PRINTED_WEIGHTS[1:]:
        shadows.append(ewa(shadows[-1], torch.tensor(weight, dtype=torch.float64), beta))
    return [shadow.item() for shadow in shadows]


def _means() -> list[float]:
    average = SimpleMovingAverage(len(PRINTED_WEIGHTS))
    return [average.update(weight).item() for weight in PRINTED_WEIGHTS]


def _three_readings() -> DataFrame:
    return DataFrame(
        {
            "t": [1, 2, 3],
            "weights of step t": PRINTED_WEIGHTS,
            "mean of all so far": _means(),
            "shadow": _shadows(),
        }
    )


ZH_EMA = [
    Slip(
        number=14,
        source="zh-ema",
        title="A swap that loses weights",
        quote="`self.backup[name] = param.data; param.data = self.shadow[name]`",
        printed=(
            "Shadow and model share memory while swapped; nothing stops a second swap; buffers "
            "are left out."
        ),
        rule=(
            "Copy instead of sharing, refuse a second swap, and average the buffers. After a "
            "training step in the middle of the swap the shadow is then still {} and the "
            "restored weight {}."
        ),
        right=_swapped,
        why=(
            "A step while swapped corrupts the shadow, a second `apply_shadow` overwrites the "
            "backup with the shadow, and averaged weights are evaluated with the batch-norm "
            "statistics of the last ones. (Skipping frozen parameters does no harm until one is "
            "unfrozen: then `update` fails.)"
        ),
        shown=_damages,
    ),
    Slip(
        number=15,
        source="zh-ema",
        title="An average of the last n steps",
        quote="EMA可以近似看成过去 1/(1−β) 个时刻 V 值的平均",
        printed="An EMA is about the mean of V over the last 1/(1 − β) steps.",
        rule=(
            "What is averaged is θ, not V, with weights that fall off exponentially. The simple "
            "mean of equal lag and variance has (1 + β)/(1 − β) values: {}, {}, {} and {} for β "
            "= 0.5, 0.9, 0.98 and 0.999."
        ),
        right=lambda: tuple(mean_length(beta) for beta in BETAS),
        why=(
            "An EMA set against the mean of 1/(1 − β) values has almost twice its memory, and "
            "wins or loses for that alone."
        ),
        shown=_lags,
    ),
    Slip(
        number=27,
        source="zh-ema",
        title="What the shadow is",
        quote="前 t -1 次更新的所有参数平均数",
        printed=(
            "v_{t−1} is the mean of all parameters of t − 1 updates, to which the recursion is "
            "said to add up; a comment in the code takes it for the weights of step t − 1."
        ),
        rule=(
            "It is neither: at each update all older weights together give up the share 1 − β to "
            "the newest. Of 40, 49 and 45 with β = 0.9 the shadow is {}, the mean {}."
        ),
        right=lambda: (_shadows()[-1], _means()[-1]),
        why=(
            "The recursion gives the mean only with the mixing weight 1/t in place of 1 − β. A "
            "fixed β forgets old weights, and early on it forgets the first one too slowly."
        ),
        shown=_three_readings,
    ),
]
