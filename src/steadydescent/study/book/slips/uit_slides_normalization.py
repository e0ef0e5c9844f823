"""Slips of uit-slides on normalisation and dataset shift."""

import torch
from pandas import DataFrame
from torch import Tensor

from steadydescent.normalization import BatchNorm, moments, standardise
from steadydescent.study.book.slips.slip import Slip


def _standardised_spread(sigma: float) -> float:
    """Standard deviation of an input of standard deviation σ after standardisation."""
    x = _double([[-sigma], [sigma]])
    return standardise(x, *moments(x)).std(correction=0).item()


def _spreads() -> DataFrame:
    sigmas = [0.1, 1, 10]
    return DataFrame(
        {
            "σ of the input": sigmas,
            "σ after X/σ² (printed)": [sigma / sigma**2 for sigma in sigmas],
            "σ after X/σ": [_standardised_spread(sigma) for sigma in sigmas],
        }
    )


def _learned() -> float:
    return sum(
        parameter.numel() for parameter in BatchNorm(1).parameters() if parameter.requires_grad
    )


def _normalised() -> DataFrame:
    before = _double([[2.0], [3.0], [7.0]])
    after = standardise(before, *moments(before))
    rows = [
        (
            name,
            *z.flatten().tolist(),
            abs(z.mean().round(decimals=9).item()),
            z.var(correction=0).item(),
        )
        for name, z in (("z", before), ("z_norm", after))
    ]
    return DataFrame(rows, columns=["values of", "first", "second", "third", "mean", "variance"])


def _shift_let_through() -> float:
    """How far a trained batch norm's output moves when all its inputs move by 3 standard
    deviations.
    """
    layer = BatchNorm(1).eval()
    inputs = torch.tensor([[-1.0], [1.0]])
    return (layer(inputs + 3) - layer(inputs)).mean().item()


def _gradients() -> tuple[float, float]:
    """dβ and dγ of batch norm for z = 2, 3, 7, where the loss's gradient in ẑ is 1, 2, 3."""
    layer = BatchNorm(1, eps=1e-12).double()
    (layer(_double([[2.0], [3.0], [7.0]])) * _double([[1.0], [2.0], [3.0]])).sum().backward()
    shift, scale = (parameter.grad for parameter in (layer.bias, layer.weight))
    assert shift is not None
    assert scale is not None
    return shift.item(), scale.item()


def _double(value: float | list) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


UIT_SLIDES_NORMALIZATION = [
    Slip(
        number=2,
        source="uit-slides",
        title="Inputs divided by their variance",
        quote="X = X / σ²",
        printed="Centred inputs are divided by σ².",
        rule=(
            "Divide by the standard deviation σ. An input with σ = 10 then has a standard "
            "deviation of {}."
        ),
        right=lambda: _standardised_spread(10.0),
        why=(
            "Division by σ² turns σ into 1/σ: what was wide becomes narrow, what was narrow "
            "wide, and the features are as far apart in scale as before. It is right only where "
            "nothing needed to be done, at σ = 1."
        ),
        shown=_spreads,
    ),
    Slip(
        number=8,
        source="uit-slides",
        title="What batch norm does to z",
        quote="Chuẩn hóa z để tránh trường hợp giá trị của Z rơi vào phân phối chuẩn tắc.",
        printed=(
            "z is normalised so that it does not follow the standard normal; γ and β are "
            "hyper-parameters; it is done for each epoch."
        ),
        rule=(
            "Normalising gives z mean 0 and variance 1; γ and β, with which a layer can leave "
            "them again, are parameters learned by gradient descent, {} for each unit; the "
            "statistics are those of each mini-batch."
        ),
        right=_learned,
        why=(
            "Nobody should search for γ and β; the same slides list them among the parameters "
            "and update them. Whether statistics come from a mini-batch or from the running "
            "average is the difference between training and inference."
        ),
        shown=_normalised,
    ),
    Slip(
        number=20,
        source="uit-slides",
        title="Two things called covariate shift",
        quote=(
            "Batch norm sẽ giảm thiểu sự thay đổi của các giá trị ở các unit trong lớp hiện tại "
            "… Giải quyết Covariate shift."
        ),
        printed=(
            "Batch norm lessens how much the values of a layer's units change; so it solves "
            "covariate shift."
        ),
        rule=(
            "What changes there are a layer's inputs during training, called *internal* "
            "covariate shift (Ioffe and Szegedy, 2015). The covariate shift that the slides "
            "define is between training and test data. In inference the statistics stand still: "
            "inputs that move by 3 come out moved by {}."
        ),
        right=_shift_let_through,
        why=(
            "Batch norm as trained is no protection against test data from elsewhere. Its "
            "statistics would have to be estimated anew on them."
        ),
    ),
    Slip(
        number=30,
        source="uit-slides",
        title="Forward, backward and update inside a layer",
        quote="For each l in Layer … dW^[l], (db^[l]), β^[l], γ^[l] … W^[l] = W^[l] − α·dW^[l]",
        printed=("Layer by layer: forward, backward, update. The backward pass gives β and γ."),
        rule=(
            "All layers forward, all backward, then all are updated. The backward pass gives dβ "
            "= Σ g and dγ = Σ g·z_norm, g being the gradient in ẑ: {} and {} for z = 2, 3, 7 "
            "and g = 1, 2, 3. The updates below use them."
        ),
        right=_gradients,
        why=(
            "A layer's gradient comes from the loss, and the loss from all layers above it. "
            "Nested as printed there is nothing yet to go back from, and an update before the "
            "lower layers' backward pass gives them the gradient of weights that are gone."
        ),
    ),
    Slip(
        number=32,
        source="uit-slides",
        title="Concept shift needs no time to pass",
        quote=(
            "Hiện tượng này xảy ra khi dữ liệu huấn luyện và dữ liệu kiểm tra được thu thập khác "
            "thời điểm."
        ),
        printed=(
            "Concept shift happens when training and test data are collected at different times."
        ),
        rule=(
            "It is a difference in p(y|x), as the sentence before says, wherever that comes from: "
            "another place, another annotator, another definition of a label. And time alone may "
            "move p(x) or p(y) and leave p(y|x) as it was."
        ),
        right=None,
        why=(
            "Who looks only at dates takes every drift for concept shift, and overlooks it in "
            "data that were collected on one day."
        ),
    ),
]
