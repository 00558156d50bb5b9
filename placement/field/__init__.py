"""The field's own policies, written from their published descriptions: baselines to beat."""

from placement.field.affinity import InterLayerAffinity, kept_affinity, kept_affinity_bound
from placement.field.eplb import Eplb, doubled_cells, doubled_warning
from placement.field.equal import equal_counts
from placement.field.hottest import HottestEverywhere
from placement.field.mapping import (
    NVLINK_COST,
    ClusterThenMap,
    communication,
    communication_bound,
    dependency,
)
from placement.field.pairs import CollaborativePairs, kept_pairs, kept_pairs_bound
from placement.field.partition_bounds import between_bound, within_bound

__all__ = [
    "NVLINK_COST",
    "ClusterThenMap",
    "CollaborativePairs",
    "Eplb",
    "HottestEverywhere",
    "InterLayerAffinity",
    "between_bound",
    "communication",
    "communication_bound",
    "dependency",
    "doubled_cells",
    "doubled_warning",
    "equal_counts",
    "kept_affinity",
    "kept_affinity_bound",
    "kept_pairs",
    "kept_pairs_bound",
    "within_bound",
]
