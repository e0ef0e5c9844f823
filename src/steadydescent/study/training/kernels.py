"""A notebook in a kernel of its own, through papermill; whatever ends it early is one sentence."""

import os
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from steadydescent.study.training.processes import KEPT, end

ENGINE = "steadydescent"
START_SECONDS = 300
"""A kernel that does not answer by then is given up; on an idle machine it takes two seconds."""
_running: set[PapermillNotebookClient] = set()


class OwnKernel(NBClientEngine):
    """Starts the kernel in a given folder and environment, not those that all threads share."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *_: Any,
        start: dict[str, Any],
        options: dict[str, Any],
        **__: Any,
    ) -> nbformat.NotebookNode:
        client = PapermillNotebookClient(nb_man, kernel_name=kernel_name, **options)
        _running.add(client)
        try:
            return client.execute(**start)
        finally:
            _running.discard(client)


papermill_engines.register(ENGINE, OwnKernel)


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Refuse a notebook that would run with values of its own.

    Raises:
        ValueError: when no cell tagged `parameters` sets all of them, when that cell sets another
            one to anything but None, or when the file is no notebook.
    """
    try:
        cell = papermill.inspect_notebook(str(notebook))
    except FileNotFoundError:
        raise
    # nbformat raises what it meets: KeyError, AttributeError, its own and JSON's
    except Exception as error:
        raise ValueError(
            f"{notebook} is no Jupyter notebook that can be read ({error!r:.200})"
        ) from error
    if missing := sorted(set(parameters) - set(cell)):
        raise ValueError(
            f"{notebook} has no cell tagged `parameters` that sets {', '.join(missing)}, "
            "so it would run with values of its own; "
            "put all of them in one cell and give that the tag"
        )
    for name in sorted(set(cell) - set(parameters)):
        if (value := cell[name]["default"]) != "None":
            raise ValueError(
                f"{notebook} sets {name} = {value:.200}, and the study's runs have none of their "
                "own; set it to None, and vary it in Jupyter or with papermill -p"
            )


def execute(
    notebook: Path, output: Path, parameters: dict[str, Any], start: dict[str, Any], seconds: float
) -> None:
    """Run a notebook to its last cell, writing what it has come to into `output`.

    `start` says where its kernel starts, `cwd` and `env`; the kernel ends with this process. A cell
    may take so many seconds.

    Raises:
        RuntimeError: when a cell fails or takes longer, or the kernel dies; a cell that exits
            fails, whatever its code.
    """
    follow = f"from steadydescent.study.training.processes import follow; follow({os.getpid()})"
    options = {
        "timeout": max(1, round(seconds)),
        "startup_timeout": START_SECONDS,
        "extra_arguments": ["--log-level=CRITICAL", f"--IPKernelApp.exec_lines={follow}"],
    }
    try:
        done = papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            engine_name=ENGINE,
            kernel_name="python3",
            progress_bar=False,
            start=start,
            options=options,
        )
    except papermill.PapermillExecutionError as error:
        raise RuntimeError(
            f"a cell of {output} failed with {error.ename}: {error.evalue}; {KEPT}"
        ) from error
    except CellTimeoutError as error:
        raise RuntimeError(
            f"a cell of {output} took longer than {seconds / 3600:g} hours and was ended; {KEPT}, "
            "and --cell-hours allows it more"
        ) from error
    except DeadKernelError as error:
        raise RuntimeError(
            f"the kernel of {output} died, perhaps for want of memory; {KEPT}"
        ) from error
    except RuntimeError as error:  # jupyter_client's, before the first cell
        raise RuntimeError(f"the kernel of {output} did not start ({error}); {KEPT}") from error
    for cell in done.cells:  # papermill lets SystemExit(0) pass
        if stopped := [one for one in cell.get("outputs", []) if one.output_type == "error"]:
            raise RuntimeError(
                f"a cell of {output} ended the notebook with {stopped[0].ename}; {KEPT}"
            )


def end_kernels() -> None:
    """Kill the kernels that run now; their notebooks fail."""
    for client in list(_running):
        provisioner = getattr(client.km, "provisioner", None)
        if (number := getattr(provisioner, "pid", None)) is not None:
            end(number)
