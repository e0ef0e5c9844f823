"""Claims of scope E: arithmetic decides them, and this is the arithmetic.

Each function computes one claim's rows with the library's own formulas. Conditions and margins are
stated, estimates and verdicts follow. `tests_of` names the tests that hold the same arithmetic to
closed forms.
"""

from collections.abc import Callable

from steadydescent.study.judging.exact import averages, batches, momentum, networks, rates
from steadydescent.study.judging.exact.marked_tests import tests_of
from steadydescent.study.judging.exact.number import Exact

EXACT: dict[str, Callable[[], list[Exact]]] = {
    "lr-small-precise": batches.small_rate,
    "batch-noise": batches.noise_against_size,
    "batch-memory": batches.bytes_in_memory,
    "bn-bias-redundant": networks.bias_under_batch_norm,
    "averages-smooth": averages.noise_of_average,
    "ewa-bias-correction-early": averages.early_correction,
    "bias-correction-reduces-noise": averages.noise_of_correction,
    "momentum-correction-10-steps": momentum.after_ten_steps,
    "momentum-small-batches": momentum.noise_at_equal_speed,
    "decay-formulas": rates.listed_decays,
    "noam-warmup": rates.shorter_warm_up,
    "noam-scale": rates.larger_scale,
    "noam-start": rates.later_start,
    "noam-duration": rates.longer_steps,
    "ema-window": averages.window_of_an_average,
    "ema-decay-values": averages.usual_decays,
    "ema-outlier": averages.outlier,
    "ema-smooths-training": networks.smoother_training,
}
"""Claim id → function that computes its rows."""

__all__ = ["EXACT", "Exact", "tests_of"]
