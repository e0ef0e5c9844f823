"""What a kernel tells its journal reaches whoever drives it; log files get plain lines."""

import io
import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from steadydescent.study.training import progress
from steadydescent.study.training.progress import VARIABLE, Journal, View, followed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stream) -> str:
    view = View(stream)
    view.show({"start": "mnist1d-mlp, tuning", "total": 1000, "initial": 300})
    view.show({"note": "no compiler"})
    view.show({"done": 200})
    view.show({"done": 500})
    view.show({"end": "mnist1d-mlp, tuning"})
    return stream.getvalue()


def test_log_file_gets_plain_whole_lines():
    text = told(io.StringIO())
    assert text.endswith("\n") and "\r" not in text and text.isascii()
    lines = text.splitlines()
    assert all(line == line.rstrip() and line for line in lines)
    assert "no compiler" in lines
    assert lines[0].startswith("mnist1d-mlp, tuning:  30%") and lines[-1].startswith(
        "mnist1d-mlp, tuning: 100%"
    )
    assert "replica-steps" in lines[-1] and lines[-1].endswith("left")


def test_log_file_gets_a_line_every_ten_seconds_not_every_event(monkeypatch):
    clock = iter(range(10_000))  # every look at the clock is a second later
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(clock)))
    stream = io.StringIO()
    view = View(stream)
    view.show({"start": "long", "total": 500})
    for _ in range(500):
        view.show({"done": 1})
    view.close()
    assert (
        500 / progress.LOG_EVERY / 3
        < len(stream.getvalue().splitlines())
        < 500 / progress.LOG_EVERY * 3
    )


def test_terminal_gets_a_bar_that_overwrites_itself_and_keeps_notes():
    text = told(Terminal())
    assert text.count("\r") > 2 and "no compiler\n" in text and "100%" in text and "█" in text


def test_view_survives_events_out_of_order():
    stream = io.StringIO()
    view = View(stream)
    for event in (
        {"done": 5},
        {"end": "nothing"},
        {"start": "one", "total": 3},
        {"start": "two", "total": 0},
        {},
    ):
        view.show(event)
    view.close()
    assert "one" in stream.getvalue() and "two" in stream.getvalue()


def test_journal_without_a_reader_shows_its_events_itself(monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE, raising=False)
    journal = Journal()
    journal.tell(note="straight away")
    assert "straight away" in capsys.readouterr().err


@pytest.fixture
def shown(monkeypatch):
    """Events that reach the view of `followed`."""
    events = []
    monkeypatch.setattr(View, "show", lambda self, event: events.append(event))
    return events


def test_all_that_another_process_tells_is_shown_in_order(tmp_path, shown):
    """Even what it wrote a moment before the block ended."""
    code = (
        "from steadydescent.study.training.progress import Journal; journal = Journal(); "
        "[journal.tell(done=i) for i in range(500)]; journal.tell(note='ö\\n')"
    )
    journal = tmp_path / "logs" / "run.jsonl"
    with followed(journal):
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=os.environ | {VARIABLE: str(journal)}
        )
    assert shown == [{"done": i} for i in range(500)] + [{"note": "ö\n"}]


def test_line_written_in_two_pieces_is_shown_once_whole(tmp_path, shown):
    path = tmp_path / "run.jsonl"
    with followed(path):
        text = json.dumps({"note": "in two pieces"}) + "\n"
        for piece in (text[:9], text[9:]):
            with path.open("a") as stream:
                stream.write(piece)
            progress.time.sleep(0.15)
    assert shown == [{"note": "in two pieces"}]


def test_journal_of_an_earlier_run_is_not_shown_again_and_is_gone_at_the_end(
    tmp_path, shown, monkeypatch
):
    (path := tmp_path / "run.jsonl").write_text('{"note": "yesterday"}\n')
    monkeypatch.setenv(VARIABLE, str(path))
    with suppress(ZeroDivisionError), followed(path):
        Journal().tell(note="today")
        divmod(1, 0)
    assert shown == [{"note": "today"}] and not path.exists()


def test_bars_of_two_journals_are_told_apart_by_their_prefix(tmp_path, shown, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run.jsonl"))
    with followed(tmp_path / "run.jsonl", "Optimisers, "):
        Journal().tell(start="saddle", total=3)
        Journal().tell(end="saddle")
    assert shown == [{"start": "Optimisers, saddle", "total": 3}, {"end": "saddle"}]


@pytest.mark.parametrize(
    "line",
    [
        '{"note": "hal',
        "",
        "5",
        "null",
        '"start"',
        '{"start": 5, "total": 3}',
        '{"done": "x"}',
        '{"start": "a"}',
        '{"note": "\udcff"}',
        "\0\0\0",
        "[" * 5_000,
    ],
)
def test_line_that_is_no_event_does_not_end_what_follows(tmp_path, capsys, line):
    """A kernel that is killed, or a disk that is full, leaves half a line."""
    path = tmp_path / "run.jsonl"
    with followed(path):
        path.write_bytes(
            b'{"start": "before", "total": 4}\n'
            + line.encode("utf-8", "surrogatepass")
            + b'\n{"note": "after"}\n'
        )
    said = capsys.readouterr().err
    assert "before" in said and "after" in said and "Traceback" not in said


def test_journal_that_is_deleted_or_cut_meanwhile_ends_nothing(tmp_path, capsys, monkeypatch):
    path = tmp_path / "run.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    with followed(path):
        path.unlink()
        Journal().tell(note="into a new file")


def test_training_goes_on_where_its_progress_cannot_be_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no-such-folder" / "run.jsonl"))
    journal = Journal()
    journal.tell(note="first")
    journal.tell(note="second")
    assert "first" in (said := capsys.readouterr().err) and "second" in said
