"""The search for replicas, layer by layer, around the compiled kernel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.replicas.bounds import balance_bound, equal_balance_bound
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.replicas.problem import ReplicaProblem
    from placement.replicas.replicated import Replicated

_FIRST_SHARE, _BOUND_SHARE = 0.5, 0.65
"""Parts of a time limit by which stage 1 and its bound end; the rest is for fewest hops."""
_TURNS = 3
"""Times that stage 1 goes on from its best where a cap is asked for and not reached."""


class Search:
    """One run of the compiled search over all layers.

    Parameters
    ----------
    policy
        Slots, rule, cap, seed and limits.
    base
        Loads and costs.
    origins
        The same with origins for the rule `nearest`; None scores by `equal`.
    begun
        `time.perf_counter` when the policy was called.
    """

    def __init__(
        self,
        policy: Replicated,
        base: PlacementProblem,
        origins: ReplicaProblem | None,
        begun: float,
    ) -> None:
        self.policy, self.base, self.origins, self.begun = policy, base, origins, begun
        self.hurried = False
        self.gpus = base.servers * base.gpus_per_server
        self.slots = base.experts + policy.redundant
        self.bound = balance_bound(
            base.profile.load, self.slots, self.gpus, np.full(base.layers, np.inf)
        )

    def stage_one(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Slots [layers, GPUs, slots of each] and busiest GPU [layers]; tightens the bound."""
        from placement.replicas._search_kernel import least_maximum  # noqa: PLC0415  numba is slow

        wanted = np.broadcast_to(
            np.inf if self.policy.cap is None else self.policy.cap, len(self.bound)
        )
        slots, least = [], np.empty(len(self.bound))
        for layer, bound in enumerate(self.bound):
            setting, slot = self._setting(layer), self._start(layer)
            for turn in range(_TURNS):
                if self.out_of_time(_FIRST_SHARE) or (turn and least[layer] <= wanted[layer]):
                    break
                rng = self._rng(layer, turn)
                slot = least_maximum(rng, setting, slot, bound, self.policy.steps)
                least[layer] = self._heat(setting, slot).max()
            least[layer] = self._heat(setting, slot).max()
            slots.append(slot)
        load = self.base.profile.load
        if self.policy.rule == "equal":
            until = self.begun + _BOUND_SHARE * self.seconds
            self.bound = equal_balance_bound(load, self.slots, self.gpus, least, deadline=until)
        else:
            self.bound = balance_bound(load, self.slots, self.gpus, least)
        return np.stack(slots), least

    def stage_two(
        self, slot: NDArray[np.int64], cap: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], float]:
        """Slots of few hops under `cap`, and their hops per token and layer."""
        from placement.replicas._search_kernel import fewest_hops, open_layer  # noqa: PLC0415  numba

        result, hops = slot.copy(), 0.0
        for layer, most in enumerate(cap):
            setting = self._setting(layer)
            flat = bool(np.ptp(setting[5]) == 0)
            if not (flat or self.out_of_time()):
                start = self._ordered(setting, slot[layer])
                rng = self._rng(layer, _TURNS)
                found = fewest_hops(rng, setting, start, most, self.policy.steps)
                result[layer] = self._ordered(setting, found)
            hops += float(open_layer(setting, result[layer])[6].sum())
        scale = self.base.top_k / self.gpus / len(cap)
        return result, hops * scale

    def placement(self, slot: NDArray[np.int64]) -> Placement:
        """Turn slots [layers, GPUs, slots of each] into a placement."""
        layers, gpus, room = slot.shape
        gpu = np.broadcast_to(np.repeat(np.arange(gpus), room), (layers, gpus * room))
        return place_on_gpus(self.base, gpu, slot.reshape(layers, -1), policy=self.policy.name)

    @property
    def seconds(self) -> float:
        """The time limit; infinity for none."""
        limit = self.policy.time_limit_s
        return np.inf if limit is None else limit

    def out_of_time(self, share: float = 1.0) -> bool:
        """Whether that part of the time limit is over; remembers that it cost something."""
        late = time.perf_counter() - self.begun > share * self.seconds
        self.hurried = self.hurried or late
        return late

    def _rng(self, layer: int, turn: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.policy.seed, layer, turn]))

    def _setting(self, layer: int) -> tuple[Any, ...]:
        """Return the kernel's setting: see its module."""
        base, origins = self.base, self.origins
        # Copies, as the kernel would be compiled anew for read-only arrays.
        cost, weight = base.cost[layer].copy(), base.profile.load[layer] * self.gpus
        if origins is None:
            # A server's cost says all, and stands in for the trips; origins are not looked at.
            none = np.zeros(1), np.zeros((1, 1), dtype=np.int64)
            return False, base.gpus_per_server, weight, *none, cost[None].copy(), cost
        origin, distance = origins.origin_share[layer].copy(), origins.server_distance.copy()
        trip = np.array(origins.trip(layer), order="C")
        return True, base.gpus_per_server, weight, origin, distance, trip, cost

    def _start(self, layer: int) -> NDArray[np.int64]:
        from placement.replicas._search_kernel import deal, replica_counts  # noqa: PLC0415  numba is slow

        weight = self.base.profile.load[layer] * self.gpus
        count = replica_counts(weight, self.slots, self.gpus)
        order = np.argsort(-weight / count, kind="stable")
        shape = self.gpus, self.slots // self.gpus
        slot: NDArray[np.int64] = deal(weight / count, count, order, shape)
        return slot

    def _heat(self, setting: tuple[Any, ...], slot: NDArray[np.int64]) -> NDArray[np.float64]:
        from placement.replicas._search_kernel import open_layer  # noqa: PLC0415  numba is slow to import

        heat: NDArray[np.float64] = open_layer(setting, slot)[5]
        return heat

    def _ordered(self, setting: tuple[Any, ...], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Under `equal`: the heaviest GPU's slots to the GPU of the fewest hops, and so on.

        Under other rules a replica's load depends on its server, so nothing moves.
        """
        if setting[0]:
            return slot
        far = np.repeat(setting[6], setting[1])
        result = np.empty_like(slot)
        heaviest = np.argsort(-self._heat(setting, slot), kind="stable")
        result[np.argsort(far, kind="stable")] = slot[heaviest]
        return result
