"""What tests of the learning-rate search share: bounds, random numbers, a quadratic."""

import numpy as np
from hypothesis import strategies as st

bounds = st.tuples(st.floats(1e-9, 1e3), st.floats(1.001, 1e9)).map(
    lambda pair: (pair[0], pair[0] * pair[1])
)


def rng(seed=0):
    return np.random.default_rng(seed)


def quadratic(curvature=3.0, start=5.0):
    """A step(rate) on h·θ²/2: θ ← (1 − rate·h)·θ; the loss before the step."""
    theta = start

    def step(rate):
        nonlocal theta
        loss = curvature * theta**2 / 2
        theta -= rate * curvature * theta
        return loss

    return step
