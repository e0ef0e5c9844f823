"""Stacks that probes look at: small ones that were trained, and stand-ins with data of a test's
own.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from steadydescent.engine.probes import PROBES
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import Flat, numerics
from steadydescent.engine.tasks import Task
from steadydescent.study.paths import DATA

LAST = ("last",)
SHIFT, NOISE = PROBES["internal-shift"], PROBES["gradient-noise"]


def advanced(runs: list[Run], stops=(4,), probes=(), **options) -> Stack:
    """A stack trained up to the last stop, looked at by probes at every stop; `found` keeps what
    they saw.
    """
    with numerics(1), torch.no_grad():
        stack = Stack(runs, DATA, **({"compile": False} | options))
        stack.done, stack.found = 0, []
        for stop in stops:
            stack.advance(stack.done, stop)
            stack.done = stop
            stack.found += [PROBES[probe](stack) for probe in probes]
    return stack


def lonely(module: nn.Module, x, y, loss, rate: float, optimizer: str = "sgd"):
    """The stack of one network, as far as probes look at it, on data of the test's own."""
    flat = Flat(module, len(x))
    theta, buffers = (part[None] for part in flat.pack(module))
    return Stub(
        task=Task("test", lambda: module, loss=loss, tokens=True),
        runs=[SimpleNamespace(seed=0)],
        wanted=[None],
        first=SimpleNamespace(optimizer=optimizer, batch_size=len(x)),
        carry=SimpleNamespace(theta=theta, buffers=buffers, survived=torch.tensor([1])),
        done=1,
        start=(theta, buffers),
        lane=torch.tensor([0]),
        data=SimpleNamespace(train=torch.arange(len(x))[None]),
        pool=x,
        labels=y,
        train_labels=y[None],
        mean=torch.zeros(1, 1, 1),
        std=torch.ones(1, 1, 1),
        device="cpu",
        flat=flat,
        _rates=lambda start, stop: np.array([[rate]]),
    )


class Stub(SimpleNamespace):
    """Unlike a plain namespace, the same as itself alone, as a stack is."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def half_square(outputs, targets):
    return (outputs - targets).square().mean() / 2
