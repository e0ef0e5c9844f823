"""The rules by torch's own update functions (`torch.optim.sgd.sgd`, `adam.adam`, `rmsprop.rmsprop`), in place.

`rules` says what is computed, and takes a pass over memory for each of its operations. torch's functions compute the
same to rounding, in place, for many parameters at once: every rule is one of them with the arguments given here. Each
knows several ways. Its fused kernel, which reads and writes each number once, is taken only on a CPU, for the dtypes
that the tests prove right (`Form.fused`), and for plain tensors that lie in memory in one order: torch 2.12.1 and 2.13
have an SGD that leaves bfloat16 and float16 weights where they are. Everything else goes the way that torch's own
optimisers go when not asked for another. What no function of torch computes goes by the rule itself.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from steadydescent.averages import debias
from steadydescent.optimizers import rules

Row = Sequence[Tensor]
"""A parameter, its gradient, and the tensors of its state."""
Update = Callable[..., Any]

PLAIN = {Tensor, nn.Parameter}
"""Classes whose numbers lie where they seem to; a subclass may hold them elsewhere, as a sharded tensor does."""
FULL = {torch.float32, torch.float64}
HALF = {torch.float16, torch.bfloat16}
GRAIN = 32_768
"""Numbers of a tensor from which torch shares an elementwise operation out among threads."""
AT_ONCE = 8 * GRAIN
"""Numbers from which no more tensors are updated at once: what is held in between stays small."""
RULE, FUSED, FOREACH, DEFAULT = "by the rule", "fused", "foreach", "torch's default"


class Form(NamedTuple):
    """A rule as a function of torch: the function, its arguments, the dtypes for which its fused kernel is right."""

    function: Callable[..., None]
    arguments: Callable[..., dict[str, Any]]
    fused: AbstractSet[torch.dtype]


def update_in_place(
    update: Update, rows: Sequence[Row], step: int, lr: float | Tensor, hyper: Mapping[str, Any]
) -> None:
    """A rule's `update` of many parameters, for each of them update number `step`."""
    form = _form(update, lr, hyper)
    for way, alike in _by_way(form, rows).items():
        if form is None or way == RULE:
            _by_rule(update, alike, step, lr, hyper)
            continue
        weight_decay, others = hyper["weight_decay"], {k: v for k, v in hyper.items() if k != "weight_decay"}
        arguments = form.arguments(step, float(lr), **others) | {"weight_decay": weight_decay}
        for together in [alike] if way == DEFAULT else _few_at_once(alike):
            columns = map(list, zip(*together, strict=True))
            form.function(*columns, **arguments, **({} if way == DEFAULT else {way: True}))
        if way == FUSED:  # its kernels do not, and autograd would not see the change
            torch.autograd.graph.increment_version([row[0] for row in alike])


def _form(update: Update, lr: float | Tensor, hyper: Mapping[str, Any]) -> Form | None:
    """The function that does what `update` does with this rate and these hyper-parameters, if there is one.

    None for a memory of 0: torch's SGD then leaves the velocity as it was, and the rule's is the gradient. Nor for a
    rate on a GPU, which would have to be waited for.
    """
    if 0 in (hyper.get("mu"), hyper.get("beta")) or (isinstance(lr, Tensor) and not lr.is_cpu):
        return None
    return _FORMS.get(update)


def _by_way(form: Form | None, rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """Rows by the way that each goes."""
    if form is None:
        return {RULE: rows}
    tensors = [*chain.from_iterable(rows)]
    if _are_plain(tensors) and all(map(Tensor.is_contiguous, tensors)):  # as almost always, and looked at all at once
        return _ways_of_contiguous(form, rows)
    ways = defaultdict(list)
    for row in rows:
        way, ordered = _way(form, row)
        ways[way].append(ordered)
    return dict(ways)


def _ways_of_contiguous(form: Form, rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    large = FUSED if rows[0][0].dtype in form.fused else DEFAULT
    if large == FUSED and not _wakes_threads(form):
        return {FUSED: rows}
    sizes = [row[0].numel() for row in rows]
    split = {
        FOREACH: [row for row, size in zip(rows, sizes, strict=True) if size < GRAIN],
        large: [row for row, size in zip(rows, sizes, strict=True) if size >= GRAIN],
    }
    return {way: alike for way, alike in split.items() if alike}


def _way(form: Form, row: Row) -> tuple[str, Row]:
    param, plain = row[0], _are_plain(row)
    if plain and param.dtype in form.fused:
        ordered = in_order_of_memory(row)
        if all(map(Tensor.is_contiguous, ordered)):
            return next(iter(_ways_of_contiguous(form, [ordered]))), ordered
    if len(set(map(attrgetter("dtype"), row))) > 1:
        return RULE, row  # torch's functions want one dtype
    if param.dtype == torch.float16 and form.function is not _sgd:
        return RULE, row  # torch's functions would divide by √s + ε, which is 0 in float16 where s is
    return (FOREACH if plain and param.numel() < GRAIN else DEFAULT), row


def _are_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are as the kernels of a CPU want them but for their order: of one dtype, in its memory."""
    return (
        set(map(type, tensors)) <= PLAIN
        and len(set(map(attrgetter("dtype"), tensors))) == 1
        and all(map(attrgetter("is_cpu"), tensors))
    )


def _few_at_once(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = numbers = 0
    for stop, row in enumerate(rows, start=1):
        numbers += row[0].numel()
        if numbers >= AT_ONCE or stop == len(rows):
            yield rows[start:stop]
            start, numbers = stop, 0


def in_order_of_memory(row: Row) -> Row:
    """The tensors with their axes in the order in which the first one's numbers lie in memory.

    All are contiguous then if all lie alike and without gaps, as channels_last and transposed ones do.
    """
    axes = sorted(range(row[0].ndim), key=row[0].stride, reverse=True)
    return [tensor.permute(axes) for tensor in row]


def overlaps(tensor: Tensor) -> bool:
    """Whether numbers of a tensor may share memory, as those of an expanded one do: updates in place need their own."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += (size - 1) * stride
    return False


def _wakes_threads(form: Form) -> bool:
    """Whether a fused kernel wakes torch's threads for every tensor, also where they have too little to do.

    SGD's does. With several threads that costs ten times the update itself; measured on a Transformer of 88 tensors.
    """
    return form.function is _sgd and torch.get_num_threads() > 1


def _by_rule(update: Update, rows: Iterable[Row], step: int, lr: float | Tensor, hyper: Mapping[str, Any]) -> None:
    """The rule itself, one parameter after another; half precision is rounded once an update."""
    for param, grad, *state in rows:
        theta, grad, *before = (t.float() if t.dtype in HALF else t for t in (param, grad, *state))
        theta, after = update(theta, grad, tuple(before), step, lr, **hyper)
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
    **way: bool,
) -> None:
    if way.get("foreach"):
        _sgd_by_operation(params, grads, velocities, lr, weight_decay, momentum, dampening, nesterov)
        return
    if nesterov and not params[0].is_cpu:
        grads = [grad.clone() for grad in grads]  # torch's way there writes the step into them
    sgd(
        params, grads, velocities or [], lr=lr, weight_decay=weight_decay, momentum=momentum, dampening=dampening,
        nesterov=nesterov, maximize=False, **way,
    )  # type: ignore[arg-type]  # fmt: skip


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
    """torch's SGD in an operation at a time, each for all tensors; its own takes as long again to group them."""
    if weight_decay:
        grads = [*torch._foreach_add(grads, params, alpha=weight_decay)]
    if velocities:
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, grads, alpha=1 - dampening)
        grads = [*torch._foreach_add(grads, velocities, alpha=momentum)] if nesterov else velocities
    torch._foreach_add_(params, grads, alpha=-lr)


def _rmsprop(params: list[Tensor], grads: list[Tensor], squares: list[Tensor], alpha: float, **arguments: Any) -> None:
    if arguments.get("fused"):  # as Adam's: no memory of the mean, and no correction, since 1 − β^∞ = 1
        means = [torch.zeros_like(param) for param in params]
        _adam(params, grads, means, squares, step=math.inf, beta1=0.0, beta2=alpha, **arguments)
        return
    steps = [torch.zeros(())] * len(params)  # counted, never read
    rmsprop(params, grads, squares, [], [], steps, alpha=alpha, momentum=0.0, centered=False, **arguments)


def _adam(
    params: list[Tensor], grads: list[Tensor], means: list[Tensor], squares: list[Tensor], step: float, **arguments: Any
) -> None:
    steps = [*torch.full((len(params),), step - 1, dtype=torch.float32).unbind()]  # torch adds one
    adam(params, grads, means, squares, [], steps, amsgrad=False, maximize=False, **arguments)


_FORMS: Mapping[Update, Form] = {
    rules.sgd: Form(_sgd, lambda step, lr: {"lr": lr}, set()),
    rules.momentum: Form(_sgd, lambda step, lr, mu: {"lr": lr, "momentum": mu}, FULL),
    rules.nesterov: Form(_sgd, lambda step, lr, mu: {"lr": lr, "momentum": mu, "nesterov": True}, FULL),
    rules.averaged_momentum: Form(
        _sgd, lambda step, lr, beta: {"lr": lr, "momentum": beta, "dampening": beta}, FULL
    ),
    rules.corrected_momentum: Form(
        _sgd,
        lambda step, lr, beta: {
            "lr": debias(torch.tensor(lr, dtype=torch.float64), beta, step).item(), "momentum": beta, "dampening": beta,
        },
        FULL,
    ),
    rules.rmsprop: Form(_rmsprop, lambda step, lr, beta, eps: {"lr": lr, "alpha": beta, "eps": eps}, FULL | HALF),
    rules.adam: Form(_adam, lambda step, lr, **hyper: {"step": step, "lr": lr, **hyper}, FULL | HALF),
    rules.adamw: Form(
        _adam,
        lambda step, lr, **hyper: {"step": step, "lr": lr, "decoupled_weight_decay": True, **hyper},
        FULL | HALF,
    ),
}  # fmt: skip
