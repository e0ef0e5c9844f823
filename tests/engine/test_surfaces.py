"""Surfaces: gradients and stationary points against calculus done by hand, and noise of exactly the
stated size.
"""

import math

import pytest
import torch

from steadydescent.engine import data
from steadydescent.engine.tasks.surfaces import (
    EIGENVALUES,
    SURFACES,
    Surface,
    double_well,
    plateau,
    quadratic,
    ravine,
    saddle,
    well_bottoms,
)
from steadydescent.study.paths import DATA

POINTS = torch.randn(7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
BY_HAND = {
    "ravine": (ravine, lambda x, y: (x, 100 * y)),
    "saddle": (saddle, lambda x, y: (x, y**3 - y)),
    "plateau": (plateau, lambda x, y: (-1 / (2 + 2 * torch.cosh(6 - x)), y)),
    "double-well": (double_well, lambda x, y: (x**3 - x - 0.1, y)),
}


def gradient(function, point):
    return torch.func.grad(lambda p: function(p).sum())(point)


@pytest.mark.parametrize("name", BY_HAND)
def test_gradient_is_the_one_worked_out_by_hand(name):
    function, by_hand = BY_HAND[name]
    expected = torch.stack(by_hand(*POINTS.unbind(-1)), -1)
    torch.testing.assert_close(gradient(function, POINTS), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4])
def test_turning_the_ravine_leaves_its_curvatures(angle):
    hessian = torch.func.hessian(lambda p: ravine(p, condition=37.0, angle=angle))(POINTS[0])
    torch.testing.assert_close(
        torch.linalg.eigvalsh(hessian), torch.tensor([1.0, 37.0], dtype=torch.float64)
    )
    assert (hessian[0, 1] == 0) == (angle == 0)


def test_saddle_is_no_minimum_and_its_minima_are():
    curvatures = lambda *point: torch.linalg.eigvalsh(
        torch.func.hessian(saddle)(torch.tensor(point, dtype=torch.float64))
    )
    assert curvatures(0.0, 0.0).tolist() == [-1.0, 1.0]
    assert curvatures(0.0, 1.0).tolist() == [1.0, 2.0]
    assert saddle(torch.tensor([0.0, -1.0])).item() == -0.25


@pytest.mark.slip(10)
def test_saddle_point_is_no_minimum():
    """uit-slides call a saddle a minimum that may not be global. At 0, x² − y² curves up along x
    and down along y.
    """
    saddle = lambda point: point[0] ** 2 - point[1] ** 2
    origin = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert (torch.autograd.grad(saddle(origin), origin)[0] == 0).all()
    curvatures = torch.linalg.eigvalsh(torch.autograd.functional.hessian(saddle, origin.detach()))
    assert curvatures.tolist() == [-2.0, 2.0]
    assert saddle(torch.tensor([0.0, 1e-6])) < saddle(torch.zeros(2))


def test_plateaus_slope_at_its_start_is_what_its_docstring_says():
    slope = gradient(plateau, torch.tensor([0.0, 0.0], dtype=torch.float64))[0].item()
    assert slope == pytest.approx(-1 / (2 + 2 * math.cosh(6)), rel=1e-12) and abs(
        slope
    ) == pytest.approx(0.0025, rel=0.02)


@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.3, 0.384])
def test_double_wells_bottoms_are_stationary_and_its_barrier_is_between_them(tilt):
    shallow, barrier, deep = well_bottoms(tilt)
    assert shallow < barrier < deep
    heights = [
        double_well(torch.tensor([x, 0.0], dtype=torch.float64), tilt).item()
        for x in (shallow, barrier, deep)
    ]
    assert heights[1] > heights[0] >= heights[2] - 1e-12
    for x in (shallow, barrier, deep):
        assert x**3 - x == pytest.approx(tilt, abs=1e-9)


def test_slope_above_the_shallow_well_leads_into_it_though_it_starts_above_the_barrier():
    """Small steps end in the shallow well; momentum has the height to cross into the deep one."""
    shallow, barrier, _ = well_bottoms()
    point = SURFACES["double-well-slope"]().point.detach().double()
    assert double_well(point) > double_well(torch.tensor([barrier, 0.0], dtype=torch.float64))
    for _ in range(1_000):
        point = point - 0.02 * gradient(double_well, point)
    torch.testing.assert_close(
        point, torch.tensor([shallow, 0.0], dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def test_from_the_shoulder_no_stable_rate_crosses_the_barrier_in_one_step_and_momentum_rolls_over():
    _, barrier, deep = well_bottoms()
    start = SURFACES["double-well-shoulder"]().point.detach().double()
    assert double_well(start) > double_well(torch.tensor([barrier, 0.0], dtype=torch.float64))
    stable = 2 / (3 * deep**2 - 1)
    for rate in torch.linspace(0.01, stable, 50).tolist():
        assert (start - rate * gradient(double_well, start))[0] < barrier
    point, velocity = start, torch.zeros(2, dtype=torch.float64)
    for _ in range(1_000):
        velocity = 0.9 * velocity + gradient(double_well, point)
        point = point - 0.2 * velocity
    assert point[0].item() == pytest.approx(deep, abs=1e-3)


@pytest.mark.parametrize("tilt", [-0.1, 0.39, math.nan])
def test_tilt_that_leaves_one_well_is_refused(tilt):
    with pytest.raises(ValueError, match=f"tilt must be at least 0 and below .*, got {tilt}"):
        well_bottoms(tilt)


def test_quadratics_curvatures_are_its_eigenvalues():
    hessian = torch.func.hessian(quadratic)(torch.ones(100, dtype=torch.float64))
    torch.testing.assert_close(hessian, torch.diag(torch.tensor(EIGENVALUES, dtype=torch.float64)))


@pytest.mark.parametrize("name", SURFACES)
def test_minibatch_gradients_are_the_true_one_with_noise_of_exactly_the_stated_covariance(name):
    """Over the whole pool of draws, not merely nearly: mean ∇f, covariance S²."""
    surface = SURFACES[name]().double()
    pool = data.load(f"gaussian-{len(surface.point)}", [0], DATA).pool.double()
    each = torch.func.vmap(
        torch.func.grad(
            lambda p, x: torch.func.functional_call(surface, {"point": p}, (x[None],))[0]
        ),
        (None, 0),
    )(surface.point.detach(), pool)
    truth = gradient(surface.function, surface.point.detach())
    torch.testing.assert_close(each.mean(0), truth, rtol=1e-5, atol=1e-6)
    covariance = (each - truth).T @ (each - truth) / len(each)
    torch.testing.assert_close(
        covariance, torch.diag(torch.tensor(surface.scale).double() ** 2), rtol=1e-4, atol=1e-6
    )


def test_inference_is_without_noise():
    surface = SURFACES["saddle"]().eval()
    assert surface(torch.randn(3, 2)).tolist() == [0.5, 0.5, 0.5]


def test_start_and_noise_of_different_length_are_refused():
    with pytest.raises(ValueError, match="start and noise must be as long"):
        Surface(saddle, (1.0, 0.0), (0.1,))
    with pytest.raises(ValueError, match="noise at least 0"):
        Surface(saddle, (1.0, 0.0), (0.1, -0.1))
