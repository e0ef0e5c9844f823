"""Judging: from a result's rows to estimates, intervals and verdicts.

In reading order: `measures` (numbers of a run), `choosing` and `evidence` (scores of arms, and what
tuning chose), `statistics` (intervals), `edges` and `remarks` (what a row says of its choices, and
of runs that miss their target), `contrasts` (what a row compares, one class a file), `verdicts`
(the words), `claims` (questions that `experiments/claims.yml` asks), `exact` (claims that
arithmetic decides), `rows` and `judge` (the answers). `regret` judges searches for a rate on a
dense sweep, `simulated_worlds` puts the intervals to the test. It may use the engine, the
techniques and `results`; it knows no plan and no `study.yml`.
"""
