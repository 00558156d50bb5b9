"""What a token sends, which replica answers it and who serves shared experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import numpy as np

from placement.replica_parts import equal_parts
from sim.errors import SimulationError
from sim.messages.living import dead_mask, stand_ins
from sim.messages.sizes import check_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from placement import Placement
    from sim.messages.sizes import DispatchMode

ReplicaRule = Literal["equal", "nearest", "lp", "sglang_static", "sglang_dynamic", "vllm_modulo"]
"""Which replica of an expert a token takes; see `sim.messages.replicas`."""

REPLICA_RULES: tuple[str, ...] = get_args(ReplicaRule)

SharedMode = Literal["replicated", "routed"]
"""Shared experts on every GPU, without traffic; or one more choice of every token."""


class DispatchOptions(TypedDict, total=False):
    """Keywords of `DispatchRules`."""

    mode: DispatchMode
    replica_rule: str
    server_distance: NDArray[np.integer] | None
    parts: NDArray[np.float64] | None
    shared: SharedMode
    shared_experts: int
    shared_gpus: Sequence[int] | None
    seed: int
    dead_gpus: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class DispatchRules:
    """How an engine dispatches.

    Attributes
    ----------
    mode
        What a token sends.
    replica_rule
        One of `REPLICA_RULES`.
    server_distance
        int [servers, servers]: hops; ``nearest`` needs them where experts have replicas.
    parts
        float64 [servers, slots]: of what a server sends to the slot's expert, the slot's part;
        ``lp`` needs them where experts have replicas. `placement.replicas.rules.LeastHops`
        returns them, and so may any rule of a user's own.
    shared, shared_experts
        With ``routed``, every token takes so many choices more in every layer, as DeepSeek-V3
        serves decode (arXiv 2412.19437, 3.4.2: the shared expert is a routed one that every
        token selects). Their copies sit beside the placement, which has no slots for them, and
        are answered under the same replica rule (under ``lp`` equally).
    shared_gpus
        GPUs that hold a copy of every shared expert, in all layers. By default one GPU of every
        server, the next one in the next layer and for the next shared expert.
    seed
        Of where turns start and of random choices.
    dead_gpus
        GPUs that neither answer nor forward: the next living GPU of their server takes their
        place in forwarding, and choices of experts that they alone hold are lost.
    """

    mode: DispatchMode = "per_expert"
    replica_rule: str = "equal"
    server_distance: NDArray[np.integer] | None = None
    parts: NDArray[np.float64] | None = None
    shared: SharedMode = "replicated"
    shared_experts: int = 0
    shared_gpus: Sequence[int] | None = None
    seed: int = 0
    dead_gpus: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Refuse names and numbers that mean nothing."""
        check_mode(self.mode)
        for what, name, allowed in (
            ("replica rule", self.replica_rule, REPLICA_RULES),
            ("way to serve shared experts", self.shared, get_args(SharedMode)),
        ):
            if name not in allowed:
                raise SimulationError(f"unknown {what} {name!r}; allowed: {', '.join(allowed)}")
        if self.shared_experts < 0 or self.seed < 0:
            raise SimulationError(
                f"shared_experts and seed must be 0 or more, got {self.shared_experts} and "
                f"{self.seed}"
            )
        if self.shared == "routed" and not self.shared_experts:
            raise SimulationError(
                "shared experts are to be routed, and shared_experts is 0; expected 1 or more, "
                "or shared 'replicated'"
            )

    @property
    def routed_shared(self) -> int:
        """Choices that shared experts add to every token and layer."""
        return self.shared_experts if self.shared == "routed" else 0

    def with_shared(self, placement: Placement) -> Placement:
        """Return the placement with routed shared experts in slots, numbered after the others."""
        more = self.routed_shared
        if not more:
            return placement
        layer, expert = np.divmod(np.arange(placement.layers * more), more)
        gpu = self._shared_gpus(placement, layer + expert)
        copies = gpu.shape[1]
        return replace(
            placement,
            experts=placement.experts + more,
            slot_layer=np.append(placement.slot_layer, np.repeat(layer, copies)),
            slot_gpu=np.append(placement.slot_gpu, gpu),
            slot_expert=np.append(
                placement.slot_expert, np.repeat(expert, copies) + placement.experts
            ),
        )

    def _shared_gpus(self, placement: Placement, turn: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [turns, copies]: the GPUs of every layer and shared expert."""
        dead = dead_mask(placement.gpus, self.dead_gpus)
        if self.shared_gpus is None:
            width = placement.gpus_per_server
            first = np.flatnonzero(~dead.reshape(-1, width).all(axis=1)) * width
            turns: NDArray[np.int64] = stand_ins(dead, width)[first + turn[:, None] % width]
            return turns
        gpus = np.asarray(self.shared_gpus, dtype=np.int64)
        good = gpus.ndim == 1 and len(gpus) and len(np.unique(gpus)) == len(gpus)
        if not good or gpus.min() < 0 or gpus.max() >= placement.gpus:
            raise SimulationError(
                f"shared_gpus {gpus.tolist()}: expected distinct GPUs of 0..{placement.gpus - 1}, "
                "at least one"
            )
        gpus = gpus[~dead[gpus]]
        if not len(gpus):
            raise SimulationError(
                f"shared experts: all of shared_gpus {self.shared_gpus} are dead; expected a "
                "copy on another GPU"
            )
        return np.broadcast_to(gpus, (len(turn), len(gpus)))

    def parts_with_shared(self, placement: Placement, whole: Placement) -> NDArray[np.float64]:
        """float64 [servers, slots of `whole`]: `parts`, shared experts' copies taken equally.

        Raises
        ------
        SimulationError
            If there are none, or they do not fit the placement, or an expert's do not sum to 1.
        """
        shape = (placement.servers, len(placement.slot_layer))
        if self.parts is None:
            raise SimulationError(
                "replica rule 'lp' needs parts [servers, slots], what a LeastHops rule returns "
                "for the placement and its problem"
            )
        if self.parts.shape != shape or not (self.parts >= 0).all():
            raise SimulationError(
                f"parts have shape {self.parts.shape}; expected {shape} (servers, slots), each 0 "
                "or more"
            )
        flat = placement.slot_layer.astype(np.int64) * placement.experts + placement.slot_expert
        size = placement.layers * placement.experts
        for server, row in enumerate(self.parts):
            total = np.bincount(flat, row, size)
            wrong = np.flatnonzero(np.abs(total - 1) > 1e-6)
            if wrong.size:
                layer, expert = divmod(int(wrong[0]), placement.experts)
                raise SimulationError(
                    f"parts of server {server}, layer {layer}, expert {expert} sum to "
                    f"{total[wrong[0]]:g}, expected 1"
                )
        parts = np.tile(equal_parts(whole), (placement.servers, 1))
        parts[:, whole.slot_expert < placement.experts] = self.parts
        return parts
