"""Slots of every layer to GPUs, so that busiest links come close to their bounds.

Layers go hottest first. In each, the slots' numbers on the GPUs are dealt so that the totals over
layers stay level (then the caps over all layers hold); the slots go out longest processing time
first, towards the loads that the linear program asks of each class of GPUs; and annealing
(`_congestion_kernel`) lowers the busiest links to a target, first the bound, then by bisection
between what was reached and what was not. Slots may also move, which changes the
numbers: a little, and less towards the last layers, which have to make up for it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.congestion.relaxation import essential_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.congestion.link_cost import LinkCost
    from placement.congestion.relaxation import LayerBound

TOLERANCE = 1e-3
"""How far above its bound, relatively, a layer may stay before the search goes on."""
ROUNDS = 6
"""Most annealing rounds of a layer."""
STALE = 3
"""Rounds without progress after which a layer is left."""
PROPOSALS = 100
"""Of a round, per slot."""
LEAST_PROPOSALS = 5000
"""Of a round, however few the slots."""
HEAT = (1e-5, 1e-9)
"""First and last temperature, in units of excess: a link 0.3 % above its target, and 0.003 %."""
MOST_STRAY = 8
"""How far moves may take a GPU's total over the layers so far from the mean, in slots."""


@dataclass(frozen=True, slots=True)
class Caps:
    """Most slots of a layer on a GPU and a server, in all on both, and most load on both."""

    layer_gpu: int
    layer_server: int
    gpu: int
    server: int
    gpu_load: float = np.inf
    server_load: float = np.inf

    def excess(self, gpu_load: NDArray[np.float64], gpus_per_server: int) -> float:
        """Largest relative excess of a layer over the caps on load; zero where they hold."""
        server = gpu_load.reshape(-1, gpus_per_server).sum(axis=1)
        worst = max(gpu_load.max() / self.gpu_load, server.max() / self.server_load) - 1
        return float(worst) if worst > 1e-9 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class LayerSlots:
    """Slots of one layer: int64 [slots] GPU and expert, and int64 [experts] replicas."""

    gpu: NDArray[np.int64]
    expert: NDArray[np.int64]
    replicas: NDArray[np.int64]

    def share(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [slots]: every expert's load shared equally by its replicas."""
        return np.asarray(load[self.expert] / self.replicas[self.expert], dtype=np.float64)

    def gpu_load(self, load: NDArray[np.float64], gpus: int) -> NDArray[np.float64]:
        """float64 [gpus]: sums of `share`."""
        return np.asarray(np.bincount(self.gpu, self.share(load), gpus), dtype=np.float64)


@dataclass(slots=True, eq=False)
class Search:
    """Everything a layer's search needs beside the layer.

    Attributes
    ----------
    links
        Costs.
    fabric_only
        Whether the GPUs' own links count only among placements of equal fabric loads.
    caps
        Of slots and loads.
    class_load
        float64 [classes]: loads the start aims at.
    seed
        Of the proposals.
    deadline_s
        `time.perf_counter` at which no further round begins.
    """

    links: LinkCost
    fabric_only: bool
    caps: Caps
    class_load: NDArray[np.float64]
    seed: int
    deadline_s: float = np.inf
    hurried: bool = False

    def layers(
        self,
        load: NDArray[np.float64],
        replicas: NDArray[np.int64],
        bounds: list[LayerBound],
        *,
        moving: bool = True,
    ) -> list[LayerSlots] | None:
        """Place all layers; None if the moves left later layers without room.

        Parameters
        ----------
        load, replicas
            float64 and int64 [layers, experts]: the replicas are where the search starts.
        bounds
            Of every layer.
        moving
            Whether slots may move.
        """
        from placement.congestion import _deal_kernel as kernel  # noqa: PLC0415  loads numba

        links, caps = self.links, self.caps
        total = np.zeros(links.gpus, dtype=np.int64), np.zeros(links.servers, dtype=np.int64)
        level = -(-int(replicas[0].sum()) // links.gpus) + 2
        most = (min(caps.layer_gpu, level), caps.layer_server, caps.gpu, caps.server)
        order = np.argsort(-load.max(axis=1), kind="stable")
        placed: dict[int, LayerSlots] = {}
        for turn, at in enumerate(order.tolist()):
            number = int(replicas[at].sum())
            count = kernel.deal_counts(number, total, most)
            if count.sum() < number:
                return None
            start = self._start(load[at], replicas[at], count)
            if start is None:
                return None
            stray = min(MOST_STRAY, (len(order) - turn - 1) // 2) if moving else None
            room = self._room(count, total, stray, growth=len(order) / (turn + 1))
            random = np.array([(self.seed * 1_000_003 + at + 1) % 2**64], dtype=np.uint64)
            placed[at] = self._improve(load[at], start, bounds[at], room, random)
            change = np.bincount(placed[at].gpu, minlength=links.gpus) - count
            total[0][:] += change
            total[1][:] += change.reshape(links.servers, -1).sum(axis=1)
        return [placed[at] for at in range(len(order))]

    def _room(
        self,
        count: NDArray[np.int64],
        total: tuple[NDArray[np.int64], ...],
        stray: int | None,
        *,
        growth: float,
    ) -> tuple[NDArray[np.int64], ...]:
        """Least and most slots of the layer on every GPU, and on every server.

        Moves may take a total (`total` counts the dealt slots) `stray` slots off the mean so far,
        or upward by what the cap leaves above the mean of all layers, and downward by what that
        leaves in all others, if that is more. The dealt numbers are always allowed, and no others
        if `stray` is None.
        """
        caps, servers = self.caps, self.links.servers
        on_server = count.reshape(servers, -1).sum(axis=1)
        if stray is None:
            return count, count, on_server, on_server
        found = []
        for now, so_far, limits in (
            (count, total[0], (caps.layer_gpu, caps.gpu)),
            (on_server, total[1], (caps.layer_server, caps.server)),
        ):
            mean = so_far.mean()
            spare = limits[1] - ceil(mean * growth - 1e-9)
            low = ceil(mean - max(stray, spare * (len(now) - 1)))
            high = min(int(mean + max(stray, spare)), limits[1])
            least, most = (end - so_far + now for end in (low, high))
            most = np.minimum(most, limits[0])
            found += [np.clip(least, 0, now), np.maximum(most, now)]
        return tuple(found)

    def _start(
        self, load: NDArray[np.float64], replicas: NDArray[np.int64], count: NDArray[np.int64]
    ) -> LayerSlots | None:
        from placement.congestion import _deal_kernel as kernel  # noqa: PLC0415  loads numba

        expert = np.repeat(np.arange(len(load)), replicas)
        share = load[expert] / replicas[expert]
        order = np.lexsort((expert, -share, replicas[expert] == 1))
        class_of_gpu = self.links.class_of_gpu
        target = (self.class_load / np.bincount(class_of_gpu))[class_of_gpu]
        gpu = kernel.deal_slots(order, share, expert, count, target)
        return LayerSlots(gpu, expert, replicas.copy()) if gpu.min() >= 0 else None

    def _improve(
        self,
        load: NDArray[np.float64],
        start: LayerSlots,
        bound: LayerBound,
        room: tuple[NDArray[np.int64], ...],
        random: NDArray[np.uint64],
    ) -> LayerSlots:
        """Lower the targets by bisection; then, for fabric links alone, spread inside classes."""
        best, reached = start, self._reached(load, start, bound)
        low = factor = 1.0 + TOLERANCE
        stale, least = 0, max(start.share(load).max(), 1 / self.links.gpus)
        for turn in range(ROUNDS):
            if stale == STALE or reached <= (0.0, 1 + 1.01 * TOLERANCE):
                break
            # A layer above its caps on load gets a first round in any case.
            if (turn or reached[0] == 0) and time.perf_counter() > self.deadline_s:
                self.hurried = True
                break
            slots = self._anneal(
                load,
                best,
                self._scaled(bound.phase_s * factor),
                room,
                random,
                most_share=least * factor,
            )
            now = self._reached(load, slots, bound)
            stale = 0 if now < reached else stale + 1
            best, reached = (slots, now) if now < reached else (best, reached)
            if now > (0.0, factor * (1 + 1e-9)):
                low = factor
            factor = (low + reached[1]) / 2
        late = time.perf_counter() > self.deadline_s
        self.hurried = self.hurried or (late and self.fabric_only)
        spread = self.fabric_only and not late
        return self._spread(load, best, room, random) if spread else best

    def _reached(
        self, load: NDArray[np.float64], slots: LayerSlots, bound: LayerBound
    ) -> tuple[float, float]:
        """Excess over the caps on load, and busiest-link time over its bound."""
        gpu_load = slots.gpu_load(load, self.links.gpus)
        time_s = busiest(self.links, gpu_load[None], fabric_only=self.fabric_only)[0].sum()
        excess = self.caps.excess(gpu_load, self.links.gpus_per_server)
        return excess, float(time_s / bound.bound_s) if bound.bound_s else 1.0

    def _scaled(self, target_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Costs of own links and of the fabric in units of the phases' targets."""
        links = self.links
        rows = essential_rows(links.fabric_cost, links.fabric_phase)
        fabric = links.fabric_cost[rows] / target_s[links.fabric_phase[rows], None]
        if self.fabric_only:
            return links.own_cost[:0], fabric
        kinds = essential_kinds(links)
        return links.own_cost[kinds] / target_s[links.own_phase[kinds], None, None], fabric

    def _anneal(
        self,
        load: NDArray[np.float64],
        slots: LayerSlots,
        cost: tuple[NDArray[np.float64], ...],
        room: tuple[NDArray[np.int64], ...],
        random: NDArray[np.uint64],
        *,
        most_share: float = 0.0,
        inside: bool = False,
    ) -> LayerSlots:
        """Return a changed copy; experts whose replicas would exceed `most_share` keep them all."""
        from placement.congestion import _search_kernel as kernel  # noqa: PLC0415  loads numba

        links, caps = self.links, self.caps
        gpu, replicas = slots.gpu.copy(), slots.replicas.copy()
        expert = slots.expert.copy()
        on_gpu = np.bincount(gpu, minlength=links.gpus)
        on_server = on_gpu.reshape(links.servers, -1).sum(axis=1)
        own, rows = (np.ascontiguousarray(part) for part in cost)
        kernel.search(
            (gpu, expert, replicas),
            np.ascontiguousarray(load),
            (own, rows, links.class_of_gpu, links.gpus_per_server, caps.gpu_load, caps.server_load),
            (on_gpu, room[0], room[1], on_server, room[2], room[3]),
            random,
            (
                *HEAT,
                max(PROPOSALS * len(gpu), LEAST_PROPOSALS),
                most_share,
            ),
            inside,
        )
        return LayerSlots(gpu, expert, replicas)

    def _spread(
        self,
        load: NDArray[np.float64],
        slots: LayerSlots,
        room: tuple[NDArray[np.int64], ...],
        random: NDArray[np.uint64],
    ) -> LayerSlots:
        """Swap slots inside the classes, so that the fabric sees no change, to even out GPUs."""
        links, own = self.links, np.zeros((1, 3, self.links.gpus))
        gpu_load = slots.gpu_load(load, links.gpus)
        of_class = np.bincount(links.class_of_gpu, gpu_load) / np.bincount(links.class_of_gpu)
        own[0, 0] = 1 / max(of_class.max(), float((load / slots.replicas).max()))
        cost = own, np.zeros((0, links.classes))
        return self._anneal(load, slots, cost, room, random, inside=True)


def busiest(
    links: LinkCost, gpu_load: NDArray[np.float64], *, fabric_only: bool
) -> NDArray[np.float64]:
    """float64 [layers, phases]: seconds of the busiest link."""
    out = np.zeros((len(gpu_load), links.phases))
    fabric = links.fabric_seconds(gpu_load)
    own = links.own_seconds(gpu_load).max(axis=2)
    for phase in range(links.phases):
        out[:, phase] = fabric[:, links.fabric_phase == phase].max(axis=1, initial=0.0)
        if not fabric_only:
            out[:, phase] = np.maximum(out[:, phase], own[:, links.own_phase == phase].max(axis=1))
    return out


def essential_kinds(links: LinkCost) -> NDArray[np.int64]:
    """Return the kinds of own links that no other kind of the phase always matches or exceeds.

    A time is linear in (GPU load, server load), which lie in the triangle (0, 0), (0, 1), (1, 1):
    its corners decide.
    """
    gpu, server, all_ = np.moveaxis(links.own_cost, 1, 0)
    corners = np.concatenate([all_, server + all_, gpu + server + all_], axis=1)
    return essential_rows(corners, links.own_phase)
