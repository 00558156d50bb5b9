"""From choices, a placement and an attention to everything that GPUs send each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from sim.errors import SimulationError
from sim.messages.counts import check_fit
from sim.messages.replay import Replay
from sim.messages.rules import DispatchOptions, DispatchRules

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.messages.sizes import MessageSizes
    from sim.messages.traffic import Traffic
    from workloads import RoutingTrace


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """All messages of a batch, and what they are for.

    A GPU sends a stage when it has all of the stage before. Rows of equal source and
    destination cross no link: the token stays where it is.

    Attributes
    ----------
    dispatch, combine
        Stages in causal order; the last of `dispatch` ends on the experts' GPUs, the last of
        `combine` on the collectors. One stage each, but two for ``per_server`` and
        ``allgather``: across servers to the GPU of the same index, then inside the server, and
        back the same way.
    slot_tokens
        int64 [slots], aligned with the placement's: choices that every slot answers.
    shared_tokens
        int64 [layers, gpus]: choices of routed shared experts that every GPU answers.
    distinct
        int64 [layers, 2]: distinct GPUs and servers that answer a token in a layer, summed over
        tokens.
    origin_tokens
        int64 [layers, gpus]: tokens that start on a GPU.
    """

    dispatch: tuple[Traffic, ...]
    combine: tuple[Traffic, ...]
    slot_tokens: NDArray[np.int64]
    shared_tokens: NDArray[np.int64]
    distinct: NDArray[np.int64]
    origin_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.slot_tokens, self.shared_tokens, self.distinct, self.origin_tokens):
            array.setflags(write=False)

    @property
    def distinct_gpus(self) -> int:
        """Distinct GPUs that answer a token in a layer, summed over tokens and layers."""
        return int(self.distinct[:, 0].sum())

    @property
    def distinct_servers(self) -> int:
        """Distinct servers that answer a token in a layer, summed over tokens and layers."""
        return int(self.distinct[:, 1].sum())


def exchange(
    trace: RoutingTrace,
    placement: Placement,
    attention: Attention,
    *,
    sizes: MessageSizes,
    **options: Unpack[DispatchOptions],
) -> Exchange:
    """Count the messages of a batch.

    Dispatch sends a token's hidden state from its origin to the GPUs of its choices: a message
    per choice (``per_expert``), per distinct GPU (``per_gpu``), per distinct server to the GPU
    of the origin's index there and from it one per distinct GPU (``per_server``), or to all GPUs
    (``allgather``). Combine sends a message back for each, to the token's collector; under
    ``per_server`` through the GPU of the collector's index on the experts' server.

    Parameters
    ----------
    trace
        Choices of every token, in the router's order.
    placement
        One slot or more per expert.
    attention
        Origin and collector of every token and layer. Ranks that hold the same tokens take
        turns in sending them (`DataParallel.tp`).
    sizes
        Bytes of the messages.
    options
        Keywords of `DispatchRules`.

    Raises
    ------
    SimulationError
        If the parts do not fit together, or an option is unknown or lacks what it needs.
    """
    check_fit(trace, placement)
    replay = Replay(placement, attention, DispatchRules(**options))
    replay.add(trace.topk)
    return _result(replay, sizes)


def stream_exchange(
    chunks: Iterable[NDArray[Any]],
    placement: Placement,
    attention: Attention,
    *,
    sizes: MessageSizes,
    **options: Unpack[DispatchOptions],
) -> Exchange:
    """Count the messages of many batches, one after the other, in memory for one.

    Every chunk is a batch of its own: attention numbers its tokens from 0. Turns and random
    numbers of the replica rules go on from chunk to chunk.

    Parameters
    ----------
    chunks
        Integer ids [tokens, layers, k], such as `workloads.readers.read_chunks` yields.
    placement, attention, sizes, options
        As for `exchange`.

    Raises
    ------
    SimulationError
        As `exchange`; or there is no chunk, or a chunk is none of this placement's.
    """
    replay = Replay(placement, attention, DispatchRules(**options))
    for chunk in chunks:
        _check_chunk(chunk, placement, replay.tokens)
        replay.add(chunk)
    if not replay.tokens:
        raise SimulationError("the trace has no tokens")
    return _result(replay, sizes)


def _check_chunk(chunk: NDArray[Any], placement: Placement, before: int) -> None:
    """Refuse choices that no trace of this placement's model has."""
    from sim.messages._message_kernel import find_bad_choice  # noqa: PLC0415  loads numba

    shape = chunk.shape
    if chunk.dtype.kind not in "iu" or len(shape) != 3 or shape[1] != placement.layers:
        raise SimulationError(
            f"chunk at token {before}: {chunk.dtype} {shape}, expected integer ids (tokens, "
            f"{placement.layers} MoE layers, choices)"
        )
    bad = find_bad_choice(chunk, placement.experts)
    if bad >= 0:
        raise SimulationError(
            f"token {before + bad}: expected distinct experts of 0..{placement.experts - 1} in "
            f"every layer, got {chunk[bad].tolist()}"
        )


def _result(replay: Replay, sizes: MessageSizes) -> Exchange:
    dispatch, combine = replay.stages(sizes)
    slot_tokens, shared_tokens = replay.answered()
    return Exchange(
        dispatch=dispatch,
        combine=combine,
        slot_tokens=slot_tokens,
        shared_tokens=shared_tokens,
        distinct=replay.distinct,
        origin_tokens=replay.origin_tokens,
    )


def per_expert(
    trace: RoutingTrace, placement: Placement, attention: Attention, sizes: MessageSizes
) -> tuple[Traffic, Traffic]:
    """Send one message per token and expert: from its origin, and back to its collector.

    Returns
    -------
    Traffic, Traffic
        Dispatch and combine of `exchange` under its defaults.
    """
    both = exchange(trace, placement, attention, sizes=sizes)
    return both.dispatch[0], both.combine[0]
