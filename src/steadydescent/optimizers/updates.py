"""The rules by torch's own update functions (`torch.optim.sgd.sgd`, `adam.adam`,
`rmsprop.rmsprop`), in place.

`rules` says what is computed, and takes a pass over memory for each of its operations. torch's
functions compute the same to rounding, in place, for many parameters at once: every rule is one of
them with the arguments given here. Each knows several ways. Its fused kernel, which reads and
writes each number once, is taken only on a CPU, for the dtypes that the tests prove right
(`Form.fused`), and for plain tensors that lie in memory in one order: torch 2.12.1 and 2.13 have an
SGD that leaves bfloat16 and float16 weights where they are. Everything else goes the way that
torch's own optimisers go when not asked for another. What no function of torch computes goes by the
rule itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, compress
from operator import attrgetter, not_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from steadydescent.averages import debias
from steadydescent.optimizers import rules

Columns = Sequence[list[Tensor]]
"""Parameters, their gradients, and for each tensor of their state a list of it, all equally long.
"""
Update = Callable[..., Any]

PLAIN = {Tensor, nn.Parameter}
"""Classes whose numbers lie where they seem to; a subclass may hold them elsewhere, as a sharded
tensor does.
"""
FULL = {torch.float32, torch.float64}
HALF = {torch.float16, torch.bfloat16}
GRAIN = 32_768
"""Numbers of a tensor from which torch shares an elementwise operation out among threads."""
TOGETHER = 64
"""Little tensors that are updated at once, so that what is held in between stays small."""
RULE, FUSED, FOREACH, DEFAULT = "by the rule", "fused", "foreach", "torch's default"


class Form(NamedTuple):
    """A rule as a function of torch: the function, its arguments, the dtypes for which its fused
    kernel is taken.
    """

    function: Callable[..., None]
    arguments: Callable[..., dict[str, Any]]
    fused: AbstractSet[torch.dtype]


def update_in_place(
    update: Update, columns: Columns, step: int, lr: float | Tensor, hyper: Mapping[str, Any]
) -> None:
    """A rule's `update` of many parameters, for each of them update number `step`."""
    form = _form(update, lr, hyper)
    if form is None:
        _by_rule(update, columns, step, lr, hyper)
        return
    others = {name: value for name, value in hyper.items() if name != "weight_decay"}
    arguments = form.arguments(step, float(lr), **others) | {"weight_decay": hyper["weight_decay"]}
    for way, alike in _by_way(form, columns):
        if way == RULE:
            _by_rule(update, alike, step, lr, hyper)
        elif way == FOREACH:
            for start in range(0, len(alike[0]), TOGETHER):
                form.function(
                    *(column[start : start + TOGETHER] for column in alike),
                    foreach=True,
                    **arguments,
                )
        elif way == FUSED:
            form.function(*alike, fused=True, **arguments)
            torch.autograd.graph.increment_version(
                alike[0]
            )  # its kernels do not, and autograd would not see it
        else:
            form.function(*alike, **arguments)


def _form(update: Update, lr: float | Tensor, hyper: Mapping[str, Any]) -> Form | None:
    """The function that does what `update` does with this rate and these hyper-parameters, if there
    is one.

    None for a rate on a GPU, which would have to be waited for.
    """
    if isinstance(lr, Tensor) and not lr.is_cpu:
        return None
    return _FORMS.get(update)


def _by_way(form: Form, columns: Columns) -> Iterator[tuple[str, Columns]]:
    """Parameters by the way that each goes: looked at all at once, which is almost always enough,
    or one by one.
    """
    tensors = [*chain.from_iterable(columns)]
    if _are_plain(tensors) and (not form.fused or all(map(Tensor.is_contiguous, tensors))):
        yield from _by_size(form, columns)
        return
    ways: dict[str, list[Sequence[Tensor]]] = {}
    for row in zip(*columns, strict=True):
        way, ordered = _way(form, row)
        ways.setdefault(way, []).append(ordered)
    for way, rows in ways.items():
        yield way, [*map(list, zip(*rows, strict=True))]


def _by_size(form: Form, columns: Columns) -> Iterator[tuple[str, Columns]]:
    large = FUSED if columns[0][0].dtype in form.fused else DEFAULT
    if large == FUSED and not _wakes_threads(form):
        yield FUSED, columns
        return
    is_little = [param.numel() < GRAIN for param in columns[0]]
    for way, chosen in (FOREACH, is_little), (large, [*map(not_, is_little)]):
        if all(chosen):
            yield way, columns
        elif any(chosen):
            yield way, [[*compress(column, chosen)] for column in columns]


def _way(form: Form, row: Sequence[Tensor]) -> tuple[str, Sequence[Tensor]]:
    param, plain = row[0], _are_plain(row)
    if plain and param.dtype in form.fused:
        ordered = in_order_of_memory(row)
        if all(map(Tensor.is_contiguous, ordered)):
            little = param.numel() < GRAIN and _wakes_threads(form)
            return (FOREACH if little else FUSED), ordered
    if len(set(map(attrgetter("dtype"), row))) > 1:
        return RULE, row  # torch's functions want one dtype
    if param.dtype == torch.float16 and form.function is not _sgd:
        return (
            RULE,
            row,
        )  # torch's functions would divide by √s + ε, which is 0 in float16 where s is
    return (FOREACH if plain and param.numel() < GRAIN else DEFAULT), row


def _are_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are as the kernels of a CPU want them but for their order: of one dtype, in
    its memory.
    """
    return (
        set(map(type, tensors)) <= PLAIN
        and len(set(map(attrgetter("dtype"), tensors))) == 1
        and all(map(attrgetter("is_cpu"), tensors))
    )


def in_order_of_memory(row: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors with their axes in the order in which the first one's numbers lie in memory.

    All are contiguous then if all lie alike and without gaps, as channels_last and transposed ones
    do.
    """
    axes = sorted(range(row[0].ndim), key=row[0].stride, reverse=True)
    return [tensor.permute(axes) for tensor in row]


def overlaps(tensor: Tensor) -> bool:
    """Whether numbers of a tensor may share memory, as those of an expanded one do: updates in
    place need their own.
    """
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += (size - 1) * stride
    return False


def _wakes_threads(form: Form) -> bool:
    """Whether a fused kernel wakes torch's threads for every tensor, also where they have too
    little to do.

    SGD's does. With several threads that costs ten times the update itself; measured on a
    Transformer of 88 tensors.
    """
    return form.function is _sgd and torch.get_num_threads() > 1


def _by_rule(
    update: Update, columns: Columns, step: int, lr: float | Tensor, hyper: Mapping[str, Any]
) -> None:
    """The rule itself, one parameter after another; half precision is rounded once an update."""
    for param, grad, *state in zip(*columns, strict=True):
        theta, slope, *before = (t.float() if t.dtype in HALF else t for t in (param, grad, *state))
        theta, after = update(theta, slope, tuple(before), step, lr, **hyper)
        param.copy_(theta)
        for kept, new in zip(state, after, strict=True):
            kept.copy_(new)


def _sgd(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor] | None = None,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    **way: Any,
) -> None:
    if velocities:
        # without a memory torch leaves the velocity as it was, and the rule's is the gradient
        momentum = momentum or math.ulp(0.0)
    if way.get("foreach"):
        _sgd_by_operation(
            params, grads, velocities, lr, weight_decay, momentum, dampening, nesterov
        )
        return
    if nesterov and not params[0].is_cpu:
        grads = [grad.clone() for grad in grads]  # torch's way there writes the step into them
    sgd(
        params,
        grads,
        [*(velocities or [])],
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        maximize=False,
        **way,
    )


def _sgd_by_operation(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor] | None,
    lr: float,
    weight_decay: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
) -> None:
    """torch's SGD in an operation at a time, each for all tensors; its own takes as long again to
    group them.
    """
    if weight_decay:
        grads = [*torch._foreach_add(grads, params, alpha=weight_decay)]
    if velocities:
        # a number would be rounded to half precision first
        memory = torch.tensor(momentum, dtype=torch.float64, device="cpu")
        torch._foreach_mul_(velocities, memory)
        torch._foreach_add_(velocities, grads, alpha=1 - dampening)
        grads = [*torch._foreach_add(grads, velocities, alpha=momentum)] if nesterov else velocities
    torch._foreach_add_(params, grads, alpha=-lr)


def _rmsprop(
    params: list[Tensor],
    grads: list[Tensor],
    squares: list[Tensor],
    alpha: float,
    fused: bool = False,
    **arguments: Any,
) -> None:
    if not fused:
        steps = [torch.zeros((), device="cpu")] * len(params)  # counted, never read
        rmsprop(
            params,
            grads,
            squares,
            [],
            [],
            steps,
            alpha=alpha,
            momentum=0.0,
            centered=False,
            **arguments,
        )
        return
    for part in _portions(
        params
    ):  # as Adam's: no memory of the mean, and no correction, since 1 − β^∞ = 1
        means = [torch.zeros_like(param) for param in params[part]]
        of_adam = {"step": math.inf, "beta1": 0.0, "beta2": alpha, "fused": True}
        _adam(params[part], grads[part], means, squares[part], **of_adam, **arguments)


def _portions(tensors: Sequence[Tensor]) -> Iterator[slice]:
    """Parts whose copies stay small: many little tensors, or a large one."""
    start = numbers = 0
    for stop, tensor in enumerate(tensors, start=1):
        numbers += tensor.numel()
        if numbers >= 8 * GRAIN or stop == len(tensors):
            yield slice(start, stop)
            start, numbers = stop, 0


def _adam(
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    step: float,
    **arguments: Any,
) -> None:
    steps = [
        *torch.full((len(params),), step - 1, dtype=torch.float32, device="cpu").unbind()
    ]  # torch adds one
    adam(params, grads, means, squares, [], steps, amsgrad=False, maximize=False, **arguments)


_FORMS: Mapping[Update, Form] = {
    rules.sgd: Form(_sgd, lambda step, lr: {"lr": lr}, set()),
    rules.momentum: Form(_sgd, lambda step, lr, mu: {"lr": lr, "momentum": mu}, FULL),
    rules.nesterov: Form(
        _sgd, lambda step, lr, mu: {"lr": lr, "momentum": mu, "nesterov": True}, FULL
    ),
    rules.averaged_momentum: Form(
        _sgd, lambda step, lr, beta: {"lr": lr, "momentum": beta, "dampening": beta}, FULL
    ),
    rules.corrected_momentum: Form(
        _sgd,
        lambda step, lr, beta: {
            "lr": debias(torch.tensor(lr, dtype=torch.float64, device="cpu"), beta, step).item(),
            "momentum": beta,
            "dampening": beta,
        },
        FULL,
    ),
    rules.rmsprop: Form(
        _rmsprop, lambda step, lr, beta, eps: {"lr": lr, "alpha": beta, "eps": eps}, FULL | HALF
    ),
    rules.adam: Form(
        _adam, lambda step, lr, **hyper: {"step": step, "lr": lr, **hyper}, FULL | HALF
    ),
    rules.adamw: Form(
        _adam,
        lambda step, lr, **hyper: {"step": step, "lr": lr, "decoupled_weight_decay": True, **hyper},
        FULL | HALF,
    ),
}
