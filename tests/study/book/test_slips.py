"""The errata: every right value against plain arithmetic or torch, the printed formulas beside it,
and the page.

An oracle must not be the printed value, so that a library with the slip in it fails here.
"""

import ast
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from steadydescent.dataset_shift import shifted_concept
from steadydescent.study.book.slips import LANGUAGES, REMARKS, SLIPS
from steadydescent.weight_averaging import average_checkpoints, last_checkpoints, save_checkpoint
from toy_book import Book, toy_findings, words

TESTS = Path(__file__).parents[2]
EXACT_CLAIMS = {
    "bn-bias-redundant",
    "ewa-bias-correction-early",
    "bias-correction-reduces-noise",
    "momentum-correction-10-steps",
    "noam-warmup",
    "noam-scale",
    "noam-start",
    "noam-duration",
    "decay-formulas",
    "lr-small-precise",
    "batch-noise",
    "batch-memory",
    "momentum-small-batches",
    "averages-smooth",
    "ema-decay-values",
    "ema-window",
    "ema-outlier",
    "ema-smooths-training",
}
"""Claims that algebra or arithmetic decides, so that a test is their evidence."""
BY_NUMBER = {slip.number: slip for slip in SLIPS}


def slip(number):
    return BY_NUMBER[number]


def values(computed):
    found = computed()
    return list(found) if isinstance(found, tuple) else [found]


def gradient_descent(x, rate, steps):
    """Along x of ¼·(x² − 1)² − x/10."""
    for _ in range(steps):
        x -= rate * (x**3 - x - 0.1)
    return x


def root(low, high):
    """The root of x³ − x − 1/10 between two points, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if (low**3 - low > 0.1) != (middle**3 - middle > 0.1) else (middle, high)
        )
    return low


def stationary(rate):
    """Variance of x ← x − α·(x + ξ) with var ξ = 1, iterated until it settles."""
    variance = 0.0
    for _ in range(3000):
        variance = (1 - rate) ** 2 * variance + rate**2
    return variance


def adam_step(grad):
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.full_like(weight, grad)
    torch.optim.Adam([weight], lr=1.0).step()
    return -weight.item()


def rmsprop_step(grad, steps):
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.RMSprop([weight], lr=1.0, alpha=0.9)
    for _ in range(steps):
        before = weight.item()
        weight.grad = torch.full_like(weight, grad)
        optimizer.step()
    return before - weight.item()


# What is right, by an oracle, and what the source prints, which is not.
CASES = [
    pytest.param(1, [40 * (100 - 98) / 100], [8], marks=pytest.mark.slip(1)),
    pytest.param(2, [10 / math.sqrt(100)], [10 / 100], marks=pytest.mark.slip(2)),
    pytest.param(3, [5_000_000 / 1000], [1], marks=pytest.mark.slip(3)),
    pytest.param(
        4,
        [sum(0.1 * 0.9**k for k in range(10)) / (1 - 0.9**10)],
        [3.428],
        marks=pytest.mark.slip(4),
    ),
    pytest.param(5, [adam_step(1e-6)], [1e-6 / math.sqrt(1e-12 + 1e-8)], marks=pytest.mark.slip(5)),
    pytest.param(6, [rmsprop_step(0.0, 1)], [math.nan], marks=pytest.mark.slip(6)),
    pytest.param(7, [10 * 4 / (2 * 5_000_000)], [10 * 4 / (2 * 1000)], marks=pytest.mark.slip(7)),
    pytest.param(
        8, [sum(p.numel() for p in nn.BatchNorm1d(1).parameters())], [0], marks=pytest.mark.slip(8)
    ),
    pytest.param(10, [1, -1], [1, 1], marks=pytest.mark.slip(10)),
    pytest.param(
        11, [0.2, 0.15, 0.1, 0.05], [0.1, 0.2 / 3, 0.05, 0.04], marks=pytest.mark.slip(11)
    ),
    pytest.param(12, [0.99**20], [0.99 ** (20 * 21 / 2)], marks=pytest.mark.slip(12)),
    pytest.param(13, [1000], [0], marks=pytest.mark.slip(13)),
    pytest.param(14, [1 + 0.25 * (5 - 1), 5], [12, 2], marks=pytest.mark.slip(14)),
    pytest.param(15, [3, 19, 99, 1999], [2, 10, 50, 1000], marks=pytest.mark.slip(15)),
    pytest.param(17, [2 / 8000**1.5, 1e-4], [1e-4, 1e-4], marks=pytest.mark.slip(17)),
    pytest.param(18, [50**2, (1 - 0.98**10) ** -2], [1, 1], marks=pytest.mark.slip(18)),
    pytest.param(19, [1 / (1 - 0.9**10)], [1], marks=pytest.mark.slip(19)),
    pytest.param(20, [3 / math.sqrt(1 + 1e-5)], [0], marks=pytest.mark.slip(20)),
    pytest.param(
        21,
        [rmsprop_step(0.01, 100), rmsprop_step(100.0, 100)],
        [100, 0.01],
        marks=pytest.mark.slip(21),
    ),
    pytest.param(22, [1 / (1 + 4)], [1], marks=pytest.mark.slip(22)),
    pytest.param(
        24, [root(-1.2, -0.6), root(0.6, 1.2)], [root(0.6, 1.2)] * 2, marks=pytest.mark.slip(24)
    ),
    pytest.param(
        25,
        [3 * root(-1.2, -0.6) ** 2 - 1, -math.tanh(3) / (2 + 2 * math.cosh(6))],
        [0, 0],
        marks=pytest.mark.slip(25),
    ),
    pytest.param(26, [0, 1, (1 - 0.9**50) / 0.1], [1, 1, 0.9**49], marks=pytest.mark.slip(26)),
    pytest.param(
        27, [0.81 * 40 + 0.09 * 49 + 0.1 * 45, 134 / 3], [134 / 3, 45], marks=pytest.mark.slip(27)
    ),
    pytest.param(29, [0.5 + 0.5], [1 / 8 + 1 / 8], marks=pytest.mark.slip(29)),
    pytest.param(
        30, [6, (-2 - 2 * 1 + 3 * 3) / math.sqrt(14 / 3)], [0, 1], marks=pytest.mark.slip(30)
    ),
    pytest.param(31, [2 * 3], [(2 * 3) ** 2], marks=pytest.mark.slip(31)),
    pytest.param(33, [1 / 1**2, 1 / 10**2], [1, 1], marks=pytest.mark.slip(33)),
]


@pytest.mark.parametrize(
    ("which", "oracle", "printed"), CASES, ids=[f"slip-{case.values[0]}" for case in CASES]
)
def test_the_right_value_is_the_oracles_and_not_the_printed_one(which, oracle, printed):
    found = values(slip(which).right)
    assert found == pytest.approx(oracle, rel=1e-5, abs=1e-12)
    assert found != pytest.approx(printed, rel=1e-2, abs=1e-12)


@pytest.mark.slip(9)
@pytest.mark.parametrize("truth", [40.0, 4.0])
def test_the_number_of_values_is_no_error(truth):
    """The error of the average of a constant is β^t times the constant: it has its unit and goes to
    0.
    """
    average = 0.0
    for step in range(1, 501):
        average = 0.98 * average + 0.02 * truth
        assert truth - average == pytest.approx(0.98**step * truth)
    assert values(slip(9).right) == pytest.approx([50]) and truth - average < 0.01


@pytest.mark.slip(24)
def test_gradient_descent_itself_ends_in_the_near_minimum():
    assert gradient_descent(-1.5, 0.1, 500) == pytest.approx(values(slip(24).right)[0], abs=1e-9)


@pytest.mark.slip(28)
@pytest.mark.slip(32)
def test_slips_without_a_number_say_what_is_right_in_words():
    wordy = {entry.number: entry for entry in SLIPS if entry.right is None}
    assert set(wordy) == {28, 32}
    assert "does not describe the computation" in wordy[28].stated
    assert "p(y|x)" in wordy[32].stated and "one day" in wordy[32].why


@pytest.mark.slip(32)
def test_concept_shift_comes_without_any_time_between():
    """Labels of the same inputs, drawn at one moment: p(x) is the same, p(y|x) is not."""
    x, y = torch.zeros(200, 1), torch.arange(200) % 10
    shifted = shifted_concept(x, y, 3, classes=10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted.x, x) and (shifted.y != y).any()


@pytest.mark.slip(29)
def test_the_mean_is_of_the_files_at_hand_and_too_few_are_refused(tmp_path):
    layer = nn.Linear(1, 1, bias=False)
    for step, weight in enumerate([3.0, 5.0], start=1):
        nn.init.constant_(layer.weight, weight)
        save_checkpoint(tmp_path / f"{step}.safetensors", layer, None, step)
    with pytest.raises(ValueError, match="2 checkpoints, fewer than the 8 asked for"):
        last_checkpoints(tmp_path, 8)
    assert average_checkpoints(last_checkpoints(tmp_path, 2))["weight"].item() == 4.0


@pytest.mark.slip(30)
def test_gradients_of_a_layer_change_when_the_layer_above_is_updated_first():
    """What the printed order does: the lower layer gets the gradient of other weights."""
    torch.manual_seed(0)
    lower, upper, x = nn.Linear(3, 3), nn.Linear(3, 1), torch.randn(5, 3)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(upper(lower(x)).square().mean(), lower.weight)[0]

    together = gradient()
    with torch.no_grad():
        upper.weight -= 0.5
    assert not torch.allclose(gradient(), together)


SHOWN = {
    1: {"V": [0.8, 1.764], "V/(1 − β^t)": [40, 1.764 / 0.0396]},
    2: {"σ after X/σ² (printed)": [10, 1, 0.1], "σ after X/σ": [1, 1, 1]},
    3: {"updates in an epoch, printed": [1, 1, 1], "updates in an epoch": [5_000_000, 5000, 1]},
    4: {"v/(1 − β²), printed": [0.1 / 0.19, 1, 3.428008, 5.263018], "v/(1 − β^t)": [1, 1, 1, 1]},
    5: {
        "step/α, ε inside (printed)": [1e-4, 0.0099995, 0.5**0.5, 0.99995, 1],
        "step/α, ε outside": [0.5, 1 / 1.01, 0.9999, 1, 1],
    },
    6: {
        "first step/α, no ε (printed)": [math.nan, 10**0.5, 10**0.5],
        "with ε = 1e−8": [0, 3.16218, 10**0.5],
    },
    7: {"L2 term": [0.02, 4e-6]},
    8: {"mean": [4, 0], "variance": [14 / 3, 1]},
    9: {
        "1/(1 − β), values": [2, 10, 50, 1000],
        "weight that they hold": [0.75, 0.651322, 0.635830, 0.632305],
    },
    11: {
        "linear": [0.2, 0.15, 0.1, 0.05],
        "torch's LinearLR by default": [0.2 * (5 + 2 * e) / 15 for e in range(4)],
    },
    12: {
        "0.99^e · lr (printed)": [0.99, 0.99**3, 0.99**15, 0.99**210],
        "1/(1 + e) · α₀": [1 / 2, 1 / 3, 1 / 6, 1 / 21],
    },
    13: {
        "counter of the average, printed": [0, 0, 1, 9_999],
        "counter": [1_000, 9_999, 10_000, 20_000],
    },
    14: {"printed code": [12, 2, 5], "right": [2, 5, 2]},
    15: {"lag of their mean": [0.5, 4.5, 24.5, 499.5], "lag of the EMA": [1, 9, 49, 999]},
    17: {
        "average, made at every step (printed)": [40, 49, 45],
        "average, made once": [40, 46.75, 46.75 - 1.75 * 9 / 13],
    },
    18: {"variance of V/(1 − β^t), in that of V": [(1 - 0.98**t) ** -2 for t in (1, 10, 50, 229)]},
    19: {"1/(1 − 0.9^t)": [10, 1.53534, 1.097248, 1.009793]},
    21: {"gradient/√S": [1.0000133] * 3},
    22: {"α in epoch 1": [0.01, 0.1, 1], "α in epoch 4": [0.004, 0.04, 0.4]},
    27: {"mean of all so far": [40, 44.5, 134 / 3], "shadow": [40, 40.9, 41.31]},
    29: {"sum of their shares, each /8 (printed)": [0.25, 1], "sum of their shares": [1, 1]},
}
"""What the tables of the page hold, worked by hand."""


@pytest.mark.parametrize("which", sorted(SHOWN))
def test_tables_set_the_printed_formula_beside_the_right_one(which):
    frame = slip(which).shown()
    for column, expected in SHOWN[which].items():
        assert frame[column].tolist() == pytest.approx(expected, rel=2e-5, abs=1e-9, nan_ok=True), (
            column
        )


def test_every_table_is_checked():
    assert {entry.number for entry in SLIPS if entry.shown} == set(SHOWN)


@pytest.mark.worked("opennmt-tf")
def test_what_is_easy_to_trip_over():
    """The ramp's cap: 9/(10 + t) ≤ 1e−4 from t = 89 990 on. Floor: t < 1e−4·√d·8000^1.5/scale."""
    found = {remark.title: values(remark.right) for remark in REMARKS if remark.right}
    floored = [
        math.floor(1e-4 * math.sqrt(d) * 8000**1.5 / scale)
        for d, scale in ((4, 2), (768, 2), (768, 6))
    ]
    assert found["The ramp is longer than most runs"] == pytest.approx([89_990, 1010 / 9])
    assert found["The floor acts during the warm-up too"] == floored == [71, 991, 330]
    assert found["The log is one update ahead"] == pytest.approx([2 / 8000**1.5, 1 / 8000**1.5])
    assert found["A decay of 0.9999 from the first weights on"] == pytest.approx(
        [0.9999**1000, 0.9999**10_000]
    )
    assert found["A longer warm-up does not raise the rate"] == pytest.approx([3, math.sqrt(1 / 2)])


def test_remarks_on_the_slides():
    """An example takes 4 bytes for each of its 784 inputs and 128 hidden units."""
    found = {remark.title: values(remark.right) for remark in REMARKS if remark.right}
    assert found["200 examples or 2,000"] == [512]
    each = 4 * (784 + 128)
    assert found["More than 50M, and an example of 5M"] == [5_000 * 1_000, each, each * 5e6 / 1e9]
    assert found["“Less bias and more speed”"] == pytest.approx([stationary(0.1), stationary(0.2)])
    noise = found["Noise that misses minima, and noise that finds better ones"]
    assert noise == pytest.approx([stationary(0.1), stationary(0.01)])
    assert found["Which axis is to slow down"] == pytest.approx([1, (1 - 0.9) / (1 + 0.9)])
    assert "Kingma" in next(r.stated for r in REMARKS if r.title == "Who made Adam")


def test_slips_are_numbered_without_gaps_and_say_all_that_the_page_shows():
    """A number that is no slip any more is a remark's, so that its address stays."""
    formerly = [remark.formerly for remark in REMARKS if remark.formerly is not None]
    numbers = sorted([entry.number for entry in SLIPS] + formerly)
    assert formerly == [23, 16] and numbers == list(range(1, len(SLIPS) + len(formerly) + 1))
    for entry in SLIPS:
        assert all(
            (entry.title, entry.quote, entry.printed, entry.why, "{}" not in entry.stated)
        ), entry.number
        assert entry.source in LANGUAGES
        assert len(entry.quote.split()) <= 25


# What the suite as a whole must hold


def marked(name):
    """Arguments of every `pytest.mark.<name>(…)` in the tests, read from their source."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{name}":
                found |= {
                    argument.value for argument in node.args if isinstance(argument, ast.Constant)
                }
    return found


def test_every_slip_has_a_test_that_shows_the_right_value():
    assert marked("slip") == set(BY_NUMBER)


def test_every_claim_that_arithmetic_decides_has_a_test():
    assert marked("claim") >= EXACT_CLAIMS


# The page


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path, toy_findings())


def test_the_page_shows_each_slip_with_its_values_and_links_to_it_from_the_table(book):
    body = "```{slips}\n```\n\n" + "\n\n".join(
        f"```{{slips}} {source}\n```" for source in LANGUAGES
    )
    page = book.accept(body)
    for which in BY_NUMBER:
        assert page.count(f'id="slip-{which}"') == 1 and f'href="#slip-{which}"' in page
    box = page[page.index('id="slip-15"') : page.index('id="slip-27"')]
    assert "values: 3, 19, 99 and 1,999 for β" in words(box)
    assert '<span class="language-zh" lang="zh">' in box or 'lang="zh"' in box
    assert "β 1/(1 − β) lag of their mean lag of the EMA (1 + β)/(1 − β) 0.5 2 0.5 1 3" in words(
        box
    )
    assert "<em>internal</em>" in page and "num_batches_tracked</span></code>" in page


def test_remarks_are_a_list(book):
    page = words(book.accept("```{slips}\n:remarks:\n```"))
    assert "The floor acts during the warm-up too. With a smallest rate of 0.0001" in page
    assert "the first 71 updates" in page
    html = book.accept("```{slips}\n:remarks:\n```\n\nSee {ref}`that <slip-16>`.")
    assert html.count('id="slip-16"') == 1 and 'href="#slip-16"' in html
    assert "( uit-slides , viblo-ema )" in words(html)


def test_slips_of_an_unknown_source_fail_the_build(book):
    assert "no slips of 'zh-emma'" in book.build("```{slips} zh-emma\n```")[1]
