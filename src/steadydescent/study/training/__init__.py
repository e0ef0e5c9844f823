"""Training the study: from planned runs to stored results.

Tuning and reporting of one experiment, sweeps over what is missing, workers and clusters, and
notebooks in kernels of their own. It may use planning, judging, results and the engine.
"""
