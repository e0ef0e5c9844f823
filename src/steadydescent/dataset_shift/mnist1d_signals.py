"""MNIST-1D's generator (Greydanus and Kobak, ICML 2024, arXiv:2011.14439) with every argument free.

The draws of the package ``mnist1d``, bit by bit, ten times as fast, and without its scaling of the
whole set.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
# The package's defaults, written out so that a release that changes them cannot change our data
# unnoticed.
ARGUMENTS = {
    "template_len": 12,
    "padding": [36, 60],  # points
    "scale_coeff": 0.4,
    "max_translation": 48,  # points
    "corr_noise_scale": 0.25,
    "iid_noise_scale": 2e-2,
    "shear_scale": 0.75,
    "shuffle_seq": False,
    "final_seq_length": 40,
}
POINTS = 40  # ARGUMENTS["final_seq_length"]
# Not these two: the package's templates have 12 points whatever is asked for, and `draw` shuffles
# no signal.
CHANGEABLE = set(ARGUMENTS) - {"shuffle_seq", "template_len"}
_RANDOM_STATE_LOCK = threading.Lock()  # the package draws from numpy's global generator


def draw(
    seed: int, count: int, changes: Mapping[str, Any] = MappingProxyType({})
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Raw signals [count, 40] in the package's units and labels [count], as many of each class.

    Both are shuffled.     The draws of ``mnist1d.data.make_dataset`` with ``args.seed = seed`` in
    the same order, without its last step ``(x - x.mean()) / x.std()`` over the whole set. The
    caller's global random states are left as they were; the package draws from numpy's, so no other
    thread may use that one meanwhile.

    ``changes`` replaces some of ARGUMENTS, for test data from another distribution. Labels, order
    and all that is not changed are the same, example by example, as long as each example takes the
    same random numbers. Two changes spoil that: another upper end of ``padding`` (it sets the
    length of the noise), and another number of translations, for which numpy rejects other draws. A
    *list* of 48 numbers as ``max_translation`` does not: the package hands it to
    ``numpy.random.choice``, which then chooses from the list.
    """
    if count <= 0 or count % CLASSES:
        raise ValueError(f"count must be a positive multiple of the {CLASSES} classes, got {count}")
    if unusable := sorted(set(changes) - CHANGEABLE):
        raise ValueError(
            f"changes must be among {', '.join(sorted(CHANGEABLE))}; got {', '.join(unusable)}"
        )
    # here: it brings in matplotlib and takes a second, seldom needed
    from mnist1d.data import get_templates
    from mnist1d.utils import set_seed

    labels = np.repeat(get_templates()["y"], count // CLASSES)
    with _RANDOM_STATE_LOCK, _global_random_states_kept():
        set_seed(seed)
        signals = _signals(get_templates()["x"][labels], ARGUMENTS | dict(changes))
        order = np.random.permutation(count)
    return signals[order], labels[order]


def _signals(templates: NDArray[np.float64], arguments: Mapping[str, Any]) -> NDArray[np.float64]:
    """Signals [N, 40] from their templates [N, 12] with draws from numpy's global generator.

    ``mnist1d.transform.transform`` of each, to the bit; that takes ten times as long, most of it to
    set up scipy's ``interp1d`` four times a signal, which then calls ``numpy.interp``. A test holds
    the two together.
    """
    from scipy.ndimage import gaussian_filter1d

    low, high = arguments["padding"]
    length = templates.shape[1] + high
    uniform, chosen, normal = np.empty((len(templates), 3)), np.empty(len(templates), np.int64), []
    for i in range(len(templates)):  # signal by signal: every one takes its numbers before the next
        uniform[i, 0], uniform[i, 1] = np.random.rand(), np.random.rand()
        chosen[i] = np.random.choice(arguments["max_translation"])
        normal.append((np.random.randn(length), np.random.randn(length)))
        uniform[i, 2] = np.random.rand()
    padding = low + (uniform[:, 0] * (high - low + 1)).astype(np.int64)
    padded = (
        np.concatenate([x + 1e-8, np.zeros(p)]) for x, p in zip(templates, padding, strict=True)
    )
    x = np.stack([_interpolated(signal, length) for signal in padded])
    x *= 1 + arguments["scale_coeff"] * (uniform[:, 1:2] - 0.5)
    x = np.take_along_axis(x, (np.arange(length) - chosen[:, None]) % length, axis=1)
    correlated, independent = np.stack(normal, axis=1)
    mask = x != 0
    x = mask * x + (1 - mask) * gaussian_filter1d(
        arguments["corr_noise_scale"] * correlated, 2, axis=1
    )
    x = x + arguments["iid_noise_scale"] * independent
    x = x - arguments["shear_scale"] * (uniform[:, 2:] - 0.5) * np.linspace(-0.5, 0.5, length)
    return np.stack([_interpolated(signal, arguments["final_seq_length"]) for signal in x])


def _interpolated(signal: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """A signal at so many points from its first to its last."""
    return np.interp(_positions(points), _positions(len(signal)), signal)


@cache
def _positions(points: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, points)


@contextmanager
def _global_random_states_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
