"""The tasks' networks and loss as a JAX user writes them: functions of a table of weights.

Names and shapes of weights are torch's, so that both start alike. Convolutions are products of
unfolded inputs, channels last: several times as fast on a CPU as XLA's own inside a loop, and under
`vmap` still a product.

This module imports JAX, which reads the environment when it is first used: see `jax_peer`.

Axes: B batch, C channels, T positions, H heads, d width, K classes.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import torch

from steadydescent.engine.tasks import find
from steadydescent.engine.tasks.transformer import positions

Table = dict[str, Any]
Network = Callable[[Table, Table, Any, bool], tuple[Any, Table]]
"""Weights, buffers, inputs `[B, …]` and whether it trains → logits `[B, …, K]` and new buffers."""
EPS = 1e-5
"""That of torch's batch and layer norm."""


def network_of(task: str) -> Network:
    """The task's network as a function."""
    if task == "names-transformer":
        return partial(transformer, find(task).build())
    return {"mnist1d-cnn": signal_convnet, "fashion-mnist-cnn": image_convnet}.get(task, perceptron)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the labels but −100, which pad; nats."""
    counted = labels != -100
    nats = -jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(nats, jnp.where(counted, labels, 0)[..., None], -1)[..., 0]
    return (picked * counted).sum() / counted.sum()


def linear(p: Table, name: str, x: Any) -> Any:
    """x·Wᵀ + b."""
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def perceptron(p: Table, buffers: Table, x: Any, training: bool) -> tuple[Any, Table]:
    """Linear layers with ReLU between."""
    *hidden, last = sorted({name.split(".")[0] for name in p}, key=int)
    for layer in hidden:
        x = jax.nn.relu(linear(p, layer, x))
    return linear(p, last, x), buffers


def convolution(weight: Any, x: Any) -> Any:
    """Stride 2, padding 1: `[B, …, C]` → `[B, …, out]` by the weight `[out, C, kernel, …]`."""
    kernel = weight.shape[2:]
    x = jnp.pad(x, [(0, 0), *[(1, 1)] * len(kernel), (0, 0)])
    sizes = [(size - k) // 2 + 1 for size, k in zip(x.shape[1:-1], kernel, strict=True)]
    shifted = [
        x[:, *(slice(a, a + 2 * n - 1, 2) for a, n in zip(at, sizes, strict=True))]
        for at in product(*map(range, kernel))
    ]
    unfolded = jnp.concatenate(shifted, -1)  # […, kernel·C]
    weight = jnp.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, len(weight))
    # two axes: XLA makes a slower product of four
    flat = unfolded.reshape(-1, unfolded.shape[-1]) @ weight
    return flat.reshape(*unfolded.shape[:-1], -1)


def flattened(x: Any) -> Any:
    """`[B, …, C]` as torch flattens it, channel by channel."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


def signal_convnet(p: Table, buffers: Table, x: Any, training: bool) -> tuple[Any, Table]:
    """Three convolutions over signals and a linear layer."""
    x = x[..., None]
    for name in ("convolutions.0", "convolutions.2", "convolutions.4"):
        x = jax.nn.relu(convolution(p[f"{name}.weight"], x) + p[f"{name}.bias"])
    return linear(p, "head", flattened(x)), buffers


def image_convnet(p: Table, buffers: Table, x: Any, training: bool) -> tuple[Any, Table]:
    """Two convolutions over images, each with batch norm, and a linear layer."""
    x, fresh = x.reshape(-1, 28, 28, 1), dict(buffers)
    for layer in (0, 3):
        x = convolution(p[f"convolutions.{layer}.weight"], x)
        x = jax.nn.relu(batch_norm(p, fresh, f"convolutions.{layer + 1}", x, training))
    return linear(p, "head", flattened(x)), fresh


def batch_norm(p: Table, buffers: Table, name: str, x: Any, training: bool) -> Any:
    """Batch norm of `[B, …, C]` as torch has it; running statistics are written into `buffers`."""
    mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
    if training:
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        of_batch, around_it = x.mean(axes), x.var(axes)
        unbiased = around_it * count / (count - 1)
        buffers[f"{name}.running_mean"] = 0.9 * mean + 0.1 * of_batch
        buffers[f"{name}.running_var"] = 0.9 * variance + 0.1 * unbiased
        mean, variance = of_batch, around_it
    scale = p[f"{name}.weight"] * jax.lax.rsqrt(variance + EPS)
    return (x - mean) * scale + p[f"{name}.bias"]


def transformer(
    model: Any, p: Table, buffers: Table, tokens: Any, training: bool
) -> tuple[Any, Table]:
    """The Transformer of `steadydescent.engine.tasks.transformer`, whose sizes `model` has."""
    split = model.lengths[0]
    source, target = tokens[:, :split], tokens[:, split:]
    memory, x = embedded(model, p, "source", source), embedded(model, p, "target", target)
    visible = (source != model.pad)[:, None, None, :]
    past = jnp.tril(jnp.ones((target.shape[-1],) * 2, bool))[None, None]
    attend = partial(attention, p, model.encoder[0].attention.heads)
    norm, forward = partial(layer_norm, p), partial(feed_forward, p)
    for layer in range(len(model.encoder)):
        at = f"encoder.{layer}."
        memory = norm(f"{at}norm1", memory + attend(f"{at}attention", memory, memory, visible))
        memory = norm(f"{at}norm2", memory + forward(f"{at}feed_forward", memory))
    for layer in range(len(model.decoder)):
        at = f"decoder.{layer}."
        x = norm(f"{at}norm1", x + attend(f"{at}attention", x, x, past))
        x = norm(f"{at}norm2", x + attend(f"{at}cross_attention", x, memory, visible))
        x = norm(f"{at}norm3", x + forward(f"{at}feed_forward", x))
    return linear(p, "output", x), buffers


def embedded(model: Any, p: Table, side: str, tokens: Any) -> Any:
    """Embeddings times √d with positions added."""
    at = positions(tokens.shape[-1], model.d, torch.zeros(())).numpy()
    return p[f"{side}_embedding.weight"][tokens] * model.d**0.5 + at


def feed_forward(p: Table, name: str, x: Any) -> Any:
    """Two layers with ReLU between."""
    return linear(p, f"{name}.2", jax.nn.relu(linear(p, f"{name}.0", x)))


def layer_norm(p: Table, name: str, x: Any) -> Any:
    """Layer norm over the last axis."""
    x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + EPS)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(p: Table, heads: int, name: str, x: Any, context: Any, visible: Any) -> Any:
    """Scaled dot products of heads `[B, T, H, d/H]`, by JAX's own function."""
    split = lambda z: z.reshape(*z.shape[:-1], heads, -1)
    query = split(linear(p, f"{name}.query", x))
    key, value = (split(linear(p, f"{name}.{part}", context)) for part in ("key", "value"))
    mixed = jax.nn.dot_product_attention(query, key, value, mask=visible)
    return linear(p, f"{name}.out", mixed.reshape(x.shape))
