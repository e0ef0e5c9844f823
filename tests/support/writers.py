"""Everything in the study and the library that writes a file which must last, each with what stood
there before.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

import suite
from fabricated import a_run, result, tables, write_experiments, write_result
from steadydescent.engine.data import mnist1d
from steadydescent.files import write_atomically
from steadydescent.study import reproduce
from steadydescent.study.book import edition, findings, saved_results, verdict_rows
from steadydescent.study.judging import claims
from steadydescent.study.planning import Plan, experiment, load_study
from steadydescent.study.results import provenance, published
from steadydescent.study.results.store import Result, Store, Tables
from steadydescent.study.results.up_to_date import remember
from steadydescent.weight_averaging import checkpoint_files

TASK = "mnist1d-mlp"


class Writer(NamedTuple):
    """`before` leaves what is old, or nothing; `write` puts the new in its place; `read` gives the
    parts that a reader finds, each by itself old or new, None what is not there.
    """

    before: Callable[[Path], object]
    write: Callable[[Path], object]
    read: Callable[[Path], list[object]]


def places_in(patch: pytest.MonkeyPatch, home: Path) -> None:
    """The small study in a folder of its own, where results are read and written."""
    places = {"ROOT": home, "EXPERIMENTS": home / "experiments", "RESULTS": home / "results"}
    places |= {"PUBLISHED": home / "results/published", "REPRODUCED": home / "results/reproduced"}
    places |= {"STORE": home / "results/store", "GENERATED": home / "generated"}
    book = (findings, edition, saved_results, verdict_rows)
    for module in (*book, reproduce, experiment, claims, provenance):
        for name, place in places.items():
            if hasattr(module, name):
                patch.setattr(module, name, place)
    # judging takes long, and writes nothing; a row is noted when it is first published
    row = SimpleNamespace(key=("claim", TASK, "constant"), first_seen="2026-11-27")
    patch.setattr(reproduce, "judge_all", lambda evidence: [row])
    patch.setattr(verdict_rows, "rows", lambda root: [{"root": root.name}])
    patch.setattr(reproduce, "findings", lambda *where: {"claims": {}})
    patch.setattr(
        suite, "receipt", lambda device, **more: {"device": device, **more}
    )  # without the time of day


@cache
def stack(*seeds: int) -> Tables:
    return tables([a_run(seed=seed, curve_points=2) for seed in seeds])


@cache
def scored(gain: float) -> Result:
    plan = Plan(experiment=load_study()["toy"], task=TASK, profile="laptop")
    return result(plan, lambda run, readout, split: 0.6 + readout.startswith("ema-") * gain)


def keep(source: str, gain: float) -> Callable[[Path], object]:
    """Writes a result of the small study."""
    return lambda home: write_result(
        home / "results" / source / "toy" / TASK, scored(gain), "laptop", f"toy/{TASK}@{gain}"
    )


def stored(home: Path) -> list[object]:
    """Rows of every stack of a store, as a process finds them that has just begun."""
    store = Store(home / "store", warn=lambda said: None)
    return [
        [table.to_csv() for table in store.load(sorted(keys))[0]]
        if (keys := store.keys())
        else None
    ]


def read_result(source: str) -> Callable[[Path], list[object]]:
    def read(home: Path) -> list[object]:
        with pytest.MonkeyPatch.context() as patch:  # copies of a home are read, too
            patch.setattr(saved_results, "PUBLISHED", home / "results" / "published")
            found = [
                (*tables, receipt)
                for *_, tables, receipt in saved_results.results(home / "results" / source)
            ]
        return [
            [part.to_csv() if hasattr(part, "to_csv") else part for part in found[0]]
            if found
            else None
        ]

    return read


def read_published(home: Path) -> list[object]:
    return [*read_result("published")(home), *read_text("results/README.md")(home)]


def read_text(name: str) -> Callable[[Path], list[object]]:
    return lambda home: [(home / name).read_text() if (home / name).exists() else None]


def damaged_stack(home: Path) -> None:
    Store(home / "store").save(stack(0, 1), {})
    (table,) = (home / "store").glob("??/*/runs.parquet")
    table.write_bytes(b"PAR1")


def set_aside(home: Path) -> list[object]:
    """Whether the damaged bytes are still there to be looked at, and what is read of the rest."""
    return [
        len(
            [
                path
                for path in (home / "store").rglob("runs.parquet")
                if path.read_bytes() == b"PAR1"
            ]
        )
    ]


def checkpoint(value: float) -> Callable[[Path], object]:
    return lambda home: checkpoint_files.write(
        home / "c.safetensors", {"w": torch.full((5,), value), "step": value}
    )


def read_checkpoint(home: Path) -> list[object]:
    path = home / "c.safetensors"
    if not path.exists():
        return [None]
    with checkpoint_files.opened(path) as file:
        return [repr({key: file[key] for key in file.keys})]


def part(home: Path) -> mnist1d.Part:
    return mnist1d.Part("train-0", 0, 10, home / "data" / "train-0.safetensors")


def read_part(home: Path) -> list[object]:
    return [
        [array.tolist() for array in mnist1d.read(part(home))] if part(home).path.exists() else None
    ]


def study(home: Path) -> None:
    write_experiments(home / "experiments")
    (home / "results").mkdir(exist_ok=True)
    (home / "results/README.md").write_text("old")


def publishable(old: bool) -> Callable[[Path], None]:
    def before(home: Path) -> None:
        study(home)
        keep("reproduced/laptop", 0.05)(home)
        if old:
            keep("published", -0.05)(home)

    return before


def nothing(home: Path) -> None:
    return None


def rows_of(case: str) -> list[dict]:
    return [{"case": case, "seconds": 1.5}]


WRITERS = {
    "the first stack": Writer(
        nothing, lambda home: Store(home / "store").save(stack(0, 1), {}), stored
    ),
    "another stack": Writer(
        lambda home: Store(home / "store").save(stack(2), {}),
        lambda home: Store(home / "store").save(stack(0, 1), {}),
        stored,
    ),
    "setting a stack aside": Writer(
        damaged_stack, lambda home: Store(home / "store", warn=lambda said: None).keys(), set_aside
    ),
    "the first result": Writer(
        study, keep("reproduced/laptop", 0.05), read_result("reproduced/laptop")
    ),
    "another result": Writer(
        lambda home: (study(home), keep("reproduced/laptop", 0.01)(home)),
        keep("reproduced/laptop", 0.05),
        read_result("reproduced/laptop"),
    ),
    "publishing the first": Writer(
        publishable(old=False), lambda home: reproduce.publish_results("laptop"), read_published
    ),
    "publishing another": Writer(
        publishable(old=True), lambda home: reproduce.publish_results("laptop"), read_published
    ),
    "the first note": Writer(
        nothing, lambda home: remember(home / "a" / "note", "new"), read_text("a/note")
    ),
    "another note": Writer(
        lambda home: remember(home / "note", "old"),
        lambda home: remember(home / "note", "new"),
        read_text("note"),
    ),
    "verdicts kept": Writer(
        publishable(old=True),
        lambda home: (
            verdict_rows.cached_rows("published", None),
            remember(home / "results/reproduced/note", "later"),
        ),
        lambda home: [repr(verdict_rows.cached_rows("published", None))],
    ),
    "findings": Writer(
        lambda home: findings.write(home / "generated" / "findings.json", {"old": 1}),
        lambda home: findings.write(home / "generated" / "findings.json", {"new": 2}),
        read_text("generated/findings.json"),
    ),
    "a checkpoint": Writer(checkpoint(1.0), checkpoint(2.0), read_checkpoint),
    "the first checkpoint": Writer(nothing, checkpoint(2.0), read_checkpoint),
    "a data set": Writer(nothing, lambda home: mnist1d.draw_to_file(part(home)), read_part),
    "downloaded data": Writer(
        nothing,
        lambda home: write_atomically(home / "data" / "images", b"x" * 70_000),
        read_text("data/images"),
    ),
    "benchmarks": Writer(
        lambda home: suite.save(rows_of("one"), "cpu", 1.0, home),
        lambda home: suite.save(rows_of("two"), "cpu", 1.0, home),
        lambda home: [repr(published.parsed("bench-cpu.json", home))],
    ),
}


SAME_WAY = (
    "another stack",
    "the first result",
    "publishing the first",
    "publishing another",
    "verdicts kept",
)
"""Writers that go the way of others, and run by night."""


def tree(home: Path) -> dict[str, bytes | None]:
    """Every file's bytes and every folder below `home` by path; what is set aside gets no name of
    its own.
    """
    named = lambda path: "/".join(
        part.split("-")[0] if "damaged" in path.parts else part for part in path.parts
    )
    return {
        named(path.relative_to(home)): path.read_bytes() if path.is_file() else None
        for path in home.rglob("*")
    }


def visible(home: Path) -> dict[str, bytes]:
    """The files of `tree` that are looked for by name."""
    return {
        name: b
        for name, b in tree(home).items()
        if b is not None and not ("/." in name or name.startswith("."))
    }


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder on a disk of memory, where there is one, so that a thousand flushes take no time."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def copied(template: Path, home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    return Path(shutil.copytree(template, home))


def prepared(chosen: Writer, home: Path, patch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """A folder to write in, the same as it stands before, and as it stands after."""
    home.mkdir()
    places_in(patch, home)
    study(home)
    chosen.before(home)
    template = copied(home, home.with_name("template"))
    chosen.write(home)
    after = copied(home, home.with_name("after"))
    copied(template, home)
    return home, template, after
