"""The rules in place, by torch's own update functions where these are right and fast.

`rules` says what is computed, and takes a pass over memory for each of its operations. torch's
functions compute the same to rounding, in place, for many parameters at once: every rule is one of
them with the arguments of its form (`torch_forms`). Each knows several ways. Its fused kernel,
which reads and writes each number once, is taken only on a CPU, for the dtypes that the tests prove
right (`Form.fused`), and for plain tensors that lie in memory in one order: torch 2.12.1 and 2.13
have an SGD that leaves bfloat16 and float16 weights where they are. Everything else goes the way
that torch's own optimisers go when not asked for another. What no function of torch computes goes
by the rule itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter, not_
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.optimizers.torch_forms import FORMS, GRAIN, HALF, Form, Update, sgd_form

Columns = Sequence[list[Tensor]]
"""Parameters, their gradients, and for each tensor of their state a list, all equally long."""
PLAIN = {Tensor, nn.Parameter}
"""Classes whose numbers lie where they seem to; a sharded tensor holds them elsewhere."""
TOGETHER = 64
"""Little tensors that are updated at once, so that what is held in between stays small."""
RULE, FUSED, FOREACH, DEFAULT = "by the rule", "fused", "foreach", "torch's default"


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
                some = (column[start : start + TOGETHER] for column in alike)
                form.function(*some, foreach=True, **arguments)
        elif way == FUSED:
            form.function(*alike, fused=True, **arguments)
            # its kernels do not, and autograd would not see it
            torch.autograd.graph.increment_version(alike[0])
        else:
            form.function(*alike, **arguments)


def _form(update: Update, lr: float | Tensor, hyper: Mapping[str, Any]) -> Form | None:
    """The form that does what `update` does with this rate and these hyper-parameters, if any.

    None for a rate on a GPU, which would have to be waited for.
    """
    if isinstance(lr, Tensor) and not lr.is_cpu:
        return None
    return FORMS.get(update)


def _by_way(form: Form, columns: Columns) -> Iterator[tuple[str, Columns]]:
    """Parameters by the way that each goes.

    They are looked at all at once, which is almost always enough, or one by one.
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
    for way, goes in (FOREACH, is_little), (large, [*map(not_, is_little)]):
        if all(goes):
            yield way, columns
        elif any(goes):
            yield way, [[*compress(column, goes)] for column in columns]


def _way(form: Form, row: Sequence[Tensor]) -> tuple[str, Sequence[Tensor]]:
    param, plain = row[0], _are_plain(row)
    if plain and param.dtype in form.fused:
        ordered = in_order_of_memory(row)
        if all(map(Tensor.is_contiguous, ordered)):
            little = param.numel() < GRAIN and _wakes_threads(form)
            return (FOREACH if little else FUSED), ordered
    if len(set(map(attrgetter("dtype"), row))) > 1:
        return RULE, row  # torch's functions want one dtype
    if param.dtype == torch.float16 and form.function is not sgd_form:
        return RULE, row  # torch's functions would divide by √s + ε, in float16 0 where s is
    return (FOREACH if plain and param.numel() < GRAIN else DEFAULT), row


def _are_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are of one dtype and in a CPU's memory, as its kernels want them."""
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
    """Whether numbers of a tensor may share memory, as those of an expanded one do.

    Updates in place need their own.
    """
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += (size - 1) * stride
    return False


def _wakes_threads(form: Form) -> bool:
    """Whether a fused kernel wakes torch's threads even where they have too little to do.

    SGD's does, for every tensor. With several threads that costs ten times the update itself;
    measured on a Transformer of 88 tensors.
    """
    return form.function is sgd_form and torch.get_num_threads() > 1


def _by_rule(
    update: Update, columns: Columns, step: int, lr: float | Tensor, hyper: Mapping[str, Any]
) -> None:
    """The rule itself, one parameter after another; half precision is rounded once an update."""
    for param, grad, *state in zip(*columns, strict=True):
        theta, slope, *before = (t.float() if t.dtype in HALF else t for t in (param, grad, *state))
        theta, after = update(theta, slope, tuple(before), step, lr, **hyper)
        param.copy_(theta)
        for value, new in zip(state, after, strict=True):
            value.copy_(new)
