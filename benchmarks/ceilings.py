"""What this machine can do at most, and our share of it.

A large product, the bare matrix products of a step or of a look at a network, a step's products
and one pass over everything else, its convolutions alone, a copy.

Axes: R replicas, B batch, P parameters.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils._pytree import tree_leaves

from ours import OurStack, plan
from peers import BATCH, BETA, LR, MOMENTUM
from rounds import Local, compare, repeated
from steadydescent.engine.inference import chunk
from steadydescent.engine.stepping import Flat, Pieces, Recordings, can_compile, numerics
from steadydescent.engine.tasks import find
from steadydescent.engine.unfolding import ConvolutionsAsProducts
from steadydescent.normalization import BatchNorm
from steadydescent.optimizers import RULES
from steadydescent.weight_averaging import mix
from training import BLOCK, Settings, fastest, rates_of, trained

SIDE = 1024
COPIED = {"cpu": 2**25, "cuda": 2**28}
"""Numbers in the tensors that are copied and updated: far more than any cache holds."""


class BareProducts:
    """The matrix products of one update of R perceptrons and nothing else, into standing memory.

    For each layer of `sizes` [in, …, out]: x·Wᵀ + b, then the gradient of W, and that of x but for
    the first layer, whose input needs none.
    """

    def __init__(self, sizes: list[int], width: int, batch: int, device: str) -> None:
        draw = lambda *shape: torch.randn(width, *shape, device=device)
        self.sizes, self.width, self.batch = sizes, width, batch
        self.x = [draw(batch, size) for size in sizes]
        self.weight = [draw(o, i) for i, o in pairwise(sizes)]
        self.bias = [draw(1, o) for o in sizes[1:]]
        self.into_weight = [torch.empty_like(weight) for weight in self.weight]
        self.into_x = [torch.empty_like(x) for x in self.x]

    @property
    def operations(self) -> int:
        """Multiplications and additions of one update of all replicas."""
        products = [
            i * o * (2 if layer == 0 else 3) for layer, (i, o) in enumerate(pairwise(self.sizes))
        ]
        return 2 * self.width * self.batch * sum(products)

    def batched(self) -> None:
        """Each product for all replicas at once."""
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            x, dy = self.x[layer], self.x[layer + 1]
            torch.baddbmm(bias, x, weight.transpose(1, 2), out=self.into_x[layer + 1])
            torch.bmm(dy.transpose(1, 2), x, out=self.into_weight[layer])
            if layer:
                torch.bmm(dy, weight, out=self.into_x[layer])

    def forward(self) -> None:
        """Those of the outputs alone, for one replica after another."""
        for layer in range(len(self.weight)):
            for r in range(self.width):
                self._output(layer, r)

    def _output(self, layer: int, r: int) -> None:
        x, weight, bias = self.x[layer][r], self.weight[layer][r], self.bias[layer][r]
        torch.addmm(bias, x, weight.t(), out=self.into_x[layer + 1][r])

    def one_by_one(self) -> None:
        """Each product for one replica after another."""
        for layer, weight in enumerate(self.weight):
            for r in range(self.width):
                x, dy = self.x[layer][r], self.x[layer + 1][r]
                self._output(layer, r)
                torch.mm(dy.t(), x, out=self.into_weight[layer][r])
                if layer:
                    torch.mm(dy, weight[r], out=self.into_x[layer][r])


class Passes:
    """What else one update of R perceptrons must do, each in one pass over memory, compiled: inputs
    standardised, ReLU there and back, momentum with one average.

    Minibatches lie ready, and there are no loss and no slopes of biases, so that it is less than an
    update needs.
    """

    def __init__(self, sizes: list[int], width: int, batch: int, device: str) -> None:
        draw = lambda *shape: torch.randn(width, *shape, device=device)
        shapes = [*zip(sizes[1:], sizes[:-1], strict=True), *((size,) for size in sizes[1:])]
        self.parameters = [[draw(*shape) for _ in range(4)] for shape in shapes]
        self.layers = [[draw(batch, size), draw(batch, size)] for size in sizes[1:-1]]
        self.inputs = [draw(batch, sizes[0]), draw(1, sizes[0]), draw(1, sizes[0]).exp()]
        compiled = can_compile(device) is None
        self.passes = torch.compile(_passes, dynamic=False) if compiled else _passes

    def __call__(self) -> None:
        """Make them once."""
        self.passes(self.inputs, self.layers, self.parameters)


def _passes(
    inputs: list[Tensor], layers: list[list[Tensor]], parameters: list[list[Tensor]]
) -> None:
    x, mean, std = inputs
    x.copy_((x - mean) / std)
    for outputs, slopes in layers:
        outputs.relu_()
        slopes.copy_(torch.where(outputs > 0, slopes, 0.0))
    for tensors in parameters:
        update_and_average(*(tensor.flatten(1) for tensor in tensors))


class BareConvolutions:
    """Convolutions and last layer of one update of the networks that a step takes together, there
    and back, made as the step makes them, and nothing else: no norms, ReLU, loss or update.
    """

    def __init__(self, task: str, stack: OurStack) -> None:
        settings, examples = find(task), stack.stack.examples
        module = settings.build()
        for place, layer in [*module.named_modules()]:
            if isinstance(layer, BatchNorm | nn.ReLU):
                module.set_submodule(place, nn.Identity())
        flat, together = Flat(module, BATCH), stack.lanes > 1

        def of_outputs(parameters: Pieces, x: Tensor, slopes: Tensor) -> Tensor:
            return (flat.forward_split(parameters, (), x.new_zeros(0), x)[0] * slopes).sum()

        gradients = vmap(grad(of_outputs)) if together else grad(of_outputs)

        def work(*given: Any) -> Pieces:
            with ConvolutionsAsProducts() if together or stack.compile else nullcontext():
                return gradients(*given)

        lanes = (stack.lanes,) if together else ()
        x = settings.inputs(examples.pool[:BATCH], examples.mean[0], examples.std[0])
        weights = [p.detach().expand(*lanes, *p.shape).clone() for p in module.parameters()]
        slopes = torch.randn(*lanes, *module(x).shape, device=x.device)
        given = tuple(weights), x.expand(*lanes, *x.shape).clone(), slopes
        self.leaves, self.made = tree_leaves(given), Recordings(work, stack.compile).of(*given)

    def __call__(self) -> None:
        """Make them once."""
        self.made(*self.leaves)


def linear_sizes(task: str) -> list[int]:
    """Widths of a perceptron's layers, input and output included.

    >>> linear_sizes("mnist1d-mlp")
    [40, 100, 100, 10]
    """
    layers = [module for module in find(task).build() if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


@dataclass(frozen=True)
class Way:
    """One way to make the bare products: `work` makes those of `products.width` replicas."""

    products: BareProducts
    work: Callable[[], None]

    def __str__(self) -> str:
        count = self.products.width
        if count == 1:
            return "bare products, one replica, its weights in cache"
        return f"bare products, {self.work.__name__.replace('_', ' ')}, {count} replicas"


def ways(task: str, device: str, width: int) -> list[Way]:
    """All replicas' products at once or one after another.

    For the whole stack, for as many replicas as the engine's step takes together, and for one.
    """
    together = plan(task, device).together(width, can_compile(device) is None)
    widths = sorted({1, min(together, width), width})
    made = [BareProducts(linear_sizes(task), w, BATCH, device) for w in widths]
    return [Way(one, work) for one in made for work in (one.batched, one.one_by_one)]


@torch.no_grad()
def fastest_way(task: str, device: str, width: int, seconds: float) -> Way:
    """The way that makes most replicas' products a second."""
    threads = plan(task, device).threads
    tried = {
        way: Local("", repeated(way.work, way.products.width), device, threads=threads)
        for way in ways(task, device, width)
    }
    return fastest(rates_of(tried, seconds))


@torch.no_grad()
def product_ceiling(task: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """GFLOP/s of the step's bare products against a product of two 1024×1024 matrices."""
    width, threads = settings.width or plan(task, device).width, plan(task, device).threads
    a, b, c = (torch.randn(SIDE, SIDE, device=device) for _ in range(3))
    large = f"{SIDE}×{SIDE} product, float32"
    with numerics(threads):
        way = fastest_way(task, device, width, settings.seconds / 3)
        amounts = {
            str(way): (way.work, way.products.operations),
            large: (lambda: torch.mm(a, b, out=c), 2 * SIDE**3),
        }
        contenders = [
            Local(name, repeated(work, operations / 1e9), device, threads=threads)
            for name, (work, operations) in amounts.items()
        ]
        return compare(
            f"bare products, {task}",
            device,
            "GFLOP/s",
            contenders,
            settings.rounds,
            settings.seconds / 2,
            notes={large: str(way)},
        )


@torch.no_grad()
def step_against_products(
    task: str, device: str, settings: Settings, passes: bool = False
) -> list[dict[str, Any]]:
    """Time of an update of a whole stack with one EMA against that of its bare matrix products, or
    of these and one pass over the rest.
    """
    width, threads = settings.width or plan(task, device).width, plan(task, device).threads
    with numerics(threads):
        way = fastest_way(task, device, width, settings.seconds / 3)
        count, parts = way.products.width, [way.work]
        if not passes:
            what, name = "bare matrix products", str(way)
        else:
            parts.append(Passes(linear_sizes(task), count, BATCH, device))
            what, name = "products and passes", f"{way}, and one pass over the rest"
        work = repeated(lambda: [part() for part in parts], count)
        stack = OurStack(task, device, width=width)
        return step_against(what, name, work, task, stack, settings)


@torch.no_grad()
def step_against_convolutions(task: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Time of an update of a whole stack with one EMA against that of its convolutions and last
    layer alone, there and back.
    """
    stack = OurStack(task, device, width=settings.width)
    with numerics(plan(task, device).threads):
        convolutions = BareConvolutions(task, stack)
        count = f"{stack.lanes} replicas together" if stack.lanes > 1 else "one replica at a time"
        name = f"convolutions and last layer alone, {count}"
        work = repeated(convolutions, stack.lanes)
        return step_against("convolutions alone", name, work, task, stack, settings)


def step_against(
    what: str,
    name: str,
    work: Callable[[int], float],
    task: str,
    stack: OurStack,
    settings: Settings,
) -> list[dict[str, Any]]:
    """Time of an update of a whole stack against that of a part of it, for as many replicas."""
    device, threads = stack.device, plan(task, stack.device).threads
    checked = settings.updates_checked(task)
    contenders = [
        trained("ours", stack, device, checked, threads, BLOCK[device]),
        Local(name, work, device, threads=threads),
    ]
    return compare(
        f"step against its {what}, {task}",
        device,
        "ms/update",
        contenders,
        settings.rounds,
        settings.seconds,
        times=1000.0 * len(stack.runs),
    )


@torch.no_grad()
def evaluation_against_products(task: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Looks at networks of a stack, each under six readouts, against the bare products of looks."""
    width, threads = settings.width or plan(task, device).width, plan(task, device).threads
    with numerics(threads):
        ours = OurStack(task, device, averages=5, width=width)
        ours.advance(BLOCK[device])
        examples, view = ours.stack.examples, ours.stack.view
        look = examples.look(examples.validation)
        looks = len(view.readouts) * look.rows.numel()
        size = chunk(find(task), look.pool[:1].float())
        products = BareProducts(linear_sizes(task), 1, size, device)
        contenders = [
            Local("ours", repeated(partial(view.scores, view.readouts, look), looks / 1e6), device),
            Local(
                f"bare products, {size} examples at a time",
                repeated(products.forward, size / 1e6),
                device,
                threads=threads,
            ),
        ]
        return compare(
            f"evaluation against its bare matrix products, {task}",
            device,
            "million examples/s",
            contenders,
            settings.rounds,
            settings.seconds,
        )


def update_and_average(theta: Tensor, grad: Tensor, velocity: Tensor, average: Tensor) -> None:
    """Momentum and one EMA on `[R, P]`, in place as in the step: four are read, three written."""
    t = torch.tensor(2, device=theta.device)
    lr = torch.full((len(theta), 1), LR, device=theta.device)
    moved, (gained,) = RULES["momentum"].update(theta, grad, (velocity,), t, lr, **MOMENTUM_HYPER)
    for tensor, new in (
        (theta, moved),
        (velocity, gained),
        (average, mix(average, moved, torch.tensor(1 - BETA, device=theta.device))),
    ):
        tensor.copy_(new)


MOMENTUM_HYPER = RULES["momentum"].checked(mu=MOMENTUM)
MOVED = 7
"""Tensors that an update with one EMA reads or writes."""


@torch.no_grad()
def bandwidth(device: str, settings: Settings) -> list[dict[str, Any]]:
    """GB/s that the update with one EMA moves, against a plain copy."""
    count = COPIED[device] if settings.width == 0 else 2**16 * settings.width
    theta, grad, velocity, average, spare = (
        torch.randn(64, count // 64, device=device) for _ in range(5)
    )
    compiled = can_compile(device) is None
    work = torch.compile(update_and_average, dynamic=False) if compiled else update_and_average
    update = repeated(lambda: work(theta, grad, velocity, average), MOVED * theta.nbytes / 1e9)
    copy = repeated(lambda: spare.copy_(grad), 2 * theta.nbytes / 1e9)
    with numerics():
        contenders = [Local("ours", update, device), Local("copy", copy, device)]
        comparison = compare(
            "update and EMA", device, "GB/s", contenders, settings.rounds, settings.seconds / 2
        )
    return [{**line, "peer_name": "copy bandwidth"} for line in comparison]
