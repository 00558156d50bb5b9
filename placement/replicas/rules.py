"""Which replica a token takes: rules, and what a placement costs under the rule that will run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from placement.errors import PlacementError
from placement.objective import Evaluation, imbalance
from placement.replica_parts import (
    equal_parts,
    nearest_parts,
    slots_by_expert,
    static_parts,
)
from placement.replicas.lp_rule import least_fractions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.replicas.problem import ReplicaProblem


class ReplicaRule(Protocol):
    """An object that is called with a placement and a problem and returns fractions."""

    @property
    def name(self) -> str:
        """How tables and files call the rule."""

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """float64 [origins, slots]: of what origin o sends to the slot's expert, the slot's part.

        Origins are servers; over the slots of an expert the parts sum to 1.
        """


@dataclass(frozen=True, slots=True)
class Equal:
    """Every replica takes the same part, whatever the origin."""

    name: str = "equal"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Return 1 / replicas for every slot."""
        return np.tile(equal_parts(placement), (problem.problem.servers, 1))


@dataclass(frozen=True, slots=True)
class Nearest:
    """The replicas at the fewest hops from the origin's server share its tokens equally."""

    name: str = "nearest"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Return 1 / ties for every slot of an expert that is at the least distance."""
        return nearest_parts(placement, problem.server_distance)


@dataclass(frozen=True, slots=True)
class LeastHops:
    """The fractions of fewest hops among those of the least busiest GPU (or under a cap).

    A linear program per layer; for research, no engine runs it.

    Attributes
    ----------
    cap
        Most load of a GPU over the mean, for each layer, raised to the least that any fractions
        reach; None asks for the least.
    """

    cap: tuple[float, ...] | None = None
    name: str = "lp"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Solve every layer's program."""
        part = np.empty((problem.problem.servers, len(placement.slot_layer)))
        edge = np.searchsorted(placement.slot_layer, np.arange(placement.layers + 1))
        for layer in range(placement.layers):
            mine = slice(edge[layer], edge[layer + 1])
            part[:, mine] = least_fractions(
                problem.problem.profile.load[layer],
                placement.slot_expert[mine],
                placement.slot_gpu[mine],
                problem.origin_share[layer],
                problem.trip(layer)[:, placement.slot_gpu[mine] // placement.gpus_per_server],
                cap=None if self.cap is None else self.cap[layer],
                gpus=placement.gpus,
            )
        return part


@dataclass(frozen=True, slots=True)
class SglangStatic:
    """A source rank's own GPU where it holds the expert, else one fixed replica per rank.

    The ranks without a replica of their own are dealt to the replicas in random order, as
    equally as can be. Source: SGLang's ``--ep-dispatch-algorithm static``; the law is its own,
    the random numbers are ours.

    Attributes
    ----------
    seed
        Of the random order.
    """

    seed: int = 0
    name: str = "sglang_static"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Return the part of a server's ranks that take each slot."""
        by_rank = static_parts(placement, self.seed)
        by_server: NDArray[np.float64] = by_rank.reshape(
            problem.problem.servers, -1, by_rank.shape[1]
        ).mean(axis=1)
        return by_server


@dataclass(frozen=True, slots=True)
class SglangDynamic:
    """A uniformly random replica for every token: `equal` in expectation.

    Source: SGLang's ``--ep-dispatch-algorithm dynamic``.
    """

    name: str = "sglang_dynamic"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Return what `Equal` does."""
        return Equal()(placement, problem)


@dataclass(frozen=True, slots=True)
class VllmModulo:
    """Replica number ``p mod replicas``, p the position of the choice in the rank's batch.

    We take p to be ``t * k + j`` for choice j of token t, the flattened index of vLLM's routing
    table, and an expert's replicas to be numbered by slot. So two replicas of a model with an
    even k part an expert's tokens by the rank at which they chose it. Where the profile holds
    the training tokens' choices, in order, they are counted as one batch; from loads alone
    every position is equally likely, and the rule is `equal`.
    """

    name: str = "vllm_modulo"

    def __call__(self, placement: Placement, problem: ReplicaProblem) -> NDArray[np.float64]:
        """Return the counted parts, the same for every origin."""
        choices = problem.problem.profile.choices
        part = Equal()(placement, problem)
        if choices is None:
            return part
        order, start, _ = slots_by_expert(placement)
        replicas = placement.replicas
        position = np.arange(choices[:, 0].size)
        for layer in range(placement.layers):
            chosen = choices[:, layer].ravel().astype(np.int64)
            base = start[layer * placement.experts + chosen]
            slot = order[base + position % replicas[layer, chosen]]
            taken = np.bincount(slot, minlength=len(order))
            mine = (placement.slot_layer == layer) & (
                np.bincount(chosen, minlength=placement.experts)[placement.slot_expert] > 0
            )
            total = np.bincount(chosen, minlength=placement.experts)[placement.slot_expert[mine]]
            part[:, mine] = taken[mine] / total
        return part


RULES: dict[str, Callable[[], ReplicaRule]] = {
    "equal": Equal,
    "nearest": Nearest,
    "lp": LeastHops,
    "sglang_static": SglangStatic,
    "sglang_dynamic": SglangDynamic,
    "vllm_modulo": VllmModulo,
}
"""The rules by name."""


def make_rule(name: str) -> ReplicaRule:
    """Return the rule called `name`.

    Raises
    ------
    PlacementError
        If there is none; the message lists those there are.
    """
    if name not in RULES:
        raise PlacementError(f"unknown replica rule '{name}'; allowed: {', '.join(RULES)}")
    return RULES[name]()


def replica_flows(
    placement: Placement, problem: ReplicaProblem, rule: ReplicaRule
) -> NDArray[np.float64]:
    """float64 [origins, slots]: part of a layer's choices that go from an origin to a slot.

    Over the origins and slots of a layer they sum to 1.

    Raises
    ------
    PlacementError
        If placement and problem differ in shape.
    """
    base = problem.problem
    for what, have, want in (
        ("MoE layers", placement.layers, base.layers),
        ("experts", placement.experts, base.experts),
        ("servers", placement.servers, base.servers),
        ("GPUs a server", placement.gpus_per_server, base.gpus_per_server),
    ):
        if have != want:
            raise PlacementError(f"the placement has {have} {what}, the problem {want}")
    load = base.profile.load[placement.slot_layer, placement.slot_expert]
    origin = problem.origin_share[placement.slot_layer].T
    return np.asarray(rule(placement, problem) * origin * load)


def gpu_load(placement: Placement, flows: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [layers, GPUs]: part of a layer's choices that every GPU serves."""
    flat = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    heat = np.bincount(flat, flows.sum(axis=0), placement.layers * placement.gpus)
    return np.asarray(heat, dtype=np.float64).reshape(placement.layers, placement.gpus)


def layer_hops(
    placement: Placement, problem: ReplicaProblem, flows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64 [layers]: hops of a token, all k choices, dispatch and combine."""
    server = placement.slot_gpu // placement.gpus_per_server
    hops = np.zeros(placement.layers)
    for layer in range(placement.layers):
        mine = placement.slot_layer == layer
        hops[layer] = (flows[:, mine] * problem.trip(layer)[:, server[mine]]).sum()
    return problem.problem.top_k * hops


def evaluate_replicas(
    placement: Placement, problem: ReplicaProblem, rule: ReplicaRule
) -> Evaluation:
    """Price a placement under the rule that will run; independent of any policy's own count.

    Raises
    ------
    PlacementError
        If placement and problem differ in shape.
    """
    flows = replica_flows(placement, problem, rule)
    heat = gpu_load(placement, flows)
    return Evaluation(
        hops_per_token_layer=float(layer_hops(placement, problem, flows).mean()),
        balance_server=imbalance(heat.reshape(placement.layers, placement.servers, -1).sum(axis=2)),
        balance_gpu=imbalance(heat),
        balancedness=float(np.mean(heat.mean(axis=1) / heat.max(axis=1))),
    )
