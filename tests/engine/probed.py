"""Stacks that probes look at: small ones that were trained, and stand-ins with data of a test's
own.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from steadydescent.engine.probes import PROBES, Probe
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import Flat, numerics
from steadydescent.engine.tasks import Task
from steadydescent.study.paths import DATA

LAST = ("last",)


def readings(probe: Probe, view) -> dict[object, torch.Tensor]:
    """What a probe finds: quantity, or quantity and minibatch size → the values of all replicas."""
    return {
        (one.quantity, one.batch_size) if one.batch_size else one.quantity: one.values
        for one in probe.look(view)
    }


def shift_of(stack: Stack) -> dict[str, torch.Tensor]:
    """What the stack's internal-shift probe finds now, or one of its own if it has none."""
    return readings(stack.watchers.get("internal-shift") or PROBES["internal-shift"](), stack.view)


def noise_of(stack: Stack) -> dict[object, torch.Tensor]:
    """The gradient noise of a stack as it stands."""
    return readings(PROBES["gradient-noise"](), stack.view)


def advanced(runs: list[Run], stops=(4,), probes=(), **options) -> Stack:
    """A stack trained up to the last stop, looked at by probes at every stop; `readings` are what
    they found, `watchers` the probes.
    """
    with numerics(1), torch.no_grad():
        stack = Stack(runs, DATA, **({"compile": False} | options))
        stack.watchers = {name: PROBES[name]() for name in probes}
        stack.readings = []
        for stop in stops:
            stack.training.advance(stop)
            stack.readings += [readings(probe, stack.view) for probe in stack.watchers.values()]
    return stack


def lonely(module: nn.Module, x, y, loss, rate: float, optimizer: str = "sgd"):
    """The view of one network, as far as probes look at it, on data of the test's own."""
    flat = Flat(module, len(x))
    start = tuple(part[None] for part in flat.pack(module))
    examples = SimpleNamespace(
        lane=torch.tensor([0]),
        data=SimpleNamespace(train=torch.arange(len(x))[None]),
        pool=x,
        train_labels=y[None],
        mean=torch.zeros(1, 1, 1),
        std=torch.ones(1, 1, 1),
    )
    return SimpleNamespace(
        task=Task("test", lambda: module, loss=loss, tokens=True),
        seeds=[0],
        wanted=1,
        theta=start[0],
        buffers=start[1],
        alive=torch.tensor([True]),
        done=1,
        start=start,
        examples=examples,
        device="cpu",
        flat=flat,
        optimizer=optimizer,
        batch_size=len(x),
        latest_rates=np.array([rate]),
    )


def half_square(outputs, targets):
    return (outputs - targets).square().mean() / 2
