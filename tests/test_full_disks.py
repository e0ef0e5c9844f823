"""A disk that is full, over quota, failing or read-only: one sentence with the path, and what was there stays."""

import errno
import itertools
import os
import pickle
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from disk_faults import FAILING, FULL, QUOTA, READ_ONLY, counted
from steadydescent import cli, files, reproduce
from steadydescent.cli import main
from steadydescent.files import CannotWrite, explained, require_room, write_atomically
from writers import TASK, WRITERS, copied, in_memory, keep, places_in, study, tree, visible

DISKS = {"full": (FULL, "No space left on device, .* are free; make room there"),
         "over quota": (QUOTA, "your quota there is used up"),
         "read-only": (READ_ONLY, "Read-only file system; make it writable"),
         "failing": (FAILING, "Input/output error; the disk may be failing")}  # fmt: skip
SILENT = ("verdicts kept",)
"""What is done without where it cannot be written."""


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("disk", DISKS)
def test_refusal_at_any_step_is_one_sentence_and_loses_nothing(name, disk, tmp_path, monkeypatch):
    """From each step on the disk refuses. A full one still removes, so nothing half-made is left on it."""
    chosen, (refuse, sentence) = WRITERS[name], DISKS[disk]
    with in_memory(tmp_path) as place:
        home = place / "home"
        home.mkdir()
        places_in(monkeypatch, home)
        study(home)
        chosen.before(home)
        template = copied(home, place / "template")
        chosen.write(home)
        after, old = copied(home, place / "after"), visible(template)
        for step in itertools.count(1):
            copied(template, home)
            with counted(step, refuse) as steps:
                try:
                    chosen.write(home)
                    error = None
                except CannotWrite as refused:
                    error = refused
            assert error is None or (str(place) in str(error) and re_matches(sentence, str(error)))
            assert error is not None or name in SILENT or len(steps.names) < step
            if visible(home) not in (old, visible(after)):
                either = [chosen.read(copied(folder, place / "shown")) for folder in (template, after)]
                assert all(found in allowed for found, *allowed in zip(chosen.read(home), *either, strict=True))
            if refuse in (FULL, QUOTA):
                assert not [left for left in tree(home) if ".partial" in left]
            if len(steps.names) < step:
                break
        assert step > 4
