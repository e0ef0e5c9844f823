"""Pairs of names in groups that keep to one side of a split, since their members resemble."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from steadydescent.engine.data.name_pairs import pairs

WORD = 4
"""Letters of the shortest word that counts."""
STEM = 5
"""Letters of a word that are compared."""
NEAR = 5
"""Characters of the shortest name that is compared whole."""

Groups = Sequence[NDArray[np.int64]]
"""Each the rows of some pairs, ascending."""


@cache
def groups() -> Groups:
    """The rows of all pairs in groups, of which no two resemble one another:

    - no English word of 4 letters or more begins with the same 5 letters (or, of 4 letters, is the
      same word), and no name has the same letters in all; case, accents and whatever is no letter
      are left aside;
    - no two names of 5 characters or more become equal, English and Ukrainian, when at most one
      character is taken from each: one letter changed, added, missing or moved.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
    # in the order of the pairs, however the labels are numbered
    return sorted(parts, key=lambda rows: rows[0])


def folded(name: str) -> str:
    """The name in one case and without accents.

    >>> folded("Łódź, Điện Biên")
    'łodz, đien bien'
    """
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def stems(english: str) -> set[str]:
    """The first 5 letters of each word of 4 letters or more, and the name's letters as one word.

    >>> sorted(stems("Sámi, Northern"))
    ['north', 'sami', 'saminorthern']
    """
    words = re.findall(r"[^\W\d_]+", folded(english))
    return {word[:STEM] for word in words if len(word) >= WORD} | {"".join(words)}


def _near_pairs() -> Iterator[tuple[int, int]]:
    """Rows of two pairs that become equal, on both sides, without at most one character each."""
    shortened = [tuple(_without_one(folded(name)) for name in pair) for pair in pairs()]
    by_english = defaultdict(list)
    for row, (english, _) in enumerate(pairs()):
        if len(folded(english)) >= NEAR:
            for name in shortened[row][0]:
                by_english[name].append(row)
    for rows in by_english.values():
        for one, other in combinations(rows, 2):
            if shortened[one][1] & shortened[other][1]:
                yield one, other


def _without_one(name: str) -> set[str]:
    return {name} | {name[:place] + name[place + 1 :] for place in range(len(name))}
