"""Is a new placement worth the move: slots and bytes to be moved, what they gain, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement

NOTHING = 1e-9
"""Relative gains below this are rounding."""

ERRORS = 2.0
"""Standard errors within which a gain of a replayed batch may be the batch's own luck."""


FEWEST_LAYERS = 10
"""Fewest layers from whose savings a scatter is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """Expert weights to be copied, one entry per slot that gets another expert.

    Attributes
    ----------
    layer, expert
        int32 [transfers].
    src, dst
        int64 [transfers]: the GPU that holds the expert and the one that gets it.
    slots
        All slots of the new placement.
    """

    layer: NDArray[np.int32]
    expert: NDArray[np.int32]
    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    slots: int

    def __len__(self) -> int:
        """Slots that move."""
        return len(self.src)


def transfers(old: Placement, new: Placement, *, server_distance: NDArray[np.integer]) -> Transfers:
    """List the slots whose expert their GPU does not hold yet, each from its nearest holder.

    Of holders equally near, the next by GPU number (in a ring) sends, so that one holder does
    not serve everybody.

    Parameters
    ----------
    old, new
        Placements of one model on one cluster; replicas are allowed.
    server_distance
        int [servers, servers]: hops between servers.

    Raises
    ------
    PlacementError
        If the placements differ in model or shape, or the distances are of another cluster.
    """
    for what in ("model", "layers", "experts", "gpus", "gpus_per_server"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            raise PlacementError(
                f"the old placement has {what.replace('_', ' ')} {before!r}, the new one "
                f"{after!r}; expected the same"
            )
    if len(server_distance) != old.servers:
        raise PlacementError(
            f"the placements have {old.servers} servers, the cluster {len(server_distance)}"
        )
    held, wanted = _cells(old), np.unique(_cells(new))
    moved = wanted[~np.isin(wanted, held)]
    identity, dst = np.divmod(moved, old.gpus)

    # All holders of every moved expert, then the first by (distance, way round the ring).
    holder_identity, holder_gpu = np.divmod(np.sort(held), old.gpus)
    first = np.searchsorted(holder_identity, identity)
    count = np.searchsorted(holder_identity, identity, side="right") - first
    move = np.repeat(np.arange(len(moved)), count)
    nth = np.arange(len(move)) - np.repeat(np.cumsum(count) - count, count)
    src = holder_gpu[first[move] + nth]
    size = old.gpus_per_server
    hops = np.asarray(server_distance)[src // size, dst[move] // size]
    order = np.lexsort(((src - dst[move]) % old.gpus, hops, src // size != dst[move] // size, move))
    nearest = src[order[np.cumsum(count) - count]]
    layer, expert = np.divmod(identity, old.experts)
    return Transfers(
        layer=layer.astype(np.int32),
        expert=expert.astype(np.int32),
        src=nearest,
        dst=dst,
        slots=len(new.slot_layer),
    )


@dataclass(frozen=True, slots=True)
class StepFigures:
    """A step under one placement: as the profile expects it, and replayed.

    Attributes
    ----------
    expected_hops, profile_balance_gpu
        Hops per token and layer, and load of the busiest GPU over the mean (mean over layers), as
        the profile expects them.
    hops_per_token_layer, byte_hops
        Replayed: links crossed per token and layer, and bytes times links of the step.
    balance_server, balance_gpu
        Replayed: load of the busiest server or GPU over the mean, mean over layers.
    gpus_per_token_layer, servers_per_token_layer
        Replayed: distinct destinations of a token.
    busiest_s
        Seconds of every layer's busiest link, dispatch and combine, summed over the step.
    step_s
        Seconds of the step.
    """

    expected_hops: float
    profile_balance_gpu: float
    hops_per_token_layer: float
    byte_hops: float
    balance_server: float
    balance_gpu: float
    gpus_per_token_layer: float
    servers_per_token_layer: float
    busiest_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Worth:
    """What moving from one placement to another costs and gains.

    Attributes
    ----------
    slots, moved_slots, moved_inside
        Slots of the new placement; those that get another expert; those of them that find it on
        another GPU of their own server.
    moved_bytes, moving_s
        Bytes of their weights, and seconds to move them over the links.
    old, new
        The same step under both placements.
    step_tokens
        Its tokens.
    scatter_s
        Standard error of the seconds saved, from how the saving differs between layers; 0 where
        it is not known.
    """

    slots: int
    moved_slots: int
    moved_inside: int
    moved_bytes: int
    moving_s: float
    old: StepFigures
    new: StepFigures
    step_tokens: int
    scatter_s: float = 0.0

    @property
    def hops_gain(self) -> float:
        """Share of the expected hops that the new placement saves."""
        return _gain(self.old.expected_hops, self.new.expected_hops)

    @property
    def step_gain(self) -> float:
        """Share of the step time that the new placement saves."""
        return _gain(self.old.step_s, self.new.step_s)

    @property
    def by_chance(self) -> bool:
        """Whether other tokens may well turn the step's gain, or loss, into its opposite.

        The profile promises nothing on hops or balance, and what the replayed batch shows is
        within its scatter.
        """
        old, new = self.old, self.new
        promised = max(self.hops_gain, _gain(old.profile_balance_gpu, new.profile_balance_gpu))
        return promised <= 0 and 0 < abs(self.step_gain) * old.step_s <= ERRORS * self.scatter_s

    @property
    def gained_s_per_token(self) -> float:
        """Seconds saved per token of the step; negative where the new placement is slower."""
        return self.step_gain * self.old.step_s / self.step_tokens

    @property
    def break_even_tokens(self) -> float | None:
        """Tokens until the moving time is earned back; None is never."""
        gained = self.gained_s_per_token
        if self.moved_slots == 0 or gained <= 0 or self.by_chance:
            return None
        return self.moving_s / gained

    @property
    def verdict(self) -> str:
        """One line for people."""
        if self.moved_slots == 0:
            same = "both placements put the same experts on the same GPUs"
            return f"nothing moves, {same}: 0 % to gain, leave it"
        tokens = self.break_even_tokens
        if tokens is not None:
            steps = tokens / self.step_tokens
            return f"worth it after {tokens:,.0f} tokens ({steps:,.1f} steps of this batch)"
        if self.by_chance:
            share = 100 / self.old.step_s
            return (
                f"never: 0 % to gain, leave it; the step's {100 * self.step_gain:+.2g} % are "
                f"within the scatter of this batch (standard error {share * self.scatter_s:.2g} "
                "%), and the profile promises nothing"
            )
        if self.step_gain == 0:
            return "never: 0 % to gain, leave it"
        return f"never: the step gets {-100 * self.step_gain:.2g} % longer, leave it"


def worth(
    moves: Transfers,
    *,
    gpus_per_server: int,
    bytes_per_slot: int,
    moving_s: float,
    steps: tuple[StepFigures, StepFigures],
    step_tokens: int,
    scatter_s: float = 0.0,
) -> Worth:
    """Weigh a move from its transfers, their time, and a step under both placements.

    Parameters
    ----------
    moves
        What moves.
    gpus_per_server, bytes_per_slot
        Of the cluster and of the model.
    moving_s
        Seconds that all transfers take together.
    steps, step_tokens
        The same tokens under the old and under the new placement, and how many.
    scatter_s
        Standard error of the seconds saved, see `saving_error`; 0 where it is not known.

    Raises
    ------
    PlacementError
        If the step has no tokens.
    """
    if step_tokens < 1:
        raise PlacementError(f"the step has {step_tokens} tokens; expected at least 1")
    inside = moves.src // gpus_per_server == moves.dst // gpus_per_server
    return Worth(
        slots=moves.slots,
        moved_slots=len(moves),
        moved_inside=int(inside.sum()),
        moved_bytes=len(moves) * bytes_per_slot,
        moving_s=moving_s,
        old=steps[0],
        new=steps[1],
        step_tokens=step_tokens,
        scatter_s=scatter_s,
    )


def saving_error(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Return the standard error of the seconds saved over layers of the same batch.

    Layers route independently of each other, or nearly, so their savings are that many draws.

    Parameters
    ----------
    old, new
        float64 [layers]: seconds of the layers that changed, under both placements.

    Returns
    -------
    float
        sqrt(n) times the standard deviation of the savings; 0 below `FEWEST_LAYERS`, too few to
        tell.
    """
    if len(old) < FEWEST_LAYERS:
        return 0.0
    return float(np.sqrt(len(old)) * np.std(old - new, ddof=1))


def _cells(placement: Placement) -> NDArray[np.int64]:
    """int64 [slots]: (layer, expert, GPU) of every slot as one number."""
    identity = placement.slot_layer.astype(np.int64) * placement.experts + placement.slot_expert
    return identity * placement.gpus + placement.slot_gpu


def _gain(before: float, after: float) -> float:
    """Saved share; rounding is no gain."""
    if before <= 0:
        return 0.0
    gain = (before - after) / before
    return 0.0 if abs(gain) <= NOTHING else gain
