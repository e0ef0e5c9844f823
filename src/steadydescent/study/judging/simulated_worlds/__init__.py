"""Intervals put to the test on made-up runs whose truth is known, tuning included.

A world states the true mean score of two arms at every rate. Runs are drawn around it, tuned,
reported and judged as a trial does, thousands of times; what is tallied is how often the interval
holds the truth, and which directions and words are found where an effect of so many margins is
planted. Not imitated: grids that grow at their edge, noise that is neither normal nor a crash. It
may use judging's statistics, contrasts, verdicts and regret.

    nice python -m steadydescent.study.judging.simulated_worlds FOLDER 10000

writes `intervals.csv`, `intervals-kinds.csv` and `intervals-book.csv`, in about half an hour.

Axes: N replications, S seeds, G rates, C readouts or other candidates of an arm at a rate.
"""

from steadydescent.study.judging.simulated_worlds.all_tables import simulate

__all__ = ["simulate"]
