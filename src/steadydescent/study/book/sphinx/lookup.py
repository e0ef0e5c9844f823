"""From a reference in the text to what findings.json holds. Nothing here knows Sphinx.

findings.json is made by the ``steady`` command and is the only source of numbers in the book. Its
parts: ``origin`` (whose run), ``results`` (key to number), ``claims`` (id to outcome and rows),
``files`` (result id to tables).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from steadydescent import verified
from steadydescent.study.book.words import number, unit_after
from steadydescent.study.judging.headlines import OUTCOMES
from steadydescent.study.judging.verdicts import VERDICTS


class FindingsError(ValueError):
    """A reference from the text to something that the findings do not hold, or not in that form."""


@lru_cache(maxsize=4)
def _read(path: str, _changed: int) -> dict:
    return verified.read_sealed(Path(path))


def load(path: Path) -> dict:
    """Findings at ``path``, read again only when the file has changed."""
    return _read(str(path), path.stat().st_mtime_ns)


def _default_spec(item: dict, key: str) -> str:
    if "digits" in item:
        return f".{item['digits']}f"
    if isinstance(item.get("value"), int):
        return "d"
    raise FindingsError(
        f"result {key!r} has no 'digits'; give them in the findings or a format in the text"
    )


def result_text(findings: dict, reference: str) -> str | None:
    """Text of ``key``, ``key@low``, ``key@high`` or ``key@ci``, each with an optional ``:format``.

    ``key@size`` and ``key@size-ci`` are the same without their sign, for prose that says which way
    in words.

    Returns:
        The text with its unit, or None for a result that this run did not make: its value is null,
        or one's own results do not have the key. The published ones must have every key that the
        prose quotes.

    Raises:
        FindingsError: for a missing key, a missing part or a format that does not fit, and for the
            size of an interval that lies on both sides of zero.
    """
    name, _, spec = reference.partition(":")
    name = name.strip()
    # a key may hold an @ of its own: sgd@linear
    whole = name in findings["results"] or "@" not in name
    key, part = (name, "") if whole else name.rsplit("@", 1)
    item = findings["results"].get(key)
    if item is None and findings["origin"]["source"] == "reproduced":
        return None
    if item is None:
        raise FindingsError(f"no result {key!r} in the findings")
    if item.get("value", 0) is None:
        return None
    names = {"ci": ("low", "high"), "size-ci": ("low", "high"), "size": ("value",)}.get(
        part, (part or "value",)
    )
    for wanted in names:
        if wanted not in item:
            raise FindingsError(
                f"result {key!r} has no {wanted!r}; it has {', '.join(sorted(item))}"
            )
    values = [item[wanted] for wanted in names]
    if any(value is None for value in values):
        return None
    unit = unit_after(item.get("unit", ""))
    if isinstance(values[0], str):
        if spec:
            raise FindingsError(
                f"result {key!r} is the text {values[0]!r}, which takes no format {spec!r}"
            )
        return values[0] + unit
    spec, signed = spec or _default_spec(item, key), item.get("signed", False)
    if part in ("size", "size-ci"):
        if min(values) < 0 < max(values):
            raise FindingsError(
                f"result {key!r} lies on both sides of zero and has no size; quote {key}@ci"
            )
        values, signed = sorted(abs(value) for value in values), False
    try:
        return " to ".join(number(value, spec, signed=signed) for value in values) + unit
    except ValueError as error:
        raise FindingsError(f"result {key!r}: {error}") from None


def find_claim(findings: dict, reference: str) -> tuple[dict, dict | None]:
    """Claim of ``claim``, or claim and row of ``claim/task/condition``.

    Raises:
        FindingsError: if there is no such claim, or not exactly one such row.
    """
    parts = [part.strip() for part in reference.split("/", 2)]  # a condition may hold a slash: k/√t
    claim = findings["claims"].get(parts[0])
    if claim is None:
        known = ", ".join(findings["claims"]) or "none"
        raise FindingsError(f"no claim {parts[0]!r} in the findings; there are {known}")
    if len(parts) == 1:
        return claim, None
    if len(parts) != 3:
        raise FindingsError(f"{reference!r} is neither 'claim' nor 'claim/task/condition'")
    rows = [row for row in claim["rows"] if [row["task"], row["condition"]] == parts[1:]]
    if len(rows) != 1:
        known = ", ".join(f"{row['task']}/{row['condition']}" for row in claim["rows"])
        raise FindingsError(
            f"claim {parts[0]!r} has {len(rows)} rows for {parts[1]}/{parts[2]}; "
            f"its rows are {known}"
        )
    return claim, rows[0]


def find_verdict(findings: dict, reference: str) -> str:
    """Outcome of a claim, one of OUTCOMES, or verdict of one of its rows, one of VERDICTS."""
    claim, row = find_claim(findings, reference)
    return check_outcome(claim["outcome"]) if row is None else check_verdict(row["verdict"])


def check_verdict(word: str) -> str:
    """The word itself, if it is a row's verdict."""
    if word not in VERDICTS:
        raise FindingsError(f"{word!r} is no verdict; allowed are {'; '.join(VERDICTS)}")
    return word


def check_outcome(word: str) -> str:
    """The word itself, if it is a claim's outcome."""
    if word not in OUTCOMES:
        raise FindingsError(f"{word!r} is no outcome of a claim; allowed are {', '.join(OUTCOMES)}")
    return word


def full_result_id(findings: dict, name: str) -> str:
    """Result id with its content hash; ``name`` may leave the hash out.

    Raises:
        FindingsError: if no published table has that name.
    """
    matches = [full for full in findings["files"] if name in (full, full.partition("@")[0])]
    if len(matches) != 1:
        known = ", ".join(findings["files"]) or "none"
        raise FindingsError(f"{len(matches)} results are named {name!r}; there are {known}")
    return matches[0]
