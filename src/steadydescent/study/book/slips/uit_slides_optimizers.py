"""Slips of uit-slides on optimisers and decay."""

import torch
from pandas import DataFrame
from torch import Tensor
from torch.func import hessian

from steadydescent.averages import debias
from steadydescent.engine.tasks.surfaces import saddle
from steadydescent.optimizers.rules import RULES, adam, rmsprop
from steadydescent.schedules import inverse_time
from steadydescent.study.book.slips.slip import Remark, Slip


def _velocity(rule: str, step: int, beta: float = 0.9) -> float:
    """Length of update t of a kind of momentum at rate 1, all gradients being 1."""
    theta = before = torch.zeros(1, dtype=torch.float64)
    state = RULES[rule].init(theta)
    for t in range(1, step + 1):
        before = theta
        theta, state = RULES[rule].update(theta, torch.ones_like(theta), state, t, 1.0, beta=beta)
    return (before - theta).item()


def _corrections() -> DataFrame:
    steps = [1, 2, 10, 100]
    plain = [_velocity("averaged-momentum", t) for t in steps]
    return DataFrame(
        {
            "t": steps,
            "v": plain,
            "v/(1 − β²), printed": [v / (1 - 0.9**2) for v in plain],
            "v/(1 − β^t)": [_velocity("corrected-momentum", t) for t in steps],
        }
    )


def _ratio(step: int) -> float:
    """Corrected over uncorrected update t."""
    return _velocity("corrected-momentum", step) / _velocity("averaged-momentum", step)


def _ratios() -> DataFrame:
    steps = [1, 10, 23, 44]
    return DataFrame(
        {"t": steps, "1/(1 − 0.9^t)": [debias(_one(1.0), 0.9, t).item() for t in steps]}
    )


def _adam_step(grad: float) -> float:
    """Length of Adam's first update at rate 1."""
    theta = _one(0.0)
    moved, _ = adam(theta, _one(grad), RULES["adam"].init(theta), 1, 1.0)
    return -moved.item()


def _adam_steps() -> DataFrame:
    grads = [1e-8, 1e-6, 1e-4, 1e-2, 1.0]
    inside = [grad / (grad**2 + 1e-8) ** 0.5 for grad in grads]
    outside = [_adam_step(grad) for grad in grads]
    return DataFrame(
        {"gradient": grads, "step/α, ε inside (printed)": inside, "step/α, ε outside": outside}
    )


def _rmsprop_step(grad: float, eps: float = 1e-8, steps: int = 1) -> float:
    """Length of the last of so many equal-gradient updates of RMSProp at rate 1 and β = 0.9."""
    theta = before = _one(0.0)
    state = RULES["rmsprop"].init(theta)
    for t in range(1, steps + 1):
        before = theta
        theta, state = rmsprop(theta, _one(grad), state, t, 1.0, beta=0.9, eps=eps)
    return (before - theta).item()


def _rmsprop_steps() -> DataFrame:
    grads = [0.0, 1e-3, 1.0]
    bare = [_rmsprop_step(grad, eps=0.0) for grad in grads]
    return DataFrame(
        {
            "gradient": grads,
            "first step/α, no ε (printed)": bare,
            "with ε = 1e−8": [*map(_rmsprop_step, grads)],
        }
    )


def _quotients() -> DataFrame:
    grads = [0.01, 1.0, 100.0]
    return DataFrame(
        {
            "gradient": grads,
            "S": [grad**2 * (1 - 0.9**100) for grad in grads],
            "gradient/√S": [_rmsprop_step(grad, steps=100) for grad in grads],
        }
    )


def _saddle() -> tuple[float, ...]:
    """Curvatures of ½·x² − ½·y² + ¼·y⁴ at its saddle."""
    return tuple(hessian(saddle)(torch.zeros(2)).diagonal().tolist())


def _steady_and_swinging(updates: int = 301) -> tuple[float, float]:
    """Length of momentum's last step at rate 1 where gradients are all 1, and where they are ±1."""
    rule, lengths = RULES["averaged-momentum"], []
    for sign in (1.0, -1.0):
        theta = before = _one(0.0)
        state = rule.init(theta)
        for t in range(1, updates + 1):
            before = theta
            theta, state = rule.update(theta, _one(sign ** (t - 1)), state, t, 1.0, beta=0.9)
        lengths.append((before - theta).item())
    return lengths[0], lengths[1]


def _kept_squares() -> float:
    """Numbers that RMSProp keeps of the squared gradients of a 2 × 3 matrix."""
    return float(sum(slot.numel() for slot in RULES["rmsprop"].init(torch.zeros(2, 3))))


def _decayed() -> DataFrame:
    starts, schedule = [0.02, 0.2, 2.0], inverse_time(1, epoch=1)
    return DataFrame(
        {"α₀": starts}
        | {f"α in epoch {e}": [start * schedule(e) for start in starts] for e in (1, 2, 4)}
    )


def _one(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


UIT_SLIDES_OPTIMIZERS = [
    Slip(
        number=4,
        source="uit-slides",
        title="Momentum's correction has the wrong exponent",
        quote="v′_dW = v_dW / (1 − β²)",
        printed="The averaged gradient is divided by 1 − β² at every step.",
        rule=(
            "Divide by 1 − β^t, as the slides do for averages and for Adam. Under gradients of 1 "
            "the corrected average is then {} at step 10 and at every other."
        ),
        right=lambda: _velocity("corrected-momentum", 10),
        why=(
            "The printed divisor is right at step 2 alone. Step 1 is about half as long as it "
            "should be; from step 3 on every step is too long, in the end by the factor 1/(1 − "
            "β²), as if somebody had raised the learning rate."
        ),
        shown=_corrections,
    ),
    Slip(
        number=5,
        source="uit-slides",
        title="Adam's ε inside the root",
        quote="W = W − α · V′_dW / √(S′_dW + ε)",
        printed="ε is added before the root is taken.",
        rule=(
            "ε stands outside, √ŝ + ε (Kingma and Ba, 2015, Algorithm 1; torch). A steady "
            "gradient of 1e−6 then moves a weight by {} of the rate."
        ),
        right=lambda: _adam_step(1e-6),
        why=(
            "Inside, ε acts like √ε outside, 10,000 times as much for the slides' 1e−8: weights "
            "with small gradients, which Adam is there to move, hardly move. For gradients near "
            "1 nobody would notice."
        ),
        shown=_adam_steps,
    ),
    Slip(
        number=6,
        source="uit-slides",
        title="RMSProp without ε",
        quote="W = W − α · dW / √S_dW",
        printed="The gradient is divided by √S alone.",
        rule="Divide by √S + ε. A weight whose gradients have all been zero then moves by {}.",
        right=lambda: _rmsprop_step(0.0),
        why=(
            "Without ε that weight becomes 0/0, not a number, and the next forward pass carries "
            "it through the network. Dead units and rows of an embedding not yet seen have such "
            "gradients."
        ),
        shown=_rmsprop_steps,
    ),
    Slip(
        number=10,
        source="uit-slides",
        title="A saddle is no minimum",
        quote="cực tiểu mà chưa chắc là cực tiểu toàn cục (điểm yên ngựa – saddle point)",
        printed="A saddle point is a minimum that may not be the global one.",
        rule=(
            "A saddle is a minimum in some directions and a maximum in others: that of ½x² − ½y² "
            "+ ¼y⁴ has the curvatures {} and {}."
        ),
        right=_saddle,
        why=(
            "Out of a local minimum something must carry the weights uphill. At a saddle there is "
            "a way down; only the gradient is small there, and it takes time to find."
        ),
    ),
    Slip(
        number=19,
        source="uit-slides",
        title="Ten steps are not enough to forget the start",
        quote=(
            "sau khoảng 10 iteration thì kết quả v'_dW và v'_db sẽ không khác gì so với v_dW và "
            "v_db"
        ),
        printed=(
            "After about ten iterations momentum with correction is no different from momentum "
            "without."
        ),
        rule="After ten steps the corrected step is still {} times the uncorrected one (β = 0.9).",
        right=lambda: _ratio(10),
        why=(
            "Without the correction the first updates are short, a warm-up that nobody asked "
            "for. That is often harmless, but it lasts a few times 1/(1 − β) steps, not one."
        ),
        shown=_ratios,
    ),
    Slip(
        number=21,
        source="uit-slides",
        title="RMSProp does not favour weights over biases",
        quote="S_dW nhỏ → dW/√S_dW lớn → W học nhanh hơn",
        printed=(
            "S_dW is very small, so dW/√S_dW is large and W learns faster; S_db is very large, "
            "so b learns more slowly."
        ),
        rule=(
            "√S is the size of the gradient itself, so the quotient is about ±1 whether S is "
            "small or large: after 100 equal gradients {} for gradients of 0.01 and {} for "
            "gradients of 100."
        ),
        right=lambda: tuple(_rmsprop_step(grad, steps=100) for grad in (0.01, 100.0)),
        why=(
            "RMSProp makes steps alike in all coordinates. That weights lie along the valley and "
            "biases across is how one picture was labelled, not what the algorithm knows."
        ),
        shown=_quotients,
    ),
    Slip(
        number=22,
        source="uit-slides",
        title="Decay does not find the best rate",
        quote="Tìm ra tham số learning rate tối ưu: sử dụng kỹ thuật learning decay.",
        printed="To find the best learning rate, use learning-rate decay (said twice).",
        rule=(
            "Decay lowers a rate that somebody has chosen: with the slides' formula it is {} of "
            "α₀ in epoch 4, whatever α₀ is."
        ),
        right=lambda: inverse_time(1, epoch=1)(4),
        why=(
            "A wrong α₀ stays wrong by the same factor. The best one is found by a search, on "
            "validation data, and again for every schedule."
        ),
        shown=_decayed,
    ),
    Slip(
        number=31,
        source="uit-slides",
        title="A product sign that means another product",
        quote="dW² = dW ⊗ dW",
        printed="The squared gradient is dW ⊗ dW.",
        rule=(
            "It is squared element by element, mostly written dW ⊙ dW: of a 2 × 3 matrix {} "
            "numbers. ⊗ is the usual sign of the outer, or Kronecker, product, which has 36."
        ),
        right=_kept_squares,
        why=(
            "An outer product would hold how every weight's gradient goes with every other's, for "
            "a million weights a million millions. That RMSProp keeps one number a weight is what "
            "makes it cheap, and blind to directions that are not axes."
        ),
    ),
]

AXES_AND_NAMES = [
    Remark(
        source="uit-slides",
        title="Which axis is to slow down",
        rule=(
            "The slide on momentum wants its x axis, “how fast it varies with each iteration”, "
            "slower and its y axis, “how fast it converges”, faster; the one on RMSProp the "
            "vertical axis slower and the horizontal one faster. If x and y are those of the "
            "picture, the first has them exchanged. Momentum knows no axes anyway: it keeps a "
            "step of {} of the rate where gradients agree, and leaves {} where they change sign "
            "at every step (β = 0.9)."
        ),
        right=_steady_and_swinging,
    ),
    Remark(
        source="uit-slides",
        title="Who made Adam",
        rule=(
            "“Adam: Adaptive moment estimation. (Andrew Ng.)” may cite the course that teaches "
            "it. Adam is by Diederik P. Kingma and Jimmy Ba (2015), and their paper is where to "
            "look when two implementations differ, as they do in slip 5."
        ),
        formerly=23,
    ),
]
