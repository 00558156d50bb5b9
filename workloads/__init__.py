"""Workloads: what the cluster is asked to carry."""

from workloads.choices import affinity, coactivation
from workloads.errors import WorkloadError
from workloads.model import PRESETS, MoEModel, model
from workloads.profile import ExpertProfile
from workloads.readers import read_logical_count, read_trace
from workloads.sampling import draw_trace, inclusion_probabilities
from workloads.statistics import LoadStatistics, gini, loglog_slope, max_over_mean, top_share
from workloads.streams import stream
from workloads.synthetic import R1_LIKE, Skew, SyntheticWorkload, synthetic_load
from workloads.trace import RoutingTrace

__all__ = [
    "PRESETS",
    "R1_LIKE",
    "ExpertProfile",
    "LoadStatistics",
    "MoEModel",
    "RoutingTrace",
    "Skew",
    "SyntheticWorkload",
    "WorkloadError",
    "affinity",
    "coactivation",
    "draw_trace",
    "gini",
    "inclusion_probabilities",
    "loglog_slope",
    "max_over_mean",
    "model",
    "read_logical_count",
    "read_trace",
    "stream",
    "synthetic_load",
    "top_share",
]
