"""What a claim may be about: measures of a run's readout, each under its name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steadydescent.checks import check_choice
from steadydescent.engine.probes import probe_of, quantities
from steadydescent.engine.shifted_tests import Shift, family
from steadydescent.study.judging.statistics import Statistic
from steadydescent.weight_averaging import Readout

SEVERITY = 3
"""Claims about shifted test data are about this one."""
EARLY = (5, 10, 20, 50)
"""Percent of a run after which averages are looked at, where its curve has a point there."""


@dataclass(frozen=True)
class Measure:
    """One number of each run's readout, and how arms are compared by it.

    `statistic` says what of the seeds is compared: their means, the ratio of their means (`log
    mean`) or of their standard deviations (`log sd`); ratios are shown as factors. Rates are tuned
    by `tuned_by`, on validation data.
    """

    name: str
    unit: str
    higher: bool = True
    statistic: Statistic = "mean"
    tuned_by: str = "accuracy"
    scale: float = 1.0

    @property
    def ratio(self) -> bool:
        return self.statistic != "mean"


_POINTS = Measure("", "pp", scale=100)
TO_TARGET = ("steps to target", "examples to target")
"""Measures of how long runs take to arrive; rates that lose runs are no candidates for them."""
MEASURES = {
    measure.name: measure
    for measure in (
        replace(_POINTS, name="accuracy"),
        replace(_POINTS, name="training accuracy"),
        replace(_POINTS, name="calibration error", higher=False),
        replace(_POINTS, name="churn", higher=False),
        replace(_POINTS, name="arrival at the target", tuned_by="steps to target"),
        replace(_POINTS, name="generalisation gap", higher=False),
        Measure("seed spread", "×", higher=False, statistic="log sd", scale=100),
        Measure("loss", "nats", higher=False),
        Measure("training loss", "nats", higher=False),
        Measure("height", "", higher=False, tuned_by="loss"),
        Measure(
            "steps to target", "×", higher=False, statistic="log mean", tuned_by="steps to target"
        ),
        Measure(
            "examples to target",
            "×",
            higher=False,
            statistic="log mean",
            tuned_by="steps to target",
        ),
        *(
            Measure(quantity.claim, quantity.unit, quantity.higher, quantity.statistic)
            for quantity in quantities()
            if quantity.claim
        ),
    )
}
FINALS = {
    "accuracy": ("test", "accuracy"),
    "seed spread": ("test", "accuracy"),
    "training accuracy": ("train", "accuracy"),
    "calibration error": ("test", "calibration_error"),
    "loss": ("test", "loss"),
    "height": ("test", "loss"),
    "training loss": ("train", "loss"),
}
"""Measure → split and score of a run's end that it is."""
PROBED = {quantity.claim: quantity.name for quantity in quantities() if quantity.claim}
"""Measure → the quantity of a probe that it is."""
OF_DIVERGED = {"cosine of successive updates": -1.0}
"""Measure → what a run counts as that diverged and has no value: it jumped, which is the opposite
of going on.
"""
_NEEDS = {claim: probe for claim, name in PROBED.items() if (probe := probe_of(name))} | {
    "churn": "predictions",
}
"""The probe that a measure follows from, where it follows from one."""
SHIFTED = re.compile(
    r"(?P<what>accuracy|drop) under (?P<kind>covariate|prior|concept) shift"
    r"(?P<anew>, re-estimated)?"
)
_EARLY = re.compile(rf"validation accuracy at (?P<percent>{'|'.join(map(str, EARLY))}) %")
_SINGLE = re.compile(r"accuracy of the best single checkpoint(?: \((?P<readouts>[^()]+)\))?")
SNAPSHOTS = ("last", "at-85", "at-90", "at-95")
"""The checkpoints of which the best single one is taken where a measure names no others."""


def measure_named(name: str) -> Measure:
    """The measure of that name; `drop under prior shift, re-estimated`, `validation accuracy at
    10 %` and `accuracy of the best single checkpoint (last, at-90)` are some.

    Raises:
        ValueError: for an unknown one, or checkpoints that are averages.
    """
    if single_checkpoints(name):
        return replace(_POINTS, name=name, tuned_by=name)
    if found := SHIFTED.fullmatch(name):
        return replace(_POINTS, name=name, higher=found["what"] == "accuracy")
    if _EARLY.fullmatch(name):
        return replace(_POINTS, name=name)
    return MEASURES[
        check_choice(name, sorted(MEASURES), "a measure that is not under a shift, nor early,")
    ]


def single_checkpoints(name: str) -> tuple[str, ...]:
    """The readouts of which a measure takes each run's best; none where it is another measure.

    >>> single_checkpoints("accuracy of the best single checkpoint (last, at-90)")
    ('last', 'at-90')

    Raises:
        ValueError: for a readout that is an average, or none.
    """
    if not (found := _SINGLE.fullmatch(name)):
        return ()
    named = found["readouts"]
    readouts = tuple(part.strip() for part in named.split(",")) if named else SNAPSHOTS
    if averages := [text for text in readouts if not Readout.parse(text).one_step]:
        raise ValueError(f"a single checkpoint is last or at-PERCENT, got {averages} in {name!r}")
    return readouts


def on_test_set(name: str) -> bool:
    """Whether a measure rests on a test set, of which other examples might have been drawn."""
    if name in FINALS:
        return FINALS[name][0] == "test" and name != "height"
    whole = ("churn", "generalisation gap")
    return name in whole or bool(SHIFTED.fullmatch(name) or single_checkpoints(name))


def measured(name: str, probes: Sequence[str], shifts: Sequence[str], curve_points: int) -> bool:
    """Whether report runs with these probes, shifts and points along training have the measure."""
    if match := _EARLY.fullmatch(name):
        return int(match["percent"]) * curve_points % 100 == 0
    if match := SHIFTED.fullmatch(name):
        return any(_asked(shift) == (match["kind"], bool(match["anew"])) for shift in shifts)
    return name not in _NEEDS or _NEEDS[name] in probes


def _asked(text: str) -> tuple[str, bool] | None:
    """Kind of a shift that claims are about, and whether statistics are re-estimated; None for any
    other.
    """
    shift = Shift.parse(text)
    if shift.severity != SEVERITY or shift.batch is not None:
        return None
    return family(shift.kind), shift.reestimated
