"""Every scheduler of torch's as a part of a checkpoint: a cut anywhere changes nothing."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from steadydescent.weight_averaging import load_checkpoint, save_checkpoint


class Halve:
    """A function with a state of its own."""

    def __init__(self):
        self.calls = 1

    def __call__(self, epoch):
        self.calls += 1
        return 0.5**epoch


MAKES = {
    lr_scheduler.LambdaLR: [lambda o: lr_scheduler.LambdaLR(o, Halve())],
    lr_scheduler.MultiplicativeLR: [lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9)],
    lr_scheduler.StepLR: [lambda o: lr_scheduler.StepLR(o, 2)],
    lr_scheduler.MultiStepLR: [lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 5], 0.5)],
    lr_scheduler.ConstantLR: [lambda o: lr_scheduler.ConstantLR(o, 0.5, 3)],
    lr_scheduler.LinearLR: [lambda o: lr_scheduler.LinearLR(o)],
    lr_scheduler.ExponentialLR: [lambda o: lr_scheduler.ExponentialLR(o, 0.9)],
    lr_scheduler.PolynomialLR: [lambda o: lr_scheduler.PolynomialLR(o, 6, 2.0)],
    lr_scheduler.CosineAnnealingLR: [lambda o: lr_scheduler.CosineAnnealingLR(o, 5)],
    lr_scheduler.CosineAnnealingWarmRestarts: [
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3)
    ],
    lr_scheduler.OneCycleLR: [
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, 10),
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, 10, three_phase=True, anneal_strategy="linear"),
    ],
    lr_scheduler.CyclicLR: [
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 3, mode="exp_range", gamma=0.9),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 3, scale_fn=Halve()),
    ],
    lr_scheduler.ReduceLROnPlateau: [
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, cooldown=1)
    ],
    lr_scheduler.ChainedScheduler: [
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.MultiStepLR(o, [2, 4])], o
        )
    ],
    lr_scheduler.SequentialLR: [
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, 1.0, 3), lr_scheduler.MultiStepLR(o, [1, 2], 0.5)],
            [3],
        ),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LambdaLR(o, Halve()), lr_scheduler.CosineAnnealingLR(o, 5)], [4]
        ),
    ],
    SWALR: [lambda o: SWALR(o, 0.05, 4), lambda o: SWALR(o, 0.05, 4, anneal_strategy="linear")],
}


def test_every_scheduler_that_torch_has_is_tried():
    results = {
        kind
        for kind in vars(lr_scheduler).values()
        if inspect.isclass(kind)
        and issubclass(kind, lr_scheduler.LRScheduler)
        and not kind.__name__.startswith("_")
    }
    assert results - MAKES.keys() <= {lr_scheduler.LRScheduler} and SWALR in MAKES


def started(make, rate):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    return model, optimizer, make(optimizer)


def followed(make, rate, cut=None, path=None):
    """Rates and momenta of nine steps, in one go or through a file."""
    model, optimizer, schedule = started(make, rate)
    seen = []
    for step in range(9):
        if step == cut:
            save_checkpoint(path, model, optimizer, step, schedule=schedule)
            model, optimizer, schedule = started(make, rate)
            assert load_checkpoint(path, model, optimizer, schedule=schedule) == step
        group = optimizer.param_groups[0]
        seen.append((float(group["lr"]), group["momentum"]))
        optimizer.step()
        schedule.step(*([1.0] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
    return seen


CASES = [
    (kind.__name__, number, make)
    for kind, makes in MAKES.items()
    for number, make in enumerate(makes)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rate", [1.0, "tensor"], ids=["number", "tensor"])
@pytest.mark.parametrize(
    ("name", "number", "make"), CASES, ids=[f"{name}-{number}" for name, number, _ in CASES]
)
def test_a_schedule_cut_anywhere_goes_on(tmp_path, name, number, make, rate):
    new = lambda: torch.tensor(1.0) if rate == "tensor" else rate
    whole = followed(make, new())
    for cut in (0, 1, 3, 4, 6):
        assert followed(make, new(), cut, tmp_path / "a.safetensors") == whole


class Own(lr_scheduler.LRScheduler):
    """Somebody's own schedule, with a function among its attributes."""

    def __init__(self, optimizer, law):
        self.law = law
        super().__init__(optimizer)

    def get_lr(self):
        return [base * self.law(self.last_epoch) for base in self.base_lrs]


def test_a_function_in_a_schedules_state_is_refused_by_name_when_saving(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with pytest.raises(TypeError, match=r"^parts\.schedule\.law is a function; a checkpoint holds"):
        save_checkpoint(
            tmp_path / "a.safetensors",
            model,
            optimizer,
            0,
            schedule=Own(optimizer, lambda step: 0.9),
        )
    assert list(tmp_path.iterdir()) == []
