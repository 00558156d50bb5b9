"""Expert statistics: all that a placement policy may know of the workload."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    choices
        uint8 (up to 256 experts) or uint16 [tokens, layers, k]: the experts that each training
        token chose, for policies that need more than loads; None where only loads are known.
        Read-only.
    """

    load: NDArray[np.float64]
    source: str
    choices: NDArray[np.uint8] | NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays; refuse loads that are no probability and choices that do not fit."""
        load = np.asarray(self.load, dtype=np.float64)
        check_load(load)
        object.__setattr__(self, "load", frozen(load, np.float64))
        if self.choices is not None:
            choices = _checked_choices(np.asarray(self.choices), self.layers, self.experts)
            object.__setattr__(self, "choices", choices)

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
    def from_trace(cls, trace: RoutingTrace, *, keep_choices: bool = False) -> ExpertProfile:
        """Count how often every expert was chosen.

        Parameters
        ----------
        trace
            The tokens the profile is taken from -- never those a policy is judged on.
        keep_choices
            Whether to keep the tokens' choices beside the loads, for policies that look at
            experts chosen together or after one another.
        """
        counts = np.empty((trace.layers, trace.experts), dtype=np.int64)
        for layer in range(trace.layers):
            chosen = trace.topk[:, layer, :].ravel()
            counts[layer] = np.bincount(chosen, minlength=trace.experts)
        profile = cls.from_counts(counts, source=trace.source)
        return replace(profile, choices=trace.topk) if keep_choices else profile


def _checked_choices(choices: NDArray[Any], layers: int, experts: int) -> NDArray[Any]:
    """Return `choices` read-only and as narrow as the ids allow, checked against the loads."""
    if choices.ndim != 3 or 0 in choices.shape or choices.dtype.kind not in "iu":
        raise WorkloadError(
            "choices: expected integer ids [tokens, layers, k], none of them 0, "
            f"got {choices.dtype} {choices.shape}"
        )
    if choices.shape[1] != layers:
        raise WorkloadError(
            f"choices speak of {choices.shape[1]} layers, expected {layers} as in the load"
        )
    if choices.min() < 0 or choices.max() >= experts:
        token, layer, place = np.argwhere((choices < 0) | (choices >= experts))[0]
        raise WorkloadError(
            f"choices: token {token}, layer {layer}: expert id "
            f"{int(choices[token, layer, place])}, expected 0..{experts - 1}"
        )
    return frozen(choices, np.uint8 if experts <= 1 << 8 else np.uint16)
