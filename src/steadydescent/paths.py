"""Where things are, independent of the working directory of a command or a notebook cell."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("STEADY_HOME", Path(__file__).resolve().parents[2]))
DATA = ROOT / "data"
EXPERIMENTS = ROOT / "experiments"
RESULTS = ROOT / "results"
STORE = RESULTS / "store"
PUBLISHED = RESULTS / "published"
REPRODUCED = RESULTS / "reproduced"
GENERATED = ROOT / "generated"
