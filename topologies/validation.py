"""What a cluster's arrays must satisfy, checked once when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.cards import Cards
from topologies.checks import whole
from topologies.cluster import LinkClass
from topologies.errors import TopologyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

_INTEGERS: dict[str, type[np.signedinteger[Any]]] = {
    "leaf_of_gpu": np.int32,
    "rack_of_server": np.int32,
    "group_of_switch": np.int32,
    "link_src": np.int32,
    "link_dst": np.int32,
    "link_class": np.int8,
    "nic_up": np.int32,
    "nic_down": np.int32,
    "nvlink_up": np.int32,
    "nvlink_down": np.int32,
}
_FLOATS = ("bandwidth_Bps", "latency_s")
_LINK_ARRAYS = ("link_dst", "link_class", "bandwidth_Bps", "latency_s")


def frozen_arrays(cluster: Cluster) -> dict[str, NDArray[Any]]:
    """Return read-only copies of the cluster's arrays in their documented types.

    Raises
    ------
    TopologyError
        If an array has another number of axes, is not of whole numbers where it must be, or
        does not fit its type.
    """
    arrays: dict[str, NDArray[Any]] = {
        name: _integers(name, getattr(cluster, name), dtype) for name, dtype in _INTEGERS.items()
    }
    arrays |= {name: np.array(getattr(cluster, name), dtype=np.float64) for name in _FLOATS}
    for name, array in arrays.items():
        if array.ndim != 1:
            raise TopologyError(f"{name} has {array.ndim} axes; expected 1")
        array.setflags(write=False)
    return arrays


def _integers(name: str, value: Any, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    array = np.asarray(value)
    if array.size == 0:
        return np.zeros(array.shape, dtype=dtype)
    if not np.issubdtype(array.dtype, np.integer):
        raise TopologyError(f"{name} holds {array.dtype}; expected whole numbers")
    bounds = np.iinfo(dtype)
    if array.min() < bounds.min or array.max() > bounds.max:
        raise TopologyError(f"{name} exceeds the range {bounds.min} to {bounds.max}")
    return array.astype(dtype)


def check(cluster: Cluster) -> None:
    """Refuse a cluster whose arrays contradict each other.

    Raises
    ------
    TopologyError
        Naming the array, the first offender and what was expected.
    """
    _check_shapes(cluster)
    _check_ranges(cluster)
    _check_rates(cluster)
    _check_own_links(cluster)
    _check_cables(cluster)
    _check_connected(cluster)
    if cluster.measured is not None and len(cluster.measured.cost) != cluster.servers:
        raise TopologyError(
            f"measured costs of {len(cluster.measured.cost)} servers; expected {cluster.servers}"
        )


def _check_shapes(cluster: Cluster) -> None:
    whole("gpus_per_server", cluster.gpus_per_server, least=1)
    if cluster.gpus == 0:
        raise TopologyError("a cluster holds at least one GPU, this one none")
    own = cluster.gpus if cluster.gpus_per_server > 1 else 0
    expected = dict.fromkeys(_LINK_ARRAYS, cluster.links)
    expected |= {"nic_up": cluster.gpus, "nic_down": cluster.gpus}
    expected |= {"nvlink_up": own, "nvlink_down": own}
    for name, length in expected.items():
        if len(getattr(cluster, name)) != length:
            raise TopologyError(
                f"{name} has {len(getattr(cluster, name))} entries; expected {length}"
            )
    if cluster.gpus != cluster.servers * cluster.gpus_per_server:
        raise TopologyError(
            f"{cluster.gpus} GPUs do not fill {cluster.servers} servers of "
            f"{cluster.gpus_per_server}"
        )


def _check_ranges(cluster: Cluster) -> None:
    bounds = {
        "leaf_of_gpu": (0, cluster.switches),
        "rack_of_server": (0, cluster.servers),
        "group_of_switch": (-1, cluster.switches),
        "link_src": (0, cluster.nodes),
        "link_dst": (0, cluster.nodes),
        "link_class": (0, len(LinkClass)),
        "nic_up": (0, cluster.links),
        "nic_down": (0, cluster.links),
        "nvlink_up": (0, cluster.links),
        "nvlink_down": (0, cluster.links),
    }
    for name, (low, high) in bounds.items():
        array = getattr(cluster, name)
        outside = (array < low) | (array >= high)
        if outside.any():
            at = int(outside.argmax())
            raise TopologyError(f"{name}[{at}] is {int(array[at])}; expected {low} to {high - 1}")


def _check_rates(cluster: Cluster) -> None:
    for name, bad, expected in (
        (
            "bandwidth_Bps",
            ~(np.isfinite(cluster.bandwidth_Bps) & (cluster.bandwidth_Bps > 0)),
            "finite and above 0",
        ),
        (
            "latency_s",
            ~(np.isfinite(cluster.latency_s) & (cluster.latency_s >= 0)),
            "finite and at least 0",
        ),
    ):
        if bad.any():
            at = int(bad.argmax())
            raise TopologyError(
                f"{name} of link {at} is {getattr(cluster, name)[at]}; expected {expected}"
            )


def _check_own_links(cluster: Cluster) -> None:
    """Check that the links named as a GPU's own join it to its leaf and its NVLink switch."""
    gpu = np.arange(cluster.gpus)
    leaf = cluster.first_switch + cluster.leaf_of_gpu
    nvlink_switch = cluster.gpus + cluster.server_of_gpu
    host, nvlink = LinkClass.HOST, LinkClass.NVLINK
    ends: list[tuple[str, NDArray[Any], NDArray[Any], LinkClass]] = [
        ("nic_up", gpu, leaf, host),
        ("nic_down", leaf, gpu, host),
    ]
    if cluster.gpus_per_server > 1:
        ends += [("nvlink_up", gpu, nvlink_switch, nvlink)]
        ends += [("nvlink_down", nvlink_switch, gpu, nvlink)]
    for name, src, dst, link_class in ends:
        link = getattr(cluster, name)
        good = (cluster.link_src[link] == src) & (cluster.link_dst[link] == dst)
        good &= cluster.link_class[link] == link_class
        if not good.all():
            at = int(good.argmin())
            raise TopologyError(
                f"{name}[{at}] is link {int(link[at])}; expected a {link_class.name} link from "
                f"node {int(src[at])} to node {int(dst[at])}"
            )
    owned = int(np.count_nonzero(cluster.link_class <= LinkClass.HOST))
    if owned != len(ends) * cluster.gpus:
        raise TopologyError(
            f"{owned} HOST and NVLINK links; expected {len(ends)} for each of {cluster.gpus} GPUs"
        )


def _check_cables(cluster: Cluster) -> None:
    """Check that the other links join two switches and run both ways."""
    between = cluster.link_class >= LinkClass.LOCAL
    src, dst = cluster.link_src[between], cluster.link_dst[between]
    bad = (np.minimum(src, dst) < cluster.first_switch) | (src == dst)
    if bad.any():
        link = int(np.flatnonzero(between)[bad.argmax()])
        raise TopologyError(
            f"link {link} joins nodes {int(cluster.link_src[link])} and "
            f"{int(cluster.link_dst[link])}; expected two different switches"
        )
    kinds = len(LinkClass)
    link_class = cluster.link_class[between].astype(np.int64)
    there = (src.astype(np.int64) * cluster.nodes + dst) * kinds + link_class
    back = (dst.astype(np.int64) * cluster.nodes + src) * kinds + link_class
    there.sort()
    back.sort()
    differ = there != back
    if differ.any():
        at = int(differ.argmax())
        ends = min(int(there[at]), int(back[at])) // kinds
        raise TopologyError(
            f"the links between nodes {ends // cluster.nodes} and {ends % cluster.nodes} do not "
            "pair up; expected a link of the same class each way for every cable"
        )


def _check_connected(cluster: Cluster) -> None:
    """Check that the cards that the rail rule lets talk to each other can."""
    Cards(cluster, cluster.rail_rule)
    between = cluster.link_class >= LinkClass.LOCAL
    first = cluster.link_src[between] - cluster.first_switch
    second = cluster.link_dst[between] - cluster.first_switch
    part = components(cluster.switches, first, second)[cluster.leaf_of_gpu]
    leaf = cluster.leaf_of_gpu
    if cluster.rail_rule != "direct":  # only cards at the same place of their servers talk
        rails = cluster.gpus_per_server
        part, leaf = part.reshape(-1, rails).T, leaf.reshape(-1, rails).T
    else:
        part, leaf = part[None, :], leaf[None, :]
    apart = part != part[:, :1]
    if apart.any():
        rail, card = np.argwhere(apart)[0]
        raise TopologyError(
            f"disconnected cluster: leaf {int(leaf[rail, 0])} cannot reach leaf "
            f"{int(leaf[rail, card])}"
        )


def components(
    nodes: int, first: NDArray[np.int32], second: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Label the connected components of an undirected graph by their lowest node.

    Every round hooks whole trees onto the lowest root next to them and flattens the trees, so
    that few rounds do, however long the paths are (after Shiloach and Vishkin, 1982).

    Parameters
    ----------
    nodes
        Number of nodes.
    first, second
        int [edges]: the ends of every edge.

    Returns
    -------
    int64 [nodes]
    """
    label = np.arange(nodes)
    while True:
        low = np.minimum(label[first], label[second])
        np.minimum.at(label, label[first], low)
        np.minimum.at(label, label[second], low)
        while (label[label] != label).any():
            label = label[label]
        if (label[first] == label[second]).all():
            return label
