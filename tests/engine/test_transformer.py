"""The Transformer: attention and layers against torch's own, the laws of its masks, and alone as in
a stack.
"""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from steadydescent.engine.data import name_pairs, spelling
from steadydescent.engine.tasks.transformer import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    Transformer,
    attend,
    positions,
)

B, S, T, D, H, F = 3, 7, 5, 12, 2, 17
SOURCE, TARGET = 19, 11  # vocabularies


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh(*arguments, seed=0, **sizes):
    """A Transformer as initialised with this seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Transformer(*arguments, **sizes)


def small(seed=0, **changes):
    """A small one in double precision, biases and norms moved too, so that none can be left out
    unseen.
    """
    sizes = {
        "d": D,
        "heads": H,
        "layers": 2,
        "feedforward": F,
        "source_length": S,
        "target_length": T,
    } | changes
    model = fresh(SOURCE, TARGET, seed=seed, **sizes).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=1_000 * seed + number))
    return model


def tokens(seed=0, source_length=S, target_length=T, batch=B):
    """Rows of different lengths: sources padded at the end, then fed tokens, padded too."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for length, size in ((source_length, SOURCE), (target_length, TARGET)):
        ids = torch.randint(3, size, (batch, length), generator=generator)
        ends = 1 + torch.randint(length, (batch, 1), generator=generator)
        parts.append(torch.where(torch.arange(length) < ends, ids, 0))
    return torch.cat(parts, dim=1)


def assert_equal_to_rounding(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


# ---- against torch's own -------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
def test_attention_equals_torchs_forward_and_backward(mask):
    visible = {
        "none": torch.ones(1, dtype=torch.bool),
        "causal": torch.ones(T, S, dtype=torch.bool).tril(),
        "padding": torch.arange(S) < torch.tensor([7, 1, 4])[:, None, None, None],
    }[mask]
    inputs = [
        normal(B, H, length, 6, seed=i).requires_grad_() for i, length in enumerate((T, S, S))
    ]
    theirs_mask = visible.expand(B, H, T, S)
    outputs = attend(*inputs, visible), scaled_dot_product_attention(*inputs, attn_mask=theirs_mask)
    assert_equal_to_rounding(*outputs)
    weights = normal(B, H, T, 6, seed=9)
    for ours, theirs in zip(
        *(torch.autograd.grad((out * weights).sum(), inputs) for out in outputs), strict=True
    ):
        assert_equal_to_rounding(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_query_that_sees_no_key_gets_the_mean_value_and_finite_gradients(dtype):
    query, key, value = (normal(n, 2, seed=n).to(dtype).requires_grad_() for n in (3, 5, 5))
    out = attend(query, key * 50, value, torch.zeros(3, 5, dtype=torch.bool))
    torch.testing.assert_close(out, value.mean(0).expand(3, 2), rtol=0.02, atol=0.01)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), (query, key, value)))


def drawn(layer, seed=0):
    """A layer of ours with every parameter drawn, biases and norms too."""
    with torch.no_grad():
        for number, parameter in enumerate(layer.double().parameters()):
            parameter.copy_(normal(*parameter.shape, seed=1_000 * seed + number))
    return layer


def twin(ours):
    """torch's layer with the numbers of ours."""
    peer = (
        nn.TransformerEncoderLayer if isinstance(ours, EncoderLayer) else nn.TransformerDecoderLayer
    )
    theirs = peer(
        D,
        H,
        F,
        dropout=0.0,
        activation="relu",
        batch_first=True,
        norm_first=False,
        dtype=torch.float64,
    )
    places = {"attention": "self_attn", "cross_attention": "multihead_attn"}
    with torch.no_grad():
        for name, module in ours.named_children():
            if isinstance(module, Attention):
                other, three = (
                    getattr(theirs, places[name]),
                    (module.query, module.key, module.value),
                )
                other.in_proj_weight.copy_(torch.cat([p.weight for p in three]))
                other.in_proj_bias.copy_(torch.cat([p.bias for p in three]))
                other.out_proj.load_state_dict(module.out.state_dict())
            elif isinstance(module, nn.LayerNorm):
                getattr(theirs, name).load_state_dict(module.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward[2].state_dict())
    return theirs


def theirs_in_our_order(ours, theirs, gradients):
    """torch's gradients under our parameters' names: its query, key and value are one matrix."""
    theirs = dict(zip([name for name, _ in theirs.named_parameters()], gradients, strict=True))
    places = {"attention": "self_attn", "cross_attention": "multihead_attn"}
    layers = {"feed_forward.0": "linear1", "feed_forward.2": "linear2"}
    for name, _ in ours.named_parameters():
        module, _, kind = name.rpartition(".")
        block, _, projection = module.rpartition(".")
        if block in places and projection != "out":
            yield theirs[f"{places[block]}.in_proj_{kind}"].chunk(3)[
                ["query", "key", "value"].index(projection)
            ]
        elif block in places:
            yield theirs[f"{places[block]}.out_proj.{kind}"]
        else:
            yield theirs[f"{layers.get(module, module)}.{kind}"]


def assert_same_layers(ours, theirs, outputs, inputs):
    assert_equal_to_rounding(*outputs)
    weights, k = normal(*outputs[0].shape, seed=99), len(inputs)
    gradients = [
        torch.autograd.grad((output * weights).sum(), [*inputs, *layer.parameters()])
        for layer, output in zip((ours, theirs), outputs, strict=True)
    ]
    expected = [*gradients[1][:k], *theirs_in_our_order(ours, theirs, gradients[1][k:])]
    for mine, other in zip(gradients[0], expected, strict=True):
        assert_equal_to_rounding(mine, other)


def test_encoder_layer_equals_torchs_forward_and_backward():
    ours = drawn(EncoderLayer(D, H, F))
    theirs = twin(ours)
    x, padded = (
        normal(B, S, D).requires_grad_(),
        torch.arange(S) >= torch.tensor([7, 2, 4])[:, None],
    )
    outputs = ours(x, ~padded[:, None, None]), theirs(x, src_key_padding_mask=padded)
    assert_same_layers(ours, theirs, outputs, [x])


def test_decoder_layer_equals_torchs_forward_and_backward():
    ours = drawn(DecoderLayer(D, H, F))
    theirs = twin(ours)
    x, memory = normal(B, T, D, seed=1).requires_grad_(), normal(B, S, D, seed=2).requires_grad_()
    padded, past = (
        torch.arange(S) >= torch.tensor([7, 2, 4])[:, None],
        torch.ones(T, T, dtype=torch.bool).tril(),
    )
    ours_out = ours(x, memory, past, ~padded[:, None, None])
    theirs_out = theirs(x, memory, tgt_mask=~past, memory_key_padding_mask=padded)
    assert_same_layers(ours, theirs, (ours_out, theirs_out), [x, memory])


def test_positions_are_the_papers_sines_and_cosines():
    found = positions(41, 14, torch.zeros((), dtype=torch.float64))
    for p, i in itertools.product(range(41), range(7)):
        angle = p / 10_000 ** (2 * i / 14)
        assert found[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
        assert found[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)
    half = positions(41, 14, torch.zeros((), dtype=torch.float16))
    torch.testing.assert_close(half, found.half(), rtol=0, atol=1e-3)


def test_the_model_is_its_layers_one_after_the_other():
    """Embeddings times √d plus positions, encoder, decoder, output: put together once more from
    torch's layers.
    """
    model, x = small(), tokens()
    source, fed = x.split([S, T], dim=1)
    place = lambda length: positions(length, D, model.output.weight)
    memory = model.source_embedding.weight[source] * D**0.5 + place(S)
    y = model.target_embedding.weight[fed] * D**0.5 + place(T)
    padded, past = source == 0, torch.ones(T, T, dtype=torch.bool).tril()
    for layer in model.encoder:
        memory = twin(layer)(memory, src_key_padding_mask=padded)
    for layer in model.decoder:
        y = twin(layer)(y, memory, tgt_mask=~past, memory_key_padding_mask=padded)
    assert_equal_to_rounding(model(x), y @ model.output.weight.T + model.output.bias)


# ---- laws ----------------------------------------------------------------------------------------


def test_a_later_token_never_changes_earlier_logits():
    model, x = small(), tokens(seed=1)
    x[:, S:] = torch.randint(3, TARGET, (B, T), generator=torch.Generator().manual_seed(5))
    before = model(x)
    for place in range(T):
        changed = x.clone()
        changed[:, S + place] = (x[:, S + place] + 1) % TARGET
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert (
            (after[:, place:] - before[:, place:]).abs().amax(-1) > 1e-6
        ).all()  # and every later one hears of it


def test_every_source_token_is_heard_and_padding_is_not():
    """A pad's embedding may be anything at all; each real token matters to every logit."""
    model, x = small(), tokens(seed=2)
    before = model(x)
    with torch.no_grad():
        model.source_embedding.weight[0] += 100 * normal(D)
    assert torch.equal(model(x), before)
    for place in range(S):
        changed = x.clone()
        changed[:, place] = (x[:, place] - 3 + 1) % (SOURCE - 3) + 3
        real = x[:, place] != 0
        after = model(torch.where(real[:, None], changed, x))
        assert ((after - before)[real].abs().amax(-1) > 1e-6).all()


def test_more_padding_changes_nothing():
    x, wider = tokens(seed=3), small(source_length=S + 4, target_length=T + 2)
    source, fed = x.split([S, T], dim=1)
    pads = lambda length: torch.zeros(B, length, dtype=torch.int64)
    padded = torch.cat([source, pads(4), fed, pads(2)], dim=1)
    assert_equal_to_rounding(wider(padded)[:, :T], small()(x))


def test_what_is_fed_as_padding_does_not_reach_the_loss():
    model, x = small(), tokens(seed=4)
    real = x[:, S:] != 0
    changed = x.clone()
    changed[:, S:] = torch.where(real, x[:, S:], 7)
    assert torch.equal(model(changed)[real], model(x)[real])


def test_a_source_of_padding_alone_gives_finite_logits_and_gradients():
    model, x = small(), tokens()
    x[0, :S] = 0
    out = model(x)
    out.pow(2).sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_have_the_stated_ranges():
    model = fresh(218, 99)
    for name, p in model.named_parameters():
        if "embedding" in name:
            assert p.std().item() == pytest.approx(64**-0.5, rel=0.03)
        elif p.dim() == 2:
            bound = math.sqrt(6 / sum(p.shape))
            assert 0.98 * bound < p.abs().max().item() <= bound
            assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        else:
            assert (p == (1 if "norm" in name and name.endswith("weight") else 0)).all()


def test_the_model_of_the_names_has_260_000_parameters_and_no_buffers():
    model = fresh(218, 99)
    assert sum(p.numel() for p in model.parameters()) == 260_195
    assert not list(model.buffers())
    assert not [module for module in model.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"d": 15, "heads": 3}, "d must be even and a multiple of heads, got d = 15 and heads = 3"),
        ({"d": 14, "heads": 4}, "got d = 14 and heads = 4"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"target_length": -2}, "target_length must be at least 1, got -2"),
        ({"pad": 19}, "pad must be one of the 19 source tokens, got 19"),
    ],
)
def test_impossible_sizes_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Transformer(SOURCE, TARGET, **arguments)


def test_tokens_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"must have 7 \+ 5 columns, got shape \(3, 11\)"):
        small()(tokens()[:, :-1])


# ---- stacked, compiled, trained ------------------------------------------------------------------


def labels(seed, ignored=-100):
    """Targets [B, T]; some places, other ones in each row, are padding."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randint(TARGET, (B, T), generator=generator)
    return torch.where(torch.arange(T) < torch.tensor([T, 2, 4])[:, None], wanted, ignored)


def mean_loss(model):
    def loss(parameters, x, y):
        return cross_entropy(
            functional_call(model, parameters, (x,)).flatten(0, -2), y.flatten(), ignore_index=-100
        )

    return loss


def stack(count, **changes):
    models = [small(seed, **changes) for seed in range(count)]
    parameters, _ = stack_module_state(models)
    x = torch.stack([tokens(seed) for seed in range(count)])
    y = torch.stack([labels(seed) for seed in range(count)])
    return models, {name: p.detach() for name, p in parameters.items()}, x, y


def test_two_replicas_stacked_equal_each_alone_in_loss_and_gradients():
    """The loss of each alone is a plain loop over the places that are no padding."""
    models, parameters, x, y = stack(2)
    gradients, losses = vmap(grad_and_value(mean_loss(models[0])))(parameters, x, y)
    for r, model in enumerate(models):
        log_probabilities = model(x[r]).log_softmax(-1)
        places = [(b, t) for b in range(B) for t in range(T) if y[r, b, t] >= 0]
        assert len(places) == T + 2 + 4
        alone = sum(-log_probabilities[b, t, y[r, b, t]] for b, t in places) / len(places)
        assert_equal_to_rounding(losses[r], alone.detach())
        expected = torch.autograd.grad(alone, list(model.parameters()))
        for (name, _), other in zip(model.named_parameters(), expected, strict=True):
            assert_equal_to_rounding(gradients[name][r], other)


def test_the_model_can_be_traced_as_one_graph():
    """What `torch.compile(fullgraph=True)` asks for; this backend needs no C++ compiler."""
    models, parameters, x, y = stack(2, layers=1)
    step = vmap(grad(mean_loss(models[0])))
    traced = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=False)(
        parameters, x, y
    )
    for name, gradient in step(parameters, x, y).items():
        assert_equal_to_rounding(traced[name], gradient)


@pytest.mark.slow
def test_compiled_gradients_equal_eager_ones():
    from steadydescent.engine.stepping import can_compile

    if reason := can_compile("cpu"):
        pytest.skip(f"nothing can be compiled here: {reason}")
    models, parameters, x, y = stack(2, layers=1)
    step = vmap(grad(mean_loss(models[0])))
    compiled = torch.compile(step, fullgraph=True, dynamic=False)(parameters, x, y)
    for name, gradient in step(parameters, x, y).items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-7, atol=1e-9)


def test_a_small_model_learns_sixty_four_names_by_heart():
    """From ln 99 = 4.6 nats a letter to next to nothing; then it says them, each letter from its
    own letters before.
    """
    rows = range(0, 13_000, 13_000 // 64)[:64]
    pairs = [name_pairs.pairs()[row] for row in rows]
    x, y = spelling.encode(*zip(*pairs, strict=True))
    model = fresh(*spelling.vocabulary_sizes(), layers=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 4.5
    assert losses[-1] < 0.05
    said = spelling.translate(model, [english for english, _ in pairs])
    assert sum(a == b for a, (_, b) in zip(said, pairs, strict=True)) > 60
