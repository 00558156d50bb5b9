"""The drawn cluster of a run, and how busy each line of the drawing was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.errors import ExperimentError
from experiments.figures.cluster_layout import gpu_places, layout
from experiments.figures.cluster_sketch import sketch
from experiments.manifest import spec_hash
from topologies import Cluster, LinkClass, TopologyError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from experiments.figures.cluster_sketch import Sketch
    from experiments.report.runs import ReportRun


class Drawing:
    """A cluster as the page draws it, once for all runs on it.

    Parameters
    ----------
    cluster
        Whose lines are drawn.
    """

    __slots__ = ("_cluster", "_hosts", "_line", "_sketch", "content")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sketch = sketch(cluster)
        self._hosts = _hosts(cluster) if self._sketch.gpus else np.empty((2, 0), dtype=np.int64)
        self._line = _line_of_link(cluster, self._sketch, self._hosts)
        self.content = _content(cluster, self._sketch, self._hosts)

    def loads(self, links: pd.DataFrame) -> dict[str, list[float]]:
        """Return what the lines carried in a run.

        Parameters
        ----------
        links
            The run's table of links.

        Returns
        -------
        dict
            ``busy_ms`` and ``megabytes`` of the busiest link of every line, in its busier
            direction.
        """
        busy = links["busy_s"].to_numpy(dtype=np.float64) * 1e3
        sent = (links["dispatch_bytes"] + links["combine_bytes"]).to_numpy(dtype=np.float64) / 1e6
        lines = len(self.content["lines"])
        order = np.argsort(busy, kind="stable")
        shown = order[self._line[order] >= 0]
        busiest, carried = np.zeros((2, lines))
        # The last write wins: that of the busiest.
        busiest[self._line[shown]] = busy[shown]
        carried[self._line[shown]] = sent[shown]
        return {"busy_ms": rounded(busiest), "megabytes": rounded(carried)}


def cluster_of(run: ReportRun, tables: dict[str, pd.DataFrame]) -> Cluster | None:
    """Return the cluster a run was replayed on, None where it cannot be told from the results.

    A cluster that has a name is built anew, if it is still the same; of others the links tell.
    """
    links = tables["links"]
    built = _built(run)
    if built is not None and _same_links(built, links):
        return built
    if "gpus" not in tables:
        return None
    try:
        return _rebuilt(str(run.spec["cluster"]), links, len(tables["gpus"]))
    except (TopologyError, ValueError, IndexError):
        return None


def rounded(values: Any) -> list[float]:
    """Return numbers in four significant digits, as a page keeps them."""
    return [float(f"{value:.4g}") for value in np.asarray(values, dtype=np.float64)]


def _built(run: ReportRun) -> Cluster | None:
    from experiments.clusters import find_cluster, is_file  # noqa: PLC0415  reads files

    name = str(run.spec["cluster"])
    if is_file(name):
        return None
    try:
        spec = find_cluster(name).spec
    except ExperimentError:
        return None
    same = run.spec.get("sha256.cluster") == spec_hash(spec.to_mapping())
    return spec.build() if same else None


def _same_links(cluster: Cluster, links: pd.DataFrame) -> bool:
    ends = (cluster.link_src, links["src"]), (cluster.link_dst, links["dst"])
    return all(np.array_equal(built, stored.to_numpy()) for built, stored in ends)


def _rebuilt(name: str, links: pd.DataFrame, gpus: int) -> Cluster:
    """Make a cluster of the links that a run wrote; groups are what local cables connect."""
    kinds = np.array([LinkClass[kind.upper()] for kind in links["class"]], dtype=np.int8)
    src, dst = (links[end].to_numpy(dtype=np.int32) for end in ("src", "dst"))
    own = (kinds == LinkClass.NVLINK) & (src < gpus)
    servers = len(np.unique(dst[own])) or gpus
    first, per_server = gpus + servers, gpus // servers
    up = np.flatnonzero((kinds == LinkClass.HOST) & (src < gpus))
    down = np.flatnonzero((kinds == LinkClass.HOST) & (dst < gpus))
    nv_up = np.flatnonzero(own)
    nv_down = np.flatnonzero((kinds == LinkClass.NVLINK) & (dst < gpus))
    switches = int(max(src.max(), dst.max())) + 1 - first
    by = (up, src), (down, dst), (nv_up, src), (nv_down, dst)
    cards = [each[np.argsort(end[each], kind="stable")].astype(np.int32) for each, end in by]
    return Cluster(
        name=name,
        builder="links",
        parameters={},
        gpus_per_server=per_server,
        leaf_of_gpu=(dst[cards[0]] - first).astype(np.int32),
        rack_of_server=np.arange(servers, dtype=np.int32),
        group_of_switch=np.zeros(switches, dtype=np.int32),
        link_src=src,
        link_dst=dst,
        link_class=kinds,
        bandwidth_Bps=links["bandwidth_Bps"].to_numpy(dtype=np.float64),
        latency_s=np.zeros(len(links)),
        nic_up=cards[0],
        nic_down=cards[1],
        nvlink_up=cards[2],
        nvlink_down=cards[3],
    )


def _hosts(cluster: Cluster) -> NDArray[np.int64]:
    """Return int64 [2, lines]: servers and the leaves their cards are on, sorted."""
    server = np.arange(cluster.gpus) // cluster.gpus_per_server
    return np.unique(np.stack([server, cluster.leaf_of_gpu.astype(np.int64)]), axis=1)


def _line_of_link(cluster: Cluster, drawn: Sketch, hosts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64 [links]: the line that shows a link, -1 where none does; hosts come first."""
    line = np.full(cluster.links, -1)
    if hosts.shape[1]:
        pair = np.arange(cluster.gpus) // cluster.gpus_per_server * cluster.switches
        at = np.searchsorted(hosts[0] * cluster.switches + hosts[1], pair + cluster.leaf_of_gpu)
        line[cluster.nic_up] = line[cluster.nic_down] = at
    between = np.flatnonzero(cluster.link_class >= LinkClass.LOCAL)
    ends = np.stack([cluster.link_src[between], cluster.link_dst[between]]) - cluster.first_switch
    nodes = np.sort(drawn.node_of_switch[ends], axis=0)
    keys = drawn.edges[:, 0] * drawn.nodes + drawn.edges[:, 1]
    wanted = nodes[0] * drawn.nodes + nodes[1]
    if len(keys):
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (keys[at] == wanted) & (nodes[0] >= 0) & (nodes[0] < nodes[1])
        line[between[found]] = hosts.shape[1] + at[found]
    return line


def _around(cluster: Cluster, drawn: Sketch) -> NDArray[np.bool_]:
    """Return bool [edges]: cables of a torus from one end of an axis to the other."""
    dims = cluster.parameters["dims"]
    first, second = (np.stack(np.unravel_index(side, dims)) for side in drawn.edges.T)
    apart: NDArray[np.bool_] = np.abs(first - second).max(axis=0) > 1
    return apart


def _content(cluster: Cluster, drawn: Sketch, hosts: NDArray[np.int64]) -> dict[str, Any]:
    """Return the drawing in numbers: places of boxes, and the ends of lines; y grows downward."""
    places = layout(cluster, drawn)
    down = np.array([1.0, -1.0])
    servers = [rounded(place) for place in places.server * down] if drawn.gpus else []
    lines = [[1, *map(int, ends)] for ends in hosts.T]
    around = _around(cluster, drawn) if places.kind == "grid" else np.zeros(len(drawn.edges))
    edges = zip(drawn.edge_class, drawn.edges, drawn.cables, around, strict=True)
    lines += [[int(kind), *map(int, ends), int(n), int(bent)] for kind, ends, n, bent in edges]
    return {
        "name": cluster.name,
        "gpus": cluster.gpus,
        "nodes": [rounded(place) for place in places.node * down],
        "switches": drawn.switches.tolist(),
        "servers": servers,
        "box": rounded(places.box),
        "side": float(f"{places.side:.4g}"),
        "tiers": places.kind == "tiers",
        "within": [rounded(at) for at in gpu_places(cluster.gpus_per_server) * down],
        "lines": lines,
        "notes": list(drawn.notes),
    }
