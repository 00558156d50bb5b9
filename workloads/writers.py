"""Loads and traces as the content of files that engines and other tools read."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel
    from workloads.readers.counts import LoadCounts
    from workloads.trace import RoutingTrace


def logical_count_json(loads: LoadCounts, model: MoEModel) -> bytes:
    """Write loads for SGLang: all hidden layers, those of dense ones zero; an axis of steps if any.

    Raises
    ------
    WorkloadError
        The loads are of another shape than the model's, as in all functions here.
    """
    _check_shape(loads, model)
    steps = len(loads.counts)
    rows = np.zeros((steps, model.hidden_layers, model.experts))
    rows[:, list(model.moe_layers)] = loads.counts
    return _json({"logical_count": _numbers(rows if steps > 1 else rows[0])})


def eplb_weight_json(loads: LoadCounts, model: MoEModel) -> bytes:
    """Write loads for DeepSeek's EPLB as JSON, all steps together."""
    _check_shape(loads, model)
    return _json({"weight": _numbers(_total(loads))})


def eplb_weight_npz(loads: LoadCounts, model: MoEModel) -> bytes:
    """Write loads for DeepSeek's EPLB as npz, all steps together."""
    _check_shape(loads, model)
    return _npz(weight=_total(loads))


def vllm_stats_lines(loads: LoadCounts, model: MoEModel, ranks: int) -> bytes:
    """Write loads in the format proposed for vLLM, a line a step, slot e holding expert e.

    Raises
    ------
    WorkloadError
        Another shape, or experts that do not divide by the ranks.
    """
    _check_shape(loads, model)
    if ranks < 1 or model.experts % ranks:
        raise WorkloadError(
            f"{ranks} ranks, expected a divisor of the {model.experts} experts of {model.name}: "
            "slots are those of one per expert"
        )
    map_ = [list(range(model.experts))] * model.layers
    records = [
        {
            "record_type": "eplb_load_stats",
            "version": 1,
            "step": step,
            "num_ranks": ranks,
            "expert_load": _numbers(counts),
            "p2l_map": map_,
        }
        for step, counts in enumerate(loads.counts)
    ]
    return b"".join(_json(record) for record in records)


def npz_trace(trace: RoutingTrace) -> bytes:
    """Write choices and lengths of sequences as npz: ``topk_ids``, ``seq_lens``."""
    return _npz(topk_ids=trace.topk, seq_lens=trace.seq_lens)


def routed_experts_npz(trace: RoutingTrace) -> bytes:
    """Write choices as vLLM names them, with the lengths of sequences beside them, as npz."""
    return _npz(routed_experts=trace.topk, seq_lens=trace.seq_lens)


def _check_shape(loads: LoadCounts, model: MoEModel) -> None:
    if loads.counts.shape[1:] != (model.layers, model.experts):
        raise WorkloadError(
            f"loads of {loads.counts.shape[1]} layers x {loads.counts.shape[2]} experts, expected "
            f"{model.layers} x {model.experts} of {model.name}"
        )


def _total(loads: LoadCounts) -> NDArray[np.float64]:
    total = loads.total
    if not np.isfinite(total).all():
        raise WorkloadError("the counts of all steps sum beyond the range of float64")
    return total


def _numbers(counts: NDArray[np.float64]) -> Any:
    """Return nested lists, of integers where all counts are whole and exact."""
    whole = bool((counts == np.floor(counts)).all() and (counts < 1 << 53).all())
    return counts.astype(np.int64).tolist() if whole else counts.tolist()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    content: dict[str, Any] = arrays
    np.savez(buffer, **content)
    return buffer.getvalue()
