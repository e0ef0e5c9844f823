"""Rows about trained networks: zeros that were earned."""

from torch import nn

from steadydescent.normalization import KINDS
from steadydescent.study.judging.exact import EXACT, networks


def test_what_equals_by_algebra_differs_by_rounding_alone_and_what_is_not_touched_not_at_all():
    assert all(0 < row.estimate < 1e-12 for row in EXACT["bn-bias-redundant"]())
    assert all(row.estimate == 0 for row in EXACT["ema-smooths-training"]())


def test_the_networks_do_train_and_the_biases_are_felt_without_batch_norm(monkeypatch):
    """Rows of zeros from weights that never moved, or from biases of zero, would prove nothing."""
    path = networks._train(networks._pair(0)[0])
    assert (
        path.shape[0] == networks.TRAINED_UPDATES and (path.diff(dim=0).abs().amax(1) > 1e-3).all()
    )
    monkeypatch.setitem(KINDS, "batch", lambda channels: nn.Identity())
    assert networks._distance(*networks._pair(0)) > 0.1
