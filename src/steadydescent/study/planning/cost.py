"""What runs cost, from the measured table of stackings: time, memory and disk."""

from collections import Counter
from collections.abc import Sequence

from steadydescent.engine.cost import evaluated, looks
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.tasks import find
from steadydescent.study.planning.stacks import effort, stacking, stacks

BYTES_PER_NETWORK = 8_000
START = 0.3
"""Minutes that an experiment takes on a task besides: its kernel, its verdicts, compiling."""


def cost(runs: Sequence[Run], task: str, device: str) -> dict[str, float]:
    """Networks, or points, replica-steps, stacks, minutes, GiB of memory and MB of a task's runs.

    On a surface a run is a point; MB are of disk. Of the minutes, `training_minutes` are updates
    and `evaluation_minutes` looks at the networks, those of probes among them.
    """
    measured, sizes = stacking(task, device), SPLIT_SIZES[find(task).source]
    one = {run.shape: run for run in runs}  # runs of one shape cost the same
    alike = [(one[shape], count) for shape, count in Counter(run.shape for run in runs).items()]
    training = sum(count * run.steps * effort(run) for run, count in alike) / measured.rate
    examples = sum(
        count * evaluated(run, sizes["validation"], sizes["test"]) for run, count in alike
    )
    probing = sum(count * looks(run) for run, count in alike) * measured.probe
    looking = examples / measured.evaluation + probing
    return {
        "networks": 0 if find(task).surface else len(runs),
        "points": len(runs) if find(task).surface else 0,
        "replica_steps": sum(run.steps for run in runs),
        "stacks": len(stacks(runs, device)),
        "minutes": round((training + looking) / 60 + START, 1),
        "training_minutes": round(training / 60, 1),
        "evaluation_minutes": round(looking / 60, 1),
        "memory_gib": measured.memory,
        "disk_mb": round(len(runs) * BYTES_PER_NETWORK / 1e6, 1),
    }
