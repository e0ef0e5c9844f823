"""Slips of uit-slides on mini-batches, normalisation and averages."""

import torch
from pandas import DataFrame
from torch import Tensor

from steadydescent.averages import debias, ewa, window
from steadydescent.minibatches import regularised_cost, updates_per_epoch
from steadydescent.normalization import BatchNorm, moments, standardise
from steadydescent.study.book.slips.slip import Slip

EXAMPLES, BATCH = 5_000_000, 1000  # 5000 mini-batches of 1000


def _averages(beta: float = 0.98) -> list[Tensor]:
    """V₁ and V₂ of 40 °F and 49 °F, from V₀ = 0."""
    first = ewa(_double(0.0), _double(40.0), beta)
    return [first, ewa(first, _double(49.0), beta)]


def _two_days() -> DataFrame:
    averages = _averages()
    return DataFrame(
        {
            "t": [1, 2],
            "θ (°F)": [40, 49],
            "V": [average.item() for average in averages],
            "V/(1 − β^t)": [
                debias(average, 0.98, t).item() for t, average in enumerate(averages, 1)
            ],
        }
    )


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


def _updates() -> DataFrame:
    sizes = [1, BATCH, EXAMPLES]
    right = [updates_per_epoch(EXAMPLES, size, drop_last=False) for size in sizes]
    return DataFrame(
        {"n": sizes, "updates in an epoch, printed": [1, 1, 1], "updates in an epoch": right}
    )


def _l2_term() -> float:
    """The L2 term alone: losses are 0, λ = 10, one 2 × 2 matrix of ones."""
    return regularised_cost(
        torch.zeros(BATCH), [torch.ones(2, 2)], strength=10.0, examples=EXAMPLES
    ).item()


def _l2_terms() -> DataFrame:
    return DataFrame(
        {"divisor": ["2n (printed)", "2m"], "L2 term": [10 * 4 / (2 * BATCH), _l2_term()]}
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


def _windows() -> DataFrame:
    betas = [0.5, 0.9, 0.98, 0.999]
    return DataFrame(
        {
            "β": betas,
            "1/(1 − β), values": [window(beta) for beta in betas],
            "weight that they hold": [1 - beta ** window(beta) for beta in betas],
        }
    )


def _variance_factor(step: int) -> float:
    """By what the bias correction multiplies the variance at β = 0.98."""
    return debias(_double(1.0), 0.98, step).item() ** 2


def _variances() -> DataFrame:
    steps = [1, 10, 50, 229]
    return DataFrame(
        {"t": steps, "variance of V/(1 − β^t), in that of V": [_variance_factor(t) for t in steps]}
    )


def _shift_let_through() -> float:
    """How far a trained batch norm's output moves when all its inputs move by 3 standard
    deviations.
    """
    layer = BatchNorm(1).eval()
    inputs = torch.tensor([[-1.0], [1.0]])
    return (layer(inputs + 3) - layer(inputs)).mean().item()


def _double(value: float | list) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


UIT_SLIDES = [
    Slip(
        number=1,
        source="uit-slides",
        title="The first average, ten times too large",
        quote="V₁ = 40 * 0.02 = 8",
        printed="The average of the first day is 8.",
        rule="40·0.02 = {}.",
        right=lambda: _averages()[0].item(),
        why=(
            "The next line of the slide says V₁ < V₂, which only the right value gives. It also "
            "shows how strong the pull of the zero start is: V₁ is a fiftieth of θ₁, not a fifth."
        ),
        shown=_two_days,
    ),
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
        number=3,
        source="uit-slides",
        title="An epoch is one mini-batch",
        quote='Một epoch được xem như 1 "pass" – tức là huấn luyện xong 1 mini-batch.',
        printed=(
            "An epoch is one finished mini-batch; with SGD, N examples make N epochs; the "
            "summary says it a third time."
        ),
        rule=(
            "An epoch is one pass over all m examples: of 5,000,000 examples in mini-batches of "
            "1,000, {} updates."
        ),
        right=lambda: updates_per_epoch(EXAMPLES, BATCH, drop_last=False),
        why=(
            "Ten epochs read this way are ten updates, and every decay that counts epochs is "
            "over before the data have been seen once. The slide on SGD has the right definition "
            "too, one line above the wrong one."
        ),
        shown=_updates,
    ),
    Slip(
        number=7,
        source="uit-slides",
        title="The cost of a mini-batch",
        quote="J = 1/1000 · Σ_{i=1…L} L(ŷ, y) + λ/(2·n) · Σ_{i=1…L} ‖W^[l]‖²_F",
        printed=(
            "The losses are summed over L examples, L being the number of layers; the L2 term is "
            "divided by the batch size."
        ),
        rule=(
            "The losses of all n examples are summed, and the L2 term of the data set is λ/2m: "
            "with λ = 10, one 2 × 2 matrix of ones and m = 5,000,000 it is {}."
        ),
        right=_l2_term,
        why=(
            "With λ/2n the same λ weighs m/n times as much, so that whoever tries another batch "
            "size changes the regularisation without knowing it. (Some lectures divide by n on "
            "purpose; then λ belongs to that n alone.)"
        ),
        shown=_l2_terms,
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
        number=9,
        source="uit-slides",
        title="A number of values, taken for an error",
        quote="giá trị V_t sẽ xấp xỉ với giá trị thực một lượng là 1/(1−β)",
        printed="V_t is near the true value, by the amount 1/(1 − β).",
        rule="1/(1 − β) says how many values the average covers: {} days at β = 0.98.",
        right=lambda: window(0.98),
        why=(
            "It has no unit of temperature. As an error it would make the smoothest average the "
            "worst one. The list below the sentence uses it rightly."
        ),
        shown=_windows,
    ),
    Slip(
        number=18,
        source="uit-slides",
        title="Bias correction against noise",
        quote="Bias correction: giảm độ nhiễu của mô hình.",
        printed=(
            "Bias correction reduces the noise of the model (said twice), and is there to check "
            "the trend of gradient descent."
        ),
        rule=(
            "It takes out the pull of the zero start, and multiplies the variance by (1 − "
            "β^t)^−2: by {} at t = 1 and {} at t = 10, for β = 0.98."
        ),
        right=lambda: (_variance_factor(1), _variance_factor(10)),
        why=(
            "It scales value and noise alike: relative to the value the noise stays as it was, "
            "in absolute terms it grows. What takes noise out is the averaging."
        ),
        shown=_variances,
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
]
