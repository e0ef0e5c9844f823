"""Judging: from a result to estimates, intervals and verdicts.

Evidence answers for a result's arms, claims say what is compared and by what margin, contrasts
estimate it, verdicts are decided here and nowhere else. It may use results and the techniques, and
needs neither a plan nor today's study.
"""
