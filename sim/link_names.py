"""Links by name, as run files give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topologies import Cluster


def link_number(cluster: Cluster, link: str | int | Sequence[int]) -> int:
    """Return the number of a link named by its number, ``"src->dst"`` or ``[src, dst]``.

    Ends are nodes, as in the table of links: GPUs, then a NVLink switch per server, then network
    switches; or, in text, ``gpu3``, ``nvlink0`` and ``switch5``.

    Raises
    ------
    SimulationError
        If there is no such link, or more than one.
    """
    if isinstance(link, int):
        if not 0 <= link < cluster.links:
            raise SimulationError(f"link {link} does not exist; expected 0 to {cluster.links - 1}")
        return link
    ends = link.split("->") if isinstance(link, str) else [str(end) for end in link]
    if len(ends) != 2:
        raise SimulationError(f"link {link!r}; expected a number, 'src->dst' or [src, dst]")
    src, dst = (_node(cluster, end.strip(), link) for end in ends)
    found = np.flatnonzero((cluster.link_src == src) & (cluster.link_dst == dst)).tolist()
    if not found:
        near = [
            node_name(cluster, each)
            for each in np.unique(cluster.link_dst[cluster.link_src == src]).tolist()
        ]
        raise SimulationError(
            f"link {link!r} does not exist; from {ends[0].strip()} links lead to "
            f"{', '.join(near[:8])}{', ...' if len(near) > 8 else ''}"
        )
    if len(found) > 1:
        raise SimulationError(
            f"link {link!r} is one of {len(found)} parallel links; expected a number of "
            f"{', '.join(map(str, found[:8]))}"
        )
    return int(found[0])


def node_name(cluster: Cluster, node: int) -> str:
    """Return the name by which `link_number` knows a node: ``gpu3``, ``nvlink0``, ``switch5``."""
    if node >= cluster.first_switch:
        return f"switch{node - cluster.first_switch}"
    return f"gpu{node}" if node < cluster.gpus else f"nvlink{node - cluster.gpus}"


def _node(cluster: Cluster, name: str, link: object) -> int:
    starts = {"gpu": 0, "nvlink": cluster.gpus, "switch": cluster.first_switch, "": 0}
    counts = {
        "gpu": cluster.gpus,
        "nvlink": cluster.servers,
        "switch": cluster.switches,
        "": cluster.nodes,
    }
    kind = name.rstrip("0123456789")
    digits = name[len(kind) :]
    if kind not in starts or not digits or int(digits[:12]) >= counts[kind]:
        raise SimulationError(
            f"link {link!r}: no node {name!r}; expected a node number below {cluster.nodes}, or "
            f"gpu0 to gpu{cluster.gpus - 1}, nvlink0 to nvlink{cluster.servers - 1}, switch0 to "
            f"switch{cluster.switches - 1}"
        )
    return starts[kind] + int(digits[:12])
