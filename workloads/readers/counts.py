"""Expert loads as engines count them: tokens per step, layer and expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError
from workloads.profile import ExpertProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel


@dataclass(frozen=True, slots=True, eq=False)
class LoadCounts:
    """Tokens routed to every logical expert.

    Attributes
    ----------
    counts
        float64 [steps, layers, experts], finite and not negative, MoE layers only; one step
        where the file has no such axis. Read-only.
    source
        Where the counts come from, for captions and manifests.
    """

    counts: NDArray[np.float64]
    source: str

    def __post_init__(self) -> None:
        """Freeze the counts; refuse what is none."""
        counts = np.array(self.counts, dtype=np.float64)
        if counts.ndim != 3 or 0 in counts.shape:
            raise WorkloadError(f"counts: shape {counts.shape}, expected (steps, layers, experts)")
        wrong = np.argwhere(~(np.isfinite(counts) & (counts >= 0)))
        if len(wrong):
            step, layer, expert = (int(i) for i in wrong[0])
            raise WorkloadError(
                f"counts: step {step}, layer {layer}, expert {expert}: "
                f"{float(counts[step, layer, expert])}, expected a finite number >= 0"
            )
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    @property
    def total(self) -> NDArray[np.float64]:
        """float64 [layers, experts]: counts of all steps together."""
        # An overflow gives infinity, which the profile refuses with its layer.
        with np.errstate(over="ignore"):
            return np.asarray(self.counts.sum(axis=0), dtype=np.float64)

    def profile(self) -> ExpertProfile:
        """Return the loads: counts of all steps together, normalised layer by layer.

        Raises
        ------
        WorkloadError
            A layer without any count, or sums beyond float64.
        """
        return ExpertProfile.from_counts(self.total, source=self.source)


def moe_rows(
    counts: NDArray[np.float64], model: MoEModel, name: str = "logical_count"
) -> NDArray[np.float64]:
    """Drop the rows of dense layers: [steps, rows, experts] -> [steps, layers, experts].

    The rows are all hidden layers, those of dense ones zero, or the MoE layers only.

    Raises
    ------
    WorkloadError
        Neither number of rows, a dense layer with counts, an MoE layer without any, or counts
        that sum beyond float64; the message names the row.
    """
    rows = counts.shape[1]
    if rows not in (model.hidden_layers, model.layers):
        raise WorkloadError(f"{name}: {rows} rows, expected {expected_rows(model)}")
    kept = list(range(rows))
    if rows == model.hidden_layers:
        kept = list(model.moe_layers)
        dense = sorted(set(range(rows)) - set(kept))
        used = np.argwhere(counts[:, dense].any(axis=2))
        if len(used):
            step, bad = int(used[0][0]), dense[int(used[0][1])]
            at = f"[{step}]" if len(counts) > 1 else ""
            raise WorkloadError(
                f"{name}{at}[{bad}]: counts above zero, but layer {bad} of {model.name} is dense"
            )
    with np.errstate(over="ignore"):
        sums = counts.sum(axis=(0, 2))
    for row in kept:
        if not sums[row]:
            raise WorkloadError(
                f"{name}: row {row} is all zero, but it is an MoE layer of {model.name}"
            )
        if not np.isfinite(sums[row]):
            raise WorkloadError(f"{name}: the counts of row {row} sum beyond the range of float64")
    return counts[:, kept]


def expected_rows(model: MoEModel) -> str:
    """Return how many rows loads of a model have, for messages."""
    return f"{model.hidden_layers} (all layers of {model.name}) or {model.layers} (its MoE layers)"
