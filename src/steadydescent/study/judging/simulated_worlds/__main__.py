"""Write the tables of the simulation to a folder, with two processes: FOLDER, REPLICATIONS."""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from steadydescent.study.judging.simulated_worlds.all_tables import PARTS, together


def _write(home: Path, replications: int) -> None:
    home.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(PARTS)) as workers:
        parts = [workers.submit(part, replications) for part in PARTS]
        for name, table in together([part.result() for part in parts]).items():
            table.to_csv(home / name, index=False, float_format="%.6g")


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]))
