"""Links and GPUs that slow down, die and come back: a schedule, and what is left after it.

What happens to bytes under way when a link changes is the network's matter (see `set_speeds` of
each): none is lost, and each counts once on every link that it crossed. A GPU that is dead takes
no part from a layer on: its experts are answered for by replicas on other GPUs, and tokens that
start or end on it are lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np

from sim.batch import PartAttention, part_trace
from sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import simpy
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.network.protocol import Session
    from topologies import Cluster
    from workloads import RoutingTrace

LATEST_S = 1e6
"""Later faults are refused: no step lasts so long."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a link or a GPU; it stays so until the next one.

    Attributes
    ----------
    at_s
        Seconds from the start of the step, to the nanosecond.
    what
        ``link`` or ``gpu``.
    number
        Of the directed link, or the GPU.
    speed
        0 for a dead link or GPU, 1 for one that is back; a slow link works at this share of its
        bandwidth.

    Raises
    ------
    SimulationError
        If the time is negative or no number, or the speed is out of range.
    """

    at_s: float
    what: Literal["link", "gpu"]
    number: int
    speed: float

    def __post_init__(self) -> None:
        """Refuse what cannot happen."""
        if not (isfinite(self.at_s) and 0 <= self.at_s <= LATEST_S):
            raise SimulationError(
                f"fault at {self.at_s} s; expected a time from 0 to {LATEST_S:g} s of the step"
            )
        if self.what not in ("link", "gpu"):
            raise SimulationError(f"fault of a {self.what!r}; expected link or gpu")
        if not 0 <= self.speed <= 1:
            raise SimulationError(
                f"fault at {self.at_s} s: speed {self.speed}; expected 0 (dead) to 1 (back)"
            )
        if self.what == "gpu" and self.speed not in (0, 1):
            raise SimulationError(
                f"fault at {self.at_s} s: GPU {self.number} at speed {self.speed}; expected a GPU "
                "to be dead or back (only links slow down)"
            )

    @property
    def at_ns(self) -> int:
        """Whole ns from the start of the step."""
        return round(self.at_s * 1e9)


@dataclass(frozen=True, slots=True)
class FaultSchedule:
    """Faults of a step, in the order in which they happen.

    Raises
    ------
    SimulationError
        If the times do not ascend.
    """

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a schedule that goes back in time."""
        for number, (one, other) in enumerate(zip(self.faults, self.faults[1:], strict=False)):
            if other.at_s < one.at_s:
                raise SimulationError(
                    f"fault {number + 1} at {other.at_s} s follows one at {one.at_s} s; expected "
                    "times that ascend"
                )

    def check(self, cluster: Cluster) -> None:
        """Refuse faults of links and GPUs that the cluster does not have.

        Raises
        ------
        SimulationError
            Naming the first.
        """
        for fault in self.faults:
            there = cluster.links if fault.what == "link" else cluster.gpus
            if not 0 <= fault.number < there:
                raise SimulationError(
                    f"fault at {fault.at_s} s: {fault.what} {fault.number} does not exist; "
                    f"expected 0 to {there - 1} of {cluster.name!r}"
                )

    def left_at_start(
        self, trace: RoutingTrace, placement: Placement, attention: Attention
    ) -> tuple[RoutingTrace, Placement, Attention]:
        """Return the step without the GPUs that are dead when it begins.

        Raises
        ------
        SimulationError
            If a GPU dies or comes back later, which this engine does not replay, or an expert
            has no living replica.
        """
        faults = self._of("gpu")
        for fault in faults:
            if fault.at_ns > 0:
                raise SimulationError(
                    f"fault at {fault.at_s} s: GPU {fault.number} changes during the step; "
                    "expected at_s = 0, for a batch keeps its messages once it has begun"
                )
        speed = {fault.number: fault.speed for fault in faults}
        dead = frozenset(gpu for gpu, each in speed.items() if each == 0)
        if not dead:
            return trace, placement, attention
        left = survivors(trace, placement, attention, dead_gpus=dead)
        return left.trace, left.placement, left.attention

    def drive(self, env: simpy.Environment, session: Session, links: int) -> None:
        """Let the faults of links happen to a network during a run."""
        if self._of("link"):
            env.process(self._happen(env, session, np.ones(links)))

    def _of(self, what: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.what == what]

    def _happen(
        self, env: simpy.Environment, session: Session, speed: NDArray[np.float64]
    ) -> Generator[simpy.Event, None, None]:
        pending = self._of("link")
        while pending:
            now = pending[0].at_ns
            yield env.timeout(now - env.now)
            while pending and pending[0].at_ns == now:
                fault = pending.pop(0)
                speed[fault.number] = fault.speed
            session.set_speeds(speed.copy())


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
        near = np.unique(cluster.link_dst[cluster.link_src == src]).tolist()
        raise SimulationError(
            f"link {link!r} does not exist; from {ends[0].strip()} links lead to the nodes "
            f"{', '.join(map(str, near[:8]))}{', ...' if len(near) > 8 else ''}"
        )
    if len(found) > 1:
        raise SimulationError(
            f"link {link!r} is one of {len(found)} parallel links; expected a number of "
            f"{', '.join(map(str, found[:8]))}"
        )
    return int(found[0])


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


@dataclass(frozen=True, slots=True, eq=False)
class Survivors:
    """What goes on when GPUs have died.

    Attributes
    ----------
    trace, placement, attention
        Of the tokens that are left, and the slots on living GPUs.
    kept, lost
        int64: the tokens that are left and those that died with their GPU, by their number in
        the trace; injected = delivered + lost.
    """

    trace: RoutingTrace
    placement: Placement
    attention: Attention
    kept: NDArray[np.int64]
    lost: NDArray[np.int64]


def survivors(
    trace: RoutingTrace,
    placement: Placement,
    attention: Attention,
    *,
    dead_gpus: frozenset[int],
    from_layer: int = 0,
) -> Survivors:
    """Return the step without dead GPUs, from a layer on.

    Tokens that start or end a layer on a dead GPU are lost, with all they hold; other tokens
    find their experts in the slots that are left, by the replica rule in force.

    Parameters
    ----------
    trace, placement, attention
        The step as planned.
    dead_gpus
        GPUs that are dead.
    from_layer
        First layer that they miss.

    Raises
    ------
    SimulationError
        Naming the experts without a living replica, or that no token is left.
    """
    dead = np.zeros(placement.gpus, dtype=np.bool_)
    dead[sorted(dead_gpus)] = True
    gone = dead[placement.slot_gpu] & (placement.slot_layer >= from_layer)
    _refuse_lost_experts(placement, gone)
    ends = [attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)]
    lost = np.any([dead[each[from_layer:]].any(axis=0) for each in ends], axis=0)
    kept = np.flatnonzero(~lost)
    if not len(kept):
        raise SimulationError(
            f"all {trace.tokens} tokens are lost with GPU {', '.join(map(str, sorted(dead_gpus)))}"
        )
    left = ~gone
    slots = {name: getattr(placement, name)[left] for name in ("slot_layer", "slot_gpu")}
    return Survivors(
        trace=part_trace(trace, kept) if lost.any() else trace,
        placement=replace(placement, **slots, slot_expert=placement.slot_expert[left])
        if gone.any()
        else placement,
        attention=PartAttention(attention, kept, trace.tokens) if lost.any() else attention,
        kept=kept,
        lost=np.flatnonzero(lost),
    )


def _refuse_lost_experts(placement: Placement, gone: NDArray[np.bool_]) -> None:
    experts = placement.experts
    cell = placement.slot_layer.astype(np.int64) * experts + placement.slot_expert
    living = np.bincount(cell[~gone], minlength=placement.layers * experts)
    lost = np.flatnonzero(living == 0)
    if len(lost):
        names = ", ".join(f"({at // experts}, {at % experts})" for at in lost[:8].tolist())
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        raise SimulationError(
            f"lost experts (layer, expert): {names}{more} have no living replica; expected a "
            "placement with a replica of each on another GPU"
        )
