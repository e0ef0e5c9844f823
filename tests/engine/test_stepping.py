"""A traced step is the plain step, to the bit."""

import pytest
import torch

from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import Carry, make_step, numerics, traced
from steadydescent.study.paths import DATA

STEPS = 5


def a_stack(task: str, optimizer: str, size: int, lanes: int = 3) -> Stack:
    told = {
        "task": task,
        "optimizer": optimizer,
        "schedule": "constant",
        "batch_size": size,
        "steps": STEPS,
    }
    rates = [0.01, 1e30, 0.02][
        :lanes
    ]  # the second lane diverges, or has a surface's weights run away
    runs = [
        Run(**told, lr=lr, seed=seed, readouts=("last", "ema-30")) for seed, lr in enumerate(rates)
    ]
    return Stack(runs, DATA, compile=False)


def trained(stack: Stack, step) -> tuple[Carry, list[torch.Tensor]]:
    batches, carry, losses = stack.training.batches(STEPS), stack.training.carry, []
    for rows, labels, noise, t, lr, weights in zip(*batches, strict=True):
        x, y = stack.examples.pool[rows[stack.examples.lane]], labels[stack.examples.lane]
        carry, loss = step(
            carry,
            noise[stack.examples.lane],
            x,
            y,
            stack.examples.mean,
            stack.examples.std,
            t,
            lr,
            weights,
        )
        losses.append(loss)
    return carry, losses


@pytest.mark.parametrize(
    ("task", "optimizer"),
    [
        ("mnist1d-mlp", "sgd"),
        ("mnist1d-mlp(norm=batch)", "momentum"),
        ('mnist1d-mlp(norm="noisy-batch")', "nesterov"),
        ("mnist1d-mlp(norm=group)", "rmsprop"),
        ("mnist1d-cnn", "adam"),
        ("names-transformer", "adamw"),
        ("saddle", "corrected-momentum"),
    ],
)
def test_traced_step_gives_the_bits_of_the_plain_one(task, optimizer):
    with numerics(1), torch.no_grad():
        stack, other = (a_stack(task, optimizer, 7) for _ in range(2))
        plain = trained(stack, make_step(stack.flat, stack.task, optimizer))
        quick = trained(other, traced(make_step(other.flat, other.task, optimizer)))
    for one, same in zip(plain[0][:2], quick[0][:2], strict=True):
        assert torch.equal(one, same)
    assert torch.equal(plain[0].survived, quick[0].survived)
    assert torch.equal(torch.stack(plain[1]).nan_to_num(), torch.stack(quick[1]).nan_to_num())
    assert not torch.equal(plain[0].theta, stack.view.start[0])


def test_a_traced_step_is_recorded_anew_for_every_shape():
    with numerics(1), torch.no_grad():
        three, two = a_stack("mnist1d-mlp", "sgd", 7), a_stack("mnist1d-mlp", "sgd", 7, lanes=2)
        step = traced(make_step(three.flat, three.task, "sgd"))
        (wide, _), (narrow, _) = trained(three, step), trained(two, step)
    assert torch.equal(wide.theta[:2], narrow.theta)
