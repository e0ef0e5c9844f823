"""Names as ids of their characters, and back: vocabularies, encoding, and greedy translation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from steadydescent.engine.data.name_pairs import LONGEST, pairs

PAD, BEGIN, END, UNKNOWN = range(4)  # ids before those of the characters
IGNORED = -100  # the label of a padded position; torch's cross_entropy passes over it
SOURCE_LENGTH = TARGET_LENGTH = LONGEST + 1  # a name and its END, or BEGIN and a name


@dataclass(frozen=True)
class Vocabulary:
    """The characters of one language by code point; ids 0 to 3 are PAD, BEGIN, END, UNKNOWN."""

    characters: str

    def __len__(self) -> int:
        return UNKNOWN + 1 + len(self.characters)

    def encode(self, name: str) -> list[int]:
        """The id of each character, UNKNOWN for one that no pair has."""
        # find: -1 when it is not there
        return [self.characters.find(character) + UNKNOWN + 1 for character in name]

    def decode(self, ids: Iterable[int]) -> str:
        """The name up to the first END; PAD and BEGIN are nothing, UNKNOWN is written U+FFFD."""
        name = ""
        for number in ids:
            if number == END:
                break
            if number > UNKNOWN:
                name += self.characters[number - UNKNOWN - 1]
            elif number == UNKNOWN:
                name += "\ufffd"
        return name


@cache
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """English and Ukrainian, of all pairs.

    So every seed's model has the same shape, and the test has no unknown character. A character
    that the training pairs do not have keeps its embedding as it was initialised.
    """
    english, ukrainian = ("".join(names) for names in zip(*pairs(), strict=True))
    return Vocabulary("".join(sorted(set(english)))), Vocabulary("".join(sorted(set(ukrainian))))


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
            f"every name needs a translation, "
            f"got {len(english)} names and {len(ukrainian)} translations"
        )
    sources = [ids + [END] for ids in _ids(english, vocabularies()[0])]
    targets = _ids(ukrainian, vocabularies()[1])
    inputs, labels = [[BEGIN] + ids for ids in targets], [ids + [END] for ids in targets]
    pool = [_padded(sources, SOURCE_LENGTH, PAD), _padded(inputs, TARGET_LENGTH, PAD)]
    return torch.cat(pool, dim=1), _padded(labels, TARGET_LENGTH, IGNORED)


def translate(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The model's translations of B English names: at each place the likeliest character.

    Each ends at END. ``model`` maps tokens [B, 42] laid out as in the pool to logits [B, 21, size
    of the Ukrainian vocabulary]. Raises ValueError for a name of no or more than 20 characters.
    """
    english = [ids + [END] for ids in _ids(names, vocabularies()[0])]
    # one more: what comes last is no further input
    ukrainian = _padded([[BEGIN]] * len(names), TARGET_LENGTH + 1, PAD)
    tokens = torch.cat([_padded(english, SOURCE_LENGTH, PAD), ukrainian], dim=1)
    tokens = tokens.to(next(model.parameters()).device)
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
