"""A profile's experiments trained without their notebooks, those of most value first.

    python -m steadydescent.study.training.in_order '{"profile": "full", "device": "cuda"}' \\
        '["weight_averaging/mnist1d-cnn"]'

What is trained is what the notebook would train: its results are then made from the store, here or
on another machine.
"""

import json
import sys

from steadydescent.checks import check_choice
from steadydescent.study.planning import plans
from steadydescent.study.training.items import serve_items
from steadydescent.study.training.trial import Trial

ORDER = (
    # A table's row that says *not run* gains most, and this one costs minutes.
    "weight_averaging/mnist1d-cnn",
    # Most claims rest on MNIST-1D's perceptron. Five times the seeds make their intervals less than
    # half as wide. From the cheapest on: each that is whole decides rows, half of one none.
    "covariate_shift/mnist1d-mlp",
    "weight_averaging/mnist1d-mlp",
    "optimizers/mnist1d-mlp",
    "learning_rate_search/mnist1d-mlp",
    # Surfaces and the quadratic: seconds a stack, rows about mechanisms.
    "weight_averaging/noisy-quadratic",
    "learning_rate_search/double-well-slope",
    "optimizers/ravine",
    "optimizers/saddle",
    "optimizers/double-well",
    "optimizers/double-well-slope",
    "optimizers/double-well-shoulder",
    "optimizers/plateau",
    # The second task of most claims, and the small convolutional network.
    "covariate_shift/mnist1d-cnn",
    "optimizers/mnist1d-cnn",
    "covariate_shift/fashion-mnist-mlp",
    "learning_rate_search/fashion-mnist-mlp",
    "optimizers/fashion-mnist-mlp",
    "weight_averaging/fashion-mnist-mlp",
    "covariate_shift/fashion-mnist-deep-mlp",
    # Long ones on tasks that have an answer.
    "decay_schedules/mnist1d-mlp",
    "batch_size/mnist1d-mlp",
    "optimizer_search/mnist1d-mlp",
    "batch_size/noisy-quadratic",
    "optimizer_search/mnist1d-cnn",
    "batch_size/fashion-mnist-mlp",
    "decay_schedules/fashion-mnist-mlp",
    # Large convolutions and the Transformer: hours each at the rates of the plan.
    "covariate_shift/fashion-mnist-cnn",
    "optimizers/fashion-mnist-cnn",
    "decay_schedules/names-transformer",
    "optimizers/names-transformer",
    "weight_averaging/fashion-mnist-cnn",
    "optimizer_search/fashion-mnist-mlp",
    "optimizer_search/fashion-mnist-cnn",
    "optimizer_search/names-transformer",
)
"""Experiment and task, in the order of what an hour spent on each tells."""


def in_order(profile: str) -> list[str]:
    """What a profile runs, as `experiment/task`: in `ORDER`, then whatever that does not name."""
    names = [f"{plan.experiment.name}/{plan.task}" for plan in plans(profile)]
    place = {name: number for number, name in enumerate(ORDER)}
    return sorted(names, key=lambda name: place.get(name, len(ORDER)))


def train_whole(name: str, profile: str, device: str) -> dict[str, int]:
    """Train an experiment on a task from tuning to the last report run; what the store has is kept.

    Returns the number of its networks, or points on surfaces.

    Raises:
        ValueError: for a name that the profile does not run.
    """
    check_choice(name, in_order(profile), "an experiment and its task")
    experiment, _, task = name.partition("/")
    trial = Trial(experiment, task, profile, device)
    trial.tune()
    if trial.plan.size.ramps:
        trial.range_tests()
    trial.report()
    return {"runs": len(trial.runs), "updates": sum(run.steps for run in trial.runs.values())}


def train_asked(asked: str, names: str) -> None:
    """Train what is asked for, one after another, and tell of each."""
    given = json.loads(asked)
    serve_items(
        lambda name: train_whole(name, given["profile"], given["device"]), json.loads(names)
    )


if __name__ == "__main__":
    train_asked(*sys.argv[1:])
