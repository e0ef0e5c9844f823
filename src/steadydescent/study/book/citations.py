"""How a result is cited."""

from typing import Any


def bibtex(receipt: dict[str, Any]) -> str:
    """A BibTeX entry for one result."""
    name = receipt["result"]
    key = name.replace("/", "-").replace("@", "-")
    runs = f"{receipt['networks']} networks, commit {receipt['commit']}"
    return (
        f"@misc{{steadydescent-{key},\n"
        f"  author = {{{{The Steady Descent contributors}}}},\n"
        f"  title  = {{Steady Descent, result {name}}},\n"
        f"  year   = {{{receipt['date'][:4]}}},\n"
        f"  note   = {{Profile {receipt['profile']}, {runs}}}\n"
        "}"
    )
