"""Expert statistics: all that a placement policy may know of the workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads._arrays import check_counts, check_load, frozen
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.trace import RoutingTrace


@dataclass(frozen=True, slots=True, eq=False)
class ExpertProfile:
    """Load of every expert, counted from a trace or read from an engine.

    Attributes
    ----------
    load
        float64 [layers, experts]: probability that a given one of a token's k choices in a
        layer is this expert; every row sums to 1. Read-only.
    source
        Where the counts come from, for captions and manifests.
    """

    load: NDArray[np.float64]
    source: str

    def __post_init__(self) -> None:
        """Freeze the loads and refuse what is no probability."""
        load = np.asarray(self.load, dtype=np.float64)
        check_load(load)
        object.__setattr__(self, "load", frozen(load, np.float64))

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.load.shape[0])

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return int(self.load.shape[1])

    @classmethod
    def from_counts(cls, counts: NDArray[Any], *, source: str) -> ExpertProfile:
        """Normalise counted choices, layer by layer.

        Parameters
        ----------
        counts
            integer or float [layers, experts]: tokens routed to each expert.
        source
            Where the counts come from.

        Raises
        ------
        WorkloadError
            NaN, infinite or negative counts, a layer without any, or sums beyond float64.
        """
        raw = np.asarray(counts)
        if raw.dtype.kind not in "iuf":
            raise WorkloadError(f"counts must be integers or floats, got {raw.dtype}")
        values = raw.astype(np.float64)
        check_counts(values, what="count")
        with np.errstate(over="ignore"):
            totals = values.sum(axis=1, keepdims=True)
        beyond = np.flatnonzero(np.isinf(totals[:, 0]))
        if len(beyond):
            raise WorkloadError(f"counts of layer {int(beyond[0])} sum beyond the range of float64")
        return cls(load=values / totals, source=source)

    @classmethod
    def from_trace(cls, trace: RoutingTrace) -> ExpertProfile:
        """Count how often every expert was chosen.

        Parameters
        ----------
        trace
            The tokens the profile is taken from -- never those a policy is judged on.
        """
        counts = np.empty((trace.layers, trace.experts), dtype=np.int64)
        for layer in range(trace.layers):
            chosen = trace.topk[:, layer, :].ravel()
            counts[layer] = np.bincount(chosen, minlength=trace.experts)
        return cls.from_counts(counts, source=trace.source)
