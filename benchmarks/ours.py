"""The engine as a contender: a stack at the planned width, compiled where it can be."""

import torch

from peers import BATCH, BLOCK, HELD_OUT, LR, WINDOW
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import can_compile
from steadydescent.study.paths import DATA
from steadydescent.study.planning.stacks import Stacking, stacking

UPDATES = 30_000
"""Length of the runs that are timed; a stack that reaches it starts anew."""
WINDOWS = (WINDOW, 50, 200, 400, 800)
"""Windows of the averages, in updates."""


def plan(task: str, device: str) -> Stacking:
    """The measured width and threads of a task."""
    return stacking(task, device)


class OurStack:
    """R replicas, seeds from `first` on, constant rate, momentum, the first `averages` windows.

    The windows are those of `WINDOWS`.
    """

    def __init__(
        self, task: str, device: str, averages: int = 1, width: int = 0, first: int = 0
    ) -> None:
        readouts = ("last", *(f"ema-{100 * window / UPDATES:g}" for window in WINDOWS[:averages]))
        settings = {
            "task": task,
            "optimizer": "momentum",
            "schedule": "constant",
            "lr": LR,
            "batch_size": BATCH,
        }
        seeds = range(first, first + (width or plan(task, device).width))
        self.runs = [
            Run.model_validate({**settings, "steps": UPDATES, "seed": s, "readouts": readouts})
            for s in seeds
        ]
        self.device, self.compile = device, can_compile(device) is None
        # a narrow stack is not filled up to be wide
        self.lanes = min(plan(task, device).together(len(self.runs), self.compile), len(self.runs))
        self._start()

    def _start(self) -> None:
        self.stack = Stack(self.runs, DATA, self.device, self.compile, self.lanes)
        self.done = 0

    def advance(self, updates: int) -> int:
        for left in range(updates, 0, -BLOCK):
            if self.done + min(left, BLOCK) > UPDATES:
                self._start()
            with torch.no_grad():
                self.stack.training.advance(self.done + min(left, BLOCK))
            self.done += min(left, BLOCK)
        return updates * len(self.runs)

    def loss(self) -> float:
        """Held-out loss of the first replica's last weights."""
        examples, view = self.stack.examples, self.stack.view
        look = examples.look(examples.validation[:, :HELD_OUT])
        with torch.no_grad():
            return float(view.score(view.readouts[0], look).loss[0])
