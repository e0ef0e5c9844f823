"""Seeds: one stream of random numbers for each purpose of each run, whatever its company."""

import hashlib


def stream_seed(source: str, seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose (`weights`, `order`), from the data source and the run's seed
    alone.
    """
    digest = hashlib.sha256(f"{source}/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
