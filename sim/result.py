"""What a run measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.compute import DecodePool, throughput_per_gpu, tpot_s

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.compute import Pool
    from sim.leg import Leg
    from sim.losses import Losses
    from sim.messages import MessageSizes
    from sim.network.usage import LinkUsage
    from sim.spans import Spans
    from topologies import Cluster


@dataclass(frozen=True, slots=True, eq=False)
class SimResult:
    """One step of a batch through all MoE layers.

    Where the time of a GPU goes, every nanosecond of the step once:

    - compute (`compute_ns`): it computes attention, experts or what follows the last layer;
    - exposed transfer (`exposed_ns`): it computes nothing, but its own messages would need this
      time even if they had its links for themselves;
    - waiting (`waiting_ns`): it computes nothing beyond that: others send late or compute longer,
      messages queue behind those of others or take their latency.

    Transfer (`transfer_ns`) is what its own messages need on the busiest of its own links,
    exposed or hidden behind computing. Exposed communication of the whole step
    (`exposed_comm_s`) is another question: what free communication would save.

    Attributes
    ----------
    cluster
        What it ran on.
    network, rule
        Names of the network's fidelity and of the routing rule.
    mode
        Dispatch mode.
    tokens
        Size of the batch, less those that faults lost: all are delivered.
    sizes
        Bytes of the messages.
    legs
        The collectives of every layer; without stages and micro-batches dispatch and combine.
    pool
        What the GPUs serve; None where no request is thought of.
    link_bytes
        int64 (single path) or float64 (shares) [layers, legs, links].
    hop_histogram
        int64 [legs, hops + 1]: messages that cross so many network links.
    collective_ns
        int64 [layers, legs, 2 (start, end)]: from the first GPU that sends to the last that has
        everything.
    spans
        When every GPU computed what.
    step_ns
        Duration of the step.
    critical_ns
        Duration of the step if communication took no time.
    usage
        Service, waiting and utilisation of the links.
    expert_tokens
        int64 [layers, gpus]: choices every GPU's experts processed.
    distinct_gpus, distinct_servers
        Distinct destinations of a token and layer, summed over all tokens and layers.
    origin_tokens
        int64 [layers, gpus]: tokens that started on every GPU.
    losses
        What faults took from the step; None where none was to happen.
    """

    cluster: Cluster
    network: str
    rule: str
    mode: str
    tokens: int
    sizes: MessageSizes
    legs: tuple[Leg, ...]
    pool: Pool | None
    link_bytes: NDArray[np.int64] | NDArray[np.float64]
    hop_histogram: NDArray[np.int64]
    collective_ns: NDArray[np.int64]
    spans: Spans
    step_ns: int
    critical_ns: int
    usage: LinkUsage
    expert_tokens: NDArray[np.int64]
    distinct_gpus: int
    distinct_servers: int
    origin_tokens: NDArray[np.int64]
    losses: Losses | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (
            self.link_bytes, self.hop_histogram, self.collective_ns, self.expert_tokens,
            self.origin_tokens,
        ):  # fmt: skip
            array.setflags(write=False)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.collective_ns)

    @property
    def lost_tokens(self) -> int:
        """Tokens that were lost with dead GPUs."""
        return 0 if self.losses is None else self.losses.tokens

    @property
    def resent_bytes(self) -> int | None:
        """Bytes sent over a link that died, and once more elsewhere; None without chunks."""
        resent = self.usage.resent_bytes
        return None if resent is None else int(resent.sum())

    @property
    def token_layers(self) -> int:
        """Layers that tokens went through, summed over tokens: those later lost count till then."""
        return int(self.origin_tokens.sum())

    @property
    def step_s(self) -> float:
        """Duration of the step in seconds."""
        return self.step_ns * 1e-9

    @property
    def layer_start_s(self) -> NDArray[np.float64]:
        """float64 [layers]: when the first GPU dispatched."""
        return seconds_of(self.of_direction(0)[:, :, 0].min(axis=1))

    @property
    def layer_end_s(self) -> NDArray[np.float64]:
        """float64 [layers]: when the last results were in."""
        return seconds_of(self.of_direction(1)[:, :, 1].max(axis=1))

    def legs_of(self, direction: int) -> list[int]:
        """Return the places of a direction's legs."""
        return [at for at, leg in enumerate(self.legs) if leg.direction == direction]

    def of_direction(self, direction: int) -> NDArray[np.int64]:
        """int64 [layers, legs of the direction, 2]: starts and ends."""
        return self.collective_ns[:, self.legs_of(direction)]

    def direction_bytes(self, direction: int) -> NDArray[Any]:
        """[layers, links]: bytes of all legs of a direction."""
        carried: NDArray[Any] = self.link_bytes[:, self.legs_of(direction)].sum(axis=1)
        return carried

    @property
    def message_hops(self) -> NDArray[np.int64]:
        """int64 [2]: network links crossed, summed over the messages of a direction."""
        of_leg = self._leg_hops()
        return np.array([of_leg[self.legs_of(each)].sum() for each in range(2)], dtype=np.int64)

    def _leg_hops(self) -> NDArray[np.int64]:
        return self.hop_histogram @ np.arange(self.hop_histogram.shape[1])

    @property
    def hops_per_token_layer(self) -> float:
        """Network links crossed per token and layer, dispatch and combine together."""
        return int(self.message_hops.sum()) / self.token_layers

    @property
    def byte_hops(self) -> int:
        """Bytes times network links crossed, both directions."""
        hops = self._leg_hops().tolist()
        return sum(each * leg.message_bytes for each, leg in zip(hops, self.legs, strict=True))

    @property
    def busiest_s(self) -> NDArray[np.float64]:
        """float64 [layers, legs]: bytes over bandwidth of the busiest link."""
        seconds: NDArray[np.float64] = self.link_bytes / self.cluster.bandwidth_Bps
        busiest: NDArray[np.float64] = seconds.max(axis=2, initial=0.0)
        return busiest

    @property
    def busiest_link_s(self) -> float:
        """Mean over layers of `busiest_s`, all legs added."""
        return float(self.busiest_s.sum(axis=1).mean())

    @property
    def exposed_comm_s(self) -> float:
        """Seconds of the step that free communication would save: step time - critical compute.

        Critical compute is the same step, with the same waiting of GPUs for each other, on a
        network of infinite bandwidth and no latency.
        """
        return (self.step_ns - self.critical_ns) * 1e-9

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token of a fixed batch; None where no request decodes."""
        if isinstance(self.pool, DecodePool):
            return tpot_s(self.pool, self.step_s)
        return None

    @property
    def tokens_per_s_gpu(self) -> float | None:
        """Tokens per second and GPU: emitted ones of a decode pool, those read of a prefill pool.

        None where no request is thought of, or the step takes no time.
        """
        if self.pool is None or self.step_ns == 0:
            return None
        return throughput_per_gpu(
            self.pool, self.step_s, tokens=self.tokens, gpus=self.cluster.gpus
        )

    @property
    def compute_ns(self) -> NDArray[np.int64]:
        """int64 [layers, gpus]: attention and experts; the tail is the last layer's."""
        busy = self.spans.busy_ns()
        both = busy[:-1:2] + busy[1::2]
        both[-1] += busy[-1]
        return both

    @property
    def idle_ns(self) -> NDArray[np.int64]:
        """int64 [layers, 2, gpus]: what is not computing, before experts and before what follows.

        `exposed_ns` and `waiting_ns` together; the end of the step is put down to the combine of
        the last layer.
        """
        return self.spans.idle_ns(self.step_ns)

    @property
    def transfer_ns(self) -> NDArray[np.float64]:
        """float64 [layers, 2, gpus]: bytes over bandwidth on the busiest of a GPU's own links.

        Its network card and its NVLink, either way; stages and micro-batches added up.
        """
        cluster = self.cluster
        own = (cluster.nic_up, cluster.nic_down, cluster.nvlink_up, cluster.nvlink_down)
        there = np.stack([each for each in own if len(each)])
        ns = (self.link_bytes * 1e9 / cluster.bandwidth_Bps)[:, :, there].max(axis=2)
        return np.stack([ns[:, self.legs_of(each)].sum(axis=1) for each in range(2)], axis=1)

    @property
    def exposed_ns(self) -> NDArray[np.float64]:
        """float64 [layers, 2, gpus]: idle time that its own messages need in any case."""
        return np.minimum(self.idle_ns, self.transfer_ns)

    @property
    def waiting_ns(self) -> NDArray[np.float64]:
        """float64 [layers, 2, gpus]: idle time beyond `exposed_ns`."""
        return self.idle_ns - self.exposed_ns

    @property
    def server_tokens(self) -> NDArray[np.int64]:
        """int64 [layers, servers]: choices every server's experts processed."""
        by_server = self.expert_tokens.reshape(self.layers, self.cluster.servers, -1)
        tokens: NDArray[np.int64] = by_server.sum(axis=2)
        return tokens

    @property
    def balance_gpu(self) -> float:
        """Mean over layers of max/mean choices of a GPU."""
        return float(max_over_mean(self.expert_tokens).mean())

    @property
    def balance_server(self) -> float:
        """Mean over layers of max/mean choices of a server."""
        return float(max_over_mean(self.server_tokens).mean())

    @property
    def balancedness(self) -> float:
        """Mean over layers of mean/max choices of a GPU, as SGLang logs it."""
        return float((1.0 / max_over_mean(self.expert_tokens)).mean())

    @property
    def gpus_per_token_layer(self) -> float:
        """Mean distinct GPUs a token's choices of a layer sit on."""
        return self.distinct_gpus / self.token_layers

    @property
    def servers_per_token_layer(self) -> float:
        """Mean distinct servers a token's choices of a layer sit on."""
        return self.distinct_servers / self.token_layers

    @property
    def link_busy_s(self) -> NDArray[np.float64]:
        """float64 [links]: seconds spent sending."""
        return seconds_of(self.usage.busy_ns)

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

    def fault_metrics(self) -> dict[str, int | None]:
        """Return what faults took from the step; nothing where none was to happen.

        ``lost_bytes`` are of layers under way when a GPU died, ``resent_bytes`` of links that
        died (known on packet alone).
        """
        if self.losses is None:
            return {}
        return {
            "lost_tokens": self.losses.tokens,
            "lost_choices": int(self.losses.choices.sum()),
            "lost_experts": len(self.losses.experts),
            "lost_bytes": self.losses.lost_bytes,
            "resent_bytes": self.resent_bytes,
        }

    def step_metrics(self) -> dict[str, float | None]:
        """Return scalars of the step's time; means over GPUs, summed over layers.

        ``compute_s``, ``exposed_transfer_s`` and ``waiting_s`` add up to the step.
        """
        return {
            "tpot_s": self.tpot_s,
            "tokens_per_s_gpu": self.tokens_per_s_gpu,
            "compute_s": _mean_s(self.compute_ns),
            "transfer_s": _mean_s(self.transfer_ns),
            "exposed_transfer_s": _mean_s(self.exposed_ns),
            "waiting_s": _mean_s(self.waiting_ns),
            "critical_s": self.critical_ns * 1e-9,
        }


def _mean_s(of_gpu_ns: NDArray[Any]) -> float:
    """Sum over all axes but the last, mean over that, in seconds."""
    total = of_gpu_ns.reshape(-1, of_gpu_ns.shape[-1]).sum(axis=0)
    return float(total.mean() * 1e-9)


def max_over_mean(load: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64 [layers]: the largest of loads [layers, places] over their mean.

    1 where there is no load.
    """
    mean = load.mean(axis=1)
    ratio: NDArray[np.float64] = load.max(axis=1) / np.where(mean > 0, mean, 1.0)
    return np.where(mean > 0, ratio, 1.0)


def seconds_of(time_ns: NDArray[Any]) -> NDArray[np.float64]:
    """Return nanoseconds as seconds."""
    seconds: NDArray[np.float64] = time_ns * 1e-9
    return seconds
