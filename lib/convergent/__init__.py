"""Convergent: why independently trained neural networks end up alike."""

__version__ = "0.1.0"
