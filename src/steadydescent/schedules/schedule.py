"""What a schedule is: a pure function of the update number that composes and feeds torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from steadydescent.checks import check_count, check_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Formula:
    """A function of the update numbers and of plain arguments.

    Unlike a lambda it can be compared and pickled.

    >>> Formula(np.multiply, 2.0)(np.array([1.0, 3.0])).tolist()
    [2.0, 6.0]
    """

    function: Callable[..., Array]
    arguments: tuple

    def __init__(self, function: Callable[..., Array], *arguments: object) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "arguments", arguments)

    def __call__(self, step: Array) -> Array:
        return self.function(step, *self.arguments)


@dataclass(frozen=True)
class Schedule:
    """The factor on the peak rate at update t: the first sees t = 1, the last t = T.

    `formula` maps update numbers (any shape, float64) to factors of the same shape; `name` labels
    figures. Noam's rates are absolute: they are factors on a peak rate of 1.

    Calling it with a number gives a number, with an array the factors elementwise.

    All of this package's schedules, those joined, multiplied or wrapped too, can be copied, pickled
    and so sent to other processes, and are equal when their formulas have equal arguments. One of
    your own can if its function can: one defined in a module, no lambda.

    Raises:
        ValueError: for a formula that cannot be called, a name that is no text, a step below 1 or
            that is no number.

    >>> halving = Schedule(lambda step: 0.5**step, "halving")
    >>> halving(3), halving(np.array([1, 2])).tolist()
    (0.125, [0.5, 0.25])
    """

    formula: Callable[[Array], Array] = field(repr=False)
    name: str

    def __post_init__(self) -> None:
        if not callable(self.formula):
            raise ValueError(
                f"formula must be a function of the update number, got {self.formula!r}"
            )
        if not isinstance(self.name, str):
            raise ValueError(f"name must be a text, got {self.name!r}")

    @overload
    def __call__(self, step: float) -> float: ...
    @overload
    def __call__(self, step: NDArray) -> Array: ...
    def __call__(self, step):
        updates = np.asarray(step)
        if updates.dtype.kind not in "iuf":  # numpy would read "10" as 10.0
            raise ValueError(f"step must be a number or an array of numbers, got {step!r}")
        updates = updates.astype(np.float64)
        if not (updates >= 1).all():
            raise ValueError(
                f"step must be at least 1, the first update, got {updates.min():g}; "
                "give LambdaLR, which counts from 0, `schedule.for_lambda_lr()`"
            )
        return self.formula(updates) if updates.ndim else float(self.formula(updates))

    def __mul__(self, other: "Schedule") -> "Schedule":
        """The product of two schedules on one clock, as when torch's schedulers are chained.

        >>> from steadydescent.schedules import linear, warm_up
        >>> (warm_up(2) * linear(4))(np.arange(1, 5)).tolist()
        [0.5, 0.75, 0.5, 0.25]
        """
        if not isinstance(other, Schedule):
            return NotImplemented
        return Schedule(
            Formula(_product, self.formula, other.formula), f"{self.name} × {other.name}"
        )

    def then(self, at: int, other: "Schedule") -> "Schedule":
        """This schedule up to and including update `at`, then `other` with its own clock from 1.

        torch's `SequentialLR(optimizer, [this, other], milestones=[at])`.

        Raises:
            ValueError: for `at` below 1, or another that is no schedule.

        >>> from steadydescent.schedules import constant, linear
        >>> constant().then(2, linear(2))(np.arange(1, 5)).tolist()
        [1.0, 1.0, 1.0, 0.5]
        """
        check_count(at, "at")
        if not isinstance(other, Schedule):
            raise ValueError(
                f"other must be a Schedule, got {other!r}; Schedule(function, name) makes one"
            )
        return Schedule(
            Formula(_joined, self.formula, at, other.formula),
            f"{self.name}, from {at} on {other.name}",
        )

    def wrapped(
        self, step_start: int = 0, step_duration: int = 1, floor: float = 0.0
    ) -> "Schedule":
        """A held start, a slower clock and a floor: OpenNMT-tf's `ScheduleWrapper` (opennmt-tf).

            max(schedule(1 + max(t − 1 − step_start, 0) // step_duration), floor)

        The first `step_start` updates (its `start_decay_steps`) all have the schedule's first
        factor, which under a warm-up is the smallest one; each step of the schedule then lasts
        `step_duration` updates; no factor is below `floor`, during a warm-up either. `floor` is in
        the schedule's own unit, a factor on the peak rate: with Noam's absolute rates it is
        OpenNMT-tf's `minimum_learning_rate`.

        Two countings are in use: (a) ours, update t = 1 has the formula's first step, which is what
        OpenNMT-tf trains with (Keras asks for step 0 at the first update and NoamDecay adds 1); (b)
        that of its log, which after update t asks again and so prints, as "Step = t", the rate of
        update t + 1.

        >>> from steadydescent.schedules import noam
        >>> noam(d_model=4, warmup=8000, scale=2).wrapped(floor=1e-4)(2)
        0.0001
        """
        check_count(step_start, "step_start", least=0)
        check_count(step_duration, "step_duration")
        check_share(floor, "floor")
        formula = Formula(_wrapped, self.formula, step_start, step_duration, floor)
        return Schedule(
            formula, f"{self.name}, start {step_start}, duration {step_duration}, floor {floor:g}"
        )

    def for_lambda_lr(self) -> Callable[[int], float]:
        """The function to give to torch's `LambdaLR`, which counts from 0: it passes step + 1.

        The optimiser's `lr` is the peak rate (1 for Noam); `scheduler.step()` follows every update.

        >>> from steadydescent.schedules import linear
        >>> linear(4).for_lambda_lr()(0)
        1.0
        """
        # a bound method: it can be pickled, and a scheduler's state holds nothing of it
        return self._after

    def _after(self, count: int) -> float:
        """The factor of the update that follows `count` of them."""
        return self(float(count + 1))

    def plot(self, total: int, ax: "Axes | None" = None) -> "Axes":
        """Draw the factors of updates 1 … `total` on `ax`, or on new axes, and return the axes."""
        import matplotlib.pyplot as plt  # here, so that training needs no matplotlib

        steps = np.arange(1.0, check_count(total, "total") + 1)
        ax = plt.subplots()[1] if ax is None else ax
        ax.plot(steps, self(steps), label=self.name)
        ax.set(xlabel="update", ylabel="factor on the peak rate")
        return ax


def _product(step: Array, one: Callable[[Array], Array], other: Callable[[Array], Array]) -> Array:
    return one(step) * other(step)


def _joined(
    step: Array, first: Callable[[Array], Array], at: int, second: Callable[[Array], Array]
) -> Array:
    # np.where evaluates both: neither must see a step that is not its own
    return np.where(step <= at, first(np.minimum(step, at)), second(np.maximum(step - at, 1)))


def _wrapped(
    step: Array, formula: Callable[[Array], Array], start: int, duration: int, floor: float
) -> Array:
    return np.maximum(formula(1 + np.maximum(step - 1 - start, 0) // duration), floor)
