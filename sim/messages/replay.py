"""Tokens taken through a placement batch by batch, and counted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.replica_parts import slots_by_expert
from sim.errors import SimulationError
from sim.messages.gather import all_gather, reduce_scatter
from sim.messages.living import dead_mask, stand_ins, without_dead
from sim.messages.pairs import Leg, count_pairs
from sim.messages.replicas import layer_replicas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.messages._message_kernel import Reached
    from sim.messages.pairs import PairCounts
    from sim.messages.rules import DispatchRules
    from sim.messages.sizes import MessageSizes
    from sim.messages.traffic import Traffic

    Ends = tuple[NDArray[np.int32], NDArray[np.int32]]
    Stages = tuple[Traffic, ...]

BLOCK = 1 << 14
"""Tokens whose choices of a layer are worked on together: what fits the processor's cache."""


class Replay:
    """Counts of the tokens taken through so far.

    Parameters
    ----------
    placement, attention, rules
        As for `sim.messages.exchange`.
    """

    def __init__(self, placement: Placement, attention: Attention, rules: DispatchRules) -> None:
        from sim.messages._message_kernel import DIRECT, ON, OUT  # noqa: PLC0415  loads numba

        self.tokens = 0
        self.distinct = np.zeros((placement.layers, 2), np.int64)
        self.origin_tokens = np.zeros((placement.layers, placement.gpus), np.int64)
        self._collected = np.zeros_like(self.origin_tokens)
        self._placement = placement
        self._attention = attention
        gpu = np.arange(placement.gpus, dtype=np.int32)
        self._first_gpu = gpu - gpu % np.int32(placement.gpus_per_server)
        direct, out, on = (
            partial(Leg, way, first_gpu=self._first_gpu) for way in (DIRECT, OUT, ON)
        )
        self._mode = rules.mode
        self._dead = dead_mask(placement.gpus, rules.dead_gpus)
        self._shared = rules.routed_shared
        self._whole = rules.with_shared(placement)
        self._replicas = layer_replicas(placement, self._whole, rules)
        self._taken = [np.zeros(len(each.gpu), np.int64) for each in self._replicas]
        self._legs: tuple[Leg, ...] = {
            "per_expert": (direct(0),),
            "per_gpu": (direct(1),),
            "per_server": (out(2), on(1)),
            "allgather": (),
        }[rules.mode]
        self._out = [count_pairs(placement.layers, placement.gpus) for _ in self._legs]
        self._back: list[PairCounts] | None = None  # as `_out` while all results return home

    def add(self, topk: NDArray[Any]) -> None:
        """Take a batch through.

        Parameters
        ----------
        topk
            Ids [tokens, layers, k], checked.
        """
        ends = self._ends(len(topk))
        if self._back is None and not np.array_equal(*ends):
            self._back = [each.copy() for each in self._out]
        seen = np.zeros_like(self.origin_tokens)
        for first in range(0, len(topk), BLOCK):
            part = slice(first, first + BLOCK)
            # Layer by layer in memory; tokens of a layer lie far apart in a trace.
            turned = np.ascontiguousarray(topk[part].transpose(1, 0, 2))
            for layer, chosen in enumerate(turned):
                of_layer = (ends[0][layer, part].copy(), ends[1][layer, part].copy())
                self._add_block(layer, chosen, of_layer, seen[layer], self.tokens + first)
        self.tokens += len(topk)

    def stages(self, sizes: MessageSizes) -> tuple[Stages, Stages]:
        """Return the stages of dispatch and of combine."""
        out, back = sizes.dispatch_bytes, sizes.combine_bytes
        if self._mode == "allgather":
            width = self._placement.gpus_per_server
            return self._living(
                all_gather(self.origin_tokens, width, out),
                reduce_scatter(self._collected, width, back),
            )
        returning = self._out if self._back is None else self._back
        return self._living(
            tuple(each.traffic(out, outward=True) for each in self._out),
            tuple(each.traffic(back, outward=False) for each in reversed(returning)),
        )

    def _living(self, dispatch: Stages, combine: Stages) -> tuple[Stages, Stages]:
        """Let living GPUs forward in the place of dead ones."""
        if not self._dead.any() or len(dispatch) == 1:
            return dispatch, combine
        forwarder = stand_ins(self._dead, self._placement.gpus_per_server)
        # Either way messages come to the GPU that forwards in the first stage.
        first, second = (
            [
                without_dead(stages[at], forwarder, self._dead, forwards=end)
                for stages in (dispatch, combine)
            ]
            for at, end in enumerate(("dst", "src"))
        )
        return (first[0], second[0]), (first[1], second[1])

    def answered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 [slots] and [layers, gpus]: choices that slots and shared experts answer.

        Those of dead GPUs are choices that nobody answers.
        """
        whole, gpus = self._whole, self._placement.gpus
        tokens = np.empty(len(whole.slot_layer), np.int64)
        tokens[slots_by_expert(whole)[0]] = np.concatenate(self._taken)
        shared = whole.slot_expert >= self._placement.experts
        flat = whole.slot_layer.astype(np.int64) * gpus + whole.slot_gpu
        by_gpu = np.zeros(self._placement.layers * gpus, np.int64)
        np.add.at(by_gpu, flat[shared], tokens[shared])
        return tokens[~shared], by_gpu.reshape(-1, gpus)

    def _add_block(
        self, layer: int, topk: NDArray[Any], ends: Ends, seen: NDArray[np.int64], first: int
    ) -> None:
        """Take a layer of a block through; `first` is the number of its first token."""
        from sim.messages._message_kernel import (  # noqa: PLC0415  loads numba
            Reached,
            choose_replicas,
            find_living_news,
            find_news,
        )

        for tokens, end in zip((self.origin_tokens, self._collected), ends, strict=True):
            tokens[layer] += np.bincount(end, minlength=self._placement.gpus)
        shape = (len(topk), topk.shape[1] + self._shared)
        reached = Reached(np.empty(shape, np.int32), np.empty(shape, np.int8))
        replicas, taken = self._replicas[layer], self._taken[layer]
        choose_replicas(topk, ends[0], replicas, reached.gpu, taken, seen, first)
        if self._dead.any():
            self.distinct[layer] += find_living_news(reached, self._first_gpu, self._dead)
        else:
            self.distinct[layer] += find_news(reached, self._first_gpu)
        self._count(layer, reached, ends)

    def _count(self, layer: int, reached: Reached, ends: Ends) -> None:
        """Count the messages of a block, in both directions unless one mirrors the other."""
        directions = [(self._out, ends[0])]
        if self._back is not None:
            directions.append((self._back, ends[1]))
        for counts, end in directions:
            for leg, each in zip(self._legs, counts, strict=True):
                each.add(layer, reached, end, leg)

    def _ends(self, tokens: int) -> Ends:
        """Return origins and collectors, int32 [layers, tokens]."""
        gpus, shape = self._placement.gpus, (self._placement.layers, tokens)
        origin = self._attention.origin_gpu(tokens)
        collector = self._attention.collector_gpu(tokens)
        for what, of_token in (("origin", origin), ("collector", collector)):
            if of_token.shape != shape:
                raise SimulationError(
                    f"attention gives the {what} of {of_token.shape} layers and tokens, the trace "
                    f"has {shape}"
                )
            if of_token.min() < 0 or of_token.max() >= gpus:
                raise SimulationError(
                    f"attention names {what} GPU {of_token.max()}; the placement has 0..{gpus - 1}"
                )
        return origin, collector
