"""Slips of viblo-ema and viblo-lr."""

import torch
from pandas import DataFrame
from torch import nn
from torch.func import grad, hessian
from torch.optim.lr_scheduler import LinearLR

from steadydescent.averages import debias
from steadydescent.engine.tasks.surfaces import double_well, plateau, well_bottoms
from steadydescent.optimizers.rules import RULES, sgd
from steadydescent.schedules import exponential, inverse_time, linear
from steadydescent.study.book.slips.slip import Remark, Slip
from steadydescent.weight_averaging import EMA

EPOCHS = (1, 2, 3, 4)


def _counter(batches: int) -> float:
    """`num_batches_tracked` of the average after so many training batches.

    It is copied at every update, so that the last one tells.
    """
    layer = nn.BatchNorm1d(1)
    average = EMA(layer, 0.9999)
    layer.get_buffer("num_batches_tracked").fill_(batches)
    average.update(layer)
    return float(average.module.get_buffer("num_batches_tracked"))


def _printed_counters(batches: list[int]) -> list[float]:
    """The same after each of so many batches, where a float is copied into an integer."""
    average, counters = torch.tensor(0), {}
    for count in range(1, max(batches) + 1):
        average.copy_(0.9999 * average + (1 - 0.9999) * torch.tensor(count))
        counters[count] = float(average)
    return [counters[count] for count in batches]


def _counters() -> DataFrame:
    batches = [1_000, 9_999, 10_000, 20_000]
    return DataFrame(
        {
            "batches": batches,
            "counter of the average, printed": _printed_counters(batches),
            "counter": [_counter(count) for count in batches],
        }
    )


def _torch_default() -> list[float]:
    """Rates of torch's LinearLR as it comes, from a rate of 0.2."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    schedule, rates = LinearLR(optimizer), []
    for _ in EPOCHS:
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return rates


def _linear() -> tuple[float, ...]:
    return tuple(0.2 * linear(len(EPOCHS))(epoch) for epoch in EPOCHS)


def _linear_and_not() -> DataFrame:
    printed = [0.2 * inverse_time(1, epoch=1)(epoch) for epoch in EPOCHS]
    return DataFrame(
        {
            "epoch": EPOCHS,
            "“linear” (printed)": printed,
            "linear": _linear(),
            "torch's LinearLR by default": _torch_default(),
        }
    )


def _compounded() -> DataFrame:
    epochs = [1, 2, 5, 20]
    frame = DataFrame({"epoch": epochs})
    for name, schedule in (
        ("0.99^e", exponential(0.99, epoch=1)),
        ("1/(1 + e)", inverse_time(1, epoch=1)),
    ):
        factors = [schedule(epoch) for epoch in range(1, 21)]
        frame[f"{name} · lr (printed)"] = [
            torch.tensor(factors[:epoch]).double().prod().item() for epoch in epochs
        ]
        frame[f"{name} · α₀"] = [factors[epoch - 1] for epoch in epochs]
    return frame


def _descended() -> tuple[float, float]:
    """Where gradient descent from x = −1.5 ends in the double well, and where the deeper minimum
    is.
    """
    point = torch.tensor([-1.5, 0.0], dtype=torch.float64)
    for step in range(1, 501):
        point, _ = sgd(point, grad(double_well)(point), (), step, 0.1)
    return point[0].item(), well_bottoms()[2]


def _curvatures() -> tuple[float, float]:
    """Curvature along x at the double well's shallow minimum and at the plateau's start."""
    bottom = torch.tensor([well_bottoms()[0], 0.0])
    flat = torch.zeros(2)
    return hessian(double_well)(bottom)[0, 0].item(), hessian(plateau)(flat)[0, 0].item()


def _velocities() -> tuple[float, ...]:
    """Velocity of momentum before the first update, after it and after 50; gradients are 1."""
    theta = torch.zeros((), dtype=torch.float64)
    rule = RULES["momentum"]
    state = rule.init(theta)
    velocities = [state[0].item()]
    for step in range(1, 51):
        theta, state = rule.update(theta, torch.ones_like(theta), state, step, 0.1)
        velocities.append(state[0].item())
    return velocities[0], velocities[1], velocities[50]


def _best_rates() -> tuple[float, ...]:
    """1/h for a least-squares loss ½·(w·x − y)², whose curvature h is the mean of x².

    Inputs have the standard deviations 1 and 10.
    """
    rates = []
    for sigma in (1.0, 10.0):
        x = torch.tensor([-sigma, sigma], dtype=torch.float64)
        curvature = hessian(lambda w, x=x: (w * x).square().mean() / 2)(torch.zeros_like(x[0]))
        rates.append(1 / curvature.item())
    return tuple(rates)


def _share_of_start(updates: int) -> float:
    """β^t for β = 0.9999: what the first weights still weigh."""
    return 1 - 1 / debias(torch.tensor(1.0, dtype=torch.float64), 0.9999, updates).item()


VIBLO_EMA = [
    Slip(
        number=13,
        source="viblo-ema",
        title="Counters are averaged too",
        quote="`ema_v.copy_(update_fn(ema_v, model_v))`",
        printed=(
            "Every entry of `state_dict` is averaged, batch norm's integer `num_batches_tracked` "
            "too."
        ),
        rule=(
            "Average what is floating-point and copy the rest. After 1,000 batches the counter "
            "is then {}."
        ),
        right=lambda: _counter(1000),
        why=(
            "A float copied into an integer loses its fraction. As long as the newest count adds "
            "less than 1 to it, through batch 9,999, the printed counter stays 0; from then on it "
            "runs some 10,000 behind. Batch norm with `momentum=None` divides by it, and training "
            "that goes on from the average starts from there."
        ),
        shown=_counters,
    )
]

VIBLO_LR = [
    Slip(
        number=11,
        source="viblo-lr",
        title="“Linear” decay that is not linear",
        quote="Linear learning rate decay: lr = lr/(1+decay_rate*epoch_num)",
        printed=(
            "Dividing by 1 + rate·epoch is called linear decay, and torch's `LinearLR` is named "
            "for it."
        ),
        rule=(
            "That is inverse-time decay. Linear decay, α₀·(1 − t/T), falls by equal steps: over "
            "four epochs {}, {}, {}, {}."
        ),
        right=_linear,
        why=(
            "Inverse time falls fast, then lingers and never reaches zero. And `LinearLR` "
            "without arguments raises the rate: decay is `LinearLR(optimizer, 1, 0, T)`."
        ),
        shown=_linear_and_not,
    ),
    Slip(
        number=12,
        source="viblo-lr",
        title="Decay that compounds",
        quote="lr = 0.99^epoch_num*lr",
        printed="The rate on the right-hand side is the current one, in all of its formulas.",
        rule="The first rate α₀ is meant. After 20 epochs of 0.99^epoch, {} of it is left.",
        right=lambda: exponential(0.99, epoch=1)(20),
        why=(
            "Run as code, factor is multiplied onto factor, and training stops long before it "
            "should."
        ),
        shown=_compounded,
    ),
    Slip(
        number=24,
        source="viblo-lr",
        title="Convergence to the global optimum",
        quote=(
            "Độ lớn của learning rate sẽ ảnh hưởng trực tiếp tới tốc độ hội tụ của hàm loss tới "
            "điểm cực trị toàn cục."
        ),
        printed="The learning rate sets how fast the loss converges to its global optimum.",
        rule=(
            "Gradient descent goes, if it converges, to a stationary point near its start. In a "
            "double well, started at x = −1.5 with rate 0.1, it ends at x = {}; the deeper "
            "minimum is at {}."
        ),
        right=_descended,
        why=(
            "A rate that converges says nothing about how good the minimum is. A few lines on, "
            "the post itself warns of local ones."
        ),
    ),
    Slip(
        number=25,
        source="viblo-lr",
        title="A plateau is not a local minimum",
        quote=(
            "Một trong những nguyên nhân quen thuộc đó chính là mô hình bị nghẽn ở điểm cực tiểu "
            "cục bộ"
        ),
        printed=(
            "Plateaus, regions where the derivative is near zero, often come from being stuck in "
            "a local minimum."
        ),
        rule=(
            "A minimum lies in a bowl, a plateau is flat around: the curvature is {} at the "
            "double well's shallow minimum and {} on a plateau."
        ),
        right=_curvatures,
        why=(
            "The ways out differ. On a plateau small gradients all point one way, and momentum "
            "adds them up; out of a minimum something must carry the weights uphill. Only the "
            "loss *curve* looks the same."
        ),
    ),
    Slip(
        number=26,
        source="viblo-lr",
        title="Momentum starts at rest",
        quote="Momentum có thể hiểu như bạn truyền cho con lắc một vận tốc ban đầu",
        printed="Momentum is like giving a pendulum an initial velocity.",
        rule=(
            "Its velocity is {} at the start and gathered from the gradients: under gradients of "
            "1 it is {} after the first update and {} after 50 (μ = 0.9)."
        ),
        right=_velocities,
        why=(
            "The first update is that of plain SGD. Momentum crosses what it arrives at with "
            "speed; started on flat ground, it stays there as any other rule does."
        ),
    ),
    Slip(
        number=33,
        source="viblo-lr",
        title="Hyperparameters that do not depend on the data",
        quote=(
            "giá trị của nó không thể được ước tính từ dữ liệu (không phụ thuộc vào tập dữ liệu "
            "huấn luyện)"
        ),
        printed=(
            "The value of a hyperparameter cannot be estimated from the data; it does not depend "
            "on the training set."
        ),
        rule=(
            "It is not among what descent learns, but its best value depends on the data: for "
            "one weight and least squares the best rate is one over the curvature, {} for inputs "
            "of standard deviation 1 and {} for inputs of 10. And it is estimated from them, by "
            "a search on validation data or by the post's own range test on the training loss."
        ),
        right=_best_rates,
        why="A rate that was good on other data is a first guess. Search again on your own.",
    ),
]

LATE_START = [
    Remark(
        source="viblo-ema",
        title="A decay of 0.9999 from the first weights on",
        rule=(
            "With the printed default, 0.9999, and the average started at the initial weights, "
            "these still weigh {} after 1,000 updates and {} after 10,000. Short runs need a "
            "smaller decay, bias correction or a ramp."
        ),
        right=lambda: (_share_of_start(1000), _share_of_start(10_000)),
    )
]
