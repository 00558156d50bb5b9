"""One step: a batch of tokens through all MoE layers, GPUs waiting for their own messages.

SimPy carries causality alone. A layer costs a few events per GPU that takes part in it, and
none for the others; how many tokens and messages there are does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from sim.compute import critical_ns, expert_ns
from sim.errors import LawViolation, SimulationError
from sim.laws import check_laws
from sim.messages import distinct_destinations, expert_tokens, per_expert
from sim.result import SimResult

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.messages import MessageSizes, Traffic
    from sim.network.protocol import Collective, Network, Session
    from topologies import Router
    from workloads import RoutingTrace

    Steps = Generator[simpy.Event, None, None]


def simulate(
    trace: RoutingTrace,
    placement: Placement,
    attention: Attention,
    *,
    network: Network,
    sizes: MessageSizes,
    expert_seconds_per_token: float,
) -> SimResult:
    """Replay a trace through a placement over the cluster's links, and check the laws.

    Every token's choices leave its origin GPU (a message per token and expert), are computed
    on the experts' GPUs and return to its collector GPU, which is its origin in the next layer.
    A GPU dispatches a layer when the results of the layer before are in (layer 0 at once),
    computes when all its messages are in and its previous layers are done, and then sends all
    its results. The step ends when the last results are in.

    Parameters
    ----------
    trace
        Choices of every token in every layer.
    placement
        One slot per expert.
    attention
        Origin and collector GPU of every token and layer.
    network
        How messages move: `AnalyticNetwork` or `PacketNetwork` on a `Router`.
    sizes
        Bytes of the messages.
    expert_seconds_per_token
        Seconds a GPU computes per choice it receives.

    Raises
    ------
    SimulationError
        If the parts do not fit together.
    LawViolation
        If the finished run contradicts a law (see `sim.laws`).
    """
    router = network.router
    _check_cluster(placement, router)
    _check_causality(trace, attention)
    traffic = per_expert(trace, placement, attention, sizes)
    load = expert_tokens(trace, placement)
    compute_ns = expert_ns(load, expert_seconds_per_token)
    gpus, servers = distinct_destinations(trace, placement)
    result = SimResult(
        cluster=router.cluster,
        network=network.name,
        rule=router.rule,
        tokens=trace.tokens,
        sizes=sizes,
        hop_histogram=_hop_histogram(router, *traffic),
        critical_ns=critical_ns(*traffic, compute_ns),
        expert_tokens=load,
        distinct_gpus=gpus,
        distinct_servers=servers,
        **_happened(network, traffic, compute_ns),
    )
    check_laws(result, traffic, router, (trace, placement, attention))
    return result


def _happened(
    network: Network, traffic: tuple[Traffic, Traffic], compute_ns: NDArray[np.int64]
) -> dict[str, Any]:
    """Let the step happen on the network, and return what it did to the links and when."""
    env = simpy.Environment()
    session = network.open(env)
    step = Step(env, session, *traffic, compute_ns)
    step.run()
    return {
        "link_bytes": step.link_bytes(),
        "collective_ns": step.collective_ns(),
        "usage": session.usage(),
    }


@dataclass(slots=True)
class _Layer:
    """The two collectives of a layer."""

    dispatch: Collective
    combine: Collective


class Step:
    """The SimPy processes of one step.

    Parameters
    ----------
    env
        Counts integer nanoseconds from 0.
    session
        The network.
    dispatch, combine
        Messages of all layers.
    compute_ns
        int64 [layers, gpus].
    """

    def __init__(
        self,
        env: simpy.Environment,
        session: Session,
        dispatch: Traffic,
        combine: Traffic,
        compute_ns: NDArray[np.int64],
    ) -> None:
        self._env = env
        self._session = session
        self._traffic = (dispatch, combine)
        self._compute_ns = compute_ns
        self._layers: list[_Layer] = []
        self._latest: dict[int, simpy.Process] = {}

    def run(self) -> None:
        """Let the step happen."""
        self._open()
        self._env.run()
        for number in range(self._traffic[0].layers):
            ended = number < len(self._layers) and self._layers[number].combine.ended_ns is not None
            if not ended:
                raise LawViolation(f"layer {number}: the results were not all delivered")

    def collective_ns(self) -> NDArray[np.int64]:
        """int64 [layers, 2, 2]: start and end of every layer's dispatch and combine."""
        return np.array(
            [
                [[each.started_ns, each.ended_ns] for each in (layer.dispatch, layer.combine)]
                for layer in self._layers
            ],
            dtype=np.int64,
        )

    def link_bytes(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """[layers, 2, links]: bytes of every layer's dispatch and combine."""
        return np.array(
            [[layer.dispatch.link_bytes, layer.combine.link_bytes] for layer in self._layers]
        )

    def _open(self) -> None:
        """Register the next layer and start a process for every GPU with a part in it.

        Layers open one by one, so that a network holds the messages of few at a time.
        """
        number = len(self._layers)
        out, back = (traffic.layer(number) for traffic in self._traffic)
        layer = _Layer(self._session.collective(out), self._session.collective(back))
        self._layers.append(layer)
        for gpu in np.unique(out.src).tolist():
            self._env.process(self._attend(number, gpu))
        for gpu in np.unique(out.dst).tolist():
            previous = self._latest.get(gpu)
            self._latest[gpu] = self._env.process(self._compute(number, gpu, previous))

    def _attend(self, number: int, gpu: int) -> Steps:
        """Dispatch a layer when the results of the layer before are in."""
        if number > 0:
            yield self._layers[number - 1].combine.arrived(gpu)
        self._layers[number].dispatch.send(gpu)

    def _compute(self, number: int, gpu: int, previous: simpy.Process | None) -> Steps:
        """Compute when the inputs are in and the GPU is free, then send the results."""
        layer = self._layers[number]
        yield layer.dispatch.arrived(gpu)
        if previous is not None and previous.is_alive:
            yield previous
        yield self._env.timeout(int(self._compute_ns[number, gpu]))
        if number + 1 == len(self._layers) < self._traffic[0].layers:
            self._open()
        layer.combine.send(gpu)


def _check_cluster(placement: Placement, router: Router) -> None:
    cluster = router.cluster
    for what, placed, there in (
        ("GPUs", placement.gpus, cluster.gpus),
        ("GPUs per server", placement.gpus_per_server, cluster.gpus_per_server),
    ):
        if placed != there:
            raise SimulationError(
                f"the placement is for {placed} {what}, the cluster has {there}; expected equal"
            )


def _check_causality(trace: RoutingTrace, attention: Attention) -> None:
    """Refuse tokens that would have to move between a collector and the next origin."""
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    moved = np.argwhere(origin[1:] != collector[:-1])
    if moved.size:
        layer, token = moved[0].tolist()
        raise SimulationError(
            f"token {token} is collected on GPU {collector[layer, token]} in layer {layer} but "
            f"dispatched from GPU {origin[layer + 1, token]} in layer {layer + 1}; expected equal"
        )


def _hop_histogram(router: Router, *directions: Traffic) -> NDArray[np.int64]:
    hops = [
        router.hops(each.src, each.dst, size_bytes=each.size_bytes, layer=each.layer_of_row)
        for each in directions
    ]
    size = max(int(each.max(initial=0)) for each in hops) + 1
    histogram = np.zeros((len(directions), size), dtype=np.int64)
    for row, (traffic, each) in enumerate(zip(directions, hops, strict=True)):
        np.add.at(histogram[row], each, traffic.count)
    histogram.setflags(write=False)
    return histogram
