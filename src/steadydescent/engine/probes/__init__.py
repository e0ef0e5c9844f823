"""Probes: measurements on the networks of a stack while it trains, a class each.

A probe is a file here and a line in `PROBES`; nothing else knows it by name. It gets a
`steadydescent.engine.view.View` and may use techniques, tasks and the view, no stack and no run.

Networks are looked at in training mode, as their updates see them: batch norm takes the statistics
of the batch, and layers that make noise make it, drawn as in training. Stilled, noisy batch norm
would be measured as plain batch norm.

Axes: R replicas, P parameters, Q buffer entries, D inputs, M minibatches, n examples of one, U
units of a layer.
"""

from steadydescent.engine.probes.internal_shift import InternalShift
from steadydescent.engine.probes.losses import Losses, TailLosses, TrainingLoss
from steadydescent.engine.probes.noise import GradientNoise
from steadydescent.engine.probes.orbit import Orbit
from steadydescent.engine.probes.predictions import LOST, Predictions, churn, predicted_classes
from steadydescent.engine.probes.probe import Classes, Measurement, Probe, ProbedRun, Quantity
from steadydescent.engine.probes.update_cosine import UpdateCosine

PROBES: dict[str, type[Probe]] = {
    "gradient-noise": GradientNoise,
    "internal-shift": InternalShift,
    "training-loss": TrainingLoss,
    "losses": Losses,
    "orbit": Orbit,
    "predictions": Predictions,
    "update-cosine": UpdateCosine,
}
"""Every probe that a run may ask for, by its name."""
ALWAYS: tuple[type[Probe], ...] = (TailLosses,)
"""Those that look at every run."""

__all__ = [
    "ALWAYS",
    "LOST",
    "PROBES",
    "Classes",
    "GradientNoise",
    "InternalShift",
    "Losses",
    "Measurement",
    "Orbit",
    "Predictions",
    "Probe",
    "ProbedRun",
    "Quantity",
    "TailLosses",
    "TrainingLoss",
    "UpdateCosine",
    "check_probes",
    "churn",
    "made_for",
    "predicted_classes",
    "probe_of",
    "quantities",
]


def check_probes(names: tuple[str, ...], run: ProbedRun) -> None:
    """See that a run can be asked for these probes.

    Raises:
        ValueError: for a probe that there is not, or one that does not fit the run.
    """
    if unknown := sorted(set(names) - set(PROBES)):
        raise ValueError(f"probes must be among {tuple(PROBES)}, got {unknown}")
    for name in names:
        PROBES[name].check(run)


def made_for(names: tuple[str, ...]) -> list[Probe]:
    """A stack's own probes: those that look at every run, and these."""
    return [probe() for probe in (*ALWAYS, *(PROBES[name] for name in names))]


def quantities() -> list[Quantity]:
    """All quantities that probes leave."""
    return [quantity for probe in (*ALWAYS, *PROBES.values()) for quantity in probe.quantities]


def probe_of(quantity: str) -> str | None:
    """The probe that a run must ask for to have a quantity; none where every run has it.

    >>> probe_of("noise-scale"), probe_of("tail-loss-sd")
    ('gradient-noise', None)

    Raises:
        ValueError: for a quantity that no probe leaves.
    """
    for probe in (*ALWAYS, *PROBES.values()):
        if quantity in (known.name for known in probe.quantities):
            return None if probe in ALWAYS else probe.name
    raise ValueError(
        f"a quantity must be one that a probe leaves, got {quantity!r}; "
        f"there are {sorted(known.name for known in quantities())}"
    )
