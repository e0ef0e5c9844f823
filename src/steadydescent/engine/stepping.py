"""One update of a few replicas, in place, as one flat list of tensor operations, recorded or
compiled.

Axes: R replicas of a stack, L of them together, B batch, P parameters, Q buffer entries, K averaged
readouts, N noise draws, D inputs.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from steadydescent.engine.settings import read
from steadydescent.engine.tasks import Task, find
from steadydescent.engine.unfolding import ConvolutionsAsProducts
from steadydescent.normalization import noise_shapes
from steadydescent.optimizers import RULES
from steadydescent.weight_averaging import mix

# Read by MKL at its first product: whatever the processor, sums then do not depend on where in
# memory a replica's numbers begin, and a replica is the same in every place. It costs nothing that
# could be measured.
os.environ.setdefault("MKL_CBWR", "AUTO")

Pieces = tuple[Tensor, ...]
"""One tensor of each parameter, or of each buffer."""
Shapes = dict[str, torch.Size]


class Flat:
    """A module's parameters, floating-point buffers and noise for a batch as vectors, and back.

    They are `[P]`, `[Q]` and `[N]`.

    One `split` and one view each; slicing leaf by leaf would make every slice's backward full-size.
    """

    def __init__(self, module: nn.Module, batch_size: int) -> None:
        self.module = module
        self.noise = {
            name: torch.Size(shape) for name, shape in noise_shapes(module, batch_size).items()
        }
        self.draws = sum(shape.numel() for shape in self.noise.values())
        self.parameters = {name: p.shape for name, p in module.named_parameters()}
        self.buffers = {
            name: b.shape for name, b in module.named_buffers() if name not in self.noise
        }
        for name, buffer in module.named_buffers():
            if not buffer.is_floating_point():
                raise ValueError(
                    f"buffer {name} is {buffer.dtype}; "
                    "the engine stacks floating-point buffers only"
                )

    def pack(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Weights `[P]` and buffers `[Q]` of a module of this shape."""
        join = lambda tensors: torch.cat(
            [t.detach().flatten() for t in tensors] or [torch.empty(0)]
        )
        return join(module.parameters()), join(module.get_buffer(name) for name in self.buffers)

    @staticmethod
    def split(vectors: Tensor, shapes: Shapes) -> Pieces:
        """Views of `[…, n]`, n the sum of the shapes' sizes, as one tensor `[…, *shape]` each."""
        sizes = [shape.numel() for shape in shapes.values()]
        pieces = vectors.split(sizes, dim=-1) if shapes else ()
        ahead = vectors.shape[:-1]
        return tuple(
            piece.view(*ahead, *shape) for piece, shape in zip(pieces, shapes.values(), strict=True)
        )

    def named(self, vectors: Tensor, shapes: Shapes) -> dict[str, Tensor]:
        """The same views by the names of what they are of."""
        return dict(zip(shapes, self.split(vectors, shapes), strict=True))

    def forward(
        self, theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs of one replica in training mode, and its new buffers.

        `noise` is uniform on (−1, 1).
        """
        parameters, before = self.split(theta, self.parameters), self.split(buffers, self.buffers)
        outputs, fresh = self.forward_split(parameters, before, noise, x)
        return outputs, torch.cat([b.flatten() for b in fresh]) if fresh else buffers

    def forward_split(
        self, parameters: Pieces, buffers: Pieces, noise: Tensor, x: Tensor
    ) -> tuple[Tensor, Pieces]:
        """The same with weights and buffers in pieces, as `split` gives them."""
        # batch norm writes into them
        fresh = {name: b.clone() for name, b in zip(self.buffers, buffers, strict=True)}
        given = dict(zip(self.parameters, parameters, strict=True))
        pieces = (given, fresh, self.named(noise, self.noise))
        outputs = functional_call(self.module.train(), pieces, (x,))
        return outputs, tuple(fresh.values())

    def outputs(self, theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        """Outputs of one replica in inference mode."""
        pieces = (self.named(theta, self.parameters), self.named(buffers, self.buffers))
        return functional_call(self.module.eval(), pieces, (x,))


class Carry(NamedTuple):
    """Everything that an update changes, in place, parameter by parameter and buffer by buffer.

    Each parameter is a tensor `[R, *shape]` of its own, of one replica alone `[*shape]`.
    """

    parameters: Pieces
    buffers: Pieces
    state: tuple[Pieces, ...]  # slot by slot
    averages: tuple[Pieces, ...]  # average by average
    averaged_buffers: tuple[Pieces, ...]

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights `[R, P]` and buffers `[R, Q]` of all replicas."""
        return self._vectors(self.parameters), self._vectors(self.buffers)

    def average(self, k: int) -> tuple[Tensor, Tensor]:
        """The same of the k-th average."""
        return self._vectors(self.averages[k]), self._vectors(self.averaged_buffers[k])

    def _vectors(self, pieces: Pieces) -> Tensor:
        """`[R, n]` of pieces `[R, *shape]`, n the sum of their sizes."""
        first = self.parameters[0]
        return torch.cat(
            [piece.flatten(1) for piece in pieces] or [first.new_empty(len(first), 0)], 1
        )

    def lanes(self, part: slice) -> "Carry":
        """Some replicas as views; one alone loses its axis."""
        alone = len(range(*part.indices(len(self.parameters[0])))) == 1
        return tree_map(lambda piece: piece[part.start] if alone else piece[part], self)


class Feed(NamedTuple):
    """What all updates of L replicas share, `[L, 1, D or 1]` each."""

    mean: Tensor
    std: Tensor


class Minibatch(NamedTuple):
    """What one update of L replicas takes from outside."""

    x: Tensor  # [L, B, D] as stored
    labels: Tensor  # [L, B, …]
    noise: Tensor  # [L, N]
    step: Tensor  # scalar, from 1
    lr: Tensor  # [L]
    weights: Tensor  # [K]


Step = Callable[[Carry, Feed, Minibatch], Tensor]
Leaves = Callable[..., Tensor]
"""A step that is given the leaves of its arguments, one tensor after another."""


def make_step(
    flat: Flat, task: Task, optimizer: str, together: bool, compiled: bool = False
) -> Step:
    """One update of L replicas `together`, or of one alone, written into the lanes; it returns the
    minibatch losses before it, `[L]` or a scalar.

    Weights, slots and averages are changed parameter by parameter, each in one pass over memory.
    On a CPU convolutions of several replicas, or to be `compiled`, are products of unfolded inputs:
    faster than torch's own, and the same bits whoever else is in the stack. One network's own are
    faster.
    """
    name, hyper = read(optimizer)
    update = partial(RULES[name].update, **RULES[name].checked(**hyper))

    def loss(
        parameters: Pieces, buffers: Pieces, noise: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Pieces]:
        outputs, fresh = flat.forward_split(parameters, buffers, noise, x)
        return task.loss(outputs, y), fresh

    gradients = grad_and_value(loss, has_aux=True)
    if together:
        gradients = vmap(gradients)

    def step(lanes: Carry, feed: Feed, batch: Minibatch) -> Tensor:
        x = task.inputs(batch.x, feed.mean, feed.std)
        as_products = (together or compiled) and x.device.type == "cpu"
        with ConvolutionsAsProducts() if as_products else nullcontext():
            grad, (losses, fresh) = gradients(
                lanes.parameters, lanes.buffers, batch.noise, x, batch.labels
            )
        for i, theta in enumerate(lanes.parameters):
            slots = [slot[i] for slot in lanes.state]
            lr = batch.lr.view(-1, *[1] * (theta.ndim - 1)) if together else batch.lr
            moved, state = update(theta, grad[i], tuple(slots), batch.step, lr)
            _write((theta, *slots), (moved, *state))
            _average([average[i] for average in lanes.averages], moved, batch.weights)
        for i, buffer in enumerate(lanes.buffers):
            _write([buffer], [fresh[i]])
            _average([average[i] for average in lanes.averaged_buffers], fresh[i], batch.weights)
        return losses

    return step


def _write(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _average(averages: Sequence[Tensor], value: Tensor, weights: Tensor) -> None:
    for k, average in enumerate(averages):
        average.copy_(mix(average, value, weights[k]))


def can_compile(device: str) -> str | None:
    """Why torch.compile cannot be used on this device, or None when it can."""
    if device != "cpu":
        return None
    if shutil.which("g++") is None:
        return "g++ is missing"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (Python.h) are missing"
    return None


class Recordings:
    """A function's flat lists of tensor operations, one for each form of its inputs.

    They are recorded when first asked for: the same operations on the same numbers, so the same
    bits; what goes is the way through vmap, autograd and the module, a third of an update of small
    networks. `compiled`, torch's compiler makes a program of each.
    """

    def __init__(self, function: Callable[..., Any], compiled: bool = False) -> None:
        self.function, self.compiled = function, compiled
        self.graphs: dict[tuple, Leaves] = {}

    def of(self, *inputs: Any) -> Leaves:
        """The function for inputs of this form; it takes their leaves."""
        leaves, form = tree_flatten(inputs)
        kind = (str(form), *((x.shape, x.stride(), x.dtype, x.device) for x in leaves))
        if kind not in self.graphs:
            self.graphs[kind] = self._record(
                leaves, lambda *x: self.function(*tree_unflatten(x, form))
            )
        return self.graphs[kind]

    def _record(self, leaves: list[Tensor], function: Leaves) -> Leaves:
        # on tensors without numbers: a step writes into what it is given
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
        if not self.compiled:
            return graph
        # a program of C++ throughout: called kernel by kernel, small networks wait for Python
        on_cpu = leaves[0].device.type == "cpu"
        return torch._inductor.compile(graph, [*leaves], options={"cpp_wrapper": on_cpu})

    def __call__(self, *inputs: Any) -> Any:
        return self.of(*inputs)(*tree_flatten(inputs)[0])


@cache
def prepared(
    task: str, optimizer: str, batch_size: int, compile: bool, together: bool
) -> tuple[Flat, Recordings]:
    """The step of a task under an optimiser, made once, compiled if asked for."""
    flat = Flat(find(task).build(), batch_size)
    step = make_step(flat, find(task), optimizer, together, compile)
    return flat, Recordings(step, compile)


@contextmanager
def numerics(threads: int | None = None):
    """The arithmetic of every run: denormals flushed, no TF32, a fixed number of threads.

    Afterwards all is as it was before.
    """
    before = (
        torch.get_num_threads(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    torch.set_num_threads(threads or before[0])
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_flush_denormal(False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[1:]
