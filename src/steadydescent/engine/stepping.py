"""One update of a stack of replicas as a pure function of tensors, traced or compiled.

Axes: R replicas, B batch, P parameters, Q buffer entries, K averaged readouts, N noise draws, D
inputs.
"""

import shutil
import sysconfig
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from steadydescent.engine.settings import read
from steadydescent.engine.tasks import Task, find
from steadydescent.normalization import noise_shapes
from steadydescent.optimizers import RULES, State
from steadydescent.weight_averaging import mix


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
    def _unpack(vector: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
        pieces = vector.split([shape.numel() for shape in shapes.values()]) if shapes else ()
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    def forward(
        self, theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs of one replica in training mode, and its new buffers.

        `noise` is uniform on (−1, 1).
        """
        fresh = self._unpack(buffers.clone(), self.buffers)  # batch norm writes into them
        pieces = (self._unpack(theta, self.parameters), fresh, self._unpack(noise, self.noise))
        outputs = functional_call(self.module.train(), pieces, (x,))
        return outputs, torch.cat([b.flatten() for b in fresh.values()]) if fresh else buffers

    def outputs(self, theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        """Outputs of one replica in inference mode."""
        pieces = (self._unpack(theta, self.parameters), self._unpack(buffers, self.buffers))
        return functional_call(self.module.eval(), pieces, (x,))


class Carry(NamedTuple):
    """Everything that a step changes. `survived` counts the steps before a replica's loss went
    non-finite.
    """

    theta: Tensor  # [R, P]
    buffers: Tensor  # [R, Q]
    state: State  # each [R, P]
    averages: tuple[Tensor, Tensor]  # [K, R, P] and [K, R, Q]
    survived: Tensor  # [R]


Output = TypeVar("Output")
Step = Callable[..., tuple[Carry, Tensor]]
COMPILED_STEPS = 256
"""Compiled steps that one process may hold."""


def make_step(flat: Flat, task: Task, optimizer: str) -> Step:
    """One update of a whole stack: the new carry and the minibatch losses `[R]` before it."""
    name, hyper = read(optimizer)
    update = partial(RULES[name].update, **RULES[name].checked(**hyper))

    def loss(
        theta: Tensor, buffers: Tensor, noise: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs, buffers = flat.forward(theta, buffers, noise, x)
        return task.loss(outputs, y), buffers

    gradients = vmap(grad_and_value(loss, has_aux=True))

    def step(
        carry: Carry,
        noise: Tensor,
        x: Tensor,
        y: Tensor,
        mean: Tensor,
        std: Tensor,
        t: Tensor,
        lr: Tensor,
        weights: Tensor,
    ) -> tuple[Carry, Tensor]:
        """One update.

        noise [R, N], x [R, B, D] as stored, y [R, B], mean and std [R, 1, D or 1], t a scalar,
        lr [R, 1], weights [K, 1, 1].
        """
        grad, (loss, buffers) = gradients(
            carry.theta, carry.buffers, noise, task.inputs(x, mean, std), y
        )
        theta, state = update(carry.theta, grad, carry.state, t, lr)
        # A replica that has diverged freezes where it last was; its neighbours never feel it.
        alive = torch.isfinite(loss) & (carry.survived == t - 1)
        keep = lambda new, old: torch.where(alive[:, None], new, old)
        theta, buffers = keep(theta, carry.theta), keep(buffers, carry.buffers)
        state = tuple(keep(new, old) for new, old in zip(state, carry.state, strict=True))
        weights = weights * alive[:, None]
        averages = (
            mix(carry.averages[0], theta, weights),
            mix(carry.averages[1], buffers, weights),
        )
        return Carry(theta, buffers, state, averages, carry.survived + alive), loss

    return step


def can_compile(device: str) -> str | None:
    """Why torch.compile cannot be used on this device, or None when it can."""
    if device != "cpu":
        return None
    if shutil.which("g++") is None:
        return "g++ is missing"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (Python.h) are missing"
    return None


def traced(function: Callable[..., Output]) -> Callable[..., Output]:
    """The same function as one flat list of tensor operations.

    It is recorded at its first call for each shape of its inputs: the same operations on the same
    numbers, so the same bits; what goes is the way through vmap, autograd and the module, a third
    of an update of small networks.
    """
    recorded: dict[tuple, Callable[..., Output]] = {}

    def replay(*inputs: Carry | Tensor) -> Output:
        kind = tuple((t.shape, t.dtype, t.device) for t in tree_leaves(inputs))
        if kind not in recorded:
            recorded[kind] = make_fx(function)(*inputs)
        return recorded[kind](*inputs)

    return replay


@cache
def prepared(task: str, optimizer: str, batch_size: int, compile: bool) -> tuple[Flat, Step]:
    """The step of a task under an optimiser, made once; compiled if asked for, else traced."""
    flat = Flat(find(task).build(), batch_size)
    step = make_step(flat, find(task), optimizer)
    if not compile:
        return flat, traced(step)
    # all steps share their code, which Dynamo would else compile for 8 tasks and rules at most
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = COMPILED_STEPS
    return flat, torch.compile(step, fullgraph=True, dynamic=False)


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
