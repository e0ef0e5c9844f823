"""How far single weights lie from their mean."""

from collections.abc import Iterator

from steadydescent.engine.probes.probe import Measurement, Probe, ProbedRun, Quantity
from steadydescent.engine.view import View
from steadydescent.weight_averaging import Readout

DISTANCE = "distance to the tail mean"


class Orbit(Probe):
    """How far the weights of single updates lie from the mean of the tail, ‖θ_t − a‖."""

    name = "orbit"
    quantities = (Quantity(DISTANCE, DISTANCE, "×", higher=False, statistic="log mean"),)
    when = "end"

    @classmethod
    def check(cls, run: ProbedRun) -> None:
        """Raises ValueError without a tail mean among the readouts."""
        if not any(Readout.parse(text).kind == "tail" for text in run.readouts):
            raise ValueError(
                f"the probe 'orbit' needs a tail mean among the readouts, got {run.readouts}"
            )

    def look(self, view: View) -> Iterator[Measurement]:
        tail = next(readout for readout in view.readouts if readout.kind == "tail")
        centre, _ = view.averaged(tail)
        for readout in view.readouts:
            if readout.one_step:
                theta, _ = view.averaged(readout)
                apart = (theta - centre).double().norm(dim=1).cpu()
                yield Measurement(DISTANCE, apart, readout.text)
