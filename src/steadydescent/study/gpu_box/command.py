"""The parts one after another, each as far as its time goes."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil

from steadydescent.files import require_room
from steadydescent.study.gpu_box.box import Box
from steadydescent.study.gpu_box.facts import machine, tests
from steadydescent.study.gpu_box.measuring import bench_part, study, widths
from steadydescent.study.gpu_box.needs import LEFT_OUT, missing


class Part(NamedTuple):
    """A part: its file, up to which share of the time it may go on, and what does it.

    The function is given what an earlier call left, and says whether the part is finished.
    """

    name: str
    file: str
    share: float
    work: Callable[[Box, dict[str, Any], float], bool]


BOX_PARTS = (
    Part("machine", "machine.json", 1.0, machine),
    Part("tests", "tests.json", 0.15, tests),
    Part("benchmark", "bench.json", 0.5, bench_part),
    Part("widths", "stackings.yml", 0.72, widths),
    Part("study", "study.json", 1.0, study),
)
"""The parts in their order; what one leaves of its time is the next one's."""


def on_gpu_box(device: str, minutes: float, out: Path, again: bool = False) -> None:
    """Do the parts one after another, each as far as its time goes; see the module's head.

    Raises:
        CannotWrite: when the folder cannot be written.
    """
    require_room(out)
    if again:
        for path in (*(out / part.file for part in BOX_PARTS), *out.glob("store-*.tar")):
            path.unlink(missing_ok=True)
    for name in missing(tuple(LEFT_OUT)):
        click.echo(f"{name} is not installed: left out is {LEFT_OUT[name]}", err=True)
    running = time.time() - psutil.Process().create_time()
    box = Box(device, out, time.monotonic() - running, minutes)
    for part in BOX_PARTS:
        _do(part, box)
    left = [part.name for part in BOX_PARTS if not box.read(part.file).get("finished")]
    click.echo(
        f"{'All is finished' if not left else 'Not finished: ' + ', '.join(left)}; "
        f"{out} has {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}"
        + ("" if not left else ". The same command goes on from there")
    )


def _do(part: Part, box: Box) -> None:
    before = box.read(part.file)
    if before.get("finished"):
        click.echo(f"{part.name}: finished by an earlier call", err=True)
        return
    if (seconds := box.until(part.share) - time.monotonic()) <= 0:
        click.echo(f"{part.name}: skipped, there is no time left for it", err=True)
        return
    click.echo(f"{part.name}: at most {seconds:.0f} seconds", err=True)
    try:
        finished = part.work(box, before, box.until(part.share))
    except Exception as error:  # whatever it is, the parts behind it are worth having
        box.write(f"{part.name}-failed.json", {"error": traceback.format_exc()})
        click.echo(f"{part.name}: failed, {type(error).__name__}: {error}", err=True)
        return
    click.echo(f"{part.name}: {'finished' if finished else 'its time is over'}", err=True)
