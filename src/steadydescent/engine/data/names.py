"""English→Ukrainian names, letter by letter; nothing is downloaded.

They are names of places, languages, scripts and currencies. The package pycountry carries the names
of seven ISO standards and the iso-codes project's translations of them. All pairs of at most 20
characters a side are the data, so another release of the package is another data set, with another
identity. One test set serves all seeds; each seed draws its own training and validation set from
the rest. Pairs that resemble one another stay on one side, so what is asked in the test cannot have
been learned by heart.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pycountry
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadydescent.engine.data.fashion_mnist import DataUnavailable
from steadydescent.engine.data.name_groups import NEAR, STEM, WORD, Groups, groups
from steadydescent.engine.data.name_pairs import LANGUAGE, digest_of_pairs, pairs
from steadydescent.engine.data.spelling import (
    BEGIN,
    END,
    IGNORED,
    PAD,
    SOURCE_LENGTH,
    TARGET_LENGTH,
    UNKNOWN,
    encode,
)
from steadydescent.engine.data.task_data import SEED_LIMIT, Report, TaskData, checksum
from steadydescent.files import sha256

COUNTS = {"train": 9_700, "validation": 1_500, "test": 2_000}
# "Name": keeps the split apart from other uses of the seed; XOR keeps seeds apart
SPLIT_SEED = 0x4E616D65
SPLIT_RULE = (
    f"groups linked by equal letters, by the first {STEM} letters of English words of {WORD} "
    f"or more, or by names of {NEAR} characters or more equal on both sides without at most one "
    f"character each; torch.randperm of the groups, CPU generator seed XOR {SPLIT_SEED}, "
    f"each taken that still fits; test first, with seed {SEED_LIMIT}"
)
"""Part of the data's identity: another word would be another data set."""


def identity() -> str:
    """SHA-256 of the pairs, the encoding and the split rule.

    Reads the pairs once a process, which takes a third of a second.
    """
    description = {
        "source": "names",
        "pairs": digest_of_pairs(),
        "encoding": [PAD, BEGIN, END, UNKNOWN, IGNORED, SOURCE_LENGTH, TARGET_LENGTH],
        "counts": COUNTS,
        "split": SPLIT_RULE,
    }
    return sha256(json.dumps(description, sort_keys=True).encode())


def fetch(root: Path, report: Report) -> Path:
    """Tell ``report`` where the pairs come from and return that folder; writes nothing."""
    folder = Path(pycountry.LOCALES_DIR) / LANGUAGE / "LC_MESSAGES"
    report(
        f"Names: {len(pairs())} English-Ukrainian pairs in {folder}, "
        f"carried by the package pycountry {version('pycountry')}; no download."
    )
    return folder


def load(seeds: Sequence[int], root: Path, report: Report) -> TaskData:
    """All N pairs as character ids, and each seed's split; reads nothing under ``root``.

    pool [N, 42] int64 is the English name, END and padding (21 columns), then what a decoder is
    fed: BEGIN, the Ukrainian name and padding (21). labels [N, 21] int64 are what it must say: the
    Ukrainian name, END, then -100 for padding. mean and std [S, 1] are 0 and 1; ids are not
    standardised. ``seeds`` must have been checked.
    """
    english, ukrainian = zip(*pairs(), strict=True)
    pool, labels = encode(english, ukrainian)
    train, validation, test = split(seeds)
    rows = {"train": train, "validation": validation, "test": test}
    fields = {"pool": pool, "labels": labels, **rows}
    mean, std = torch.zeros(len(seeds), 1), torch.ones(len(seeds), 1)
    return TaskData(**fields, mean=mean, std=std, checksum=checksum(**fields))


def split(seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [S, 9700] to train on, [S, 1500] to validate on and [2000] to test with.

    No group is on two sides. Groups are taken in random order, each that still fits; the many
    groups of one make the sizes come out exact. The largest group, held together by words such as
    "Northern", fits in training alone, so training names are longer. Rows beyond the 9 700 (43 in
    pycountry 26.2.16) are left out, others for each seed: M is known without reading.

    Raises DataUnavailable when there are too few pairs.
    """
    test, rest = _fill(groups(), COUNTS["test"], _generator(SEED_LIMIT))
    trains, validations = [], []
    for seed in seeds:
        generator = _generator(seed)
        validation, others = _fill(rest, COUNTS["validation"], generator)
        rows = np.concatenate(others)
        if len(rows) < COUNTS["train"]:
            raise DataUnavailable(
                f"Names: {COUNTS['train']} pairs are needed to train on, pycountry has {len(rows)}."
            )
        order = torch.randperm(len(rows), generator=generator)
        trains.append(torch.from_numpy(rows)[order[: COUNTS["train"]]])
        validations.append(validation)
    return torch.stack(trains), torch.stack(validations), test


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed ^ SPLIT_SEED)


def _fill(parts: Groups, count: int, generator: torch.Generator) -> tuple[Tensor, Groups]:
    """Exactly ``count`` rows of whole groups, ascending, and the groups that are not among them."""
    inside: list[NDArray[np.int64]] = []
    outside: list[NDArray[np.int64]] = []
    room = count
    for place in torch.randperm(len(parts), generator=generator).tolist():
        fits = len(parts[place]) <= room
        (inside if fits else outside).append(parts[place])
        room -= len(parts[place]) * fits
    if room:
        raise DataUnavailable(
            f"Names: no whole groups of pycountry's pairs make up {count}; {room} are missing."
        )
    return torch.from_numpy(np.sort(np.concatenate(inside))), outside
