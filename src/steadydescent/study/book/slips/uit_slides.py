"""Slips of uit-slides on mini-batches and averages."""

import torch
from pandas import DataFrame
from torch import Tensor

from steadydescent.averages import debias, ewa, window
from steadydescent.engine.tasks import initial_model
from steadydescent.engine.tasks.noisy_quadratic import stationary_variance
from steadydescent.minibatches import (
    activation_bytes,
    recommended_batch_sizes,
    regularised_cost,
    updates_per_epoch,
)
from steadydescent.study.book.slips.slip import Remark, Slip

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


def _double(value: float | list) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _bytes_each() -> float:
    """Bytes of inputs and activations that an example of Fashion-MNIST's perceptron takes."""
    model = initial_model("fashion-mnist-mlp", seed=0)
    one, two = (activation_bytes(model, torch.zeros(n, 784)) for n in (1, 2))
    return float(two - one)


def _example_in_bytes() -> tuple[float, float, float]:
    """The slides' examples, what each takes, and all of them in gigabytes."""
    each = _bytes_each()
    return float(EXAMPLES), each, EXAMPLES * each / 1e9


def _left_of_noise() -> tuple[float, ...]:
    """Variances of θ at rates 0.1 and 0.2, with h = v = 1."""
    return tuple(float(stationary_variance(lr, 1.0, 1.0)) for lr in (0.1, 0.2))


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
]

SIZES_AND_NOISE = [
    Remark(
        source="uit-slides",
        title="200 examples or 2,000",
        rule=(
            "The slides have the full batch for m ≤ 200. Notes taken in the deeplearning.ai "
            "course, which they list first among their sources, have m < 2,000. Between the two "
            "the rules differ: of 1,000 examples the slides take at most {} at a time, the course "
            "all."
        ),
        right=lambda: float(recommended_batch_sizes(1_000)[-1]),
    ),
    Remark(
        source="uit-slides",
        title="More than 50M, and an example of 5M",
        rule=(
            "Data “too large (>50M)” are to be cut up, and what is cut up on the next slide has "
            "{} examples, a tenth of that. 50M of what is not said. Bytes decide: in the "
            "perceptron for Fashion-MNIST each example takes {} bytes of inputs and "
            "activations, so that all at once would take {} GB."
        ),
        right=_example_in_bytes,
    ),
    Remark(
        source="uit-slides",
        title="“Less bias and more speed”",
        rule=(
            "SGD's oscillation is to be cured by “giảm bias và tăng tốc độ học”. Read with the "
            "slides on RMSProp that is: slower along b, faster along W. As one higher rate for "
            "all it would do the opposite: where curvature and gradient noise are 1, the weight's "
            "variance settles at {} for rate 0.1 and at {} for rate 0.2."
        ),
        right=_left_of_noise,
    ),
    Remark(
        source="uit-slides, viblo-ema",
        title="Noise that misses minima, and noise that finds better ones",
        rule=(
            "By uit-slides the noise of single examples may keep descent from the global "
            "minimum; by viblo-ema noise sometimes leads to better local minima than the full "
            "batch. These are two questions. Around whatever minimum it has come to, descent at a "
            "fixed rate keeps a variance of {} (rate 0.1, curvature and noise 1), and a tenth of "
            "the rate leaves {}. Which minimum it comes to is another matter, on which arithmetic "
            "is silent."
        ),
        right=lambda: tuple(float(stationary_variance(lr, 1.0, 1.0)) for lr in (0.1, 0.01)),
    ),
]
