"""A placement problem that also says which server each token comes from and returns to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.attention import DataParallel
from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.attention import Attention
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaProblem:
    """One placement with replicas to be found: the replica a token takes depends on its origin.

    A server's tokens are spread evenly over its GPUs, as `DataParallel` and `Pipelined` do.

    Attributes
    ----------
    problem
        Costs, profile and shape. Redundant slots come on top of its two caps.
    server_distance
        float64 [servers, servers]: hops of the routing in force; means where it spreads over
        paths of different lengths.
    origin_share, collector_share
        float64 [layers, servers]: P(o) and P(c).
    returns_home
        Whether a token's results return to the server it came from (data-parallel attention);
        else they go to c whatever o was.
    """

    problem: PlacementProblem
    server_distance: NDArray[np.float64]
    origin_share: NDArray[np.float64]
    collector_share: NDArray[np.float64]
    returns_home: bool

    def __post_init__(self) -> None:
        """Freeze the arrays; refuse shapes and shares that contradict the problem's costs."""
        servers, shape = self.problem.servers, self.problem.cost.shape
        for name, dtype, expected in (
            ("server_distance", np.float64, (servers, servers)),
            ("origin_share", np.float64, shape),
            ("collector_share", np.float64, shape),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            if array.shape != expected or array.min() < 0:
                raise PlacementError(
                    f"{name} must be non-negative of shape {expected}, got {array.shape}"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.returns_home and not np.allclose(self.origin_share, self.collector_share):
            raise PlacementError("returns_home needs collector_share equal to origin_share")
        cost = np.stack([p @ self.trip(at) for at, p in enumerate(self.origin_share)])
        if not np.allclose(cost, self.problem.cost):
            layer, server = np.argwhere(~np.isclose(cost, self.problem.cost))[0]
            raise PlacementError(
                f"layer {layer}, server {server}: the problem's cost is "
                f"{self.problem.cost[layer, server]:g} hops, the shares and distances give "
                f"{cost[layer, server]:g}"
            )

    @classmethod
    def of(
        cls,
        problem: PlacementProblem,
        server_distance: NDArray[Any],
        attention: Attention,
    ) -> ReplicaProblem:
        """Add to `problem` the distances and the attention it was built with."""
        return cls(
            problem=problem,
            server_distance=np.asarray(server_distance, dtype=np.float64),
            origin_share=attention.origin_share(),
            collector_share=attention.collector_share(),
            returns_home=isinstance(attention, DataParallel),
        )

    def trip(self, layer: int) -> NDArray[np.float64]:
        """float64 [origins, servers]: hops from an origin to a server and on to the collector."""
        there = self.server_distance
        if self.returns_home:
            return there + there.T
        back: NDArray[np.float64] = self.collector_share[layer] @ there.T
        return there + back
