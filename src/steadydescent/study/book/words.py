"""Verdicts and numbers in words: sign, digits, unit, interval; for the book and for terminals.

A row is a claim's row: keys estimate, ci_low, ci_high, margin, null (1 for ratios), unit, rule, and
so on.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

EDGE = 0.1
"""Share of redraws that choose the outermost candidate from which on a row is marked."""
MAJORITY = 0.5
"""Share of redraws from which on one candidate stands for what an arm chooses."""
ADDED_AFTER = "added or restated after results were seen"
"""What a row says whose contrast was registered later than its first result was seen."""
THIS_TEST_SET = "on this test set"
"""What a row says whose interval does not hold what another test set would give."""
SECONDARY = "Secondary, plain 95 %"
"""Over the rows that never make a headline."""
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"


def number(value: float, spec: str, *, signed: bool = False) -> str:
    """Number as a reader sees it: real minus sign, ``+`` when signed, and never a signed zero.

    Raises:
        ValueError: if `spec` is no format for this value.

    >>> number(-1.25, ".1f"), number(0.3, ".1f", signed=True), number(-0.01, ".1f")
    ('−1.2', '+0.3', '0.0')
    """
    try:
        text = format(abs(value), spec)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{spec!r} does not format {value!r}: {error}; use something like '.2f'"
        ) from None
    if not any(digit in text for digit in "123456789") and math.isfinite(value):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def four_digits(value: float) -> str:
    """Number with four digits, whole numbers in full, a real minus sign.

    >>> [four_digits(value) for value in (5_000_000, 44.5454, 2.795e-6, -1.0, float("nan"))]
    ['5,000,000', '44.55', '2.795e−6', '−1', 'NaN']
    """
    if value != value:
        return "NaN"
    whole = round(value)
    text = f"{whole:,}" if abs(value - whole) <= 1e-9 * abs(whole) else f"{value:.4g}"
    return re.sub(r"e([-+])0", r"e\1", text).replace("-", MINUS)


def short(value: object) -> str:
    """A value in a terminal's table: three digits of a number with a point, text as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def thousands(count: int) -> str:
    """A count with spaces between groups of three digits: ``21 480``."""
    return f"{count:,}".replace(",", " ")


def unit_after(unit: str) -> str:
    """A unit as it follows its number: after a space that does not break, but for a ratio's ×."""
    name = unit.strip()
    return name if name in ("", "×") else NO_BREAK + name


def digits_for(row: Mapping[str, Any]) -> int:
    """Digits behind the point that show a row's margin as more than zero: 2, or more if small."""
    smallest = min(abs(x) for x in (row["margin"] or 1.0, 1.0))
    return 2 if smallest >= 0.05 else 3 if smallest >= 0.005 else 4


def interval_text(row: Mapping[str, Any]) -> str:
    """Interval of a claim's row, ``+0.10 to +0.74``; ratios have no sign, ``1.12 to 1.53``."""
    spec, signed = f".{row.get('digits', digits_for(row))}f", row.get("null", 0) == 0
    return " to ".join(number(row[end], spec, signed=signed) for end in ("ci_low", "ci_high"))


def estimate_and_interval(row: Mapping[str, Any], *, unit: bool = True) -> str:
    """Estimate of a claim's row with its interval, ``+0.42 pp (+0.10 to +0.74)``; a dash if none.

    Differences are signed, ratios (`null` 1) are not: ``1.31× (1.12 to 1.53)``. Arithmetic has no
    interval and four significant digits.
    """
    if row.get("estimate") is None:
        return DASH
    exact = row.get("ci_low") is None or row.get("ci_high") is None
    spec = ".4g" if exact else f".{row.get('digits', digits_for(row))}f"
    text = number(row["estimate"], spec, signed=row.get("null", 0) == 0)
    text = f"{row['bound']} {text}" if row.get("bound") else text
    text += unit_after(row.get("unit") or "") if unit else ""
    return text if exact else f"{text} ({interval_text(row)})"


def for_terminal(row: Mapping[str, Any]) -> str:
    """`estimate_and_interval` where lines may break at any space; nothing where none was made."""
    if row.get("estimate") is None:
        return ""
    return estimate_and_interval(row).replace(NO_BREAK, " ")


def difference(value: float, low: float, high: float) -> str:
    """A difference in a table's cell, in plain ASCII as other numbers there.

    >>> difference(-0.5, -0.75, 0.25)
    '-0.50 (-0.75 to +0.25)'
    """
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def margin_text(row: Mapping[str, Any]) -> str:
    """Margin of a row: ``±1``, as a factor ``×1.15``, ``−1`` where only a loss counts; or a dash.

    A row without a margin, or that was not run, has the dash.
    """
    if row.get("margin") is None or (row.get("estimate") is None and not row.get("unit")):
        return DASH
    sign = "×" if row.get("null") == 1 else MINUS if row.get("rule") == "at least" else "±"
    return f"{sign}{row['margin']:g}"


def condition_text(row: Mapping[str, Any]) -> str:
    """A row's condition without its measure, which rows of arithmetic put before it."""
    return row["condition"].removeprefix(f"{row['measure']}, ")


def notes(row: Mapping[str, Any]) -> list[str]:
    """What a row's table leaves out: why it is not decided or was not run, divergence, choices on
    the edge or spread over several candidates, seeds that would decide, runs that did not arrive,
    what of the test set its interval holds, and that it came after the fact.
    """
    remarks = [row["reason"]] if row.get("reason") else []
    if row.get("diverged"):
        runs = row["n_seeds"] * max(1, len(row["rates"]))
        remarks.append(f"{row['diverged']} of {runs} diverged")
    if row.get("on_edge"):
        remarks.append("a chosen rate is the last of its grid")
    if row.get("seeds_needed") == "never":
        remarks.append("more seeds alone would not decide")
    elif row.get("seeds_needed"):
        remarks.append(f"about {row['seeds_needed']:,} seeds would decide")
    if row.get("edge_share") and row["edge_share"] > EDGE:
        share = f"{100 * row['edge_share']:.0f} %"
        remarks.append(f"in {share} of redraws the choice is the outermost reported")
    remarks += _spread_choices(row.get("choices") or {}, row.get("rates") or {})
    if row.get("ci_low") is not None and row["ci_low"] == row["ci_high"] == row["null"]:
        remarks.append("both sides have the same score on every seed")
    if row.get("censored_share") and not row.get("reason"):
        bound = ", so the ratio is a bound" if row.get("bound") else ""
        remarks.append(f"{100 * row['censored_share']:.0f} % of runs did not arrive{bound}")
    if row.get("test_set_sampled") is False:
        remarks.append(THIS_TEST_SET)
    if added_after(row):
        remarks.append(ADDED_AFTER)
    return remarks


def _spread_choices(
    choices: Mapping[str, list[dict[str, Any]]], rates: Mapping[str, float]
) -> list[str]:
    """What redraws choose for arms of which no one candidate is most of them, or another than the
    rate that tuning chose.
    """
    spread = {}
    for arm, candidates in choices.items():
        first = max(candidates, key=itemgetter("share"), default=None)
        if first and (first["share"] < MAJORITY or first["lr"] != rates.get(arm, first["lr"])):
            spread[arm] = candidates
    return [
        f"tuning drawn anew chooses for {arm}: {choices_in_words(candidates)}"
        for arm, candidates in spread.items()
    ]


def choices_in_words(candidates: Iterable[Mapping[str, Any]]) -> str:
    """What redraws choose for an arm, with their shares: ``62 % 0.1 with ema-2, 30 % 0.2``.

    Where all are the last weights nothing is said of them.
    """
    chosen = list(candidates)
    several = {c["readout"] for c in chosen} - {"last", ""}
    return ", ".join(
        f"{100 * c['share']:.0f} % {c['lr']:.3g}" + f" with {c['readout']}" * bool(several)
        for c in chosen
    )


def added_after(row: Mapping[str, Any]) -> bool:
    """Whether a row's contrast was registered on a later day than its first result was seen."""
    registered, seen = row.get("registered"), row.get("first_seen")
    return bool(registered and seen and registered > seen)


def intervals_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """What intervals rows have: ``99.975 % intervals (primary) and 95 % intervals (secondary)``."""
    levels = {(not row["primary"], row["level"]) for row in rows if row["level"]}
    kinds = {False: "primary", True: "secondary"}
    return " and ".join(
        f"{percent(level)} intervals ({kinds[secondary]})" for secondary, level in sorted(levels)
    )


def percent(level: float) -> str:
    """A level of intervals: ``99.975 %``."""
    return f"{100 * level:.6g} %"


def counted(words: Iterable[str]) -> str:
    """How often each word occurs: ``3 supported; 1 refuted``, as they come."""
    return "; ".join(f"{count} {word}" for word, count in Counter(words).items())


def most_first(words: Iterable[str]) -> str:
    """`counted`, the most frequent word first."""
    return "; ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def verdict_table(claims: dict[str, Any]) -> str:
    """Every claim's headline as a Markdown table, with the words of its rows."""
    lines = ["| claim | said by | what was found | primary rows | secondary rows |"]
    lines.append("|---" * 5 + "|")
    for claim in claims.values():
        primary, secondary = (
            counted(row["verdict"] for row in claim["rows"] if row["primary"] is kind)
            for kind in (True, False)
        )
        found = f"**{claim['headline']}**"
        lines.append(
            f"| {claim['title']} | {claim['source']} | {found} | {primary} | {secondary} |"
        )
    return "\n".join(lines)
