"""What moved from one labelled set to another, measured with two-sample tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steadydescent.checks import check_fraction
from steadydescent.dataset_shift.shifted import Shifted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS_AT_ONCE = 128
"""Columns whose distribution functions are compared in one go; bounds the memory."""
EXACT_BELOW = 100
"""Examples in the smaller set below which Kolmogorov's limit is too sure of itself."""


def verify(before: Shifted, after: Shifted, level: float = 0.001) -> pd.DataFrame:
    """Which of p(x), p(y), p(x|y) and p(y|x) moved: one row an aspect.

    Columns are aspect, moved, statistic, p, level and how.

    - **p(x)**: two-sample Kolmogorov–Smirnov tests of every feature; of every principal component
      (of both sets together, so that neither is favoured) and its distance from the mean, which
      sees noise; and of every example's length, smallest and largest value, which see its scale.
      Bonferroni over all of them, one of the tests that Rabanser et al. compare
      (rabanser2019failing). The statistic is the largest distance of two distribution functions,
      from 0 to 1.
    - **p(y)**: the χ² test of homogeneity of the class counts; statistic χ².
    - **p(x|y)**: the tests of p(x) within every class that both sets have; Bonferroni over tests
      and classes; the statistic is that of the class with the smallest p.
    - **p(y|x)**: if `after.rows` tells which example of `before` each comes from, the share of them
      whose label changed, and any change counts. Where x stayed the same this is p(y|x) itself;
      where x changed it is the rule from example to label, for no x is seen twice. Without rows,
      p(y|x) = p(x|y)·p(y)/p(x) did not move if neither p(x|y) nor p(y) was seen to; if one was, it
      cannot be told, and `moved` is missing (pd.NA).

    `moved` is p < level, and `p` is corrected for the number of tests. The tests take the two sets
    for independent samples. Where they share or pair examples, as most shifts here do, they err on
    the side of "not moved": the chance of a false alarm is then below `level`. "Not moved" means
    not seen to move in that many examples.

    Raises ValueError if a set is not `Shifted`, the two sets differ in the number of features, x is
    not finite, rows point outside `before`, or level is not in (0, 1).

    >>> x, y = torch.linspace(0, 1, 300).view(150, 2), torch.arange(150) % 3
    >>> table = verify(Shifted(x, y), Shifted(x.sqrt(), y.roll(1), rows=torch.arange(150)))
    >>> table[["aspect", "moved", "statistic"]]
       aspect  moved  statistic
    0    p(x)   True       0.61
    1    p(y)  False       0.00
    2  p(x|y)   True       0.62
    3  p(y|x)   True       1.00
    """
    import pandas as pd

    _check(before, after, level)
    first, second = _columns(before.x, after.x).split([len(before.x), len(after.x)], dim=1)
    shared = [k for k in before.y.unique().tolist() if (after.y == k).any()]
    within = [(first[:, before.y == k], second[:, after.y == k]) for k in shared]
    tests = {
        "p(x)": _distribution_test([(first, second)], [""]),
        "p(y)": _proportion_test(before.y, after.y),
        "p(x|y)": _distribution_test(within, [f", class {k}" for k in shared]),
    }
    rows = []
    for aspect, test in tests.items():
        moved = None if test["p"] is None else test["p"] < level
        rows.append({"aspect": aspect, "moved": moved, **test, "level": level})
    others_moved = any(row["moved"] is not False for row in rows[1:])
    rows.append({"aspect": "p(y|x)", **_rule(before, after, others_moved)})
    types = {"moved": "boolean", "statistic": "float64", "p": "float64", "level": "float64"}
    names = ["aspect", "moved", "statistic", "p", "level", "how"]
    return pd.DataFrame(rows, columns=names).astype(types)


def _check(before: Shifted, after: Shifted, level: float) -> None:
    for name, part in (("before", before), ("after", after)):
        if not isinstance(part, Shifted):
            raise ValueError(f"{name} must be Shifted(x, y), got {type(part).__name__}")
    check_fraction(level, "level")
    if before.x.shape[1] != after.x.shape[1]:
        raise ValueError(
            f"both sets must have the same features, got {before.x.shape[1]} and {after.x.shape[1]}"
        )
    if not before.x.isfinite().all() or not after.x.isfinite().all():
        raise ValueError("x must be finite, got an example that is not")
    if after.rows is not None and not (after.rows.min() >= 0 and after.rows.max() < len(before.x)):
        raise ValueError(
            f"rows must point to the {len(before.x)} examples before, "
            f"got {after.rows.min()} to {after.rows.max()}"
        )


def _columns(first: Tensor, second: Tensor) -> Tensor:
    """What is looked at in each example, `[C, n + m]`: C numbers for its place and its size."""
    features = torch.cat([first, second]).double()
    centred = features - features.mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    # the others are rounding errors
    components = centred @ axes[:, variances > 1e-10 * variances[-1]]
    size = torch.stack([features.norm(dim=1), features.amin(1), features.amax(1)], 1)
    return torch.cat([features, components, components.abs(), size], 1).T.contiguous()


def _ks_statistics(first: Tensor, second: Tensor) -> Tensor:
    """Kolmogorov–Smirnov's distance sup|F − G| of rows `[C, n]` from rows `[C, m]`: `[C]`.

    All rows at once, in whole numbers (scipy goes through them one by one): a step up of m at each
    of the n values, down of n at each of the m, and the sums count only where a run of equal values
    ends.
    """
    n, m = first.shape[1], second.shape[1]
    values, order = torch.cat([first, second], 1).sort(1)
    sums = torch.where(order < n, m, -n).cumsum(1)[:, :-1].abs()
    return torch.where(values[:, 1:] > values[:, :-1], sums, 0).amax(1).double() / (n * m)


def _distribution_test(samples: list[tuple[Tensor, Tensor]], names: list[str]) -> dict[str, Any]:
    """The strongest Kolmogorov–Smirnov test of all rows of pairs `[C, n]`, `[C, m]`.

    Its p is Bonferroni's.
    """
    from scipy.stats import ks_2samp

    results = []
    for (first, second), name in zip(samples, names, strict=True):
        parts = zip(first.split(COLUMNS_AT_ONCE), second.split(COLUMNS_AT_ONCE), strict=True)
        # of equal sizes the largest distance has the smallest p
        strongest = int(torch.cat([_ks_statistics(*part) for part in parts]).argmax())
        method = "exact" if min(first.shape[1], second.shape[1]) < EXACT_BELOW else "asymp"
        test = ks_2samp(first[strongest].numpy(), second[strongest].numpy(), method=method)
        results.append((float(test.pvalue), float(test.statistic), name))
    if not results:
        return {"statistic": None, "p": None, "how": "no class is in both sets"}
    p, statistic, name = min(results)
    tests = sum(len(first) for first, _ in samples)
    return {
        "statistic": statistic,
        "p": min(1.0, p * tests),
        "how": f"largest of {tests} Kolmogorov-Smirnov tests{name}",
    }


def _proportion_test(first: Tensor, second: Tensor) -> dict[str, Any]:
    from scipy.stats import chi2_contingency

    classes = int(max(first.max(), second.max())) + 1
    table = torch.stack([labels.bincount(minlength=classes) for labels in (first, second)])
    test = chi2_contingency(table[:, table.any(0)].numpy(), correction=False)
    return {
        "statistic": float(test.statistic),
        "p": float(test.pvalue),
        "how": "chi-squared test of the class counts",
    }


def _rule(before: Shifted, after: Shifted, others_moved: bool) -> dict[str, Any]:
    """Whether the label that belongs to an example changed."""
    if after.rows is None:
        moved, did = (None, "move: cannot be told") if others_moved else (False, "not move")
        how = f"p(x|y)·p(y)/p(x), of which p(x|y) and p(y) did {did}"
        return {"moved": moved, "statistic": None, "p": None, "level": None, "how": how}
    changed = (after.y != before.y[after.rows]).double().mean().item()
    same = (after.x == before.x[after.rows]).all(1).double().mean().item()
    how = f"share of examples whose label changed; the x of {same:.0%} stayed the same"
    return {"moved": changed > 0, "statistic": changed, "p": None, "level": 0.0, "how": how}
