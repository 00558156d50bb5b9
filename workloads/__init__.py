"""Workloads: what the cluster is asked to carry."""

from workloads.architecture import Architecture, GroupedAttention, LatentAttention, Storage
from workloads.choices import affinity, coactivation
from workloads.errors import WorkloadError
from workloads.model import MoEModel
from workloads.presets import PRESETS, model
from workloads.profile import ExpertProfile
from workloads.readers import read_chunks, read_logical_count, read_trace
from workloads.sampling import draw_trace, inclusion_probabilities
from workloads.split import split_sequences
from workloads.statistics import LoadStatistics, gini, loglog_slope, max_over_mean, top_share
from workloads.store import StoredTrace
from workloads.streams import stream
from workloads.synthetic import R1_LIKE, Skew, SyntheticWorkload, synthetic_load
from workloads.trace import DECODE, PREFILL, RoutingTrace
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
    "LoadStatistics",
    "MoEModel",
    "RoutingTrace",
    "Skew",
    "Storage",
    "StoredTrace",
    "SyntheticWorkload",
    "TraceWriter",
    "WorkloadError",
    "affinity",
    "coactivation",
    "draw_trace",
    "gini",
    "inclusion_probabilities",
    "loglog_slope",
    "max_over_mean",
    "model",
    "read_chunks",
    "read_logical_count",
    "read_trace",
    "split_sequences",
    "stream",
    "synthetic_load",
    "top_share",
]
