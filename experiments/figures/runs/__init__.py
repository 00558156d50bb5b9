"""Figures of runs for a paper, one module each, drawn from tables alone.

Importing this package loads matplotlib.
"""

from experiments.figures.runs.catalogue import CATALOGUE, NAMES, draw_figure

__all__ = ["CATALOGUE", "NAMES", "draw_figure"]
