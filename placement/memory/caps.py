"""Server caps that memory sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from placement.errors import InfeasibleError, PlacementError
from placement.memory.budget import Budget, Memory, gb, slots_per_gpu

if TYPE_CHECKING:
    from placement.problem import PlacementProblem
    from workloads import MoEModel


def memory_caps(
    problem: PlacementProblem, model: MoEModel, memory: Memory, *, redundant: int = 0
) -> PlacementProblem:
    """Return the problem with `server_slots` held to what memory has room for.

    Redundant slots come on top of the caps, so their room is set aside: `redundant` of every
    layer, spread evenly. A policy that spreads them unevenly may still overfill a GPU:
    `check_memory` tells of its placement.

    Parameters
    ----------
    redundant
        Slots of a layer beyond one per expert.

    Raises
    ------
    InfeasibleError
        If the slots do not fit; says how many bytes a GPU is short, and what would do.
    PlacementError
        If the problem is of another model, or `redundant` is negative.
    """
    if redundant < 0:
        raise PlacementError(f"memory: redundant is {redundant}; expected at least 0")
    budget = Budget(model, memory)
    budget.check_model(problem.model, (problem.layers, problem.experts), "the problem")
    room = _Room(budget, slots_per_gpu(model, memory), problem.layers, problem.gpus_per_server)
    slots = problem.experts + redundant
    if not room.fits(problem.servers, slots):
        raise InfeasibleError(_why(room, problem, redundant))
    of_server = room.of_server(problem.servers, slots)
    most = of_server - problem.layers * redundant // problem.servers
    return replace(problem, server_slots=min(problem.server_slots, most))


@dataclass(frozen=True, slots=True)
class _Room:
    """What servers of `gpus` GPUs, each with `each` slots, take of `layers` MoE layers."""

    budget: Budget
    each: int
    layers: int
    gpus: int

    def of_server(self, servers: int, slots: int) -> int:
        """Slots a server has for the MoE layers, where every layer has `slots` in all."""
        return self.gpus * (self.each - self.budget.mtp_slots(slots, servers * self.gpus))

    def fits(self, servers: int, slots: int) -> bool:
        """Whether layers of `slots` slots fit on so many servers."""
        return servers * self.of_server(servers, slots) >= self.layers * slots

    def needed(self, servers: int, slots: int) -> int:
        """Return the slots that the fullest GPU must take at least, MTP layers included."""
        gpus = servers * self.gpus
        return ceil(self.layers * slots / gpus) + self.budget.mtp_slots(slots, gpus)

    def fewest_servers(self, slots: int) -> int | None:
        """Servers that would do; None where no number does."""
        # However many GPUs there are, one holds a slot of every MTP layer.
        most = self.gpus * (self.each - self.budget.mtp_slots(1, 1))
        if most <= 0:
            return None
        servers = ceil(self.layers * slots / most)
        while not self.fits(servers, slots):
            servers += 1
        return servers

    def most_redundant(self, servers: int, experts: int, redundant: int) -> int | None:
        """Redundant slots below `redundant` that would do; None where none does."""
        fewer = range(redundant - 1, -1, -1)
        return next((r for r in fewer if self.fits(servers, experts + r)), None)


def _why(room: _Room, problem: PlacementProblem, redundant: int) -> str:
    """Say how many bytes a GPU is short, what fits, and what would do."""
    budget, memory, servers = room.budget, room.budget.memory, problem.servers
    slots, gpus = problem.experts + redundant, servers * room.gpus
    need = room.needed(servers, slots)
    short = budget.short(need)
    would = [f"GPUs of {gb(memory.gpu_bytes + short)}"]
    more = room.fewest_servers(slots)
    if more is not None:
        would.append(f"at least {more * room.gpus} GPUs")
    fewer = room.most_redundant(servers, problem.experts, redundant)
    if fewer is not None:
        would.append(f"at most {fewer} redundant slots of a layer")
    tokens = budget.tokens_beside(need)
    if memory.kv_tokens and tokens >= 0:
        would.append(f"at most {tokens} KV tokens a GPU")
    layers = f"{room.layers} MoE layers"
    if budget.mtp_slots(1, 1):
        layers += f" and {budget.mtp_slots(1, 1)} of MTP"
    return (
        f"memory too small: a GPU of {gb(memory.gpu_bytes)} is {gb(short)} ({short} bytes) short: "
        f"{budget.held()} leave room for {room.each} expert slots of {budget.slot} bytes, {need} "
        f"are needed ({layers}, {slots} slots each, on {gpus} GPUs); {' or '.join(would)} would do"
    )
