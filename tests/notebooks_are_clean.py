"""Fail when a stored notebook holds outputs or execution counts. Used by `make lint`."""

import json
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def dirty_cells(notebook: Path) -> list[int]:
    """Numbers of the code cells that hold outputs or an execution count."""
    cells = json.loads(notebook.read_text())["cells"]
    return [i for i, cell in enumerate(cells) if cell.get("outputs") or cell.get("execution_count")]


if __name__ == "__main__":
    found = {
        path.name: cells
        for path in sorted(EXPERIMENTS.glob("*.ipynb"))
        if (cells := dirty_cells(path))
    }
    for name, cells in found.items():
        print(f"experiments/{name} holds outputs in cells {cells}; clear them before you commit")
    sys.exit(bool(found))
