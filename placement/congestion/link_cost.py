"""What a unit of expert load on a GPU costs every link: the linear side of congestion.

Under data-parallel attention the tokens of a layer start evenly on all G GPUs and return there.
So the bytes of a link are linear in the loads of the GPUs. A GPU's own links (network card,
NVLink) know only its load g, its server's load s and the total 1; with D and C bytes a message,
P GPUs a server and S servers, per choice:

    direction  network up   network down   NVLink up       NVLink down
    dispatch   D (1 - s)/G  D g (S-1)/S    D (s - g)/G     D g (P-1)/G
    combine    C g (S-1)/S  C (1 - s)/G    C g (P-1)/G     C (s - g)/G

A fabric link takes, of every GPU's load, the part that the routes between the GPU's leaf and
everybody else's put on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.errors import PlacementError
from topologies import LinkClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies import Cluster, Router


@dataclass(frozen=True, slots=True, eq=False)
class LinkCost:
    """Seconds that each link is busy in a layer, as a linear function of the GPUs' loads.

    A *phase* is a set of bytes whose busiest link is waited for: dispatch and combine one after
    the other (two phases, as the simulator runs and sums them), or both at once (one).
    The GPUs' own links come as *kinds* (one link of every GPU); links between switches as rows
    over *classes*, sets of GPUs that load the fabric alike.

    Attributes
    ----------
    links, gpus, gpus_per_server
        Of the cluster.
    phases
        1 or 2.
    own_link
        int32 [kinds, gpus].
    own_phase
        int64 [kinds].
    own_cost
        float64 [kinds, 3, gpus]: seconds per unit of the GPU's load, of its server's load, and
        of the total.
    fabric_link, fabric_phase
        int32 and int64 [rows]: a link that carries bytes in that phase.
    fabric_cost
        float64 [rows, classes]: seconds per unit of load on a class.
    class_of_gpu
        int64 [gpus].
    """

    links: int
    gpus: int
    gpus_per_server: int
    phases: int
    own_link: NDArray[np.int32]
    own_phase: NDArray[np.int64]
    own_cost: NDArray[np.float64]
    fabric_link: NDArray[np.int32]
    fabric_phase: NDArray[np.int64]
    fabric_cost: NDArray[np.float64]
    class_of_gpu: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for name in ("own_link", "own_phase", "own_cost", "fabric_link", "fabric_phase"):
            getattr(self, name).setflags(write=False)
        self.fabric_cost.setflags(write=False)
        self.class_of_gpu.setflags(write=False)

    @property
    def servers(self) -> int:
        """Servers of the cluster."""
        return self.gpus // self.gpus_per_server

    @property
    def classes(self) -> int:
        """Sets of GPUs that load the fabric alike."""
        return int(self.fabric_cost.shape[1])

    @classmethod
    def of(
        cls,
        router: Router,
        *,
        top_k: int,
        dispatch_bytes: int,
        combine_bytes: int,
        tokens_per_gpu: float = 1.0,
        together: bool = False,
    ) -> LinkCost:
        """Price the links of a cluster for data-parallel attention, whatever its width `tp`.

        Parameters
        ----------
        router
            Routes by ``shares``.
        top_k
            Choices of a token in a layer; each is one message either way.
        dispatch_bytes, combine_bytes
            Bytes of a message.
        tokens_per_gpu
            Tokens of the batch on every GPU; scales all times.
        together
            Whether dispatch and combine share the links at one time, as with overlapped
            batches, so that a link's bytes of both directions add up before the busiest is
            taken.

        Raises
        ------
        PlacementError
            If the router does not split flows, or a number is not positive.
        """
        if router.rule != "shares":
            raise PlacementError(f"link costs need routing by 'shares', got '{router.rule}'")
        for name, value in (
            ("top_k", top_k),
            ("dispatch_bytes", dispatch_bytes),
            ("combine_bytes", combine_bytes),
            ("tokens_per_gpu", tokens_per_gpu),
        ):
            if value <= 0:
                raise PlacementError(f"{name} is {value}, expected more than 0")
        cluster = router.cluster
        choices = tokens_per_gpu * top_k * cluster.gpus
        size = (dispatch_bytes * choices, combine_bytes * choices)
        class_of_gpu, fabric = _fabric(router, size, together=together)
        return cls(
            links=cluster.links,
            gpus=cluster.gpus,
            gpus_per_server=cluster.gpus_per_server,
            phases=1 if together else 2,
            class_of_gpu=class_of_gpu,
            **_own(cluster, size, together=together),
            **fabric,
        )

    def own_seconds(self, gpu_load: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [..., kinds, gpus]: busy seconds of the GPUs' own links."""
        server = gpu_load.reshape(*gpu_load.shape[:-1], -1, self.gpus_per_server).sum(axis=-1)
        parts = (
            gpu_load,
            np.repeat(server, self.gpus_per_server, axis=-1),
            np.broadcast_to(gpu_load.sum(axis=-1, keepdims=True), gpu_load.shape),
        )
        out = np.einsum("kig,...ig->...kg", self.own_cost, np.stack(parts, axis=-2))
        return np.asarray(out, dtype=np.float64)

    def fabric_seconds(self, gpu_load: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [..., rows]: busy seconds of the links between switches."""
        member = np.eye(self.classes)[self.class_of_gpu]
        seconds: NDArray[np.float64] = gpu_load @ member @ self.fabric_cost.T
        return seconds

    def seconds(self, gpu_load: NDArray[np.float64]) -> NDArray[np.float64]:
        """Busy seconds of every link.

        Parameters
        ----------
        gpu_load
            float64 [layers, gpus]: share of a layer's choices that each GPU's experts take.

        Returns
        -------
        float64 [layers, phases, links]
        """
        load = np.asarray(gpu_load, dtype=np.float64)
        out = np.zeros((len(load), self.phases, self.links))
        own = self.own_seconds(load)
        for kind, phase in enumerate(self.own_phase):
            out[:, phase, self.own_link[kind]] = own[:, kind]
        out[:, self.fabric_phase, self.fabric_link] = self.fabric_seconds(load)
        return out


def _own(
    cluster: Cluster, size_bytes: tuple[float, float], *, together: bool
) -> dict[str, NDArray[Any]]:
    """Costs of the GPUs' own links, by the table in the module's docstring."""
    gpus, servers, inside = cluster.gpus, cluster.servers, cluster.gpus_per_server
    leaving, staying = (servers - 1) / servers, (inside - 1) / gpus
    out_up, out_down = (0.0, -1 / gpus, 1 / gpus), (leaving, 0.0, 0.0)
    nv_up, nv_down = (-1 / gpus, 1 / gpus, 0.0), (staying, 0.0, 0.0)
    dispatch = [(cluster.nic_up, out_up), (cluster.nic_down, out_down)]
    combine = [(cluster.nic_up, out_down), (cluster.nic_down, out_up)]
    if inside > 1:
        dispatch += [(cluster.nvlink_up, nv_up), (cluster.nvlink_down, nv_down)]
        combine += [(cluster.nvlink_up, nv_down), (cluster.nvlink_down, nv_up)]
    link = np.stack([links for links, _ in dispatch])
    cost = size_bytes[0] * np.array([part for _, part in dispatch])
    back = size_bytes[1] * np.array([part for _, part in combine])
    phase = np.zeros(len(link), dtype=np.int64)
    if together:
        cost = cost + back
    else:
        link, cost = np.concatenate([link, link]), np.concatenate([cost, back])
        phase = np.repeat([0, 1], len(phase))
    seconds = cost[:, :, None] / cluster.bandwidth_Bps[link][:, None, :]
    return {"own_link": link, "own_phase": phase, "own_cost": seconds}


def _fabric(
    router: Router, size_bytes: tuple[float, float], *, together: bool
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Class of every GPU, and the costs of the links between switches.

    Bytes are routed between *blocks*, the GPUs of one server under one leaf: all of a block use
    the fabric alike. Blocks whose loads cost the same merge into a class.
    """
    cluster = router.cluster
    server = cluster.server_of_gpu.astype(np.int64)
    key = server * cluster.switches + cluster.leaf_of_gpu
    _, first, block, size = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    here, there = np.nonzero(server[first][:, None] != server[first][None, :])
    share = size[here] / cluster.gpus
    ends = first[here], first[there]
    flows = (here, there, share * size_bytes[0]), (there, here, share * size_bytes[1])
    between = np.flatnonzero(cluster.link_class >= LinkClass.LOCAL)
    parts = []
    for source, target, volume in flows:
        ends = first[source], first[target]
        moved = router.link_bytes(*ends, volume, layer=there, layers=len(first))
        parts.append(np.asarray(moved, dtype=np.float64)[:, between].T)
    cost = [parts[0] + parts[1]] if together else parts
    rows = np.concatenate(cost) / np.tile(cluster.bandwidth_Bps[between], len(cost))[:, None]
    used = rows.any(axis=1)
    digits = np.round(rows[used] / max(rows.max(initial=0.0), 1e-300), 12)
    _, kept, class_of_block = np.unique(digits, axis=1, return_index=True, return_inverse=True)
    return class_of_block.reshape(-1)[block], {
        "fabric_link": np.tile(between, len(cost))[used].astype(np.int32),
        "fabric_phase": np.repeat(np.arange(len(cost)), len(between))[used],
        "fabric_cost": rows[used][:, kept],
    }
