"""Prior shift, p(y) moves, and concept shift, p(y|x) moves: what happens to the labels."""

import torch
from torch import Generator, Tensor

from steadydescent.checks import check_count, check_generator
from steadydescent.dataset_shift.shifted import Shifted, check_labels, check_severity, check_tensor

RATIOS = (1, 3, 10, 30, 100, 300)
"""Severity → by how much the ratio of the most to the least favoured class grows; 1: not at all."""

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Severity → share of the classes whose labels are exchanged."""


def prior_shift(labels: Tensor, proportions: Tensor, count: int, *, generator: Generator) -> Tensor:
    """`count` different rows of `labels` `[N]`, rising, whose classes have the proportions `[K]`.

    The counts are those of `largest_remainder`, and the rows of a class are drawn without
    replacement, so p(x|y) stays: every row is an unchanged example of its class. From the same
    state of the (CPU) generator, a class that keeps fewer rows keeps some of the same ones.

    Raises ValueError if the labels are not class numbers 0 … K−1, the proportions are not, without
    a generator, or if a class has fewer examples than asked for: nothing is then drawn, and nothing
    is repeated to make up for it.

    >>> labels = torch.tensor([0, 0, 1, 1, 0, 1, 1])
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = prior_shift(labels, torch.tensor([0.75, 0.25]), 4, generator=generator)
    >>> labels[rows].bincount().tolist()
    [3, 1]
    """
    check_generator(generator)
    counts = largest_remainder(proportions, count)
    if check_labels(labels).max() >= len(counts):
        raise ValueError(
            f"labels must be below the {len(counts)} classes of the proportions, got {labels.max()}"
        )
    available = labels.bincount(minlength=len(counts))
    if (lacking := (counts > available).nonzero().flatten()).numel():
        shortages = ", ".join(
            f"class {k} has {available[k]} of the {counts[k]} asked for" for k in lacking.tolist()
        )
        raise ValueError(
            f"a prior shift to {count} examples needs more than there are: {shortages}"
        )
    orders = [torch.randperm(int(n), generator=generator) for n in available]
    rows = [
        (labels == k).nonzero().flatten()[order[:n]]
        for k, (order, n) in enumerate(zip(orders, counts, strict=True))
    ]
    return torch.cat(rows).sort().values


def largest_remainder(proportions: Tensor, count: int) -> Tensor:
    """Whole numbers `[K]` that add up to `count`, nearest to `proportions` `[K]` × `count`.

    Hamilton's method: each class gets its quota rounded down, and those with the largest remainders
    one more, the lower class first. Remainders are compared to nine decimals, so that equal ones
    are equal in floats too.

    Raises ValueError unless count is at least 1 and the proportions are at least 0 and add up to 1.

    >>> largest_remainder(torch.tensor([0.5, 0.3, 0.2]), 7).tolist()
    [4, 2, 1]
    """
    check_count(count, "count")
    shares = check_tensor(proportions, "proportions").double()
    if shares.ndim != 1 or not (shares >= 0).all() or not (shares.sum() - 1).abs() < 1e-6:
        raise ValueError(
            f"proportions must be [K], at least 0 and add up to 1, got {proportions.tolist()}"
        )
    quotas = shares * count
    counts = quotas.floor().long()
    order = (quotas - counts).round(decimals=9).sort(descending=True, stable=True).indices
    counts[order[: count - int(counts.sum())]] += 1
    return counts


def prior_proportions(frequencies: Tensor, severity: int, order: Tensor) -> Tensor:
    """Class proportions `[K]` of a severity: p_k ∝ frequency_k · ratio^(−r/(K−1)).

    r is the rank of class k in `order`. `frequencies` `[K]` are the classes' numbers or shares
    before the shift, `order` `[K]` a permutation of the classes, the favoured one first. Ratio 1 at
    severity 0 (the proportions stay), then 3, 10, 30, 100 and 300.

    Raises ValueError for a severity outside 0 to 5, fewer than two classes, frequencies that are
    negative or all zero, or an order that is not a permutation.

    Severity 2 gives 1 : 1/√10 : 1/10 of three classes:

    >>> prior_proportions(torch.tensor([50, 50, 50]), 2, torch.tensor([2, 0, 1])).tolist()
    [0.2233, 0.0706, 0.7061]
    """
    classes = check_tensor(frequencies, "frequencies").numel()
    ratio = RATIOS[check_severity(severity)]
    are_shares = bool((frequencies >= 0).all()) and bool(frequencies.sum() > 0)
    if frequencies.ndim != 1 or classes < 2 or not are_shares:
        raise ValueError(
            f"frequencies must be [K], K ≥ 2, at least 0 and not all 0, got {frequencies.tolist()}"
        )
    if not torch.equal(check_tensor(order, "order").sort().values, torch.arange(classes)):
        raise ValueError(
            f"order must be a permutation of the {classes} classes, got {order.tolist()}"
        )
    ranks = order.argsort().double()
    tilted = frequencies.double() * ratio ** (-ranks / (classes - 1))
    return tilted / tilted.sum()


def shifted_prior(
    x: Tensor, y: Tensor, severity: int, *, classes: int, count: int, generator: Generator
) -> Shifted:
    """`count` of the examples `x` `[N, F]`, `y` `[N]`, in `prior_proportions` of the severity.

    Which classes are favoured is drawn too, so that an average over seeds does not mistake an easy
    class for the shift; the same state of the (CPU) generator favours the same classes at every
    severity. Severity 0 keeps the proportions, and with count = N it is the identity. With ten
    equally frequent classes, 2 127 of 10 000 examples and 4 254 of 20 000 can be had at every
    severity.

    p(x|y) and the label of every example stay. p(x) moves with p(y), and p(y|x) by Bayes' rule
    where classes overlap.

    Raises ValueError as `prior_shift` and `prior_proportions` do; the generator is then left as it
    was.

    >>> x, y = torch.zeros(40, 3), torch.arange(40) % 2
    >>> generator = torch.Generator().manual_seed(1)
    >>> shifted_prior(x, y, 1, classes=2, count=20, generator=generator).y.bincount().tolist()
    [5, 15]
    """
    before = Shifted(x, _checked_classes(y, classes))
    check_generator(generator)
    drawing = generator.clone_state()  # a refused call leaves the caller's generator as it was
    order = torch.randperm(classes, generator=drawing)
    proportions = prior_proportions(before.y.bincount(minlength=classes), severity, order)
    rows = prior_shift(y, proportions, count, generator=drawing)
    generator.set_state(drawing.get_state())
    return Shifted(x[rows], y[rows], rows)


def label_permutation(classes: int, severity: int, *, generator: Generator) -> Tensor:
    """New label of each class `[K]`: some classes, drawn at random, exchange labels in a circle.

    Severity 1 to 5 takes a fifth of the K classes, two fifths, …, all (2, 4, 6, 8 and 10 of ten),
    and the others keep their labels. A class that is taken is taken at every higher severity from
    the same state of the (CPU) generator.

    Raises ValueError for a severity outside 0 to 5, fewer than 1 class, no generator, or if fewer
    than two classes would be taken.

    >>> label_permutation(10, 2, generator=torch.Generator().manual_seed(0))
    tensor([0, 7, 2, 3, 1, 4, 6, 5, 8, 9])
    """
    check_generator(generator)
    size = round(SHARES[check_severity(severity)] * check_count(classes, "classes"))
    if severity and size < 2:
        raise ValueError(
            f"severity {severity} would exchange {size} of {classes} labels; it takes at least 2"
        )
    circle = torch.randperm(classes, generator=generator)[:size]
    labels = torch.arange(classes)
    labels[circle] = circle.roll(-1)
    return labels


def shifted_concept(
    x: Tensor, y: Tensor, severity: int, *, classes: int, generator: Generator
) -> Shifted:
    """The same examples `x` `[B, F]` with labels exchanged by `label_permutation`.

    `x` is the very tensor.     p(x) does not move by a byte, p(y|x) does for every x of a class
    that is taken. p(y) stays if the classes taken are equally frequent; p(x|y) moves, its classes
    having changed places.

    Raises ValueError as `label_permutation` does, or for labels of `classes` or more.

    >>> x, y = torch.zeros(5, 3), torch.arange(5)
    >>> shifted_concept(x, y, 5, classes=5, generator=torch.Generator().manual_seed(0)).y
    tensor([1, 3, 4, 2, 0])
    """
    before = Shifted(x, _checked_classes(y, classes), torch.arange(len(y)))
    new_labels = label_permutation(classes, severity, generator=generator)
    return Shifted(before.x, new_labels[before.y], before.rows)


def _checked_classes(labels: Tensor, classes: int) -> Tensor:
    if check_labels(labels).max() >= check_count(classes, "classes"):
        raise ValueError(f"labels must be below classes = {classes}, got {labels.max()}")
    return labels
