"""Workloads: what the cluster is asked to carry."""

from workloads.architecture import Architecture, GroupedAttention, LatentAttention, Storage
from workloads.choices import affinity, coactivation
from workloads.curve import LoadCurve, fit_curve
from workloads.errors import WorkloadError
from workloads.fitting import fit_trace
from workloads.hf_config import config_file, is_config_path, read_config
from workloads.lint import lint_load, lint_trace, window_distances
from workloads.model import MoEModel
from workloads.presets import PRESETS, model
from workloads.profile import ExpertProfile
from workloads.readers import (
    LoadCounts,
    read_chunks,
    read_load,
    read_logical_count,
    read_trace,
)
from workloads.sampling import draw_trace, inclusion_probabilities
from workloads.split import split_sequences
from workloads.statistics import LoadStatistics, gini, loglog_slope, max_over_mean, top_share
from workloads.store import StoredTrace
from workloads.streams import stream
from workloads.synthetic import R1_LIKE, Skew, SyntheticWorkload, synthetic_load
from workloads.topics import Topics
from workloads.trace import DECODE, PREFILL, RoutingTrace
from workloads.trace_counts import TraceCounts, count_trace
from workloads.trace_statistics import (
    WorkloadStatistics,
    correlations,
    expected_pairs,
    load_statistics,
    total_variation,
    trace_statistics,
)
from workloads.trace_writer import TraceWriter

__all__ = [
    "DECODE",
    "PREFILL",
    "PRESETS",
    "R1_LIKE",
    "Architecture",
    "ExpertProfile",
    "GroupedAttention",
    "LatentAttention",
    "LoadCounts",
    "LoadCurve",
    "LoadStatistics",
    "MoEModel",
    "RoutingTrace",
    "Skew",
    "Storage",
    "StoredTrace",
    "SyntheticWorkload",
    "Topics",
    "TraceCounts",
    "TraceWriter",
    "WorkloadError",
    "WorkloadStatistics",
    "affinity",
    "coactivation",
    "config_file",
    "correlations",
    "count_trace",
    "draw_trace",
    "expected_pairs",
    "fit_curve",
    "fit_trace",
    "gini",
    "inclusion_probabilities",
    "is_config_path",
    "lint_load",
    "lint_trace",
    "load_statistics",
    "loglog_slope",
    "max_over_mean",
    "model",
    "read_chunks",
    "read_config",
    "read_load",
    "read_logical_count",
    "read_trace",
    "split_sequences",
    "stream",
    "synthetic_load",
    "top_share",
    "total_variation",
    "trace_statistics",
    "window_distances",
]
