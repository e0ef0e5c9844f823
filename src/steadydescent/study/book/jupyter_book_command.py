"""Jupyter Book's own command, for `steady book`: it ends when the command that started it does.

Its imports take seconds, in which the other may be killed; so it is followed before they begin.
"""

import os

from steadydescent.study.training.processes import follow

BUILDER = "STEADY_BOOK_BUILDER"
"""The variable that names the process which prepared a build and waits for it."""

if __name__ == "__main__":
    follow(int(os.environ[BUILDER]))
    from jupyter_book.cli.main import main

    main(prog_name="jupyter-book")
