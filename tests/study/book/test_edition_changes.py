"""The first edition's words beside this one's, each change with its reason."""

from __future__ import annotations

import pytest

from steadydescent.study.book import edition_changes
from steadydescent.study.judging.claims import load_claims

NEW = {"title": "New", "headline": "Holds."}


def test_every_claim_of_either_edition_has_a_reason():
    assert set(edition_changes.reasons()) == {
        *load_claims(),
        *edition_changes.first_edition().index,
    }


def test_the_table_has_both_words_and_what_is_gone_last(monkeypatch):
    first = edition_changes.first_edition()
    kept, gone = first.index[0], first.index[1]
    monkeypatch.setattr(edition_changes, "first_edition", lambda: first.loc[[kept, gone]])
    why = {kept: "Held to the end.", gone: "Dropped.", "fresh": "New."}
    monkeypatch.setattr(edition_changes, "reasons", lambda: why)
    claims = {"fresh": NEW, kept: {"title": "Kept", "headline": "Open."}}
    table = edition_changes.table_of_changes(claims)
    word, counts = first.loc[kept, ["verdict", "rows"]]
    assert table.values.tolist() == [
        ["New", "–", "Holds.", "New."],
        ["Kept", f"{word}: {counts}", "Open.", "Held to the end."],
        [
            first.title[gone],
            f"{first.verdict[gone]}: {first['rows'][gone]}",
            "no longer asked",
            "Dropped.",
        ],
    ]
    text = edition_changes.markdown(claims)
    assert len(text.splitlines()) == 5 and "| New | – | Holds. | New. |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [("- decay-helps", "says nothing of decay-helps"), ("+ other: Why.", "tells of other")],
)
def test_a_claim_without_a_reason_and_a_reason_without_a_claim_are_refused(
    tmp_path, monkeypatch, change, message
):
    lines = edition_changes.REASONS.read_text(encoding="utf-8").splitlines()
    sign, text = change.split(" ", 1)
    if sign == "-":
        lines = [line for line in lines if not line.startswith(f"{text}:")]
    else:
        lines.append(text)
    (tmp_path / "changes.yml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(edition_changes, "REASONS", tmp_path / "changes.yml")
    with pytest.raises(ValueError, match=message):
        edition_changes.reasons()
