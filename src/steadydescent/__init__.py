"""Steady Descent: how to take the noise out of training, tested claim by claim."""

__version__ = "0.1.0"
