"""The Transformer of Vaswani et al. (2017): encoder and decoder, post-norm, as plain matrix
products.

Axes: B batch, S source and T target positions, H heads, V target vocabulary, d width. The choices
that others make otherwise:

- Post-norm, x ← LayerNorm(x + sublayer(x)), as in vaswani2017attention, and no norm after the last
  layer (`torch.nn.Transformer` adds one). Pre-norm needs no warm-up (xiong2020layer); here warm-up
  is to be seen at work.
- No dropout: a network's path follows from its weights and its batches alone.
- Attention as softmax and matrix products, because the fused kernel has no batching rule on a CPU;
  projections have biases, as torch's have (the paper's formulas have none).
- Sines and cosines of the positions alternate, as in the paper (tensor2tensor puts all sines
  first).
- Input embeddings and output layer are separate matrices. The paper shares one among source, target
  and output, for a vocabulary that both languages have in common; two alphabets have none.
- Weights start as in tensor2tensor: Glorot-uniform matrices, each by its own shape
  (`torch.nn.Transformer` draws query, key and value as one matrix, 1/√2 as wide), zero biases,
  embeddings N(0, 1/d), so that √d times them have variance 1.

No module here has buffers, and no branch depends on data: `vmap`, `grad` and `torch.compile` take
it as it is.
"""

import math

import torch
from torch import Tensor, nn


def positions(length: int, d: int, like: Tensor) -> Tensor:
    """Sinusoidal positions `[length, d]` with the dtype and device of `like` (vaswani2017attention,
    section 3.5).

    PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i + 1) = cos(p / 10000^(2i/d)), p from 0; d is even.

    >>> positions(2, 4, torch.zeros(()))
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    # the angles need more digits than bfloat16 has
    dtype = torch.promote_types(like.dtype, torch.float32)
    rates = 10_000 ** (-torch.arange(0, d, 2, dtype=dtype, device=like.device) / d)
    angles = torch.arange(length, dtype=dtype, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).to(like.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """softmax(Q·Kᵀ/√d)·V over the visible keys (vaswani2017attention, equation 1).

    Shapes: query `[…, T, d]`, key and value `[…, S, d]`, visible bool, broadcast to `[…, T, S]`;
    returns `[…, T, d]`. A query that sees no key gets the mean of all values: a hidden score is the
    least finite number, not −∞, whose softmax would be NaN.

    >>> key = torch.tensor([[9.0], [9.0], [1.0]])
    >>> value, visible = torch.tensor([[3.0], [5.0], [70.0]]), torch.tensor([True, True, False])
    >>> attend(torch.ones(1, 1), key, value, visible)
    tensor([[4.]])
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    hidden = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~visible, hidden), dim=-1) @ value


class Attention(nn.Module):
    """Multi-head attention of x `[B, T, d]` to context `[B, S, d]`; returns `[B, T, d]`.

    `visible` is bool, broadcast to `[B, H, T, S]`. Each head attends with d/H of the projections'
    columns.
    """

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        # [B, T, d] → [B, H, T, d/H]
        split = lambda z: z.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        heads = attend(
            split(self.query(x)), split(self.key(context)), split(self.value(context)), visible
        )
        return self.out(heads.transpose(-3, -2).flatten(-2))


def feed_forward(d: int, hidden: int) -> nn.Sequential:
    """Two layers with ReLU between, the same at every position."""
    return nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised; x `[B, S, d]` in and
    out.

    The numbers of `torch.nn.TransformerEncoderLayer` with `norm_first=False, dropout=0`.
    """

    def __init__(self, d: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(d, heads), feed_forward(d, feedforward)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, x, visible))
        return self.norm2(x + self.feed_forward(x))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output `memory` `[B, S, d]`, feed-forward; x `[B,
    T, d]` in and out.

    The numbers of `torch.nn.TransformerDecoderLayer` with `norm_first=False, dropout=0`.
    """

    def __init__(self, d: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention, self.cross_attention = Attention(d, heads), Attention(d, heads)
        self.feed_forward = feed_forward(d, feedforward)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor, memory_visible: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, x, visible))
        x = self.norm2(x + self.cross_attention(x, memory, memory_visible))
        return self.norm3(x + self.feed_forward(x))


class Transformer(nn.Module):
    """Tokens `[B, S + T]` → logits `[B, T, V]`, V the target vocabulary's size; 260 000 parameters
    for the names.

    A row of tokens, int64, is the source and then what the decoder is fed, each padded at its end
    with id `pad`. Logits at position t follow from the source and the fed tokens 0 … t. Padding of
    the source is hidden from every attention; padding that is fed comes after all that count, where
    the causal mask hides it already.

    >>> size = {"d": 8, "heads": 2, "layers": 1, "feedforward": 16}
    >>> model = Transformer(11, 7, **size, source_length=5, target_length=3)
    >>> model(torch.ones(2, 5 + 3, dtype=torch.int64)).shape
    torch.Size([2, 3, 7])

    Raises:
        ValueError: if d is odd or no multiple of the heads, a size is below 1, `pad` is no source
            token, or tokens do not have S + T columns.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        d: int = 64,
        heads: int = 4,
        layers: int = 2,
        feedforward: int = 256,
        source_length: int = 21,
        target_length: int = 21,
        pad: int = 0,
    ) -> None:
        sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
        sizes |= {"d": d, "heads": heads, "layers": layers, "feedforward": feedforward}
        sizes |= {"source_length": source_length, "target_length": target_length}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if d % 2 or d % heads:
            raise ValueError(
                f"d must be even and a multiple of heads, got d = {d} and heads = {heads}"
            )
        if not 0 <= pad < source_vocabulary:
            raise ValueError(f"pad must be one of the {source_vocabulary} source tokens, got {pad}")
        super().__init__()
        self.d, self.pad, self.lengths = d, pad, (source_length, target_length)
        self.source_embedding = nn.Embedding(source_vocabulary, d)
        self.target_embedding = nn.Embedding(target_vocabulary, d)
        self.encoder = nn.ModuleList(EncoderLayer(d, heads, feedforward) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(d, heads, feedforward) for _ in range(layers))
        self.output = nn.Linear(d, target_vocabulary)
        self.apply(_initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-1] != sum(self.lengths):
            source, target = self.lengths
            raise ValueError(
                f"tokens must have {source} + {target} columns, got shape {tuple(tokens.shape)}"
            )
        source, target = tokens.split(self.lengths, dim=-1)
        source_visible = (source != self.pad)[..., None, None, :]  # [B, 1, 1, S]
        past = torch.ones(
            target.shape[-1], target.shape[-1], dtype=torch.bool, device=tokens.device
        ).tril()  # [T, T]
        memory, x = (
            self._embed(self.source_embedding, source),
            self._embed(self.target_embedding, target),
        )
        for encode in self.encoder:
            memory = encode(memory, source_visible)
        for decode in self.decoder:
            x = decode(x, memory, past, source_visible)
        return self.output(x)

    def _embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        x = embedding(tokens) * math.sqrt(self.d)
        return x + positions(tokens.shape[-1], self.d, like=x)


def _initialise(module: nn.Module) -> None:
    """Glorot-uniform matrices, zero biases, embeddings N(0, 1/d); layer norms stay at 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
