"""Where things are, independent of the working directory of a command or a notebook cell."""

import os
import tomllib
import unicodedata
from pathlib import Path

HOME = "STEADY_HOME"
"""The variable that names another checkout than the one whose package is imported."""
ROOT = Path(os.environ.get(HOME) or Path(__file__).resolve().parents[3]).absolute()
PACKAGE = Path(__file__).resolve().parents[1]
"""The code that runs, wherever the study is."""
DATA = ROOT / "data"
EXPERIMENTS = ROOT / "experiments"
RESULTS = ROOT / "results"
STORE = RESULTS / "store"
PUBLISHED = RESULTS / "published"
REPRODUCED = RESULTS / "reproduced"
GENERATED = ROOT / "generated"


def require_study(root: Path) -> None:
    """Refuse a folder that holds no study, or whose name no message could repeat.

    Raises:
        FileNotFoundError: when the study's files are not there, as beside a package installed from
            a wheel.
        ValueError: for a name with control characters, or with letters that this locale cannot
            write.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(root)):
        raise ValueError(
            f"the folder {str(root)!r} has characters in its name that messages and files cannot "
            "repeat; set PYTHONUTF8=1 if they are letters, or move the study to a folder with a "
            "plain name"
        )
    missing = [
        name for name in ("study.yml", "claims.yml") if not (root / "experiments" / name).is_file()
    ]
    if missing:
        named = f"{HOME} names it; " if os.environ.get(HOME) else ""
        raise FileNotFoundError(
            f"there is no study in {root}: experiments/{missing[0]} is missing; {named}"
            f"get the repository and set {HOME} to its folder, or call `make` there"
        )


def require_project(root: Path) -> None:
    """Refuse to remove anything from a folder that is not a checkout of this project.

    Raises:
        FileNotFoundError: when its pyproject.toml is missing or names another project.
    """
    try:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        name = settings["project"]["name"]
    except (OSError, KeyError, TypeError, ValueError):
        name = None
    if name != "steadydescent":
        raise FileNotFoundError(
            f"nothing is removed from {root}: its pyproject.toml does not name steadydescent, "
            "so it is no checkout"
        )
