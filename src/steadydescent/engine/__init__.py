"""The engine: where networks are trained, many at a time.

A run (`runs`) is plain data with a key; a stack (`stack`) trains the runs of one shape together, in
blocks of updates, reads averages out and lets probes look on. It may use the techniques and what
lies below it here, data, tasks and settings, and never the study.
"""
