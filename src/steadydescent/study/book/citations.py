"""How a result is cited."""

from typing import Any

from steadydescent.study.results.receipts import run_counts


def bibtex(receipt: dict[str, Any]) -> str:
    """A BibTeX entry for one result."""
    name = receipt["result"]
    key = name.replace("/", "-").replace("@", "-")
    counts = run_counts([receipt]).items()
    runs = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    return (
        f"@misc{{steadydescent-{key},\n"
        f"  author = {{{{The Steady Descent contributors}}}},\n"
        f"  title  = {{Steady Descent, result {name}}},\n"
        f"  year   = {{{receipt['date'][:4]}}},\n"
        f"  note   = {{Profile {receipt['profile']}, {runs}, commit {receipt['commit']}}}\n"
        "}"
    )
