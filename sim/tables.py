"""Tidy tables of what a run measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.leg import DIRECTIONS
from sim.result import max_over_mean, seconds_of
from topologies import LinkClass

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sim.result import SimResult


def links_table(result: SimResult) -> pd.DataFrame:
    """Return one row per link: its ends, class, bytes, service and, on packet, waiting."""
    import pandas as pd  # noqa: PLC0415  slow to import

    cluster, usage = result.cluster, result.usage
    columns: dict[str, Any] = {
        "link": np.arange(cluster.links),
        "src": cluster.link_src,
        "dst": cluster.link_dst,
        "class": [LinkClass(each).name.lower() for each in cluster.link_class],
        "bandwidth_Bps": cluster.bandwidth_Bps,
        "dispatch_bytes": result.direction_bytes(0).sum(axis=0),
        "combine_bytes": result.direction_bytes(1).sum(axis=0),
        "busy_s": result.link_busy_s,
        "utilisation": usage.busy_ns / max(result.step_ns, 1),
    }
    if usage.wait_ns is not None and usage.wait_max_ns is not None:
        columns["wait_s"] = seconds_of(usage.wait_ns)
        columns["wait_max_s"] = seconds_of(usage.wait_max_ns)
        columns["chunks"] = usage.chunks
    if result.losses is not None and usage.resent_bytes is not None:
        columns["resent_bytes"] = usage.resent_bytes
    return pd.DataFrame(columns)


def utilisation_table(result: SimResult) -> pd.DataFrame:
    """Return one row per time bin and link that sent in it: share of the bin spent sending."""
    import pandas as pd  # noqa: PLC0415  slow to import

    link, at = np.nonzero(result.utilisation)
    columns = {
        "link": link,
        "bin_start_s": at * result.usage.bin_ns * 1e-9,
        "bin_s": result.usage.bin_ns * 1e-9,
        "utilisation": result.utilisation[link, at],
    }
    return pd.DataFrame(columns)


def hops_table(result: SimResult) -> pd.DataFrame:
    """Return one row per number of network links crossed: messages of each direction."""
    import pandas as pd  # noqa: PLC0415  slow to import

    dispatch, combine = (
        result.hop_histogram[result.legs_of(each)].sum(axis=0) for each in range(2)
    )
    hops = np.arange(result.hop_histogram.shape[1])
    return pd.DataFrame({"hops": hops, "dispatch_messages": dispatch, "combine_messages": combine})


def layers_table(result: SimResult) -> pd.DataFrame:
    """Return one row per layer: times, busiest links, balance, and where GPUs' time went.

    ``busiest_link_s`` adds the stages of a direction up; compute, transfer, exposed transfer
    and waiting are means over GPUs; the straggler is the GPU whose experts ended last,
    ``straggler_s`` behind the median. Where there were faults also what was lost: choices that
    nobody answered, experts without a living replica, and bytes of layers under way.
    """
    import pandas as pd  # noqa: PLC0415  slow to import

    columns: dict[str, Any] = {"layer": np.arange(result.layers)}
    for at, direction in enumerate(DIRECTIONS):
        times = result.of_direction(at)
        columns[f"{direction}_start_s"] = seconds_of(times[:, :, 0].min(axis=1))
        columns[f"{direction}_end_s"] = seconds_of(times[:, :, 1].max(axis=1))
        columns[f"{direction}_busiest_link_s"] = result.busiest_s[:, result.legs_of(at)].sum(axis=1)
    columns["balance_gpu"] = max_over_mean(result.expert_tokens)
    columns["balance_server"] = max_over_mean(result.server_tokens)
    columns["compute_s"] = seconds_of(result.compute_ns.mean(axis=1))
    for name, part in (
        ("transfer", result.transfer_ns),
        ("exposed_transfer", result.exposed_ns),
        ("waiting", result.waiting_ns),
    ):
        columns[f"{name}_s"] = seconds_of(part.sum(axis=1).mean(axis=1))
    columns["straggler_gpu"], late = result.spans.stragglers()
    columns["straggler_s"] = seconds_of(late)
    if result.losses is not None:
        flows = result.losses.flows
        columns["lost_choices"] = result.losses.choices
        columns["lost_experts"] = np.bincount(result.losses.experts[:, 0], minlength=result.layers)
        columns["lost_bytes"] = _sums(flows.layer, flows.lost_bytes, result.layers)
    return pd.DataFrame(columns)


def gpus_table(result: SimResult) -> pd.DataFrame:
    """Return one row per GPU: tokens of its experts, and where the time of the step went.

    Compute, exposed transfer and waiting add up to the step (a dead GPU waits);
    ``straggler_layers`` counts the
    layers in which its experts ended last. Where there were faults also the bytes that were lost
    when the GPU died, to or from it.
    """
    import pandas as pd  # noqa: PLC0415  slow to import

    last, _ = result.spans.stragglers()
    columns: dict[str, Any] = {
        "gpu": np.arange(result.cluster.gpus),
        "expert_tokens": result.expert_tokens.sum(axis=0),
        "compute_s": seconds_of(result.compute_ns.sum(axis=0)),
        "transfer_s": seconds_of(result.transfer_ns.sum(axis=(0, 1))),
        "exposed_transfer_s": seconds_of(result.exposed_ns.sum(axis=(0, 1))),
        "waiting_s": seconds_of(result.waiting_ns.sum(axis=(0, 1))),
        "straggler_layers": np.bincount(last, minlength=result.cluster.gpus),
    }
    if result.losses is not None:
        flows = result.losses.flows
        columns["lost_bytes"] = _sums(flows.gpu, flows.lost_bytes, result.cluster.gpus)
    return pd.DataFrame(columns)


def _sums(place: NDArray[np.int64], size: NDArray[np.int64], places: int) -> NDArray[np.int64]:
    """int64 [places]: sizes added up by place."""
    total = np.zeros(places, dtype=np.int64)
    np.add.at(total, place, size)
    return total
