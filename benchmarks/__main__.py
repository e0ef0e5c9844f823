"""The part of the benchmarks that `steady bench` runs; it takes this folder as Python takes a
folder that it is given to run, so that modules here find one another."""

from suite import CASES, brief, chosen, keep, measured, save
from training import SECONDS, Settings

__all__ = ["CASES", "SECONDS", "Settings", "brief", "chosen", "keep", "measured", "save"]
