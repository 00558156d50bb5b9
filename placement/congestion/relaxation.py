"""A proven bound on a layer's busiest-link time: a small linear program over class loads.

The program chooses the load of every class of GPUs (fractions of experts allowed) and the time
of every phase, and minimises the sum of the times: the links between switches carry what the
classes' loads put on them, the GPUs' own links at least what they carry when a class spreads its
load evenly. What fractions cannot see is added:

- some GPU carries at least v, the least maximum GPU load (the hottest slot under any choice of
  replicas, the mean, or by the pigeonhole the experts that must share a GPU): its own links carry
  that, and its server and class carry it too: the least over all classes it may sit in;
- classes A with room for n slots carry at most the n hottest experts (cuts, added when broken).

Caps over several layers (C_exp) are left out, which keeps the bound valid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.highs import Program, SolveResult, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.congestion.link_cost import LinkCost

_LATEST = 1e4
"""Upper limit of a time, in units of the balanced time; keeps the duals' certificate finite."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerBound:
    """What a layer's busiest links cannot go below.

    Attributes
    ----------
    phase_s
        float64 [phases]: times of a solution of the program.
    bound_s
        Proven lower bound on the sum of the phases' times.
    hottest_s
        How much of the bound is due to v: zero where evenly spread load binds.
    """

    phase_s: NDArray[np.float64]
    bound_s: float
    hottest_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """Times [phases], proven bound, and the load of the fullest class."""

    phase_s: NDArray[np.float64]
    bound_s: float
    fullest: float


@dataclass(slots=True, eq=False)
class CongestionProgram:
    """The program of one cluster, solved for one layer after another.

    Call it with ascending v: what a class was found to cost at a smaller v bounds it at a
    larger one, so that most classes are never solved.

    Attributes
    ----------
    links
        Costs.
    fabric_only
        Whether the GPUs' own links are left out.
    server_cap
        Most load of a server.
    """

    links: LinkCost
    fabric_only: bool
    server_cap: float = 1.0
    _unit_s: float = field(init=False)
    _rows: NDArray[np.float64] = field(init=False)
    _even: _Solution = field(init=False)
    _known: dict[int, _Solution] = field(init=False, default_factory=dict)
    _least: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Write down the rows that all layers share, in units of the balanced time."""
        links = self.links
        own = _strongest(links)
        balanced = own @ [1 / links.gpus, 1 / links.servers, 1]
        fabric = links.fabric_cost @ (_gpus_of_class(links) / links.gpus)
        unit_s = float(max(balanced.max(), fabric.max(initial=0)))
        # A lone GPU sends nothing: any unit will do that keeps the rows in range.
        self._unit_s = unit_s if unit_s > 0 else float(np.abs(own).max(initial=0)) or 1.0
        kept = essential_rows(links.fabric_cost, links.fabric_phase)
        rows = [self._row(links.fabric_phase[kept], loads=links.fabric_cost[kept])]
        if not self.fabric_only:
            rows += self._even_rows(own)
        self._rows = np.concatenate(rows)
        self._even = self._solve(0.0, None)

    def bound(self, least_gpu_load: float) -> LayerBound:
        """Bound one layer in which some GPU carries at least `least_gpu_load` (v).

        Raises
        ------
        PlacementError
            If v is below that of an earlier call.
        """
        if least_gpu_load < self._least:
            raise PlacementError("layers must come in ascending order of their least GPU load")
        self._least = least_gpu_load
        best = self._over_classes(least_gpu_load)
        hottest_s = max(best.bound_s - self._even.bound_s, 0.0)
        return LayerBound(best.phase_s, best.bound_s, hottest_s)

    def balanced_load(self) -> NDArray[np.float64]:
        """float64 [classes]: loads that meet the bound of even spreading, as even as can be."""
        links = self.links
        gpus = _gpus_of_class(links)
        late = np.append(self._even.phase_s * (1 + 1e-6), self._even.bound_s * (1 + 1e-6))
        table = np.zeros((2 * links.classes, self._rows.shape[1]))
        for sign, rows in ((1.0, table[: links.classes]), (-1.0, table[links.classes :])):
            np.fill_diagonal(rows[:, links.phases : -2], sign * links.gpus / gpus)
            rows[:, -2] = -1.0
            rows[:, -1] = sign
        free = self._rows[:, -2] == 0
        cost = np.zeros(table.shape[1] - 1)
        cost[-1] = 1.0
        lower, upper = self._column_bounds(0.0)
        upper[: links.phases] = late[:-1] / self._unit_s
        upper[-1] = np.inf
        x = self._minimise([self._rows[free], table], cost, (lower, upper)).x
        if x is None:
            raise PlacementError("the congestion program lost its own solution")
        return x[links.phases : -1]

    def _over_classes(self, least: float) -> _Solution:
        """Return the least bound over the classes that the fullest GPU may sit in."""
        anywhere = self._solve(least, None)
        if anywhere.fullest >= least:
            return anywhere
        solved: set[int] = set()
        while True:
            costs = [
                self._known[at].bound_s if at in self._known else anywhere.bound_s
                for at in range(self.links.classes)
            ]
            at = int(np.argmin(costs))
            if at in solved:
                return self._known[at]
            self._known[at] = self._solve(least, at)
            solved.add(at)

    def _row(
        self,
        phase: NDArray[np.int64],
        *,
        loads: NDArray[np.float64] | None = None,
        server: NDArray[np.float64] | None = None,
        right: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Return rows ``loads + server - time <= right``, the right side in the last column."""
        links = self.links
        out = np.zeros((len(phase), links.phases + links.classes + 2))
        out[np.arange(len(phase)), phase] = -1.0
        for at, part in (
            (slice(links.phases, -2), loads),
            (-2, server),
            (-1, right),
        ):
            if part is not None:
                out[:, at] = part / self._unit_s
        return out

    def _even_rows(self, own: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Own links where load is spread evenly: in every class, and in the fullest server."""
        links = self.links
        phase, (gpu, server, all_) = links.own_phase, own.T
        rows = [
            self._row(phase, server=gpu / links.gpus_per_server + server, right=-all_),
            self._row(phase, right=-(gpu / links.gpus + server / links.servers + all_)),
        ]
        if not _whole_servers(links):
            return rows
        for at, gpus in enumerate(_gpus_of_class(links)):
            loads = np.zeros((len(phase), links.classes))
            loads[:, at] = gpu / gpus + server * links.gpus_per_server / gpus
            rows.append(self._row(phase, loads=loads, right=-all_))
        return rows

    def _hot_rows(self, least: float, at: int | None) -> list[NDArray[np.float64]]:
        """Own links of the fullest GPU, and its class, which carries what its server does."""
        links = self.links
        none = np.zeros(1, dtype=np.int64)
        rows = []
        if not self.fabric_only:
            gpu, server, all_ = _strongest(links).T
            grows = gpu > 0
            right = -(gpu * least + all_)[grows]
            rows.append(self._row(links.own_phase[grows], server=server[grows], right=right))
        if at is not None:
            inside = self._row(none) * 0
            inside[0, links.phases + at] = -1.0
            inside[0, -2 if _whole_servers(links) else -1] = (
                1.0 if _whole_servers(links) else -least
            )
            rows.append(inside)
        return rows

    def _column_bounds(self, least: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of the times, the classes' loads and the fullest GPU's server's load."""
        links = self.links
        servers_of_class = _servers_of_class(links)
        lower, upper = np.zeros((2, self._rows.shape[1] - 1))
        upper[: links.phases] = _LATEST
        upper[links.phases : -1] = np.minimum(servers_of_class * self.server_cap, 1.0)
        lower[-1], upper[-1] = least, max(min(self.server_cap, 1.0), least)
        return lower, upper

    def _solve(self, least: float, at: int | None) -> _Solution:
        """Solve with the fullest GPU in class `at` (None: in any)."""
        cost = np.zeros(self._rows.shape[1] - 1)
        cost[: self.links.phases] = 1.0
        blocks = [self._rows, *self._hot_rows(least, at)]
        result = self._minimise(blocks, cost, self._column_bounds(least))
        if result.x is None:
            raise PlacementError(f"the congestion bound cannot be found: {result.status}")
        phases = self.links.phases
        return _Solution(
            phase_s=result.x[:phases] * self._unit_s,
            bound_s=max(result.bound, 0.0) * self._unit_s,
            fullest=float(result.x[phases:-1].max()),
        )

    def _minimise(
        self,
        blocks: list[NDArray[np.float64]],
        cost: NDArray[np.float64],
        columns: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> SolveResult:
        """Solve under the rows of `blocks`, the classes' loads summing to 1."""
        table = np.concatenate(blocks)
        total = np.zeros((1, len(cost)))
        total[0, self.links.phases : -1] = 1.0
        rows = np.append(np.full(len(table), -np.inf), 1.0), np.append(table[:, -1], 1.0)
        return solve(_program(np.concatenate([table[:, :-1], total]), cost, columns, rows))


def essential_rows(cost: NDArray[np.float64], phase: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that no other row of the phase matches or exceeds in every column.

    Of equal rows the first is kept; entries that agree to 12 digits are equal.
    """
    scale = max(float(cost.max(initial=0.0)), 1e-300)
    keyed = np.column_stack([phase, np.round(cost / scale, 12)])
    _, first = np.unique(keyed, axis=0, return_index=True)
    first = np.sort(first)
    rows = keyed[first]
    above = (rows[:, None, 1:] <= rows[None, :, 1:]).all(axis=2)
    above &= rows[:, None, 0] == rows[None, :, 0]
    np.fill_diagonal(above, val=False)
    return np.asarray(first[~above.any(axis=1)], dtype=np.int64)


def _strongest(links: LinkCost) -> NDArray[np.float64]:
    """float64 [kinds, 3]: costs of each kind's fastest link, which no GPU's link undercuts."""
    weight = np.abs(links.own_cost).sum(axis=1)
    fastest = np.argmin(weight, axis=1)
    return np.asarray(links.own_cost[np.arange(len(fastest)), :, fastest], dtype=np.float64)


def _gpus_of_class(links: LinkCost) -> NDArray[np.int64]:
    return np.bincount(links.class_of_gpu, minlength=links.classes)


def _servers_of_class(links: LinkCost) -> NDArray[np.int64]:
    """int64 [classes]: servers with a GPU in the class."""
    server = np.arange(links.gpus) // links.gpus_per_server
    pairs = np.unique(links.class_of_gpu * links.servers + server)
    return np.bincount(pairs // links.servers, minlength=links.classes)


def _whole_servers(links: LinkCost) -> bool:
    """Whether all GPUs of a server are of one class."""
    of_server = links.class_of_gpu.reshape(links.servers, -1)
    return bool((of_server == of_server[:, :1]).all())


def _program(
    matrix: NDArray[np.float64],
    cost: NDArray[np.float64],
    columns: tuple[NDArray[np.float64], NDArray[np.float64]],
    rows: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Program:
    column, row = np.nonzero(matrix.T)
    start = np.concatenate(([0], np.cumsum(np.bincount(column, minlength=len(cost)))))
    return Program(
        cost=cost,
        lower=columns[0],
        upper=columns[1],
        start=start.astype(np.int32),
        index=row.astype(np.int32),
        value=matrix[row, column],
        row_lower=rows[0],
        row_upper=rows[1],
    )
