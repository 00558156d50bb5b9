"""Least congestion: experts placed so that each layer's busiest link is as idle as can be."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.congestion.relaxation import CongestionProgram, LayerBound
from placement.congestion.search import Caps, LayerSlots, Search
from placement.errors import InfeasibleError, PlacementError
from placement.placement import Placement
from placement.problem import PlacementProblem
from placement.solve import SolveReport, relative_gap, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.congestion.link_cost import LinkCost

LINKS = ("all", "fabric")
SCOPES = ("server", "gpu")


@dataclass(frozen=True, slots=True, eq=False)
class CongestionProblem(PlacementProblem):
    """A placement problem that knows what loads cost the links.

    Attributes
    ----------
    links
        Busy seconds of every link per unit of load.
    """

    links: LinkCost = field(kw_only=True)

    def __post_init__(self) -> None:
        """Refuse links of another cluster."""
        PlacementProblem.__post_init__(self)
        have = self.links.servers, self.links.gpus_per_server
        if have != (self.servers, self.gpus_per_server):
            raise PlacementError(
                f"links of {have[0]} servers of {have[1]} GPUs, the problem has {self.servers} "
                f"of {self.gpus_per_server}"
            )

    @classmethod
    def of(cls, problem: PlacementProblem, links: LinkCost) -> CongestionProblem:
        """Add link costs to a problem."""
        return cls(
            model=problem.model,
            cost=problem.cost,
            profile=problem.profile,
            top_k=problem.top_k,
            gpus_per_server=problem.gpus_per_server,
            layer_slots=problem.layer_slots,
            server_slots=problem.server_slots,
            links=links,
        )


@dataclass(frozen=True, slots=True)
class LayerCongestion:
    """What is known of one layer's busiest links.

    Attributes
    ----------
    objective_s, bound_s
        Busy seconds of the busiest link, summed over phases, and the proven least.
    busiest_links
        The busiest link of every phase.
    pinned_expert
        The expert whose slot alone keeps a GPU's own links (or its server's) this busy, so that
        no other place would relieve them, only more replicas; None where none does.
    """

    objective_s: float
    bound_s: float
    busiest_links: tuple[int, ...]
    pinned_expert: int | None

    @property
    def gap(self) -> float:
        """Distance from the bound, relative to the objective."""
        return relative_gap(self.objective_s, self.bound_s, unit="seconds")


@dataclass(frozen=True, slots=True, eq=False)
class CongestionResult:
    """A placement of least congestion, with its certificate.

    Attributes
    ----------
    placement
        Where the experts went.
    layers
        One entry per layer.
    seconds
        Wall time, bounds included.
    limit
        ``time`` if the search was cut short, else None.
    """

    placement: Placement
    layers: tuple[LayerCongestion, ...]
    seconds: float
    limit: str | None

    @property
    def objective_s(self) -> float:
        """Sum over layers of the busiest-link time."""
        return sum(layer.objective_s for layer in self.layers)

    @property
    def bound_s(self) -> float:
        """Proven lower bound on `objective_s`."""
        return sum(layer.bound_s for layer in self.layers)

    @property
    def gap(self) -> float:
        """Relative distance of the objective from the bound."""
        return relative_gap(self.objective_s, self.bound_s, unit="seconds")


@dataclass(frozen=True, slots=True)
class LeastCongestion:
    """Least sum over layers of the busiest link's time, under data-parallel attention.

    Attributes
    ----------
    links
        ``all`` links, or those of the ``fabric`` (between switches) alone.
    redundant
        Slots of a layer beyond one per expert; replicas share their expert's load equally.
    beta, scope
        Hard cap on the load of a layer per ``server`` or ``gpu``, in units of the mean load;
        None for no cap.
    seed
        Of the annealing.
    time_limit_s
        Wall seconds after which no further round of annealing begins; layers that are above
        `beta` get a first round in any case.
    """

    links: str = "all"
    redundant: int = 0
    beta: float | None = None
    scope: str = "server"
    seed: int = 0
    time_limit_s: float | None = None
    name: str = "least-congestion"

    def __post_init__(self) -> None:
        """Refuse unknown options."""
        for what, value, allowed in (("links", self.links, LINKS), ("scope", self.scope, SCOPES)):
            if value not in allowed:
                raise PlacementError(f"{what} is {value!r}; allowed: {', '.join(allowed)}")
        if self.redundant < 0:
            raise PlacementError(f"redundant is {self.redundant}, expected 0 or more")
        if self.beta is not None and not self.beta >= 1:
            raise PlacementError(f"beta is {self.beta}, expected 1 or more")

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert; the report's seconds are those of a mean layer's busiest link."""
        return self.solve(problem).placement

    def solve(self, problem: PlacementProblem) -> CongestionResult:
        """Place every expert and certify every layer.

        Raises
        ------
        PlacementError
            If the problem has no link costs.
        InfeasibleError
            If slots are short or the cap on loads is impossible or was not met.
        """
        begun = time.perf_counter()
        if not isinstance(problem, CongestionProblem):
            raise PlacementError(f"policy '{self.name}' needs a CongestionProblem with link costs")
        caps, load, gpus = self._caps(problem), problem.profile.load, problem.links.gpus
        replicas = np.stack([least_replicas(row, self.redundant, gpus) for row in load])
        least = np.array(
            [
                least_gpu_load(*pair, gpus, caps.layer_gpu)
                for pair in zip(load, replicas, strict=True)
            ]
        )
        self._check_cap(problem, least, caps)
        bounds, class_load = self._bounds(problem, least, caps)
        limit = np.inf if self.time_limit_s is None else self.time_limit_s
        fabric_only = self.links == "fabric"
        search = Search(
            problem.links, fabric_only, caps, class_load, self.seed, deadline_s=begun + limit
        )
        slots = search.layers(load, replicas, bounds)
        slots = slots or search.layers(load, replicas, bounds, moving=False)
        if slots is None:
            raise InfeasibleError(f"policy '{self.name}' found no room under the caps on slots")
        return self._result(problem, slots, bounds, search, begun)

    def _caps(self, problem: CongestionProblem) -> Caps:
        """Caps on slots, as `PlacementProblem.place` deals them to GPUs, and on loads."""
        slots = problem.experts + self.redundant
        have = min(problem.layer_slots * problem.layers, problem.server_slots) * problem.servers
        short = max(slots - problem.layer_slots * problem.servers, slots * problem.layers - have)
        if short > 0:
            raise InfeasibleError(
                f"layer_slots {problem.layer_slots} and server_slots {problem.server_slots} are "
                f"too small for {slots} slots a layer: {short} slots are missing"
            )
        if self.redundant > problem.experts * (problem.links.gpus - 1):
            raise InfeasibleError(
                f"{self.redundant} redundant slots: {problem.experts} experts take at most one "
                f"on each of {problem.links.gpus} GPUs"
            )
        place = problem.servers if self.scope == "server" else problem.links.gpus
        load = np.inf if self.beta is None else self.beta / place
        return Caps(
            layer_gpu=ceil(problem.layer_slots / problem.gpus_per_server),
            layer_server=problem.layer_slots,
            gpu=ceil(problem.server_slots / problem.gpus_per_server),
            server=problem.server_slots,
            gpu_load=load if self.scope == "gpu" else np.inf,
            server_load=load if self.scope == "server" else np.inf,
        )

    def _check_cap(
        self, problem: CongestionProblem, least: NDArray[np.float64], caps: Caps
    ) -> None:
        """Refuse a cap on loads that the hottest expert alone exceeds."""
        cap = min(caps.gpu_load, caps.server_load)
        layer = int(np.argmax(least))
        if self.beta is None or least[layer] <= cap * (1 + 1e-9):
            return
        load = problem.profile.load[layer]
        extra = int(np.maximum(np.ceil(load / cap * (1 - 1e-9)) - 1, 0).sum())
        raise InfeasibleError(
            f"layer {layer}: beta {self.beta:g} per {self.scope} is impossible, expert "
            f"{int(np.argmax(load))} or what must sit beside it exceeds it; beta "
            f"{least[layer] / cap * self.beta:.4g} or {max(extra, self.redundant + 1)} redundant "
            "slots at least"
        )

    def _bounds(
        self, problem: CongestionProblem, least: NDArray[np.float64], caps: Caps
    ) -> tuple[list[LayerBound], NDArray[np.float64]]:
        """Bound every layer; also return the class loads to aim at."""
        program = CongestionProgram(
            problem.links,
            fabric_only=self.links == "fabric",
            server_cap=min(caps.server_load, caps.gpu_load * problem.gpus_per_server, 1.0),
        )
        order = np.argsort(least, kind="stable").tolist()
        bound = {layer: program.bound(float(least[layer])) for layer in order}
        return [bound[layer] for layer in range(problem.layers)], program.balanced_load()

    def _result(
        self,
        problem: CongestionProblem,
        slots: list[LayerSlots],
        bounds: list[LayerBound],
        search: Search,
        begun: float,
    ) -> CongestionResult:
        """Judge the slots by the link costs alone."""
        links, load = problem.links, problem.profile.load
        pairs = list(zip(slots, load, strict=True))
        gpu_load = np.stack([layer.gpu_load(row, links.gpus) for layer, row in pairs])
        self._check_loads(gpu_load, search.caps, links.gpus_per_server)
        per_link = links.seconds(gpu_load)
        if self.links == "fabric":
            outside = np.setdiff1d(np.arange(links.links), links.fabric_link)
            per_link[:, :, outside] = 0.0
        layers = tuple(
            LayerCongestion(
                objective_s=float(seconds.max(axis=1).sum()),
                bound_s=bound.bound_s,
                busiest_links=tuple(seconds.argmax(axis=1).tolist()),
                pinned_expert=_pinned(bound, layer, row),
            )
            for seconds, bound, (layer, row) in zip(per_link, bounds, pairs, strict=True)
        )
        objective, bound = (
            float(np.mean([getattr(layer, what) for layer in layers]))
            for what in ("objective_s", "bound_s")
        )
        report = SolveReport(
            status=status_of(objective, bound, unit="seconds"),
            objective=objective,
            bound=min(bound, objective),
            seconds=time.perf_counter() - begun,
            limit="time" if search.hurried else None,
            unit="seconds",
        )
        placement = replace(_placement(self.name, problem, slots), solve=report)
        return CongestionResult(placement, layers, report.seconds, report.limit)

    def _check_loads(self, gpu_load: NDArray[np.float64], caps: Caps, gpus_per_server: int) -> None:
        excess = [caps.excess(row, gpus_per_server) for row in gpu_load]
        if self.beta is not None and max(excess):
            layer = int(np.argmax(excess))
            raise InfeasibleError(
                f"layer {layer}: no placement with beta {self.beta:g} per {self.scope} was found; "
                f"the best found needs {self.beta * (1 + excess[layer]):.4g}"
            )


def least_replicas(load: NDArray[np.float64], redundant: int, most: int) -> NDArray[np.int64]:
    """Return int64 [experts]: replicas that make the largest load per replica least.

    Each redundant slot in turn goes to the expert with the largest load per replica, ties to
    the lowest id; no expert gets more than `most`. The greedy choice is optimal: an expert that
    it serves would otherwise hold the maximum.
    """
    replicas = np.ones(len(load), dtype=np.int64)
    for _ in range(redundant):
        share = np.where(replicas < most, load / replicas, -1.0)
        replicas[np.argmax(share)] += 1
    return replicas


def least_gpu_load(
    load: NDArray[np.float64], replicas: NDArray[np.int64], gpus: int, gpu_slots: int
) -> float:
    """Return a proven lower bound on the fullest GPU's load, whatever the placement.

    The largest load per replica, which `least_replicas` makes least. Without replicas also: the
    hottest expert and the coldest that must sit beside it under `gpu_slots`, and, of the j*G + 1
    hottest experts, the j + 1 coolest, since some GPU holds j + 1 of them.
    """
    least = float((load / replicas).max())
    if replicas.max() > 1:
        return least
    hot = np.sort(load)[::-1]
    beside = max(len(hot) - (gpus - 1) * gpu_slots - 1, 0)
    least = max(least, float(hot[0] + hot[len(hot) - beside :].sum()))
    for j in range(1, (len(hot) - 1) // gpus + 1):
        least = max(least, float(hot[j * gpus - j : j * gpus + 1].sum()))
    return least


def _pinned(bound: LayerBound, slots: LayerSlots, load: NDArray[np.float64]) -> int | None:
    if bound.hottest_s <= 1e-6 * bound.bound_s:
        return None
    return int(np.argmax(load / slots.replicas))


def _placement(name: str, problem: CongestionProblem, slots: list[LayerSlots]) -> Placement:
    return Placement(
        model=problem.model,
        layers=problem.layers,
        experts=problem.experts,
        gpus=problem.links.gpus,
        gpus_per_server=problem.gpus_per_server,
        slot_layer=np.repeat(np.arange(len(slots)), [len(row.gpu) for row in slots]),
        slot_gpu=np.concatenate([row.gpu for row in slots]),
        slot_expert=np.concatenate([row.expert for row in slots]),
        policy=name,
    )
