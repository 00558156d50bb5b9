"""What a run measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies import LinkClass

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sim.messages import MessageSizes
    from sim.network.usage import LinkUsage
    from topologies import Cluster

DIRECTIONS = ("dispatch", "combine")


@dataclass(frozen=True, slots=True, eq=False)
class SimResult:
    """One step of a batch through all MoE layers.

    Attributes
    ----------
    cluster
        What it ran on.
    network, rule
        Names of the network's fidelity and of the routing rule.
    tokens
        Size of the batch.
    sizes
        Bytes of the messages.
    link_bytes
        int64 (single path) or float64 (shares) [layers, 2 (dispatch, combine), links].
    hop_histogram
        int64 [2, hops + 1]: messages that cross so many network links.
    collective_ns
        int64 [layers, 2, 2 (start, end)]: from the first GPU that sends to the last that has
        everything.
    critical_ns
        Duration of the step if communication took no time.
    usage
        Service, waiting and utilisation of the links.
    expert_tokens
        int64 [layers, gpus]: choices every GPU's experts processed.
    distinct_gpus, distinct_servers
        Distinct destinations of a token and layer, summed over all tokens and layers.
    """

    cluster: Cluster
    network: str
    rule: str
    tokens: int
    sizes: MessageSizes
    link_bytes: NDArray[np.int64] | NDArray[np.float64]
    hop_histogram: NDArray[np.int64]
    collective_ns: NDArray[np.int64]
    critical_ns: int
    usage: LinkUsage
    expert_tokens: NDArray[np.int64]
    distinct_gpus: int
    distinct_servers: int

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.link_bytes, self.hop_histogram, self.collective_ns, self.expert_tokens):
            array.setflags(write=False)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.collective_ns)

    @property
    def step_ns(self) -> int:
        """Duration of the step."""
        return int(self.collective_ns.max())

    @property
    def step_s(self) -> float:
        """Duration of the step in seconds."""
        return self.step_ns * 1e-9

    @property
    def layer_start_s(self) -> NDArray[np.float64]:
        """float64 [layers]: when the first GPU dispatched."""
        return _seconds(self.collective_ns[:, 0, 0])

    @property
    def layer_end_s(self) -> NDArray[np.float64]:
        """float64 [layers]: when the last results were in."""
        return _seconds(self.collective_ns[:, 1, 1])

    @property
    def message_hops(self) -> NDArray[np.int64]:
        """int64 [2]: network links crossed, summed over the messages of a direction."""
        return self.hop_histogram @ np.arange(self.hop_histogram.shape[1])

    @property
    def hops_per_token_layer(self) -> float:
        """Network links crossed per token and layer, dispatch and combine together."""
        return int(self.message_hops.sum()) / (self.tokens * self.layers)

    @property
    def byte_hops(self) -> int:
        """Bytes times network links crossed, both directions."""
        dispatch, combine = self.message_hops.tolist()
        return int(dispatch * self.sizes.dispatch_bytes + combine * self.sizes.combine_bytes)

    @property
    def busiest_s(self) -> NDArray[np.float64]:
        """float64 [layers, 2]: bytes over bandwidth of the busiest link."""
        seconds: NDArray[np.float64] = self.link_bytes / self.cluster.bandwidth_Bps
        busiest: NDArray[np.float64] = seconds.max(axis=2, initial=0.0)
        return busiest

    @property
    def busiest_link_s(self) -> float:
        """Mean over layers of `busiest_s`, dispatch and combine added."""
        return float(self.busiest_s.sum(axis=1).mean())

    @property
    def exposed_comm_s(self) -> float:
        """Seconds of the step that free communication would save: step time - critical compute.

        Critical compute is the same step, with the same waiting of GPUs for each other, on a
        network of infinite bandwidth and no latency.
        """
        return (self.step_ns - self.critical_ns) * 1e-9

    @property
    def server_tokens(self) -> NDArray[np.int64]:
        """int64 [layers, servers]: choices every server's experts processed."""
        by_server = self.expert_tokens.reshape(self.layers, self.cluster.servers, -1)
        tokens: NDArray[np.int64] = by_server.sum(axis=2)
        return tokens

    @property
    def balance_gpu(self) -> float:
        """Mean over layers of max/mean choices of a GPU."""
        return float(_max_over_mean(self.expert_tokens).mean())

    @property
    def balance_server(self) -> float:
        """Mean over layers of max/mean choices of a server."""
        return float(_max_over_mean(self.server_tokens).mean())

    @property
    def balancedness(self) -> float:
        """Mean over layers of mean/max choices of a GPU, as SGLang logs it."""
        return float((1.0 / _max_over_mean(self.expert_tokens)).mean())

    @property
    def gpus_per_token_layer(self) -> float:
        """Mean distinct GPUs a token's choices of a layer sit on."""
        return self.distinct_gpus / (self.tokens * self.layers)

    @property
    def servers_per_token_layer(self) -> float:
        """Mean distinct servers a token's choices of a layer sit on."""
        return self.distinct_servers / (self.tokens * self.layers)

    @property
    def link_busy_s(self) -> NDArray[np.float64]:
        """float64 [links]: seconds spent sending."""
        return _seconds(self.usage.busy_ns)

    @property
    def utilisation(self) -> NDArray[np.float64]:
        """float64 [links, bins]: share of each time bin (`usage.bin_ns` wide) spent sending."""
        share: NDArray[np.float64] = self.usage.busy_bins_ns / self.usage.bin_ns
        return share

    def metrics(self) -> dict[str, float | int]:
        """Return the scalars of a run under the names that tables and JSON use."""
        return {
            "hops_per_token_layer": self.hops_per_token_layer,
            "byte_hops": self.byte_hops,
            "balance_server": self.balance_server,
            "balance_gpu": self.balance_gpu,
            "balancedness": self.balancedness,
            "gpus_per_token_layer": self.gpus_per_token_layer,
            "servers_per_token_layer": self.servers_per_token_layer,
            "busiest_link_s": self.busiest_link_s,
            "exposed_comm_s": self.exposed_comm_s,
            "step_s": self.step_s,
        }

    def links_table(self) -> pd.DataFrame:
        """Return one row per link: its ends, class, bytes, service and, on packet, waiting."""
        import pandas as pd  # noqa: PLC0415  slow to import

        cluster, usage = self.cluster, self.usage
        carried = self.link_bytes.sum(axis=0)
        columns: dict[str, Any] = {
            "link": np.arange(cluster.links),
            "src": cluster.link_src,
            "dst": cluster.link_dst,
            "class": [LinkClass(each).name.lower() for each in cluster.link_class],
            "bandwidth_Bps": cluster.bandwidth_Bps,
            "dispatch_bytes": carried[0],
            "combine_bytes": carried[1],
            "busy_s": self.link_busy_s,
            "utilisation": usage.busy_ns / max(self.step_ns, 1),
        }
        if usage.wait_ns is not None and usage.wait_max_ns is not None:
            columns["wait_s"] = _seconds(usage.wait_ns)
            columns["wait_max_s"] = _seconds(usage.wait_max_ns)
            columns["chunks"] = usage.chunks
        return pd.DataFrame(columns)

    def utilisation_table(self) -> pd.DataFrame:
        """Return one row per time bin and link that sent in it: share of the bin spent sending."""
        import pandas as pd  # noqa: PLC0415  slow to import

        link, at = np.nonzero(self.utilisation)
        columns = {
            "link": link,
            "bin_start_s": at * self.usage.bin_ns * 1e-9,
            "bin_s": self.usage.bin_ns * 1e-9,
            "utilisation": self.utilisation[link, at],
        }
        return pd.DataFrame(columns)

    def hops_table(self) -> pd.DataFrame:
        """Return one row per number of network links crossed: messages of each direction."""
        import pandas as pd  # noqa: PLC0415  slow to import

        dispatch, combine = self.hop_histogram
        hops = np.arange(self.hop_histogram.shape[1])
        return pd.DataFrame(
            {"hops": hops, "dispatch_messages": dispatch, "combine_messages": combine}
        )

    def layers_table(self) -> pd.DataFrame:
        """Return one row per layer: times, busiest links and balance."""
        import pandas as pd  # noqa: PLC0415  slow to import

        columns: dict[str, Any] = {"layer": np.arange(self.layers)}
        for at, direction in enumerate(DIRECTIONS):
            columns[f"{direction}_start_s"] = _seconds(self.collective_ns[:, at, 0])
            columns[f"{direction}_end_s"] = _seconds(self.collective_ns[:, at, 1])
            columns[f"{direction}_busiest_link_s"] = self.busiest_s[:, at]
        columns["balance_gpu"] = _max_over_mean(self.expert_tokens)
        columns["balance_server"] = _max_over_mean(self.server_tokens)
        return pd.DataFrame(columns)


def _max_over_mean(load: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = load.max(axis=1) / load.mean(axis=1)
    return ratio


def _seconds(time_ns: NDArray[Any]) -> NDArray[np.float64]:
    seconds: NDArray[np.float64] = time_ns * 1e-9
    return seconds
