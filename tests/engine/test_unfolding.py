"""Convolutions as products are torch's convolutions, with their gradients."""

import pytest
import torch
from torch.func import grad, vmap
from torch.nn.functional import conv1d, conv2d

from steadydescent.engine.unfolding import ConvolutionsAsProducts, convolution

CASES = [
    ((3, 2, 9), (4, 2, 3), [2], [1]),
    ((3, 1, 40), (5, 1, 5), [2], [1]),
    ((2, 3, 7), (4, 3, 2), [1], [0]),
    ((2, 3, 8), (1, 3, 3), [3], [2]),
    ((2, 1, 28, 28), (3, 1, 3, 3), [2, 2], [1, 1]),
    ((2, 3, 9, 6), (4, 3, 3, 2), [2, 1], [1, 0]),
]


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("x", "weight", "stride", "padding"), CASES)
@pytest.mark.parametrize("biased", [True, False])
def test_outputs_and_gradients_are_those_of_torch(x, weight, stride, padding, biased):
    inputs, kernel = draw(*x), draw(*weight)
    bias = draw(weight[0]) if biased else None
    theirs = {1: conv1d, 2: conv2d}[len(stride)]

    def loss(function):
        def of(inputs, kernel):
            out = function(inputs, kernel, bias, stride, padding)
            return (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sin().sum()

        return of

    torch.testing.assert_close(
        convolution(inputs, kernel, bias, stride, padding),
        theirs(inputs, kernel, bias, stride, padding),
    )
    for place in (0, 1):
        ours, known = (grad(loss(f), place)(inputs, kernel) for f in (convolution, theirs))
        torch.testing.assert_close(ours, known)


@pytest.mark.parametrize("layer", [torch.nn.Conv1d, torch.nn.Conv2d])
def test_layers_are_products_while_the_mode_is_entered_also_of_many_networks(layer, monkeypatch):
    made, dimensions = [], {torch.nn.Conv1d: 1, torch.nn.Conv2d: 2}[layer]
    module = layer(2, 3, 3, stride=2, padding=1)
    x = torch.randn(4, 2, *[9] * dimensions)
    weights = torch.randn(5, *module.weight.shape)

    def noted(*given):
        made.append(given)
        return convolution(*given)

    monkeypatch.setattr("steadydescent.engine.unfolding.convolution", noted)
    outputs = lambda weight: torch.func.functional_call(module, {"weight": weight}, x)
    plain = torch.stack([outputs(weight) for weight in weights])
    assert not made
    with ConvolutionsAsProducts():
        products = vmap(outputs)(weights)
    assert made
    torch.testing.assert_close(products, plain)


@pytest.mark.parametrize("more", [{"dilation": 2}, {"groups": 2}, {"padding": "same"}])
def test_what_products_are_not_made_of_stays_torchs(more, monkeypatch):
    monkeypatch.setattr("steadydescent.engine.unfolding.convolution", None)
    module, x = torch.nn.Conv1d(2, 2, 3, **more), torch.randn(1, 2, 8)
    plain = module(x)
    with ConvolutionsAsProducts():
        assert torch.equal(module(x), plain)
        single = torch.nn.Conv1d(2, 2, 3)
        assert single(x[0]).shape == (2, 6)
