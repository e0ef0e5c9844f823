"""Write the tables of the simulation to a folder, with two processes: FOLDER, REPLICATIONS."""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from steadydescent.study.judging.simulated_worlds.all_tables import PARTS, together

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(PARTS)) as workers:
        parts = [workers.submit(part, int(sys.argv[2])) for part in PARTS]
        for name, table in together([part.result() for part in parts]).items():
            table.to_csv(folder / name, index=False, float_format="%.6g")
