"""The hop problem as a flow over prefixes of the sorted loads.

Within a layer an optimal placement puts the hottest experts in the cheapest tiers (a *tier* is
a set of servers of equal cost in that layer). So only the number ``N[l, t]`` of experts in
tiers up to t counts, and the cost

    sum_t (c[t] - c[t+1]) F(N[t]) + c[T] F(E),    F the prefix sums of the sorted loads,

is convex in N. Cut into unit steps of cost ``-(c[t+1] - c[t]) f_(j)`` it is a flow along one
path per layer, joined by the servers' capacities: its linear relaxation has integral vertices.
Steps of experts of equal load are one column of as many units.
Servers with the same cost in every layer are one *class* of manifold capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.highs import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tiers:
    """Servers sorted by cost, layer by layer, equal servers merged.

    Attributes
    ----------
    class_of_server
        int64 [servers].
    class_size
        int64 [classes]: servers merged in each class.
    tier_of_class
        int64 [layers, classes]: 0 is the cheapest tier of a layer.
    tier_cost
        One ascending float64 [tiers of the layer] per layer.
    """

    class_of_server: NDArray[np.int64]
    class_size: NDArray[np.int64]
    tier_of_class: NDArray[np.int64]
    tier_cost: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, cost: NDArray[np.float64]) -> Tiers:
        """Find the tiers and classes of a cost array [layers, servers].

        Costs that agree to 12 digits are equal: what differs beyond is rounding of the shares.
        """
        scale = max(float(np.abs(cost).max()), 1e-300)
        cost = np.round(cost / scale, 12) * scale
        columns, class_of_server, size = np.unique(
            cost, axis=1, return_inverse=True, return_counts=True
        )
        tiers = [np.unique(row, return_inverse=True) for row in columns]
        return cls(
            class_of_server=class_of_server.reshape(-1),
            class_size=size,
            tier_of_class=np.array([inverse.reshape(-1) for _, inverse in tiers]),
            tier_cost=tuple(values for values, _ in tiers),
        )

    @property
    def tier_of_server(self) -> NDArray[np.int64]:
        """int64 [layers, servers]."""
        return self.tier_of_class[:, self.class_of_server]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixFlow:
    """The flow as a `Program`, and the way back to expert counts.

    Its first ``layers * classes`` columns are the numbers of experts of a layer on a class.
    `constant` is to be added to the program's cost.
    """

    program: Program
    constant: float
    layers: int
    classes: int

    def counts(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64 [layers, classes]: experts of a layer on a class, from a vertex `x`."""
        return np.rint(x[: self.layers * self.classes]).astype(np.int64).reshape(self.layers, -1)


def prefix_flow(
    weights: NDArray[np.float64], tiers: Tiers, *, layer_slots: int, server_slots: int
) -> PrefixFlow:
    """Build the flow for experts of the given weights.

    Parameters
    ----------
    weights
        float64 [layers, experts]: each layer sorted, heaviest first.
    tiers
        Costs of the servers.
    layer_slots, server_slots
        C_layer and C_exp.
    """
    layers, experts = weights.shape
    classes = len(tiers.class_size)
    counts = np.array([len(cost) for cost in tiers.tier_cost])
    first_row = np.concatenate(([0], np.cumsum(counts)))
    class_row = int(first_row[-1])

    # Columns y[l, class]: one experts' slot enters its tier's row and its class's capacity row.
    y_rows = np.stack(
        (
            first_row[:-1, None] + tiers.tier_of_class,
            np.broadcast_to(class_row + np.arange(classes), (layers, classes)),
        ),
        axis=-1,
    ).reshape(-1, 2)
    y_upper = np.tile(np.minimum(tiers.class_size * layer_slots, experts), layers)

    steps = [_steps(weights[at], tiers, at, layer_slots) for at in range(layers)]
    z_row = np.concatenate([first_row[at] + step.tier for at, step in enumerate(steps)])
    z_cost = np.concatenate([step.cost for step in steps])
    z_upper = np.concatenate([step.units for step in steps]).astype(np.float64)
    demand = np.concatenate([step.demand for step in steps])

    columns = len(y_rows) + len(z_row)
    program = Program(
        cost=np.concatenate((np.zeros(len(y_rows)), z_cost)),
        lower=np.zeros(columns),
        upper=np.concatenate((y_upper.astype(np.float64), z_upper)),
        start=np.arange(0, 2 * columns + 1, 2, dtype=np.int32),
        index=np.concatenate((y_rows.ravel(), np.stack((z_row, z_row + 1), 1).ravel())).astype(
            np.int32
        ),
        value=np.concatenate((np.ones(2 * len(y_rows)), np.tile((-1.0, 1.0), len(z_row)))),
        row_lower=np.concatenate((demand, np.full(classes, 0.0))),
        row_upper=np.concatenate((demand, tiers.class_size * float(server_slots))),
    )
    constant = sum(step.constant for step in steps)
    return PrefixFlow(program=program, constant=constant, layers=layers, classes=classes)


@dataclass(frozen=True, slots=True, eq=False)
class _LayerSteps:
    """Steps of one layer's prefix sizes that the caps leave free, `units` experts each."""

    tier: NDArray[np.int64]
    cost: NDArray[np.float64]
    units: NDArray[np.int64]
    demand: NDArray[np.float64]
    constant: float


def _steps(weight: NDArray[np.float64], tiers: Tiers, layer: int, layer_slots: int) -> _LayerSteps:
    """Cut one layer's convex cost into steps; prefix sizes the caps force are constants."""
    experts, cost = len(weight), tiers.tier_cost[layer]
    servers = np.bincount(tiers.tier_of_class[layer], weights=tiers.class_size).astype(np.int64)
    room = np.cumsum(servers * layer_slots)[:-1]
    most = np.minimum(room, experts)
    least = np.maximum(experts - (layer_slots * servers.sum() - room), 0)
    rise = np.diff(cost)

    tier = np.repeat(np.arange(len(rise)), most - least)
    # Position of every step within its tier, counted on from the forced prefix.
    offset = np.arange(len(tier)) - np.repeat(
        np.cumsum(most - least) - (most - least), most - least
    )
    rank = offset + np.repeat(least, most - least)
    first = np.ones(len(tier), dtype=bool)
    first[1:] = (tier[1:] != tier[:-1]) | (weight[rank[1:]] != weight[rank[:-1]])
    start = np.flatnonzero(first)
    prefix = np.concatenate(([0.0], np.cumsum(weight)))
    forced = np.concatenate(([0], least, [experts]))
    return _LayerSteps(
        tier=tier[start],
        cost=-(rise[tier] * weight[rank])[start],
        units=np.diff(np.append(start, len(tier))),
        demand=np.diff(forced).astype(np.float64),
        constant=float(cost[-1] * prefix[-1] - rise @ prefix[least]),
    )
