"""What a run's evaluations and probes cost, known before it is trained."""

from steadydescent.engine.examples import CURVE_EXAMPLES, TRAIN_EXAMPLES
from steadydescent.engine.probes import PROBES
from steadydescent.engine.runs import Run
from steadydescent.engine.shifted_tests import Shift
from steadydescent.engine.tasks import find
from steadydescent.weight_averaging import Readout


def evaluated(run: Run, validation: int, test: int) -> int:
    """Examples × readouts that a run's evaluations look at, given the sizes of the validation and
    test sets.
    """
    task, train = find(run.task), TRAIN_EXAMPLES
    if task.surface:  # f(θ) alone
        validation = test = train = 1
    along = sum(Readout.parse(text).along for text in run.readouts) if run.curve_points > 1 else 0
    point = along * min(CURVE_EXAMPLES, validation)
    point += sum(min(PROBES[name].examples, train) for name in run.probes)
    shifts = {Shift.parse(text) for text in run.shifts}
    if "batch" not in (task.norm or ""):
        shifts = {shift.with_frozen_statistics for shift in shifts}
    end = validation + (test + train if run.test else 0)
    shifted = test * len(shifts) * len(run.shifted_readouts or run.readouts)
    return run.curve_points * point + end * len(run.readouts) + shifted


def looks(run: Run) -> int:
    """How many times the costly probes look at a run."""
    points = range(run.curve_points)
    probes = [PROBES[name] for name in run.probes]
    return sum(len(probe.looks_at(points)) for probe in probes if probe.when == "few points")
