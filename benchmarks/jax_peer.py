"""P4: the program that a JAX user would write, with the weights, data and order of the engine's
replicas.

Parameters stacked, `vmap` of `value_and_grad`, heavy ball and EMA by `tree.map`, many updates in
one `lax.scan`, all of it in `jit`. Minibatches are gathered by index from the one pool that all
replicas share; XLA standardises them on the way. A stack of one goes without `vmap`.

XLA reads its settings when JAX is first used, so that a stack needs a process of its own; nothing
here imports JAX before. It is no dependency but an extra, `bench`.

Axes: R replicas, k updates, B batch.
"""

import os
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from peers import BETA, HELD_OUT, LR, MOMENTUM, order, threads_in_words
from steadydescent.engine import data
from steadydescent.engine.stack import initial_weights
from steadydescent.engine.tasks import find
from steadydescent.study.paths import DATA

WIDTHS = (1, 4, 8, 16)
"""Stacks that are tried."""
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def missing(device: str) -> str | None:
    """Why JAX cannot be used on this device, or None when it can."""
    if find_spec("jax") is None:
        return "JAX is not installed: pip install -c constraints.txt -e '.[bench]'"
    plugin = f"jax_cuda{(torch.version.cuda or '12').split('.')[0]}_plugin"
    if device == "cuda" and find_spec(plugin) is None:
        return f"JAX has no CUDA here: pip install 'jax[{plugin.split('_')[1]}]'"
    return None


def version() -> str:
    """That of JAX."""
    return metadata.version("jax")


@dataclass(frozen=True)
class JaxChoice:
    """How the JAX program is run: replicas a process, processes, and threads of each."""

    width: int
    processes: int
    threads: int

    def __str__(self) -> str:
        each = threads_in_words(self.threads)
        if self.processes == 1:
            return f"a stack of {self.width}, {each}"
        return f"{self.processes} processes of {each}, each a stack of {self.width}"


def stacks_of(device: str, width: int) -> list[JaxChoice]:
    """The stacks worth trying: on a CPU in as many processes as cores, with one thread each.

    On a GPU in one process, and also those of `width`, the engine's own.
    """
    if device != "cpu":
        return [JaxChoice(w, 1, 1) for w in sorted({*WIDTHS, width})]
    return [JaxChoice(w, os.cpu_count() or 1, 1) for w in WIDTHS]


def with_all_threads(choice: JaxChoice) -> JaxChoice:
    """The same stack in one process with as many threads as cores."""
    return JaxChoice(choice.width, 1, os.cpu_count() or 1)


class JaxStack:
    """R replicas, seeds from `first` on, with heavy ball and one EMA.

    `scanned` updates are one compiled call: only multiples of it can be made. With one thread, XLA
    is told so, which must be before this process first uses JAX.
    """

    device = "cpu"
    """What is to be waited for at the end of `advance`: nothing, it waits itself."""

    def __init__(
        self, task: str, device: str, width: int, threads: int, scanned: int, first: int = 0
    ) -> None:
        settings = {"JAX_PLATFORMS": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        settings |= {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}  # no TF32, as in the engine
        if device == "cpu" and threads == 1:
            settings |= {"XLA_FLAGS": ONE_THREAD, "NPROC": "1"}
        os.environ |= settings
        import jax

        from jax_networks import network_of

        self.width, self.scanned, self.kind = width, scanned, find(task)
        self.network, seeds = network_of(task), range(first, first + width)
        models = [initial_weights(task, seed) for seed in seeds]
        weights = stacked([dict(model.named_parameters()) for model in models])
        buffers = stacked([dict(model.named_buffers()) for model in models])
        still = {name: np.zeros_like(value) for name, value in weights.items()}
        self.carry = jax.device_put((weights, buffers, still, (weights, buffers)))
        loaded = data.load(self.kind.source, seeds, DATA)
        self.rows, self.held_out = loaded.train, loaded.validation[0][:HELD_OUT].numpy()
        self.streams = [order(task, seed, loaded.train.shape[1]) for seed in seeds]
        self.pool = jax.device_put((loaded.pool.numpy(), loaded.labels.numpy()))
        self.scale = jax.device_put((loaded.mean.numpy(), loaded.std.numpy()))
        self.updates = jax.jit(self._updates, donate_argnums=0)
        self.score = jax.jit(self._score)

    def _batch(self, pool: Any, scale: Any, rows: Any) -> tuple[Any, Any]:
        """Inputs and labels of the rows `[B]` of the pool, as one replica takes them."""
        (examples, labels), (mean, std) = pool, scale
        x = examples[rows]
        return x if self.kind.tokens else (x - mean) / std, labels[rows]

    def _loss(self, weights: Any, buffers: Any, x: Any, y: Any, training: bool) -> tuple[Any, Any]:
        from jax_networks import cross_entropy

        logits, buffers = self.network(weights, buffers, x, training)
        return cross_entropy(logits, y), buffers

    def _update(self, carry: Any, pool: Any, scale: Any, rows: Any) -> Any:
        """One update of one replica from the minibatch `rows` `[B]`."""
        import jax

        weights, buffers, velocity, averages = carry
        slope = jax.value_and_grad(self._loss, has_aux=True)
        (_, buffers), grad = slope(weights, buffers, *self._batch(pool, scale, rows), True)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grad)
        weights = jax.tree.map(lambda w, v: w - LR * v, weights, velocity)
        mixed = jax.tree.map(lambda a, w: a + (1 - BETA) * (w - a), averages, (weights, buffers))
        return weights, buffers, velocity, mixed

    def _updates(self, carry: Any, pool: Any, scale: Any, rows: Any) -> Any:
        """k updates of all replicas from minibatches `rows` `[k, R, B]`."""
        import jax

        every = jax.vmap(self._update, in_axes=(0, None, 0, 0))
        one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)

        def alone(carry: Any, pool: Any, scale: Any, rows: Any) -> Any:
            moved = self._update(one(carry), pool, one(scale), rows[0])
            return jax.tree.map(lambda leaf: leaf[None], moved)

        update = alone if self.width == 1 else every
        return jax.lax.scan(lambda c, r: (update(c, pool, scale, r), None), carry, rows)[0]

    def advance(self, updates: int) -> int:
        if updates % self.scanned:
            raise ValueError(f"{updates} updates are no multiple of {self.scanned}, made at once")
        for _ in range(updates // self.scanned):
            taken = [
                rows[stream.take(self.scanned)]
                for rows, stream in zip(self.rows, self.streams, strict=True)
            ]
            rows = torch.stack(taken, 1).numpy().astype(np.int32)
            self.carry = self.updates(self.carry, self.pool, self.scale, rows)
        next(iter(self.carry[0].values())).block_until_ready()
        return updates * self.width

    def _score(self, carry: Any, pool: Any, scale: Any, rows: Any) -> Any:
        weights, buffers, *_ = carry
        return self._loss(weights, buffers, *self._batch(pool, scale, rows), False)[0]

    def loss(self) -> float:
        """Held-out loss of the first replica's last weights."""
        import jax

        carry, scale = jax.tree.map(lambda leaf: leaf[0], (self.carry, self.scale))
        return float(self.score(carry, self.pool, scale, self.held_out))


def stacked(tables: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Tables of R models' tensors as one table with an axis R in front."""
    return {
        name: np.stack([table[name].detach().numpy() for table in tables]) for name in tables[0]
    }
