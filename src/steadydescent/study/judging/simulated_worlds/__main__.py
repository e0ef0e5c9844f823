"""Write the tables of the simulation to a folder: FOLDER, REPLICATIONS."""

import sys
from pathlib import Path

from steadydescent.study.judging.simulated_worlds import simulate

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in simulate(int(sys.argv[2])).items():
        table.to_csv(folder / name, index=False)
