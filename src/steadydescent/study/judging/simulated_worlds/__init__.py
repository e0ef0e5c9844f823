"""Intervals put to the test on made-up runs whose truth is known, tuning included.

A world states the true mean score of two arms at every rate. Runs are drawn around it, tuned,
reported and judged as a trial does, thousands of times; what is tallied is how often the interval
holds the truth and the verdict is right. Not imitated: grids that grow at their edge, noise that
is neither normal nor a crash. It may use judging's statistics, verdicts and regret.

    from steadydescent.study.judging import simulated_worlds
    simulated_worlds.simulate_means(10_000)      # intervals.csv; five minutes
    simulated_worlds.simulate_kinds(10_000)      # intervals-kinds.csv, with
    simulated_worlds.simulate_searches(2_000)    # the rows of searches below

Axes: N replications, S seeds, G rates, C readouts or other candidates of an arm at a rate.
"""

from steadydescent.study.judging.simulated_worlds.means import simulate_means
from steadydescent.study.judging.simulated_worlds.other_kinds import simulate_kinds
from steadydescent.study.judging.simulated_worlds.searches import simulate_searches

__all__ = ["simulate_kinds", "simulate_means", "simulate_searches"]
