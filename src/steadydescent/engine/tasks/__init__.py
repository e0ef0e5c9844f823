"""Tasks: a data set, a model and a loss under one name; closed-form surfaces; test sets after a
shift.
"""

from steadydescent.engine.tasks.task import (
    FEATURES,
    TASKS,
    Task,
    badly_scaled,
    base,
    canonical,
    find,
    initial_model,
    mean_cross_entropy,
    mean_value,
)

__all__ = [
    "FEATURES",
    "TASKS",
    "Task",
    "badly_scaled",
    "base",
    "canonical",
    "find",
    "initial_model",
    "mean_cross_entropy",
    "mean_value",
]
