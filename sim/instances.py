"""Several instances of a model side by side on one fabric: what they put on links together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sim.messages import Exchange, Traffic
    from topologies import Router


class Instance(NamedTuple):
    """One instance of a model.

    Attributes
    ----------
    gpus
        int64 [ranks]: the fabric's GPU of every rank; of the same server where ranks share one.
    exchange
        Its messages between ranks.
    """

    gpus: NDArray[np.int64]
    exchange: Exchange


@dataclass(frozen=True, slots=True, eq=False)
class SharedLinks:
    """What instances put on links that all layers cross at the same time in every instance.

    Attributes
    ----------
    link_bytes
        [layers, legs, links]: bytes of all instances; int64, or float64 under ``shares``.
    transfer_s
        float64 [layers, legs]: bytes over bandwidth of the busiest link, which adds all
        instances up.
    latency_s
        float64 [layers, legs]: of the longest path in use.
    alone_s
        float64 [instances, layers, legs]: `transfer_s` of every instance without the others.
    pairs
        Pairs of different GPUs that talk, counted for every leg.
    """

    link_bytes: NDArray[Any]
    transfer_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    alone_s: NDArray[np.float64]
    pairs: int

    @property
    def total_s(self) -> float:
        """Seconds of all layers and legs, one after the other, as the analytic network has it."""
        return float((self.transfer_s + self.latency_s).sum())


def side_by_side(router: Router, instances: Iterable[Instance]) -> SharedLinks:
    """Replay instances that go through their layers in step, by the analytic network's law.

    A leg of a layer takes as long as the link that all instances together keep busiest, plus the
    latency of the longest path. In step they meet on links as much as they can: where they are
    not, a leg takes from `SharedLinks.alone_s` to this. Routes are found for the pairs that talk,
    one instance after the other, so that memory does not grow with the number of instances.

    Parameters
    ----------
    router
        Routes in force, by any rule but ``ugal``.
    instances
        With GPUs of their own.

    Raises
    ------
    SimulationError
        If there is no instance, two share a GPU, or they differ in layers or stages.
    """
    taken = np.zeros(router.cluster.gpus, dtype=np.bool_)
    bandwidth = router.cluster.bandwidth_Bps
    alone: list[NDArray[np.float64]] = []
    total: NDArray[Any] | None = None
    late = np.zeros(0)
    pairs = 0
    for instance in instances:
        _take(taken, instance)
        legs = [*instance.exchange.dispatch, *instance.exchange.combine]
        shape = (legs[0].layers, len(legs))
        if total is None:
            kind = np.float64 if router.rule == "shares" else np.int64
            total = np.zeros((*shape, router.cluster.links), dtype=kind)
            late = np.zeros(shape)
        elif total.shape[:2] != shape:
            raise SimulationError(
                f"instance {len(alone)} has {shape[0]} layers of {shape[1]} legs; expected "
                f"{total.shape[0]} of {total.shape[1]}, as the instances before it"
            )
        own = np.empty(shape)
        for number, traffic in enumerate(legs):
            used, carried, latency, talking = _leg(router, instance.gpus, traffic)
            total[:, number, used] += carried
            own[:, number] = (carried / bandwidth[used]).max(axis=1, initial=0.0)
            np.maximum(late[:, number], latency, out=late[:, number])
            pairs += talking
        alone.append(own)
    if total is None:
        raise SimulationError("no instance to replay; expected one or more")
    transfer = (total / bandwidth).max(axis=2)
    return SharedLinks(total, transfer, late, np.stack(alone), pairs)


def _take(taken: NDArray[np.bool_], instance: Instance) -> None:
    """Refuse GPUs that are not there, or not free."""
    gpus = instance.gpus
    inside = (gpus >= 0) & (gpus < len(taken))
    if not inside.all():
        raise SimulationError(
            f"GPU {gpus[~inside][0]} of an instance; expected 0 to {len(taken) - 1}"
        )
    if taken[gpus].any() or len(np.unique(gpus)) < len(gpus):
        twice = gpus[taken[gpus]] if taken[gpus].any() else np.sort(gpus)[:-1]
        raise SimulationError(f"GPU {twice[0]} serves two ranks; expected one rank a GPU")
    taken[gpus] = True


def _leg(
    router: Router, gpus: NDArray[np.int64], traffic: Traffic
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64], int]:
    """Count a leg of one instance.

    Returns
    -------
    links
        int64 [used]: links that carry anything.
    bytes
        [layers, used]: on them.
    latency
        float64 [layers]: seconds of the longest path.
    pairs
        Pairs of different GPUs that talk.
    """
    # numba takes longer to import than the command line may take to print its help.
    from sim import _instances_kernel as kernel  # noqa: PLC0415

    ranks = len(gpus)
    rows = (traffic.indptr, traffic.src, traffic.dst, traffic.count)
    messages = kernel.count_pairs(rows, ranks)
    talking = np.flatnonzero(messages.any(axis=1))
    src, dst = gpus[talking // ranks], gpus[talking % ranks]
    late = kernel.most_seconds(messages, talking, router.path_latency(src, dst))
    if router.rule == "shares":
        whose = gpus.astype(np.int32)
        sent = (*rows[:1], whose[traffic.src], whose[traffic.dst], traffic.count)
        carried = router.bytes_by_layer((*sent, traffic.message_bytes), (src, dst))
        used = np.flatnonzero(carried.any(axis=0))
        return used, carried[:, used], late, int(np.count_nonzero(src != dst))
    paths = router.paths(src, dst)
    used, place = _numbered(paths.links, router.cluster.links)
    counted = np.zeros((len(used), traffic.layers), dtype=np.int64)
    kernel.add_pairs(messages, talking, (paths.indptr, place), counted)
    sent_bytes = counted.T * traffic.message_bytes
    return used, sent_bytes, late, int(np.count_nonzero(src != dst))


def _numbered(links: NDArray[np.int32], of: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct links, ascending, and the place of every entry among them."""
    there = np.zeros(of, dtype=np.bool_)
    there[links] = True
    place = np.cumsum(there) - 1
    return np.flatnonzero(there), place[links]
