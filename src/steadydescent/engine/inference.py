"""Forward passes of evaluation: recorded, in place, in chunks that stay in the cache.

Axes: P parameters, Q buffer entries, E examples of a chunk, D inputs.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.reinplace import reinplace

from steadydescent.engine.evaluation import CHUNK
from steadydescent.engine.memory import over_replicas
from steadydescent.engine.stepping import Flat, Recordings
from steadydescent.engine.tasks import Task
from steadydescent.normalization import statistics_momentum

CHUNKS = (CHUNK, 1_000, 500, 200, 100)
"""Sizes of chunks, which divide those of most sets, so that few shapes are recorded."""
CACHE = 5 * 2**19
"""Bytes of the largest tensor of a pass, 2.5 MiB.

Measured on a core with 2 MiB of second-level cache, where the fastest chunks were: 500 images of a
perceptron (1.5 MiB), 200 of the CNN (2.4 MiB; at 2 000 it has half the rate), 1 000 to 2 000
signals of the small CNN (1.8 to 3.6 MiB), 100 names of the Transformer (2.1 MiB).
"""
Pass = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Weights `[P]`, buffers `[Q]` and inputs `[E, D]` of one network → what it makes of them; of
`batched` ones an axis `[R]` more.
"""


def chunk(task: Task, x: Tensor, batch: int = 1) -> int:
    """Examples at a time for evaluating a task's networks on a CPU, so that no tensor of a pass
    exceeds `CACHE`; a multiple of `batch`. `x` `[1, D]` are the inputs of one example.
    """
    allowed = [size for size in CHUNKS if size % batch == 0] or [CHUNK]
    return next((size for size in allowed if size * _widest(task, x) <= CACHE), allowed[-1])


def _widest(task: Task, x: Tensor) -> int:
    """Bytes of the largest tensor that an example's pass takes in or that a layer of it makes."""
    module, sizes = layers_of(task).eval(), [x.nbytes]
    note = lambda layer, inputs, outputs: sizes.append(outputs.nbytes)
    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(x.to("cpu"))
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


@cache
def layers_of(task: Task) -> nn.Module:
    """A network of the task for its layers alone, whatever its weights."""
    with torch.random.fork_rng(devices=[]):
        return task.build()


@cache
def inputs(task: Task) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The task's inputs from rows of the pool `[E, D]`, mean and deviation `[1, D or 1]`.

    Whole numbers are converted first: operations on two types at once are several times as slow.
    """

    def prepare(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return task.inputs(x if task.tokens else x.to(mean.dtype), mean, std)

    return in_place(prepare)


@cache
def inference(task: Task, batched: bool) -> Pass:
    """Outputs of one network in inference mode."""
    flat = Flat(layers_of(task), 1)
    outputs = lambda theta, buffers, x: flat.outputs(theta, buffers, x)
    return over_replicas(outputs) if batched else in_place(outputs)


@cache
def batch_statistics(task: Task, size: int, batched: bool) -> Pass:
    """Buffers `[Q]` with the statistics of `size` inputs, as they are before layers add noise."""
    flat = Flat(layers_of(task), size)

    def statistics(theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        with statistics_momentum(flat.module, 1.0):
            return flat.forward(theta, buffers, theta.new_zeros(flat.draws), x)[1]

    return over_replicas(statistics) if batched else Recordings(statistics)


@cache
def batch_by_batch(task: Task, size: int, batched: bool) -> Pass:
    """Outputs of one network whose batch norm has the statistics of each `size` inputs, as in
    training.
    """
    flat = Flat(layers_of(task), size)

    def outputs(theta: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
        batches = x.unflatten(0, (-1, size))
        still, each = theta.new_zeros(flat.draws), buffers.expand(len(batches), -1)
        of_batch = lambda buffers, batch: flat.forward(theta, buffers, still, batch)[0]
        return vmap(of_batch)(each, batches).flatten(0, 1)

    return over_replicas(outputs) if batched else Recordings(outputs)


def in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function of tensors as a list of operations, which write into what no other needs.

    It is recorded at its first call for each shape of its inputs, and never writes into these. The
    same operations on the same numbers, so the same bits; what goes is the way through the module
    and half the memory.
    """
    recorded: dict[tuple, Callable[..., Tensor]] = {}

    def replay(*tensors: Tensor) -> Tensor:
        kind = tuple((t.shape, t.dtype, t.device) for t in tensors)
        if kind not in recorded:
            recorded[kind] = reinplace(make_fx(function)(*tensors), *tensors)
        return recorded[kind](*tensors)

    return replay
