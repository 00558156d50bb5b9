"""Statistics of few runs: intervals, paired comparisons, and how many runs there should be."""

from experiments.statistics.intervals import METHODS, Interval, mean_interval
from experiments.statistics.needed import fewest_pairs, pairs_needed, runs_needed
from experiments.statistics.pairs import PairedComparison, compare_pairs, holm, sign_flip
from experiments.statistics.student import student_quantile, student_within

__all__ = [
    "METHODS",
    "Interval",
    "PairedComparison",
    "compare_pairs",
    "fewest_pairs",
    "holm",
    "mean_interval",
    "pairs_needed",
    "runs_needed",
    "sign_flip",
    "student_quantile",
    "student_within",
]
