"""The engine: tasks, runs, and the stack that trains them. It may import techniques, never the
study.
"""
