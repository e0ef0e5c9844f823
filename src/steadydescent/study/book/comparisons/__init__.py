"""What the notebook of a comparison shows: a table and a figure of its own axis.

One module a comparison, each with `table` and `figure` of a `Comparison`, a saved result that says
whether it is the study's or one's own variation. They may use results, judging and plots.
"""

from steadydescent.study.book.comparisons.comparison import Comparison, bill

__all__ = ["Comparison", "bill"]
