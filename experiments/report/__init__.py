"""The report: a store of runs as one HTML file for a meeting, and whether B is worth it."""

from experiments.report.compare import Answer, Side, answer, choose_sides
from experiments.report.differences import Difference, differences
from experiments.report.measures import MEASURES, Measure, measure_named
from experiments.report.page import MAX_BYTES, Page, render
from experiments.report.runs import ReportRun, read_runs

__all__ = [
    "MAX_BYTES",
    "MEASURES",
    "Answer",
    "Difference",
    "Measure",
    "Page",
    "ReportRun",
    "Side",
    "answer",
    "choose_sides",
    "differences",
    "measure_named",
    "read_runs",
    "render",
]
