"""Verdicts and numbers in words: sign, digits, unit, interval; for the book and terminals."""

from collections import Counter
from typing import Any


def digits_for(row: dict[str, Any]) -> int:
    """Digits behind the point that show a row's margin as more than zero: 2, or more if small."""
    smallest = min(abs(x) for x in (row["margin"] or 1.0, 1.0))
    return 2 if smallest >= 0.05 else 3 if smallest >= 0.005 else 4


def verdict_table(claims: dict[str, Any]) -> str:
    """Every claim's verdict as a Markdown table, for README."""
    lines = ["| claim | said by | verdict | rows |", "|---" * 4 + "|"]
    for claim in claims.values():
        counted = Counter(row["verdict"] for row in claim["rows"])
        rows = ", ".join(f"{number} {word}" for word, number in counted.items())
        lines.append(f"| {claim['title']} | {claim['source']} | **{claim['verdict']}** | {rows} |")
    return "\n".join(lines)
