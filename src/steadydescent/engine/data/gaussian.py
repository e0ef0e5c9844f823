"""Standard normal draws for tasks with a formula: gradient noise of known covariance.

A finite pool of draws is centred and whitened, so that a draw from it with replacement has mean 0
and covariance 1 exactly, not merely nearly; closed forms that use no more than two moments of the
noise then hold exactly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from steadydescent.engine.data.task_data import Report, TaskData, checksum
from steadydescent.files import sha256

DRAWS = 16_384
POOL_SEED = 0x6E6F6973  # "nois"


@dataclass(frozen=True)
class Gaussian:
    """A source of `DRAWS` standard normal draws of dimension D; every seed trains on all of them.

    Validation and test set are one row: the surface itself is looked at, not its noise.
    """

    dimension: int

    def identity(self) -> str:
        """SHA-256 of the rule that makes the pool."""
        rule = {
            "source": "gaussian",
            "dimension": self.dimension,
            "draws": DRAWS,
            "seed": POOL_SEED,
            "whitened": True,
        }
        return sha256(json.dumps(rule, sort_keys=True).encode())

    def load(self, seeds: Sequence[int], root: Path, report: Report) -> TaskData:
        """Pool [DRAWS, D] float32, labels that nothing reads; nothing is kept on disk."""
        generator = torch.Generator().manual_seed(POOL_SEED)
        half = torch.randn(DRAWS // 2, self.dimension, generator=generator, dtype=torch.float64)
        draws = torch.cat([half, -half])
        whitener = torch.linalg.cholesky(draws.T @ draws / DRAWS)
        white = torch.linalg.solve_triangular(whitener, draws.T, upper=False).T
        rows, first = torch.arange(DRAWS).expand(len(seeds), -1), torch.zeros(1, dtype=torch.int64)
        fields = {
            "pool": white.float().contiguous(),
            "labels": torch.zeros(DRAWS, dtype=torch.int64),
            "train": rows.contiguous(),
            "validation": first.repeat(len(seeds), 1),
            "test": first,
        }
        mean, std = torch.zeros(len(seeds), 1), torch.ones(len(seeds), 1)
        return TaskData(**fields, mean=mean, std=std, checksum=checksum(**fields))

    def fetch(self, root: Path, report: Report) -> Path:
        """Say that there is nothing to fetch."""
        report(
            f"Normal draws of dimension {self.dimension}: "
            "made in memory whenever they are needed; no download."
        )
        return root
