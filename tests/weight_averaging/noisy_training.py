"""What the tests of weight averaging share: a small network, its noisy training, whole runs,
comparisons.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from steadydescent.weight_averaging import EMA, Shadow, load_checkpoint, save_checkpoint

STEPS = 211


def network(seed=0, dtype=torch.float64):
    """Float buffers, an integer counter, and odd sizes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).to(
            dtype
        )


def train(model, steps=STEPS, seed=1, device="cpu"):
    """Yield after each of `steps` noisy updates of the model."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(steps):
        x = torch.randn(11, 7, generator=generator, dtype=torch.float64).to(device, dtype)
        y = torch.randint(3, (11,), generator=generator).to(device)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        yield


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype and value.shape == theirs[name].shape, name
        assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), name


SINGLE = {"rtol": 1e-5, "atol": 1e-7}
"""For references that compute their mixing weight in single precision even for weights in double.
"""


def assert_close(ours, theirs, only_floats=False, rtol=1e-11, atol=1e-13):
    for name, value in ours.items():
        if not only_floats or value.is_floating_point():
            torch.testing.assert_close(
                value, theirs[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


class Counting(torch.optim.Optimizer):
    """An optimiser whose slots are numbers, texts and nests of them, beside tensors."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "window": (3, 5), "name": "plain"})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                slots = self.state[parameter]
                slots["count"] = slots.get("count", 0) + 1
                slots["sizes"] = [*slots.get("sizes", []), parameter.norm().item()][-2:]
                slots["past"] = (parameter.clone(), None, {"best": torch.tensor(slots["count"])})
                parameter -= (
                    group["lr"]
                    / slots["count"]
                    * (parameter.grad + sum(slots["sizes"]) * parameter)
                )


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "tensor-rate": lambda p: torch.optim.Adam(p, torch.tensor(0.01)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2, history_size=3),
    "counting": lambda p: Counting(p, 0.1),
}


class Run:
    """All that a training run consists of; `step` makes one update."""

    def __init__(self, optimizer="adam", seed=0, mixing=0.9):
        self.model = network(seed, torch.float32)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 31)
        self.generator = torch.Generator().manual_seed(seed)
        self.ema = EMA(self.model, mixing)
        self.shadow = Shadow(self.model, mixing)
        self.shadow.register()
        self.done = 0

    def step(self):
        x = torch.randn(11, 7, generator=self.generator)
        y = torch.randint(3, (11,), generator=self.generator)

        def closure():
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(x), y)
            loss.backward()
            return loss

        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        self.schedule.step()
        self.ema.update(self.model)
        self.shadow.update()
        self.done += 1

    @property
    def parts(self):
        return {name: getattr(self, name) for name in ("schedule", "generator", "ema", "shadow")}

    def save(self, path):
        save_checkpoint(path, self.model, self.optimizer, self.done, **self.parts)

    def load(self, path):
        self.done = load_checkpoint(path, self.model, self.optimizer, **self.parts)

    def everything(self):
        """Weights, buffers, slots, options and parts, copied."""
        states = (
            self.model.state_dict(),
            self.optimizer.state_dict(),
            self.ema.state_dict(),
            self.shadow.state_dict(),
        )
        return deepcopy((states, self.schedule.state_dict(), self.generator.get_state(), self.done))


def assert_same(ours, theirs):
    """Equal nests, tensors bitwise."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


def write_weights(path, step, *layers, **named):
    """A checkpoint of these weights alone: parameters of floating point, and buffers of other
    numbers.
    """
    model = nn.Module()
    for name, value in {
        **{f"w{number}": value for number, value in enumerate(layers)},
        **named,
    }.items():
        tensor = torch.as_tensor(value)
        if tensor.is_floating_point():
            model.register_parameter(name, nn.Parameter(tensor))
        else:
            model.register_buffer(name, tensor)
    save_checkpoint(path, model, None, step)
    return path
