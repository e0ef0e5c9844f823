"""The slides' L2-regularised cost: averages over an epoch, slip 7, and torch's weight decay."""

import pytest
import torch
from torch import nn

from steadydescent.minibatches import EpochBatches, regularised_cost


def slides_network():
    generator = torch.Generator().manual_seed(7)
    weights = [
        torch.randn(3, 5, generator=generator).double(),
        torch.randn(2, 3, generator=generator).double(),
    ]
    return weights, torch.rand(24, generator=generator, dtype=torch.float64)


@pytest.mark.slip(7)
def test_l2_term_belongs_to_the_data_set_not_to_the_minibatch():
    """uit-slides print λ/2n.

    With λ/2m an epoch's mean cost is the full cost for all n; λ/2n makes it m/n-fold.
    """
    (weights, losses), strength, examples = slides_network(), 3.0, 24
    squares = sum(weight.square().sum() for weight in weights)
    full = regularised_cost(losses, weights, strength, examples)
    assert full.item() == pytest.approx(
        (losses.sum() / 24 + strength / 48 * squares).item(), rel=1e-14
    )
    for n in (1, 2, 4, 8, 24):
        parts = losses.split(n)
        mean = torch.stack(
            [regularised_cost(part, weights, strength, examples) for part in parts]
        ).mean()
        printed = torch.stack(
            [regularised_cost(part, weights, strength, examples=n) for part in parts]
        ).mean()
        assert mean.item() == pytest.approx(full.item(), rel=1e-12)
        assert ((printed - losses.mean()) / (full - losses.mean())).item() == pytest.approx(
            examples / n, rel=1e-12
        )


@pytest.mark.slip(7)
def test_losses_are_summed_over_examples_and_weights_over_layers():
    """uit-slides sum the losses to L, the number of layers.

    With 2 layers that sees 2 of 24 examples.
    """
    (weights, losses), layers = slides_network(), 2
    assert len(weights) == layers
    right = regularised_cost(losses, weights, 0.0, 24)
    assert right.item() == pytest.approx(losses.mean().item(), rel=1e-14)
    assert losses[:layers].sum() / 24 < 0.2 * right


def test_slides_loop_on_the_regularised_cost_is_torchs_weight_decay():
    """With λ/2m every update is that of SGD with weight_decay λ/m on the matrices."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(22, 5, generator=generator).double()
    y = torch.randint(3, (22,), generator=generator)
    slides, plain = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    plain.load_state_dict(slides.state_dict())
    optimizer = torch.optim.SGD(
        [{"params": [plain.weight], "weight_decay": 0.7 / 22}, {"params": [plain.bias]}], lr=0.3
    )
    for batch in EpochBatches(22, 4, seed=1):
        losses = nn.functional.cross_entropy(slides(x[batch]), y[batch], reduction="none")
        gradients = torch.autograd.grad(
            regularised_cost(losses, [slides.weight], 0.7, 22), [*slides.parameters()]
        )
        with torch.no_grad():
            for parameter, gradient in zip(slides.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x[batch]), y[batch]).backward()
        optimizer.step()
    torch.testing.assert_close(slides.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-14)


def test_cost_that_makes_no_sense_is_refused():
    weights, losses = slides_network()
    with pytest.raises(ValueError, match=r"strength must be at least 0 and finite, got -1.0"):
        regularised_cost(losses, weights, -1.0, 24)
    with pytest.raises(ValueError, match="at least 24, got 8"):
        regularised_cost(losses, weights, 1.0, 8)
