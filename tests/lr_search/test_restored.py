"""Whatever a range test does to model, optimiser and random states is undone, bit by bit.

`DISTURBANCES` is the table of what can be disturbed; each is tried alone and in company of one that
cannot be undone.
"""

import copy
import io
import random
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from steadydescent.lr_search import range_test, rate_step, restored
from steadydescent.minibatches import EpochBatches
from steadydescent.normalization import GhostBatchNorm, NoisyBatchNorm, draw_noise
from steadydescent.optimizers import Adam


class Zoo(nn.Module):
    """Every kind of thing that a module can hold."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.linear.weight
        self.norm = nn.BatchNorm1d(4)
        self.noisy = NoisyBatchNorm(4)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.old_spectral = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.frozen.register_state_dict_post_hook(lambda module, state, prefix, meta: state.clear())
        self.short = nn.Linear(4, 4).bfloat16()
        self.image = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.register_buffer("cache", torch.zeros(2, 4), persistent=False)
        self.register_buffer("expanded", torch.arange(4.0).expand(3, 4))
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))
        self.register_buffer("counts", torch.arange(4))
        self.register_buffer("phases", torch.ones(4, dtype=torch.complex64))
        self.register_buffer("eighths", torch.ones(4).to(torch.float8_e4m3fn))
        self.register_buffer("requires", torch.ones(4).requires_grad_())
        self.register_buffer("nothing", None)
        whole = torch.arange(8.0)
        self.register_buffer("left", whole[:4])
        self.register_buffer("right", whole.split(4)[1])
        self.seen, self.history, self.memory = 0, [torch.zeros(4)], {"keys": torch.zeros(4)}
        self.counter, self.recent, self.table = Counter("a"), deque([1, 2], maxlen=2), np.zeros(4)
        self.draws = (torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1))
        self.hidden = [nn.BatchNorm1d(4)]


class Slots(torch.optim.SGD):
    """An optimiser that keeps state of every type, and some beside `state`."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.steps, self.log = 0, deque([1.0])
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "master": torch.zeros(parameter.shape, dtype=torch.float64),
                    "eighth": torch.zeros(parameter.shape, dtype=torch.uint8),
                    "step": 3,
                    "old": [torch.zeros(2)],
                    "array": np.zeros(2),
                    "object": SimpleNamespace(scale=1.0, table=torch.zeros(2)),
                }
        self.state["shared"] = OrderedDict(a=defaultdict(int, b=1))


def made(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = Zoo()
    first = {"params": [model.linear.weight], "lr": torch.tensor(0.1)}
    second = {"params": [model.short.weight, model.norm.weight], "lr": 0.2, "mine": {"notes": [1]}}
    optimizer = Slots([first, second], lr=0.1, momentum=0.9)
    model.linear.weight.grad = torch.full((4, 4), 2.0)
    model.short.weight.grad = torch.full((4, 4), 3.0, dtype=torch.bfloat16)
    model.short.weight.main_grad = torch.full((4, 4), 5.0)
    model.norm.weight.register_hook(double)
    model.norm.weight.register_post_accumulate_grad_hook(halve)
    model.norm.eval()
    return model, optimizer


def double(gradient):
    return 2 * gradient


def halve(parameter):
    parameter.grad /= 2


def forget(parameter):
    parameter.grad = None


def hooks_of(tensor):
    """Which functions are called, in order, on the way back.

    The dict that holds them is torch's own.
    """
    both = (tensor._backward_hooks, tensor._post_accumulate_grad_hooks)
    return [None if hooks is None else (id(hooks), list(hooks.values())) for hooks in both]


def fingerprint(value, seen=None):
    """Identity, type and bits of a thing and of all in it, which `restored` leaves alone."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in seen:
        return id(value)
    seen[id(value)] = value
    whole = (id(value), type(value))
    if isinstance(value, UninitializedParameter):
        return whole
    if isinstance(value, torch.Tensor):
        raw = value.detach().clone().contiguous().view(-1) if value.numel() else value.detach()
        bits = raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b""
        place = (
            value.dtype,
            tuple(value.shape),
            value.stride(),
            value.untyped_storage()._cdata,
            value.requires_grad,
            value.is_leaf,
        )
        return (
            *whole,
            *place,
            bits,
            fingerprint(value.grad, seen) if value.is_leaf else None,
            fingerprint(value.__dict__, seen),
            hooks_of(value),
        )
    if isinstance(value, dict):
        return (
            *whole,
            [
                (id(k) if isinstance(k, torch.Tensor) else k, fingerprint(v, seen))
                for k, v in value.items()
            ],
        )
    if isinstance(value, set):
        return (*whole, sorted(map(str, value)))
    if isinstance(value, list | tuple | deque):
        return (*whole, [fingerprint(item, seen) for item in value])
    if isinstance(value, np.ndarray):
        return (*whole, value.tobytes())
    if isinstance(value, torch.Generator):
        return (*whole, value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return (*whole, str(value.bit_generator.state))
    if isinstance(value, random.Random):
        return (*whole, value.getstate())
    if isinstance(value, nn.Module | torch.optim.Optimizer | SimpleNamespace):
        return (*whole, fingerprint(value.__dict__, seen))
    return whole


def everything(model, optimizer):
    global_states = (
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().numpy().tobytes(),
    )
    seen = {}
    return fingerprint(model, seen), fingerprint(optimizer, seen), global_states


def fill(tensor):
    with torch.no_grad():
        tensor.copy_(torch.ones(tensor.shape) if tensor.dtype is not torch.bool else ~tensor)
        tensor.mul_(7) if tensor.is_floating_point() and tensor.element_size() > 1 else None


def expand_in_place(tensor):
    tensor[0] = 9.0  # one value in memory for every row


def lose(mapping, key):
    mapping.pop(key)


def reorder(mapping):
    key = next(iter(mapping))
    mapping[key] = mapping.pop(key)


def set_grad(parameter):
    parameter.grad = torch.ones_like(parameter)


def graph_in_place(model):
    model.cache.add_(model.linear.weight[:2])  # the buffer has a graph now


def replace(model):
    model.linear.weight = nn.Parameter(torch.zeros(4, 4))


def free(tensor):
    tensor.data = torch.empty(0)


def reparametrise(model):
    nn.utils.parametrizations.weight_norm(model.frozen)


DISTURBANCES = {
    # of the model
    "a parameter's values": lambda m, o: fill(m.linear.weight),
    "a parameter replaced": lambda m, o: replace(m),
    "tied weights untied": lambda m, o: setattr(m.tied, "weight", nn.Parameter(torch.zeros(4, 4))),
    "a parameter's memory": lambda m, o: setattr(m.linear.weight, "data", torch.zeros(4, 4)),
    "a parameter's dtype": lambda m, o: m.linear.double(),
    "a parameter's layout": lambda m, o: m.image.to(memory_format=torch.contiguous_format),
    "a parameter freed": lambda m, o: free(m.linear.bias),
    "a parameter added": lambda m, o: m.register_parameter("new", nn.Parameter(torch.zeros(1))),
    "a parameter lost": lambda m, o: lose(m.linear._parameters, "bias"),
    "a frozen parameter's values": lambda m, o: fill(m.frozen.weight),
    "a parametrised weight": lambda m, o: fill(m.spectral.parametrizations.weight.original),
    "a parametrisation added": lambda m, o: reparametrise(m),
    "a parametrisation removed": lambda m, o: nn.utils.parametrize.remove_parametrizations(
        m.spectral, "weight"
    ),
    "spectral norms' vectors": lambda m, o: (
        m.spectral(torch.ones(2, 4)),
        m.old_spectral(torch.ones(2, 4)),
    ),
    "requires_grad off": lambda m, o: m.requires_grad_(False),
    "requires_grad on": lambda m, o: m.requires_grad_(True),
    "a gradient's values": lambda m, o: fill(m.linear.weight.grad),
    "a gradient replaced": lambda m, o: set_grad(m.linear.weight),
    "a gradient set to None": lambda m, o: o.zero_grad(set_to_none=True),
    "a gradient that was None": lambda m, o: set_grad(m.norm.bias),
    "a gradient in another precision": lambda m, o: fill(m.short.weight.main_grad),
    "a hook on a parameter": lambda m, o: m.linear.weight.register_hook(lambda g: g * 0),
    "a hook on a parameter that had one": lambda m, o: m.norm.weight.register_hook(lambda g: g * 0),
    "a parameter's hook lost": lambda m, o: m.norm.weight._backward_hooks.clear(),
    "a hook after the gradient": lambda m, o: m.linear.weight.register_post_accumulate_grad_hook(
        forget
    ),
    "another hook after the gradient": lambda m, o: (
        m.norm.weight.register_post_accumulate_grad_hook(forget)
    ),
    "a hook on a gradient's buffer": lambda m, o: m.requires.register_hook(lambda g: g * 0),
    "an attribute of a parameter": lambda m, o: setattr(m.linear.weight, "mine", 1),
    "a buffer's values": lambda m, o: fill(m.norm.running_mean),
    "a buffer grown": lambda m, o: setattr(m, "cache", torch.ones(9, 4)),
    "a buffer grown in place": lambda m, o: m.cache.resize_(9, 4).fill_(1),
    "a buffer shrunk": lambda m, o: setattr(m, "cache", torch.ones(0, 4)),
    "a buffer with a graph": lambda m, o: graph_in_place(m),
    "a buffer that appears": lambda m, o: m.register_buffer(
        "late", torch.ones(1), persistent=False
    ),
    "a buffer that was None": lambda m, o: setattr(m, "nothing", torch.ones(1)),
    "a buffer that vanishes": lambda m, o: delattr(m, "cache"),
    "an expanded buffer": lambda m, o: expand_in_place(m.expanded),
    "a boolean buffer": lambda m, o: fill(m.mask),
    "an integer buffer": lambda m, o: m.counts.zero_(),
    "a complex buffer": lambda m, o: m.phases.zero_(),
    "a buffer of eight bits": lambda m, o: m.eighths.copy_(torch.zeros(4)),
    "views of one vector": lambda m, o: (fill(m.left), fill(m.right)),
    "noise drawn": lambda m, o: draw_noise(m, 8, torch.Generator()),
    "modes": lambda m, o: (m.train(), m.linear.eval()),
    "a submodule added": lambda m, o: m.add_module("extra", nn.Linear(1, 1)),
    "a submodule replaced": lambda m, o: setattr(m, "norm", nn.Identity()),
    "submodules reordered": lambda m, o: reorder(m._modules),
    "a hook added": lambda m, o: m.register_forward_hook(lambda *_: None),
    "a hook of state_dict lost": lambda m, o: m.frozen._state_dict_hooks.clear(),
    "a number": lambda m, o: setattr(m, "seen", 5),
    "an attribute added": lambda m, o: setattr(m, "new", 5),
    "a tensor in a list": lambda m, o: fill(m.history[0]),
    "a list": lambda m, o: m.history.append(torch.ones(2)),
    "a dict": lambda m, o: m.memory.update(keys=torch.ones(9)),
    "a Counter": lambda m, o: m.counter.update("ab"),
    "a deque": lambda m, o: m.recent.append(3),
    "an array": lambda m, o: m.table.__setitem__(0, 1.0),
    "generators": lambda m, o: (
        torch.rand(1, generator=m.draws[0]),
        m.draws[1].random(),
        m.draws[2].random(),
    ),
    "a module in a list": lambda m, o: fill(m.hidden[0].running_mean),
    # of the optimiser
    "a rate tensor's value": lambda m, o: o.param_groups[0]["lr"].fill_(9),
    "a rate tensor replaced": lambda m, o: o.param_groups[0].update(lr=0.3),
    "a rate": lambda m, o: o.param_groups[1].update(lr=0.3),
    "another option": lambda m, o: o.param_groups[1].update(momentum=0.5),
    "an option added, as schedulers do": lambda m, o: torch.optim.lr_scheduler.ExponentialLR(
        o, 0.5
    ),
    "a user's own option": lambda m, o: o.param_groups[1]["mine"]["notes"].append(2),
    "groups reordered": lambda m, o: o.param_groups.reverse(),
    "a group added": lambda m, o: o.add_param_group({"params": [m.linear.bias]}),
    "a group's dict replaced": lambda m, o: o.load_state_dict(
        copy.deepcopy({**o.state_dict(), "state": {}})
    ),
    "a parameter's place in its group": lambda m, o: o.param_groups[1]["params"].reverse(),
    "defaults": lambda m, o: o.defaults.update(lr=5.0),
    "state in double precision": lambda m, o: fill(o.state[m.short.weight]["master"]),
    "state of eight bits": lambda m, o: o.state[m.linear.weight]["eighth"].fill_(200),
    "a step": lambda m, o: o.state[m.linear.weight].update(step=9),
    "state in a list": lambda m, o: fill(o.state[m.linear.weight]["old"][0]),
    "a longer list": lambda m, o: o.state[m.linear.weight]["old"].append(torch.ones(2)),
    "state in an array": lambda m, o: o.state[m.linear.weight]["array"].fill(2),
    "state in an object": lambda m, o: setattr(o.state[m.linear.weight]["object"], "scale", 2.0),
    "a tensor in that object": lambda m, o: fill(o.state[m.linear.weight]["object"].table),
    "state of no parameter": lambda m, o: o.state["shared"]["a"].update(b=5, c=6),
    "state born inside": lambda m, o: o.state[m.linear.bias].update(momentum_buffer=torch.ones(4)),
    "state lost": lambda m, o: o.state.clear(),
    "an attribute of the optimiser": lambda m, o: (setattr(o, "steps", 4), o.log.append(2.0)),
    "a whole step": lambda m, o: rate_step(o, lambda: m.linear(torch.ones(2, 4)).square().mean())(
        0.5
    ),
    # random states
    "Python's random state": lambda m, o: random.random(),
    "numpy's random state": lambda m, o: np.random.rand(),
    "torch's random state": lambda m, o: torch.rand(1),
}


@pytest.mark.parametrize("name", DISTURBANCES)
def test_what_is_disturbed_inside_is_as_it_was_by_identity_and_bits(name):
    model, optimizer = made()
    before = everything(model, optimizer)
    with restored(model, optimizer):
        DISTURBANCES[name](model, optimizer)
        assert everything(model, optimizer) != before, "nothing was disturbed"
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("lazy", [False, True], ids=["with a shape", "lazy"])
@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_no_hook_of_the_block_is_called_after_it_and_those_before_are(register, lazy):
    """torch goes on calling a dict of hooks once given, even where its attribute says None."""
    torch.manual_seed(0)
    weights = []
    for hooked in (True, False):
        model = nn.Sequential(nn.LazyLinear(3) if lazy else nn.Linear(4, 3))
        optimizer, calls = torch.optim.SGD(model.parameters(), lr=0.1), []
        if not lazy:  # what has no shape yet takes no hook
            model[0].bias.register_hook(calls.append)
        if hooked:
            with restored(model, optimizer):
                model(torch.ones(2, 4))
                for parameter in model.parameters():
                    getattr(parameter, register)(lambda _: pytest.fail("called after the block"))
        model(torch.ones(2, 4)).sum().backward()
        getattr(model[0].weight, register)(lambda _, calls=calls: calls.append(None))
        model(torch.ones(2, 4)).sum().backward()
        assert len(calls) == (1 if lazy else 3)
        weights.append(model[0].weight.grad)
    assert torch.equal(*weights)


def test_all_of_it_at_once_and_an_exception():
    model, optimizer = made()
    before, order = everything(model, optimizer), list(DISTURBANCES)
    random.Random(3).shuffle(order)

    def interrupted():
        with restored(model, optimizer):
            for name in order:
                with suppress(Exception):  # after some of the others it is impossible
                    DISTURBANCES[name](model, optimizer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert everything(model, optimizer) == before


def test_memory_that_is_given_back_inside_as_sharding_does_is_there_again():
    model, optimizer = made()
    weight, values = model.linear.weight, model.linear.weight.detach().clone()
    with restored(model, optimizer):
        weight.untyped_storage().resize_(0)
    assert model.linear.weight is weight and torch.equal(weight, values)


class Stubborn(dict):
    """A dict that can be cleared no more."""

    def clear(self):
        raise OSError("it is read-only")


@pytest.mark.parametrize("where", ["model", "optimizer"])
@pytest.mark.parametrize(
    "name", ["a parameter's values", "a whole step", "torch's random state", "modes"]
)
def test_what_cannot_be_put_back_is_named_and_stops_nothing_else(name, where):
    model, optimizer = made()
    owner = model if where == "model" else optimizer
    owner.stubborn = Stubborn(a=1)
    reason = rf"{where}\.stubborn \(OSError: it is read-only\)"
    sentence = rf"restored could not put back {reason}; all else is as it was"
    before = everything(model, optimizer)

    def disturbed():
        with restored(model, optimizer):
            owner.stubborn["b"] = 2
            DISTURBANCES[name](model, optimizer)

    with pytest.raises(RuntimeError, match=sentence):
        disturbed()
    del owner.stubborn["b"]
    assert everything(model, optimizer) == before


def test_an_exception_from_inside_goes_on_with_the_loss_as_a_note():
    model, optimizer = made()
    model.stubborn = Stubborn(a=1)

    def failing():
        with restored(model, optimizer):
            model.stubborn["b"] = 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        failing()
    assert "could not put back model.stubborn" in caught.value.__notes__[0]


def test_lazy_modules_are_lazy_again_and_get_the_weights_they_would_have_got():
    def lazy():
        model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(1))
        return model, torch.optim.Adam(model.parameters(), lr=1e-3)

    x, ends = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), []
    for tested in (True, False):
        torch.manual_seed(5)
        model, optimizer = lazy()
        if tested:
            with restored(model, optimizer):
                range_test(
                    rate_step(optimizer, lambda model=model: model(x).square().mean()), 1e-4, 1, 9
                )
            assert (
                isinstance(model[0].weight, UninitializedParameter)
                and type(model[0]) is nn.LazyLinear
            )
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        ends.append(model)
    one, other = (end.state_dict() for end in ends)
    assert type(ends[0][0]) is nn.Linear and all(
        torch.equal(one[name], other[name]) for name in other
    )


def test_models_in_inference_mode_and_with_expanded_or_sparse_tensors_are_put_back():
    with torch.inference_mode():
        table = torch.arange(4.0)
    model = nn.Embedding(5, 3, sparse=True)
    model.register_buffer("table", table)
    model(torch.tensor([1, 3])).sum().backward()
    optimizer, sparse = torch.optim.SparseAdam(model.parameters()), model.weight.grad
    with restored(model, optimizer):
        with torch.inference_mode():
            model.table.zero_()
        sparse.mul_(3)
        rate_step(optimizer, lambda: model(torch.tensor([2])).square().sum())(0.1)
    assert model.weight.grad is sparse and sparse.to_dense().sum() == 6 and not optimizer.state
    assert model.table is table and model.table.tolist() == [0, 1, 2, 3]


def test_what_else_takes_part_is_put_back_when_it_is_named():
    """A scaler, a scheduler, an average, a sampler: their objects, not copies."""
    model = nn.Linear(2, 1)
    optimizer = Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    batches = EpochBatches(12, 3, 0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    average = torch.optim.swa_utils.AveragedModel(model)
    next(iter(batches))

    def states():
        parts = (scaler, scheduler, average)
        return (
            [repr(part.state_dict()) for part in parts],
            batches.state_dict()["done"],
            list(copy.deepcopy(batches)),
        )

    before = states()
    with restored(model, optimizer, scaler, scheduler, average, batches):
        for batch in batches:
            scaler.scale(model(torch.ones(len(batch), 2)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            average.update_parameters(model)
        assert all(left != right for left, right in zip(before[0], states()[0], strict=True))
    assert states() == before
    scaler.scale(model(torch.ones(1, 2)).mean()).backward()
    scaler.unscale_(optimizer)


def test_a_graph_made_before_can_still_be_walked_back():
    """What nothing inside touches is not written to, where a graph may hold on to it."""
    model, x = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4))), torch.ones(2, 4)
    model.eval()
    model(x)
    weight = model[0].weight  # computed, with a graph
    with restored(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        model(x)
    assert model[0].weight is weight
    weight.sum().backward()


def test_wrapped_models_are_put_back_but_for_what_the_wrapper_keeps_to_itself():
    compiled = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in compiled.state_dict().items()}
    compiled.eval()
    with restored(compiled, optimizer):
        compiled.train()
        range_test(
            rate_step(optimizer, lambda: compiled(torch.randn(8, 4)).square().mean()), 1e-3, 1, 5
        )
    assert not compiled.training and not compiled._orig_mod[1].training and not optimizer.state
    assert all(torch.equal(value, before[name]) for name, value in compiled.state_dict().items())


@pytest.mark.parametrize(
    "norm", [NoisyBatchNorm, lambda c: GhostBatchNorm(c, 4)], ids=["noisy", "ghost"]
)
def test_our_own_norms_leave_the_test_as_they_came(norm):
    model = nn.Sequential(nn.Linear(4, 4), norm(4))
    optimizer, generator = Adam(model.parameters()), torch.Generator()

    def loss():
        draw_noise(model, 8, generator)
        return model(torch.randn(8, 4)).square().mean()

    before = everything(model, optimizer)
    with restored(model, optimizer):
        range_test(rate_step(optimizer, loss), 1e-3, 1, 5)
    assert everything(model, optimizer) == before


def test_a_tensor_that_cannot_be_copied_is_refused_before_the_block():
    class Uncopied(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.clone:
                raise NotImplementedError("no")
            return super().__torch_function__(function, types, args, kwargs or {})

    model = nn.Linear(2, 1)
    model.register_buffer("odd", torch.ones(2).as_subclass(Uncopied))
    with (
        pytest.raises(ValueError, match=r"restored cannot copy model\.odd, a Uncopied: no"),
        restored(model, torch.optim.SGD(model.parameters(), lr=0.1)),
    ):
        pytest.fail("let in")


def test_rate_tensors_in_a_pickled_checkpoint_are_those_before():
    model, optimizer = made()
    with restored(model, optimizer):
        optimizer.param_groups[0]["lr"].fill_(5.0)
    buffer = io.BytesIO()
    torch.save(optimizer.param_groups[0]["lr"], buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True).item() == pytest.approx(0.1)
