"""The cosine of the last two updates is a plain loop's, and −1 where the rate is too large."""

import math

import pytest
import torch

from steadydescent.engine.probes.update_cosine import cosines
from steadydescent.engine.runs import Run
from test_engine import alone, run, trained

PROBE = ("update-cosine",)
QUADRATIC = {
    "task": "noisy-quadratic",
    "optimizer": "sgd",
    "schedule": "constant",
    "batch_size": 64,
    "steps": 60,
    "seed": 3,
    "readouts": ("last",),
    "probes": PROBE,
}


def found(runs: list[Run], width: int = 0) -> list[float]:
    """What the probe leaves of each run, one number each."""
    table = trained(runs, width=width).history.measures.query("measure == 'update-cosine'")
    assert table.run.tolist() == [one.key for one in runs] and table.readout.eq("").all()
    return table.value.tolist()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("points", [1, 43])
def test_it_is_that_of_the_last_two_updates_of_a_plain_loop(optimizer, points):
    settings = {"optimizer": optimizer, "probes": PROBE, "curve_points": points}
    runs = [run(readouts=("last",), seed=seed, **settings) for seed in (5, 2)]
    for one, cosine in zip(runs, found(runs, width=3), strict=True):
        weights = [
            torch.cat([part.double().flatten() for part in state.values()])
            for state in alone(one)[-3:]
        ]
        before, last = weights[1] - weights[0], weights[2] - weights[1]
        expected = torch.nn.functional.cosine_similarity(before, last, dim=0).item()
        assert cosine == pytest.approx(expected, abs=2e-3) and 0.01 < abs(expected) < 1


def test_updates_take_one_another_back_where_the_rate_is_too_large_and_go_on_where_it_is_small():
    """On the quadratic of largest curvature 1, SGD at α = 3 multiplies θ₁ by −2 at each update."""
    large, small = (Run(**QUADRATIC, lr=lr) for lr in (3.0, 1e-3))
    large, small = found([large, small])
    assert large == pytest.approx(-1, abs=1e-9) and small > 0.5


def test_cosines_of_rows_that_have_none_are_no_numbers():
    one, other = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[-2.0, -2.0], [1.0, 0.0]])
    cosine = cosines(one.double(), other.double())
    assert cosine[0].item() == pytest.approx(-1) and cosine[1].isnan()


def test_runs_that_diverged_have_none():
    settings = {"readouts": ("last",), "probes": PROBE}
    wild, tame = found([run(lr=1e30, **settings), run(**settings)])
    assert math.isnan(wild) and -1 <= tame <= 1


def test_a_run_of_two_updates_is_refused():
    with pytest.raises(ValueError, match="'update-cosine' needs at least 3 steps, got 2"):
        run(steps=2, readouts=("last",), probes=PROBE)
    assert found([run(steps=3, readouts=("last",), probes=PROBE)])
