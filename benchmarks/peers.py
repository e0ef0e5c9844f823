"""The loops that the engine is held against, with the weights and data of its replicas.

Each takes the data in the engine's order.

P0 `DataLoaderLoop`, the loop people write; P1 `InMemoryLoop`, the best single-model loop; P3
`Ensemble`, torch.func's ensembling as its tutorial shows it. P2 is P1 in as many processes as cores
(`processes`). All keep one EMA.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.data import DataLoader, Sampler, TensorDataset

from steadydescent.engine import data
from steadydescent.engine.stack import initial_weights
from steadydescent.engine.stepping import can_compile
from steadydescent.engine.streams import stream_seed
from steadydescent.engine.tasks import find
from steadydescent.engine.tasks.transformer import Attention
from steadydescent.minibatches import IndexStream
from steadydescent.normalization import BatchNorm
from steadydescent.study.paths import DATA

LR, MOMENTUM, BATCH, WINDOW = 0.02, 0.9, 100, 100
BETA = 1 - 1 / WINDOW
HELD_OUT = 1_000
"""Validation examples on which contenders' losses are compared."""
BLOCK = 320
"""Updates whose minibatches are drawn at once."""
COMPILED_STEPS = 256
"""Compiled loops that one process may hold."""


def order(task: str, seed: int, examples: int) -> IndexStream:
    """The minibatches that the engine's replica of this seed sees."""
    return IndexStream(examples, BATCH, stream_seed(find(task).source, seed, "order"))


@cache
def examples(task: str, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Training and held-out examples of a seed, as the model takes them."""
    kind = find(task)
    loaded = data.load(kind.source, [seed], DATA)
    inputs = lambda rows: kind.inputs(loaded.pool[rows], loaded.mean[0], loaded.std[0])
    made = lambda rows: TensorDataset(inputs(rows), loaded.labels[rows])
    return made(loaded.train[0]), made(loaded.validation[0][:HELD_OUT])


def fastest_layers(module: nn.Module) -> nn.Module:
    """The same network with torch's own fused layers: batch norm and attention.

    `vmap` on a CPU does not take them.
    """
    for name, child in module.named_children():
        if type(child) is BatchNorm:
            fused = nn.BatchNorm2d(child.channels, child.eps, child.momentum)
            fused.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, fused)
        elif type(child) is Attention:
            child.__class__ = FusedAttention
        else:
            fastest_layers(child)
    return module


class FusedAttention(Attention):
    """Attention by torch's fused kernel; the same numbers."""

    def forward(self, x: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        # [B, T, d] → [B, H, T, d/H]
        split = lambda z: z.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        heads = (split(self.query(x)), split(self.key(context)), split(self.value(context)))
        attended = scaled_dot_product_attention(*heads, attn_mask=visible)
        return self.out(attended.transpose(-3, -2).flatten(-2))


class Single:
    """One network with torch's layers, its EMA and data: what both single-model loops share."""

    def __init__(self, task: str, device: str, seed: int = 0) -> None:
        self.kind, self.device = find(task), device
        self.train, self.held_out = examples(task, seed)
        self.order = order(task, seed, len(self.train))
        self.model = fastest_layers(initial_weights(task, seed)).to(device).train()
        self.average = deepcopy(self.model)

    def loss(self) -> float:
        """Held-out loss of the last weights."""
        x, y = (tensor.to(self.device) for tensor in self.held_out.tensors)
        with torch.no_grad():
            value = self.kind.loss(self.model.eval()(x), y).item()
        self.model.train()
        return value


class Epochs(Sampler[int]):
    """Examples in the order of a stream, epoch after epoch, as a `RandomSampler` gives them."""

    def __init__(self, stream: IndexStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.examples // BATCH * BATCH

    def __iter__(self) -> Iterator[int]:
        yield from self.stream.take(len(self) // BATCH).flatten().tolist()


class DataLoaderLoop(Single):
    """P0: DataLoader, nn.Module, torch.optim, EMA of the state dict; one seed after another."""

    def __init__(self, task: str, device: str) -> None:
        super().__init__(task, device)
        self.loader = DataLoader(self.train, BATCH, sampler=Epochs(self.order), drop_last=True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LR, momentum=MOMENTUM)
        self.batches = self._endless()

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader

    def advance(self, updates: int) -> int:
        for _ in range(updates):
            x, y = (tensor.to(self.device) for tensor in next(self.batches))
            self.optimizer.zero_grad()
            self.kind.loss(self.model(x), y).backward()
            self.optimizer.step()
            with torch.no_grad():
                averages, values = (
                    self.average.state_dict().values(),
                    self.model.state_dict().values(),
                )
                for average, value in zip(averages, values, strict=True):
                    average.copy_(BETA * average + (1 - BETA) * value)
        return updates


@dataclass(frozen=True)
class Choice:
    """How a single-model loop is run.

    `optimizer` is foreach or fused, `compiled` the network and its gradients.
    """

    threads: int
    optimizer: str
    compiled: bool

    def __str__(self) -> str:
        mode = "compiled" if self.compiled else "eager"
        return f"{mode}, {self.optimizer}, {threads_in_words(self.threads)}"


def threads_in_words(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} thread" + "s" * (count > 1)


class InMemoryLoop(Single):
    """P1: data on the device, compiled or eager, foreach or fused SGD, EMA by one lerp.

    On a GPU one CUDA graph.
    """

    def __init__(self, task: str, device: str, choice: Choice, seed: int = 0) -> None:
        super().__init__(task, device, seed)
        self.threads = choice.threads
        self.x, self.y = (tensor.to(device) for tensor in self.train.tensors)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), LR, momentum=MOMENTUM, **{choice.optimizer: True}
        )
        self.moving, self.averages = floating(self.model), floating(self.average)
        self.objective = compiled(self._objective) if choice.compiled else self._objective
        self.step: Callable[[Tensor], None] = recorded(self) if device == "cuda" else self.update

    def _objective(self, rows: Tensor) -> Tensor:
        return self.kind.loss(self.model(self.x[rows]), self.y[rows])

    def update(self, rows: Tensor) -> None:
        """One update from the minibatch `rows` `[B]`."""
        self.optimizer.zero_grad(set_to_none=True)
        self.objective(rows).backward()
        self.optimizer.step()
        torch._foreach_lerp_(self.averages, self.moving, 1 - BETA)

    def advance(self, updates: int) -> int:
        for left in range(updates, 0, -BLOCK):
            for rows in self.order.take(min(left, BLOCK)).to(self.device):
                self.step(rows)
        return updates


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function compiled, for every task and number of threads that one process tries.

    Beyond Dynamo's own limit of 8 it would be run eagerly, with no more than a warning.
    """
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = COMPILED_STEPS
    return torch.compile(function, fullgraph=True, dynamic=False)


def floating(module: nn.Module) -> list[Tensor]:
    """Weights and floating-point buffers, to be averaged in place."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    return [parameter.data for parameter in module.parameters()] + buffers


def recorded(loop: InMemoryLoop) -> Callable[[Tensor], None]:
    """The loop's update as one CUDA graph that is replayed.

    Weights, statistics and momentum start as they were.
    """
    rows = torch.zeros(BATCH, dtype=torch.int64, device=loop.device)
    kept = [tensor.clone() for tensor in loop.moving]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            loop.update(rows)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop.update(rows)
    with torch.no_grad():
        torch._foreach_copy_(loop.moving, kept)
        torch._foreach_copy_(loop.averages, kept)
        for state in loop.optimizer.state.values():
            state["momentum_buffer"].zero_()

    def replay(batch: Tensor) -> None:
        rows.copy_(batch)
        graph.replay()

    return replay


def choices(device: str, threads: tuple[int, ...]) -> list[Choice]:
    """The single-model loops worth trying here: compiled, where that can be done, and eager.

    A GPU is fed by one thread.
    """
    modes = (True, False) if can_compile(device) is None else (False,)
    return [
        Choice(count, optimizer, compiled)
        for count in (threads if device == "cpu" else (1,))
        for compiled in modes
        for optimizer in ("foreach", "fused")
    ]


class Ensemble:
    """P3: stacked parameters of R models, `functional_call`, `vmap` and `grad`, all by hand.

    Eager, with momentum and EMA.
    """

    def __init__(self, task: str, device: str, width: int) -> None:
        self.kind, self.device, self.width = find(task), device, width
        loaded = data.load(self.kind.source, range(width), DATA)
        self.train, self.held_out = loaded.train, loaded.validation[:1, :HELD_OUT].to(device)
        self.pool, self.labels = loaded.pool.to(device), loaded.labels.to(device)
        # [R, 1, D or 1]
        self.mean, self.std = (t[:, None].to(device) for t in (loaded.mean, loaded.std))
        self.streams = [order(task, seed, self.train.shape[1]) for seed in range(width)]
        models = [initial_weights(task, seed).to(device).train() for seed in range(width)]
        self.parameters, self.buffers = stack_module_state(models)
        self.velocity = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.base = models[0]
        self.gradients = vmap(grad(self._objective, has_aux=True))

    def _objective(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # batch norm writes into them
        fresh = {name: buffer.clone() for name, buffer in buffers.items()}
        return self.kind.loss(functional_call(self.base, (parameters, fresh), (x,)), y), fresh

    def advance(self, updates: int) -> int:
        for left in range(updates, 0, -BLOCK):
            taken = [
                rows[s.take(min(left, BLOCK))]
                for rows, s in zip(self.train, self.streams, strict=True)
            ]
            for rows in torch.stack(taken, 1).to(self.device):  # [R, B]
                self._update(
                    self.kind.inputs(self.pool[rows], self.mean, self.std), self.labels[rows]
                )
        return updates * self.width

    @torch.no_grad()
    def _update(self, x: Tensor, y: Tensor) -> None:
        gradients, self.buffers = self.gradients(self.parameters, self.buffers, x, y)
        for name, parameter in self.parameters.items():
            self.velocity[name].mul_(MOMENTUM).add_(gradients[name])
            parameter.sub_(LR * self.velocity[name])
            self.average[name].lerp_(parameter, 1 - BETA)

    @torch.no_grad()
    def loss(self) -> float:
        """Held-out loss of the first model."""
        first = lambda tensors: {name: tensor[0] for name, tensor in tensors.items()}
        x = self.kind.inputs(self.pool[self.held_out[0]], self.mean[0], self.std[0])
        outputs = functional_call(
            self.base.eval(), (first(self.parameters), first(self.buffers)), (x,)
        )
        self.base.train()
        return self.kind.loss(outputs, self.labels[self.held_out[0]]).item()
