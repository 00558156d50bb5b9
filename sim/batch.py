"""Micro-batches: parts of a batch of tokens that go through the layers side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.pairs import survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.compute import StepTimes
    from sim.messages import Exchange
    from sim.pairs import Surveyed
    from workloads import RoutingTrace


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A micro-batch: its messages, and what GPUs compute for it.

    Attributes
    ----------
    exchange
        Its messages, in stages.
    times
        How long GPUs compute.
    gpu_tokens
        int64 [layers, gpus]: choices that every GPU's experts process, shared ones included.
    legs
        Stages of dispatch, then of combine, in causal order.
    lost_choices
        int64 [layers]: choices that nobody answers, for their experts' GPUs are dead; empty
        where none is.
    lost_experts
        int32 [lost experts, 2]: layer and expert.
    """

    exchange: Exchange
    times: StepTimes
    gpu_tokens: NDArray[np.int64]
    legs: tuple[Surveyed, ...]
    lost_choices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lost_experts: NDArray[np.int32] = field(
        default_factory=lambda: np.zeros((0, 2), dtype=np.int32)
    )

    @classmethod
    def of(cls, placement: Placement, sent: Exchange, times: StepTimes) -> Batch:
        """Return the micro-batch that sends `sent`."""
        tokens = sent.shared_tokens.copy()
        np.add.at(tokens, (placement.slot_layer, placement.slot_gpu), sent.slot_tokens)
        legs = (*sent.dispatch, *sent.combine)
        return cls(sent, times, tokens, tuple(survey(each, placement.gpus) for each in legs))

    def at(self, layer: int) -> Batch:
        """Return itself: a plan that is the same for every `layer`, whatever happens."""
        del layer
        return self

    def change(self, gpu: int, *, alive: bool) -> None:
        """Refuse: messages that are counted cannot change.

        Raises
        ------
        SimulationError
            Always.
        """
        what = "comes back" if alive else "dies"
        raise SimulationError(f"GPU {gpu} {what}; expected Plans, which can do with it")

    def lose(self, gpu: int, first: int, opened: int) -> None:
        """Refuse, as `change` does before it comes to this."""
        del first, opened
        self.change(gpu, alive=False)

    @property
    def dispatch_legs(self) -> int:
        """How many of the legs dispatch."""
        return len(self.exchange.dispatch)

    def durations(self) -> NDArray[np.int64]:
        """int64 [tasks, gpus]: attention and experts of every layer in turn, then the tail."""
        times = self.times
        both = np.stack((times.attention, times.experts), axis=1)
        rows: NDArray[np.int64] = np.concatenate(
            (both.reshape(-1, times.gpus), times.tail[None, :])
        )
        return rows


@dataclass(frozen=True, slots=True)
class PartAttention:
    """The attention of some tokens of a batch.

    Attributes
    ----------
    whole
        Attention of the batch.
    chosen
        int64 [tokens]: the tokens.
    batch_tokens
        Tokens of the batch.
    """

    whole: Attention
    chosen: NDArray[np.int64]
    batch_tokens: int

    @property
    def name(self) -> str:
        """How tables and files call it."""
        return self.whole.name

    def origin_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token is dispatched from."""
        return self._part(self.whole.origin_gpu(self.batch_tokens), tokens)

    def collector_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token's expert results are sent to."""
        return self._part(self.whole.collector_gpu(self.batch_tokens), tokens)

    def origin_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: that of the whole batch."""
        return self.whole.origin_share()

    def collector_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: that of the whole batch."""
        return self.whole.collector_share()

    def _part(self, of_batch: NDArray[np.int32], tokens: int) -> NDArray[np.int32]:
        return of_batch[:, self.chosen[:tokens]]


def split_batch(
    trace: RoutingTrace, attention: Attention, parts: int
) -> Iterator[tuple[RoutingTrace, Attention]]:
    """Cut a batch into `parts` of almost equal numbers of tokens, on every GPU.

    Of the n tokens that start on a GPU in layer 0, micro-batch i takes numbers
    ``ceil(i n / parts)`` to ``ceil((i + 1) n / parts) - 1``.

    Raises
    ------
    SimulationError
        If there are fewer tokens than parts, on the GPU that has most of them.
    """
    if parts == 1:
        yield trace, attention
        return
    if parts < 1:
        raise SimulationError(f"micro_batches must be 1 or more, got {parts}")
    home = attention.origin_gpu(trace.tokens)[0]
    order = np.argsort(home, kind="stable")
    count = np.bincount(home)
    if trace.tokens == 0 or count.max() < parts:
        raise SimulationError(
            f"{parts} micro-batches of at most {count.max(initial=0)} tokens a GPU; expected a "
            "token for each, so fewer micro-batches or more tokens"
        )
    number = np.empty(trace.tokens, dtype=np.int64)
    number[order] = np.arange(trace.tokens) - np.repeat(np.cumsum(count) - count, count)
    part = number * parts // count[home]
    for which in range(parts):
        chosen = np.flatnonzero(part == which)
        yield part_trace(trace, chosen), PartAttention(attention, chosen, trace.tokens)


def part_trace(trace: RoutingTrace, chosen: NDArray[np.int64]) -> RoutingTrace:
    """Return the choices of some tokens, as one sequence."""
    made: Any = type(trace)
    return made(  # type: ignore[no-any-return]
        topk=trace.topk[chosen],
        experts=trace.experts,
        seq_lens=np.array([len(chosen)], dtype=np.int32),
        source=trace.source,
    )
