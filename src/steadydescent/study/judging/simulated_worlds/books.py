"""How often a whole book of verdicts holds a false one."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from steadydescent.study.judging.holm import holm, p_of_deciding
from steadydescent.study.judging.simulated_worlds.tally import LEVELS, Intervals, false_word
from steadydescent.study.judging.statistics import Array, student
from steadydescent.study.judging.verdicts import direction_of, of_interval

ROWS_USED = 130
"""Primary rows of a simulated book, as many as the study asks; it has places for 200."""
BOOKS = {
    "mixed": {0.0: 0.3, 0.2: 0.2, 0.5: 0.15, 2.0: 0.25, -2.0: 0.1},
    "nulls": {0.0: 1.0},
    "a fifth of the margin": {0.2: 1.0},
    "half the margin": {0.5: 1.0},
    "two margins": {2.0: 1.0},
}
"""Book → planted effect in margins → its share of the rows."""


class _Told(NamedTuple):
    """What each replication of a cell says where an effect is planted, `[N]` each."""

    false_word: Array
    false_direction: Array
    decided: Array
    p: Array


def simulated_books(
    cells: Sequence[Intervals], books: int, used: int = ROWS_USED, seed: int = 0
) -> Iterator[dict[str, object]]:
    """A row for each kind of book and each number of seeds, and all seeds together.

    Each primary row of a book is a random replication of a random cell, at the level of one of 200
    places, with an effect planted by the book's shares. Rows share no seed here; what 200 places
    promise holds however they depend on each other. Columns: false_word and false_direction, the
    share of books that hold any; decided, how many rows have a word that is not open, and
    decided_by_holm, what Holm's procedure over the same rows would decide.
    """
    sizes = sorted({(cell.case["tuning"], cell.case["report"]) for cell in cells}, key=str)
    for number, (name, shares) in enumerate(BOOKS.items()):
        told = {effect: [_told(cell, effect) for cell in cells] for effect in shares}
        for place, size in enumerate([None, *sizes]):
            mine = [
                i
                for i, cell in enumerate(cells)
                if size in (None, (cell.case["tuning"], cell.case["report"]))
            ]
            rng = np.random.default_rng([seed, number, place])
            drawn = _drawn(told, shares, mine, (books, used), rng)
            seeds = "all" if size is None else f"{size[0]} + {size[1]}"
            yield {"book": name, "seeds": seeds, "books": books, "rows": used} | {
                "false_word": drawn.false_word.any(axis=1).mean(),
                "false_direction": drawn.false_direction.any(axis=1).mean(),
                "decided": drawn.decided.sum(axis=1).mean(),
                "decided_by_holm": holm(drawn.p).sum(axis=1).mean(),
            }


def _told(cell: Intervals, effect: float) -> _Told:
    around = cell.around(LEVELS[1]) + effect * cell.margin
    value, low, high = around.T
    freedom = int(str(cell.case["report"])) - 1
    error = (high - low) / 2 / student(LEVELS[1], freedom)
    words = [of_interval(a, b, cell.margin, cell.rule) for a, b in around[:, 1:]]
    wrong = {"for": effect <= 0, "against": effect >= 0, "open": False}
    return _Told(
        np.array([false_word(word, effect, cell.rule) for word in words]),
        np.array([wrong[direction_of(a, b)] for a, b in around[:, 1:]]),
        np.array([word != "open" for word in words]),
        p_of_deciding(value, error, cell.margin, cell.rule, freedom),
    )


def _drawn(
    told: dict[float, list[_Told]],
    shares: dict[float, float],
    mine: Sequence[int],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> _Told:
    """Books × rows of what random replications say."""
    effects, cells = list(shares), np.array(mine)
    effect = rng.choice(len(effects), size=shape, p=list(shares.values()))
    cell, share = cells[rng.integers(len(cells), size=shape)], rng.random(shape)
    parts = [np.zeros(shape, bool) for _ in range(3)] + [np.zeros(shape)]
    for i, one in enumerate(effects):
        for j in cells:
            at = (effect == i) & (cell == j)
            source = told[one][j]
            replication = (share[at] * len(source.p)).astype(int)
            for part, column in zip(parts, source, strict=True):
                part[at] = column[replication]
    return _Told(*parts)
