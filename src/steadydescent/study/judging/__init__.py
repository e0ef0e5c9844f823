"""Judging: from a result's rows to estimates, intervals and verdicts."""
