"""Which replica every choice of a token takes.

One mechanism for all rules: a table of parts, by origin and slot, and a number in 0..1 for every
choice that picks from it.

- ``equal``, ``nearest``, ``lp``: systematic sampling. The numbers of an expert (and of an origin
  server, where parts depend on it) step on by the golden ratio from a start of their own, so
  that every replica takes its part of n choices to within O(log n) whatever the parts, and of
  every regular subset of the choices too: plain turns would tie a replica to the parity of the
  origin where an expert is in every token. The start is random: a single token is unbiased.
- ``sglang_dynamic``: a random number hashed from token, choice and layer.
- ``sglang_static``: parts are 0 or 1 for each rank; nothing is drawn.
- ``vllm_modulo``: replica ``p mod replicas`` for place p of the choice in its rank's batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.replica_parts import equal_parts, nearest_parts, slots_by_expert, static_parts
from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Placement
    from sim.messages._message_kernel import Replicas
    from sim.messages.rules import DispatchRules

CELLS = 16
"""Guesses of where a number falls, per origin and expert; 256 kB for a layer of R1, 32 servers."""


def layer_replicas(placement: Placement, whole: Placement, rules: DispatchRules) -> list[Replicas]:
    """Return the replicas of every layer, and how they are drawn.

    Parameters
    ----------
    placement
        As given.
    whole
        With slots for routed shared experts.
    rules
        Replica rule and what it needs.
    """
    from sim.messages._message_kernel import (  # noqa: PLC0415  loads numba
        FIXED,
        TURN,
        Replicas,
        add_up_parts,
        guess_entries,
    )

    _check_guesses(whole)

    parts, draw = _parts(placement, whole, rules)
    row_of_gpu = _row_of_gpu(len(parts), whole)
    order, start, _ = slots_by_expert(whole)
    start = np.append(start, len(order)).astype(np.int64)
    rng = np.random.Generator(np.random.PCG64(rules.seed))
    salt = rng.integers(0, 1 << 64, whole.layers, np.uint64)
    turns = len(parts) if draw == TURN else 1  # nobody else reads them
    phase = rng.integers(0, 1 << 64, (whole.layers, turns, whole.experts), np.uint64)
    layers = []
    for layer in range(whole.layers):
        mine = start[layer * whole.experts : (layer + 1) * whole.experts + 1]
        slots, mine = order[mine[0] : mine[-1]], mine - mine[0]
        reach = add_up_parts(parts[:, slots], mine)
        layers.append(
            Replicas(
                start=mine,
                gpu=whole.slot_gpu[slots],
                row_of_gpu=row_of_gpu,
                reach=reach,
                guess=guess_entries(reach, mine, 1 if draw == FIXED else CELLS),
                phase=phase[layer],
                draw=draw,
                salt=salt[layer],
            )
        )
    return layers


def _check_guesses(placement: Placement) -> None:
    most = int(placement.replicas.max())
    if most > np.iinfo(np.uint16).max:
        raise SimulationError(f"an expert has {most} replicas; expected at most 65535")


def _parts(
    placement: Placement, whole: Placement, rules: DispatchRules
) -> tuple[NDArray[np.float64], int]:
    """Return parts [rows, slots], rows being all GPUs, servers or one for all; and the draw."""
    from sim.messages._message_kernel import FIXED, HASH, POSITION, TURN  # noqa: PLC0415  numba

    rule, equal = rules.replica_rule, equal_parts(whole)[None]
    if not whole.redundant:
        return equal, FIXED
    if rule == "nearest":
        return nearest_parts(whole, _distance(placement, rules)), TURN
    if rule == "lp":
        return rules.parts_with_shared(placement, whole), TURN
    if rule == "sglang_static":
        return static_parts(whole, rules.seed), FIXED
    return equal, {"equal": TURN, "sglang_dynamic": HASH, "vllm_modulo": POSITION}[rule]


def _distance(placement: Placement, rules: DispatchRules) -> NDArray[np.integer]:
    distance, shape = rules.server_distance, (placement.servers, placement.servers)
    if distance is None or distance.shape != shape:
        found = "none" if distance is None else f"shape {distance.shape}"
        raise SimulationError(
            f"replica rule 'nearest' needs server_distance of shape {shape}, got {found}"
        )
    return distance


def _row_of_gpu(rows: int, placement: Placement) -> NDArray[np.int32]:
    """int32 [gpus]: the row of parts that a GPU's tokens read."""
    gpu = np.arange(placement.gpus, dtype=np.int32)
    if rows == 1:
        return np.zeros_like(gpu)
    return gpu if rows == placement.gpus else gpu // np.int32(placement.gpus_per_server)
