"""Made-up results of the small study, where a home's results are looked for."""

from pathlib import Path

from fabricated import result, write_result
from steadydescent.study.planning import Plan, load_study

TASK = "mnist1d-mlp"


def toy_plan(profile: str = "laptop") -> Plan:
    """The small experiment on its task."""
    return Plan(experiment=load_study()["toy"], task=TASK, profile=profile)


def scored(gain: dict[str, float], spread: float = 0.0):
    """EMA minus last weights = `gain` of the schedule; a spread adds to it for even seeds and takes
    from it for odd.
    """

    def score(run, readout, split):
        return 0.6 + readout.startswith("ema-") * (gain[run.schedule] + spread * (-1) ** run.seed)

    return score


def keep(
    home: Path,
    source: str,
    gain: dict[str, float],
    spread: float = 0.0,
    profile: str = "laptop",
    **noted: str,
) -> None:
    """A result at home, published or reproduced; what is noted goes into its receipt."""
    root = home / "results" / ("published" if source == "published" else f"reproduced/{profile}")
    made = result(toy_plan(profile), scored(gain, spread))
    write_result(root / "toy" / TASK, made, profile, f"toy/{TASK}@{source}", **noted)
