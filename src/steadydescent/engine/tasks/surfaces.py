"""Surfaces with a formula: ravine, saddle, plateau, double well, and the noisy quadratic, each with
seeded noise.

A surface is a module whose only parameter is the point θ it stands at. Its inputs are standard
normal draws ξ `[B, D]`; in training its loss for one of them is f(θ) + ⟨S·ξ, θ⟩, so that a
minibatch of n draws gives the gradient ∇f(θ) + S·mean(ξ), whose noise has covariance S²/n exactly.
In inference it is f(θ).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Surface(nn.Module):
    """A function of a point, a start, and the standard deviation of the gradient's noise at n = 1,
    one per axis.

    Shapes: input `[B, D]`, output `[B]`, the loss of each draw.

    >>> surface = Surface(saddle, start=(1.0, 0.0), noise=(0.1, 0.1)).eval()
    >>> surface(torch.zeros(3, 2)).tolist()
    [0.5, 0.5, 0.5]
    """

    noise: Tensor

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        start: tuple[float, ...],
        noise: tuple[float, ...],
    ) -> None:
        super().__init__()
        if len(start) != len(noise) or not all(map(math.isfinite, start)) or min(noise) < 0:
            raise ValueError(
                "start and noise must be as long, finite, and noise at least 0; "
                f"got {start} and {noise}"
            )
        self.function = function
        self.point = nn.Parameter(torch.tensor(start))
        self.scale = noise

    def forward(self, draws: Tensor) -> Tensor:
        value = self.function(self.point).expand(len(draws))
        return (
            value + (draws * draws.new_tensor(self.scale)) @ self.point if self.training else value
        )


def ravine(point: Tensor, condition: float = 100.0, angle: float = 0.0) -> Tensor:
    """f = ½·(x² + c·y²), a valley along x with walls c times as steep; `angle` (radians) turns it
    off the axes.

    Minimum 0 at the origin; the Hessian's eigenvalues are 1 and c. Shapes: `[..., 2]` to `[...]`.

    >>> ravine(torch.tensor([1.0, 0.1])).item()
    1.0
    """
    x = math.cos(angle) * point[..., 0] + math.sin(angle) * point[..., 1]
    y = math.cos(angle) * point[..., 1] - math.sin(angle) * point[..., 0]
    return (x**2 + condition * y**2) / 2


def saddle(point: Tensor) -> Tensor:
    """f = ½·x² − ½·y² + ¼·y⁴: a saddle at the origin (Hessian 1 and −1), minima −¼ at (0, ±1).

    Started at (1, 0), on the line that leads into the saddle, only noise can leave it.

    >>> saddle(torch.tensor([[0.0, 0.0], [0.0, 1.0]])).tolist()
    [0.0, -0.25]
    """
    x, y = point[..., 0], point[..., 1]
    return x**2 / 2 - y**2 / 2 + y**4 / 4


def plateau(point: Tensor, distance: float = 6.0) -> Tensor:
    """f = ½·y² − 1/(1 + e^(d − x)): flat ground that ends in a cliff at x = d and is flat again at
    the bottom, −1.

    At x = 0 its slope is 1/(2 + 2·cosh d), 0.0025 for d = 6.

    >>> plateau(torch.tensor([[0.0, 0.0], [6.0, 0.0], [20.0, 0.0]])).round(decimals=3).tolist()
    [-0.002, -0.5, -1.0]
    """
    x, y = point[..., 0], point[..., 1]
    return y**2 / 2 - torch.sigmoid(x - distance)


def double_well(point: Tensor, tilt: float = 0.1) -> Tensor:
    """f = ¼·(x² − 1)² − t·x + ½·y²: a shallow well near x = −1, a deeper one near x = 1, a barrier
    between.

    The stationary points solve x³ − x = t. Tilted by more than 2/√27 = 0.385 only one well is left.

    >>> double_well(torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])).round(decimals=3).tolist()
    [0.1, 0.25, -0.1]
    """
    x, y = point[..., 0], point[..., 1]
    return (x**2 - 1) ** 2 / 4 - tilt * x + y**2 / 2


def well_bottoms(tilt: float = 0.1) -> tuple[float, float, float]:
    """x of the double well's shallow minimum, of its barrier and of its deep minimum: the roots of
    x³ − x = t.

    Viète's formula, x = 2/√3·cos((arccos(3√3·t/2) − 2πk)/3).

    >>> well_bottoms(0.0)
    (-1.0, 0.0, 1.0)
    """
    if not 0 <= tilt < 2 / math.sqrt(27):
        raise ValueError(
            f"tilt must be at least 0 and below 2/√27 = {2 / math.sqrt(27):.4f}, got {tilt}"
        )
    turn = math.acos(3 * math.sqrt(3) * tilt / 2)
    deep, shallow, barrier = (
        2 / math.sqrt(3) * math.cos((turn - 2 * math.pi * k) / 3) for k in range(3)
    )
    shallow, barrier = sorted((shallow, barrier))
    return shallow, barrier, deep


EIGENVALUES = tuple(1 / i for i in range(1, 101))
"""Curvatures of the noisy quadratic: 1, ½, … 1/100 (a shorter spectrum of the form used by
zhang2019which).
"""


def quadratic(point: Tensor) -> Tensor:
    """f = ½·Σ h_i·θ_i² with h_i = 1/i, i = 1 … 100; minimum 0 at the origin.

    >>> quadratic(torch.ones(100)).round(decimals=3).item()  # half the harmonic number of 100
    2.594
    """
    return (point.new_tensor(EIGENVALUES) * point**2).sum(-1) / 2


def noisy_quadratic() -> Surface:
    """The noisy quadratic model: start θ₀ = 1, gradient noise of covariance H, as in a
    well-specified regression near its optimum (zhang2019which).
    `steadydescent.engine.tasks.noisy_quadratic` has its expected loss in closed form.

    >>> noisy_quadratic().point.shape
    torch.Size([100])
    """
    return Surface(quadratic, (1.0,) * len(EIGENVALUES), tuple(math.sqrt(h) for h in EIGENVALUES))


SURFACES: dict[str, Callable[[], Surface]] = {
    "ravine": lambda: Surface(ravine, (-1.0, 0.3), (0.1, 0.1)),
    "saddle": lambda: Surface(saddle, (1.0, 0.0), (0.1, 0.1)),
    "plateau": lambda: Surface(plateau, (0.0, 0.5), (0.1, 0.1)),
    "double-well": lambda: Surface(double_well, (well_bottoms()[0], 0.0), (0.1, 0.1)),
    "double-well-slope": lambda: Surface(double_well, (-2.0, 0.0), (0.1, 0.1)),
    "double-well-shoulder": lambda: Surface(double_well, (-1.4, 0.0), (0.1, 0.1)),
    "noisy-quadratic": noisy_quadratic,
}
"""Name → surface at its start. Noise is that of a single draw; a batch of n divides its variance by
n.

The double well starts at the bottom of the shallow one, on the slope above it, or on its shoulder:
higher than the barrier, but so gentle that no rate at which the deep well is stable, α < 2/f'' =
0.87, crosses the barrier in one step, α ≥ 0.90.
"""
