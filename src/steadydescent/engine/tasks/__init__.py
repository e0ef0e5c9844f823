"""Tasks: a data set, a model and a loss under one name.

Networks, the Transformer, surfaces with a formula, the noisy quadratic in closed form, and test
sets after a shift. It may use the techniques and `engine.data`; nothing here trains.
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
