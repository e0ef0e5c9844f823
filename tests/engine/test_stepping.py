"""A recorded step is the plain step, to the bit, and replicas one by one are replicas together."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from steadydescent.engine.blocks import one_by_one
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import Recordings, make_step, numerics
from steadydescent.study.paths import DATA

STEPS = 5
SETTINGS = [
    ("mnist1d-mlp", "sgd"),
    ("mnist1d-mlp(norm=batch)", "momentum"),
    ('mnist1d-mlp(norm="noisy-batch")', "nesterov"),
    ("mnist1d-mlp(norm=group)", "rmsprop"),
    ("mnist1d-cnn", "adam"),
    # the gradient of a key's bias is zero but for rounding, which the usual ε makes a whole step of
    ("names-transformer", "adamw(eps=0.001)"),
    ("saddle", "corrected-momentum"),
]


def a_stack(task: str, optimizer: str, size: int, count: int = 3, lanes: int = 0) -> Stack:
    told = {
        "task": task,
        "optimizer": optimizer,
        "schedule": "constant",
        "batch_size": size,
        "steps": STEPS,
    }
    # the second replica diverges, or has a surface's weights run away; an adaptive rule at a large
    # rate would make rounding grow
    calm = 0.001 if optimizer.startswith("adam") else 0.01
    rates = [calm, 1e30, 2 * calm][:count]
    runs = [
        Run(**told, lr=lr, seed=seed, readouts=("last", "ema-30")) for seed, lr in enumerate(rates)
    ]
    return Stack(runs, DATA, compile=False, lanes=lanes)


class Plain(Recordings):
    """A step that is called as it is."""

    def of(self, *inputs):
        form = torch.utils._pytree.tree_structure(inputs)
        return lambda *leaves: self.function(*torch.utils._pytree.tree_unflatten(leaves, form))


def left_by(stack: Stack, optimizer: str, recordings: type[Recordings]) -> list[torch.Tensor]:
    """All that the updates of a stack leave behind, its step made by these recordings."""
    together = stack.lanes > 1
    step = recordings(make_step(stack.flat, stack.task, optimizer, together))
    stack.training.block = one_by_one(step, stack.groups)
    with numerics(1), torch.no_grad():
        stack.training.advance(STEPS)
    return [*tree_leaves(stack.training.carry), stack.training.losses, stack.training.survived]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(("task", "optimizer"), SETTINGS)
def test_a_recorded_step_gives_the_bits_of_the_plain_one(task, optimizer, lanes):
    start = a_stack(task, optimizer, 7, lanes=lanes).view.start[0]
    plain, quick = (
        left_by(a_stack(task, optimizer, 7, lanes=lanes), optimizer, recordings)
        for recordings in (Plain, Recordings)
    )
    for one, same in zip(plain, quick, strict=True):
        assert torch.equal(one.nan_to_num(), same.nan_to_num())
    assert not torch.equal(plain[0].flatten(1)[0], start[0, : plain[0][0].numel()])


@pytest.mark.parametrize(("task", "optimizer"), SETTINGS)
def test_replicas_one_by_one_are_replicas_together_within_rounding(task, optimizer):
    """The one by one is the oracle: it has no vmap."""
    apart, together = (
        left_by(a_stack(task, optimizer, 7, lanes=lanes), optimizer, Recordings) for lanes in (1, 3)
    )
    *pieces, losses, survived = zip(apart, together, strict=True)
    calm = [0, 2]
    pairs = [(one[calm], other[calm]) for one, other in pieces]
    pairs.append((losses[0][:, calm], losses[1][:, calm]))
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-5)
    assert torch.equal(*survived)


def test_a_step_is_recorded_anew_for_every_form_of_its_inputs():
    with numerics(1), torch.no_grad():
        three, two = a_stack("mnist1d-mlp", "sgd", 7), a_stack("mnist1d-mlp", "sgd", 7, count=2)
        before = len(three.step.graphs)
        three.training.advance(STEPS)
        two.training.advance(STEPS)
    assert three.step is two.step and len(three.step.graphs) == before + 2
    assert torch.equal(three.view.theta[:2], two.view.theta)
