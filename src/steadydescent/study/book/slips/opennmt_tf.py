"""Slips of opennmt-tf."""

from itertools import count

import numpy as np
from pandas import DataFrame
from torch import nn

from steadydescent.averages import ramped_decay, window
from steadydescent.schedules import noam
from steadydescent.study.book.slips.slip import Remark, Slip
from steadydescent.weight_averaging import EMA, Ramped
from steadydescent.weight_averaging.readouts import checkpoint_weights, coefficients

WARMUP, FLOOR = 8000, 1e-4


def _peak(warmup: int, scale: float) -> float:
    return noam(768, warmup, scale)(warmup)


def _raised() -> tuple[float, float]:
    """By what three times the scale, and twice the warm-up, multiply the peak."""
    return _peak(WARMUP, 6) / _peak(WARMUP, 2), _peak(2 * WARMUP, 2) / _peak(WARMUP, 2)


def _logged() -> tuple[float, float]:
    """The rate that is logged as step 1 of the worked example, before and after the floor."""
    schedule = noam(d_model=4, warmup=WARMUP, scale=2)
    return schedule(2), schedule.wrapped(floor=FLOOR)(2)


def _made_once_or_anew() -> DataFrame:
    model = nn.Linear(1, 1, bias=False)
    same, rows = EMA(model, Ramped()), []
    for step, value in enumerate((40.0, 49.0, 45.0), 1):
        nn.init.constant_(model.weight, value)
        anew = EMA(model, Ramped())
        for average in (anew, same):
            average.update(model)
        rows.append(
            (
                step,
                value,
                *(average.module.get_parameter("weight").item() for average in (anew, same)),
            )
        )
    return DataFrame(
        rows, columns=["t", "weight", "average, made at every step (printed)", "average, made once"]
    )


def _shares(count: int) -> float:
    """Sum of the shares of all checkpoints that are found."""
    return float(coefficients(checkpoint_weights(count, count, every=1)).sum())


def _divisors() -> DataFrame:
    counts = [2, 8]
    return DataFrame(
        {
            "checkpoints found": counts,
            "sum of their shares, each /8 (printed)": [n / 8 for n in counts],
            "sum of their shares": [_shares(n) for n in counts],
        }
    )


def _floored() -> tuple[float, ...]:
    """Updates of the warm-up that the floor raises."""
    steps = np.arange(1.0, WARMUP + 1)
    return tuple(
        float((noam(d, WARMUP, scale)(steps) < FLOOR).sum())
        for d, scale in ((4, 2), (768, 2), (768, 6))
    )


def _ramp() -> tuple[float, float]:
    """The update at which the ramp reaches its cap, and its window at update 1000."""
    return next(t for t in count(1) if ramped_decay(t) == 0.9999), window(ramped_decay(1000))


OPENNMT_TF = [
    Slip(
        number=17,
        source="opennmt-tf",
        title="Two numbers that are not equal, and two things that happen once",
        quote="learning rate = max(0.000002795, 0.0001) = 0.000002795 = 0.0001",
        printed=(
            "0.000002795 equals 0.0001; the moving average is initialised after every step; "
            "checkpoints come from several training sessions."
        ),
        rule=(
            "The schedule gives {} and the floor makes it {}. The average is made once and then "
            "updated, and the checkpoints are those of one run."
        ),
        right=_logged,
        why=(
            "An average that is made anew at every step averages nothing. And the weights of "
            "separate runs lie too far apart to be averaged."
        ),
        shown=_made_once_or_anew,
    ),
    Slip(
        number=28,
        source="opennmt-tf",
        title="What a checkpoint does not hold",
        quote=(
            "Контрольная точка обученной модели сохраняет веса модели, … переменные оптимизатора "
            "для каждого слоя … и граф вычислений"
        ),
        printed="A checkpoint stores weights, the optimiser's variables and the computation graph.",
        rule=(
            "A TensorFlow 2 checkpoint holds variables and the graph of the *objects* that own "
            "them; it does not describe the computation (TensorFlow's guide, “Training "
            "checkpoints”). A SavedModel does."
        ),
        right=None,
        why=(
            "A checkpoint cannot be run without the code of its model, so keep code and settings "
            "with it."
        ),
    ),
    Slip(
        number=29,
        source="opennmt-tf",
        title="Divided by the checkpoints asked for",
        quote=(
            "веса каждого слоя делятся на количество контрольных точек, указанное в параметре "
            "average_last_checkpoints"
        ),
        printed="Weights are divided by the number of checkpoints that the parameter names.",
        rule=(
            "They are divided by the number that is found, as OpenNMT-tf's own code does, so "
            "that the shares sum to {}."
        ),
        right=lambda: _shares(2),
        why=(
            "A run that ended early has fewer checkpoints than asked for. Divided by the "
            "parameter, all of its weights shrink. Here `average_checkpoints` divides by the "
            "files that it is given, and `last_checkpoints` refuses to find fewer than asked for, "
            "so that nobody takes the mean of two for that of eight."
        ),
        shown=_divisors,
    ),
]

RAMP_AND_FLOOR = [
    Remark(
        source="opennmt-tf",
        title="A longer warm-up does not raise the rate",
        rule=(
            "“увеличение значения в конфигурации” allows higher rates: if that is the value called "
            "Learning rate, by which the two images before differ, it is right. It is Noam's "
            "scale, and 6 in place of 2 multiplies the peak by {}. Of `warmup_steps`, which the "
            "same sentence names first, it would be wrong: the peak is scale/√(d·warm-up), and "
            "twice the warm-up multiplies it by {}."
        ),
        right=_raised,
        formerly=16,
    ),
    Remark(
        source="opennmt-tf",
        title="The ramp is longer than most runs",
        rule=(
            "min(0.9999, (1 + t)/(10 + t)) reaches its cap at update {}. Until then the "
            "average's window grows like t/9, to {} at update 1,000: polynomial averaging, in "
            "which 0.9999 has no part."
        ),
        right=_ramp,
    ),
    Remark(
        source="opennmt-tf",
        title="The floor acts during the warm-up too",
        rule=(
            "With a smallest rate of 0.0001 and a warm-up of 8,000 the first {} updates are "
            "raised to it at d = 4 and scale 2, {} at d = 768 and scale 2, {} at scale 6. What "
            "`start_decay_steps` holds is that smallest rate, not the largest."
        ),
        right=_floored,
    ),
    Remark(
        source="opennmt-tf",
        title="The log is one update ahead",
        rule=(
            "The rate that is logged as step 1, {} before the floor, is asked for after the "
            "first update, and the second one uses it. The first update used {}."
        ),
        right=lambda: (noam(4, WARMUP, 2)(2), noam(4, WARMUP, 2)(1)),
    ),
]
