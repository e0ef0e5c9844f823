"""English→Ukrainian names of places, languages, scripts and currencies, letter by letter; nothing
is downloaded.

The package pycountry carries the names of seven ISO standards and the iso-codes project's
translations of them. All pairs of at most 20 characters a side are the data, so another release of
the package is another data set, with another identity. One test set serves all seeds; each seed
draws its own training and validation set from the rest. Pairs that resemble one another stay on one
side, so what is asked in the test cannot have been learned by heart.
"""

import base64
import gettext
import hashlib
import json
import re
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files as installed
from importlib.metadata import version
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pycountry
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from steadydescent import verified
from steadydescent.engine.data.fashion_mnist import DataUnavailable
from steadydescent.engine.data.task_data import SEED_LIMIT, Report, TaskData, checksum
from steadydescent.files import DamagedFile, sha256

LANGUAGE = "uk"
INSTALL = "install the package from PyPI, whole: `pip install --force-reinstall pycountry`"
DATABASES = {  # gettext domain: the names that it translates
    "iso3166-1": pycountry.countries,
    "iso3166-2": pycountry.subdivisions,
    "iso3166-3": pycountry.historic_countries,
    "iso639-3": pycountry.languages,
    "iso639-5": pycountry.language_families,
    "iso15924": pycountry.scripts,
    "iso4217": pycountry.currencies,
}
FIELDS = (
    "name",
    "official_name",
    "common_name",
    "inverted_name",
)  # "Sami, Northern" is the inverted name
LONGEST = 20  # characters
COUNTS = {"train": 9_700, "validation": 1_500, "test": 2_000}

Groups = Sequence[NDArray[np.int64]]  # each the rows of some pairs, ascending

PAD, BEGIN, END, UNKNOWN = range(4)  # ids before those of the characters
IGNORED = -100  # the label of a padded position; torch's cross_entropy passes over it
SOURCE_LENGTH = TARGET_LENGTH = LONGEST + 1  # a name and its END, or BEGIN and a name

WORD, STEM, NEAR = (
    4,
    5,
    5,
)  # letters: the shortest word that counts, what is kept of it, the shortest name compared
SPLIT_SEED = (
    0x4E616D65  # "Name": keeps the split apart from other uses of the seed; XOR keeps seeds apart
)
SPLIT_RULE = (
    f"groups linked by equal letters, by the first {STEM} letters of English words of {WORD} or more, or by names of "
    f"{NEAR} characters or more equal on both sides without at most one character each; torch.randperm of the groups, "
    f"CPU generator seed XOR {SPLIT_SEED}, each taken that still fits; test first, with seed {SEED_LIMIT}"
)


def identity() -> str:
    """SHA-256 of the pairs, the encoding and the split rule; reads the pairs once a process (a
    third of a second).
    """
    description = {
        "source": "names",
        "pairs": _digest_of_pairs(),
        "encoding": [PAD, BEGIN, END, UNKNOWN, IGNORED, SOURCE_LENGTH, TARGET_LENGTH],
        "counts": COUNTS,
        "split": SPLIT_RULE,
    }
    return sha256(json.dumps(description, sort_keys=True).encode())


@cache
def _digest_of_pairs() -> str:
    return sha256(json.dumps(pairs()).encode())


@cache
def pairs() -> tuple[tuple[str, str], ...]:
    """All pairs (English, Ukrainian) of at most 20 characters a side, as they are written, sorted,
    none twice.

    A name without a translation is left out; one with two (a place and its language) is in two
    pairs. Raises DataUnavailable when the package has no Ukrainian catalogues, DamagedFile when its
    tables are not as they were installed.

    >>> ("Ukraine", "Україна") in pairs()
    True
    """
    check_tables()
    found = set()
    for domain, records in DATABASES.items():
        translate = _catalogue(domain).gettext  # gives back what it cannot translate
        names = {getattr(record, field, None) for record in records for field in FIELDS}
        found |= {(name, translate(name)) for name in names if name and translate(name) != name}
    return tuple(sorted(pair for pair in found if all(0 < len(name) <= LONGEST for name in pair)))


def check_tables() -> None:
    """Hold the package's tables to the digests that its installation recorded, where it recorded
    any (pip does).

    Another byte would be another data set, with another identity: other runs, and no sign of
    damage. Raises DamagedFile, naming the table.
    """
    for file in installed("pycountry") or ():
        is_table = "databases" in file.parts or file.match(f"locales/{LANGUAGE}/LC_MESSAGES/*.mo")
        if is_table and file.hash is not None and file.hash.mode == "sha256":
            path = Path(str(file.locate()))
            digest = hashlib.sha256(verified.read(path)).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
                raise DamagedFile(
                    f"{path} is refused: truncated or altered, it has not the SHA-256 that was recorded when pycountry "
                    f"was installed; {INSTALL}."
                )


def _catalogue(domain: str) -> gettext.NullTranslations:
    try:
        return gettext.translation(domain, pycountry.LOCALES_DIR, [LANGUAGE])
    except FileNotFoundError as error:
        raise DataUnavailable(
            f"Names: pycountry {version('pycountry')} has no Ukrainian catalogue {domain} under "
            f"{pycountry.LOCALES_DIR}; {INSTALL}."
        ) from error
    except (OSError, ValueError, struct.error) as error:
        raise DamagedFile(
            f"The catalogue {domain} under {pycountry.LOCALES_DIR} is damaged: {error}; {INSTALL}"
        ) from error


def fetch(root: Path, report: Report) -> Path:
    """Tell ``report`` where the pairs come from and return that folder; nothing is written under
    ``root``.
    """
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
    fields = {
        "pool": pool,
        "labels": labels,
        "train": train,
        "validation": validation,
        "test": test,
    }
    mean, std = torch.zeros(len(seeds), 1), torch.ones(len(seeds), 1)
    return TaskData(**fields, mean=mean, std=std, checksum=checksum(**fields))


@dataclass(frozen=True)
class Vocabulary:
    """The characters of one language in the order of their code points; ids 0 to 3 are PAD, BEGIN,
    END, UNKNOWN.
    """

    characters: str

    def __len__(self) -> int:
        return UNKNOWN + 1 + len(self.characters)

    def encode(self, name: str) -> list[int]:
        """The id of each character, UNKNOWN for one that no pair has."""
        return [
            self.characters.find(character) + UNKNOWN + 1 for character in name
        ]  # find: -1 when it is not there

    def decode(self, ids: Iterable[int]) -> str:
        """The name up to the first END; PAD and BEGIN are nothing, UNKNOWN is written U+FFFD."""
        name = ""
        for number in ids:
            if number == END:
                break
            name += (
                self.characters[number - UNKNOWN - 1]
                if number > UNKNOWN
                else "\ufffd" * (number == UNKNOWN)
            )
        return name


@cache
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """English and Ukrainian, of all pairs: every seed's model has the same shape, and the test no
    unknown character.

    A character that the training pairs do not have keeps its embedding as it was initialised.
    """
    english, ukrainian = (
        "".join(sorted(set("".join(names)))) for names in zip(*pairs(), strict=True)
    )
    return Vocabulary(english), Vocabulary(ukrainian)


def vocabulary_sizes() -> tuple[int, int]:
    """How many ids English and Ukrainian have."""
    english, ukrainian = vocabularies()
    return len(english), len(ukrainian)


def encode(english: Sequence[str], ukrainian: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Pool [N, 42] and labels [N, 21] of N pairs, laid out as ``load`` says.

    Raises ValueError for a name of no or more than 20 characters, or when the two do not have as
    many names.
    """
    if len(english) != len(ukrainian):
        raise ValueError(
            f"every name needs a translation, got {len(english)} names and {len(ukrainian)} translations"
        )
    heard = [ids + [END] for ids in _ids(english, vocabularies()[0])]
    said = _ids(ukrainian, vocabularies()[1])
    fed, wanted = [[BEGIN] + ids for ids in said], [ids + [END] for ids in said]
    pool = torch.cat([_padded(heard, SOURCE_LENGTH, PAD), _padded(fed, TARGET_LENGTH, PAD)], dim=1)
    return pool, _padded(wanted, TARGET_LENGTH, IGNORED)


def translate(model: nn.Module, names: Sequence[str]) -> list[str]:
    """What the model makes of B English names, greedily: at each place the likeliest character,
    until END.

    ``model`` maps tokens [B, 42] laid out as in the pool to logits [B, 21, size of the Ukrainian
    vocabulary]. Raises ValueError for a name of no or more than 20 characters.
    """
    heard = _padded([ids + [END] for ids in _ids(names, vocabularies()[0])], SOURCE_LENGTH, PAD)
    fed = _padded(
        [[BEGIN]] * len(names), TARGET_LENGTH + 1, PAD
    )  # one more: what is said last is fed to nothing
    tokens = torch.cat([heard, fed], dim=1).to(next(model.parameters()).device)
    with torch.no_grad():
        for place in range(SOURCE_LENGTH, SOURCE_LENGTH + TARGET_LENGTH):
            tokens[:, place + 1] = model(tokens[:, :-1])[:, place - SOURCE_LENGTH].argmax(dim=-1)
    return [vocabularies()[1].decode(ids) for ids in tokens[:, SOURCE_LENGTH + 1 :].tolist()]


def _ids(names: Sequence[str], vocabulary: Vocabulary) -> list[list[int]]:
    for name in names:
        if not 0 < len(name) <= LONGEST:
            raise ValueError(
                f"a name must have 1 to {LONGEST} characters, got {len(name)}: {name!r}"
            )
    return [vocabulary.encode(name) for name in names]


def _padded(rows: Sequence[list[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])


def split(seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [S, 9700] to train on, [S, 1500] to validate on and [2000] to test with; no group is on
    two sides.

    Groups are taken in random order, each that still fits; the many groups of one make the sizes
    come out exact. The largest group, held together by words such as "Northern", fits in training
    alone, so training names are longer. Rows beyond the 9 700 (43 in pycountry 26.2.16) are left
    out, others for each seed: M is known without reading.

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
        trains.append(
            torch.from_numpy(rows)[
                torch.randperm(len(rows), generator=generator)[: COUNTS["train"]]
            ]
        )
        validations.append(validation)
    return torch.stack(trains), torch.stack(validations), test


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed ^ SPLIT_SEED)


def _fill(parts: Groups, count: int, generator: torch.Generator) -> tuple[Tensor, Groups]:
    """Exactly ``count`` rows of whole groups, ascending, and the groups that were not taken."""
    taken: list[NDArray[np.int64]] = []
    left: list[NDArray[np.int64]] = []
    room = count
    for place in torch.randperm(len(parts), generator=generator).tolist():
        fits = len(parts[place]) <= room
        (taken if fits else left).append(parts[place])
        room -= len(parts[place]) * fits
    if room:
        raise DataUnavailable(
            f"Names: no whole groups of pycountry's pairs make up {count}; {room} are missing."
        )
    return torch.from_numpy(np.sort(np.concatenate(taken))), left


@cache
def groups() -> Groups:
    """The rows of all pairs in groups. Pairs of different groups never resemble one another:

    - no English word of 4 letters or more begins with the same 5 letters (or, of 4 letters, is the
      same word), and no name has the same letters in all; case, accents and whatever is no letter
      are left aside;
    - no two names of 5 characters or more become equal, English and Ukrainian, when at most one
      character is taken from each: one letter changed, added, missing or moved.
    """
    by_stem = defaultdict(list)
    for row, (english, _) in enumerate(pairs()):
        for stem in stems(english):
            by_stem[stem].append(row)
    links = [link for rows in by_stem.values() for link in pairwise(rows)] + list(_near_pairs())
    first, second = np.array(links).T
    count = len(pairs())
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    parts = np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1])
    return sorted(
        parts, key=lambda rows: rows[0]
    )  # in the order of the pairs, however the labels are numbered


def folded(name: str) -> str:
    """The name in one case and without accents.

    >>> folded("Łódź, Điện Biên")
    'łodz, đien bien'
    """
    return "".join(
        c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c)
    )


def stems(english: str) -> set[str]:
    """The first 5 letters of each word of 4 letters or more, and all letters of the name as one
    word.

    >>> sorted(stems("Sámi, Northern"))
    ['north', 'sami', 'saminorthern']
    """
    words = re.findall(r"[^\W\d_]+", folded(english))
    return {word[:STEM] for word in words if len(word) >= WORD} | {"".join(words)}


def _near_pairs() -> Iterator[tuple[int, int]]:
    """Rows of two pairs that become equal, on both sides, when at most one character is taken from
    each name.
    """
    shortened = [tuple(_without_one(folded(name)) for name in pair) for pair in pairs()]
    by_english = defaultdict(list)
    for row, (english, _) in enumerate(pairs()):
        if len(folded(english)) >= NEAR:
            for name in shortened[row][0]:
                by_english[name].append(row)
    for rows in by_english.values():
        yield from (
            link for link in combinations(rows, 2) if shortened[link[0]][1] & shortened[link[1]][1]
        )


def _without_one(name: str) -> set[str]:
    return {name} | {name[:place] + name[place + 1 :] for place in range(len(name))}
