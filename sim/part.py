"""One micro-batch of a step: who takes part in what, and what is waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sim.compute import StepTimes
from sim.errors import LawViolation
from sim.messages import Traffic
from sim.pairs import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sim.batch import Batch
    from sim.free import FreeSession
    from sim.network.protocol import Collective, Session
    from sim.pairs import Surveyed

    Gpus = NDArray[np.int64]


class Plan(Protocol):
    """What a micro-batch sends and computes; GPUs that die or come back may change it."""

    def at(self, layer: int) -> Batch:
        """Return the plan of a layer whose first dispatch is issued now, and of the next one."""

    def change(self, gpu: int, *, alive: bool) -> None:
        """Note that a GPU has died or come back."""

    def lose(self, gpu: int, first: int, opened: int) -> None:
        """Lose the tokens on a GPU that has died while layers first..opened-1 were under way."""


class Part:
    """One micro-batch of the step.

    `holds[layer][leg]`, `inputs[layer]` and `results[layer]` count for every GPU what it still
    waits for before it sends a leg, computes its experts, and goes on to the next layer.

    Parameters
    ----------
    session
        The network.
    plan
        What it sends and computes; a `Batch` is a plan that never changes.
    """

    def __init__(self, session: Session | FreeSession, plan: Plan) -> None:
        self._session, self.plan, batch = session, plan, plan.at(0)
        self.layers, gpus = batch.gpu_tokens.shape
        self.legs, self.dispatch_legs = len(batch.legs), batch.dispatch_legs
        self._planned, self.durations = batch, batch.durations()
        self.sends, self.receives = np.zeros((2, self.legs, self.layers, gpus), dtype=np.bool_)
        self.computes = np.zeros((self.layers, gpus), dtype=np.bool_)
        self.attends = np.zeros((self.layers + 1, gpus), dtype=np.bool_)
        self.attends[0] = batch.exchange.origin_tokens[0] > 0
        self.stranded: list[Gpus] = []
        self.later_legs = [
            range(leg + 1, self.dispatch_legs if leg < self.dispatch_legs else self.legs)
            for leg in range(self.legs)
        ]
        self._openers: dict[int, list[Callable[[int], Collective | None]]] = {}
        self.issued: list[Batch] = []
        self.collectives: list[list[Collective | None]] = []
        self.holds: list[NDArray[np.int64]] = []
        self.inputs: list[NDArray[np.int64]] = []
        self.results: list[NDArray[np.int64]] = []
        self._done = np.zeros((self.layers, gpus), dtype=np.bool_)
        self._latest = np.full(gpus, -1)
        self._follower = np.full((self.layers, gpus), -1)

    @property
    def tasks(self) -> NDArray[np.bool_]:
        """bool [tasks, gpus]: what GPUs will compute, by the plan of now."""
        batch = self._planned
        both = np.stack((batch.exchange.origin_tokens > 0, batch.gpu_tokens > 0), axis=1)
        last = self._receive_results(self.layers - 1)
        return np.vstack((both.reshape(-1, both.shape[2]), last))

    def open(self, before: tuple[Part, int] | None = None) -> int:
        """Plan the next layer, register its collectives, and count what is waited for in it.

        Parameters
        ----------
        before
            Micro-batch whose results the dispatch waits for, and how many layers earlier.
        """
        layer = len(self.collectives)
        batch = self.plan.at(layer)
        self._take(layer, batch)
        self.issued.append(batch)
        self.collectives.append([each(layer) for each in self._openers_of(batch)])
        received = self.receives[:, layer].astype(np.int64)
        out, back = received[: self.dispatch_legs], received[self.dispatch_legs :]
        inputs = out.sum(axis=0)
        holds = np.zeros_like(received)
        holds[: self.dispatch_legs] = _before(out) + self.attends[layer]
        if before is not None:
            other, earlier = before
            holds[0] += other.awaits_results(layer - earlier) & self.attends[layer]
        holds[self.dispatch_legs :] = _before(back) + (inputs > 0)
        self._check(layer, holds, inputs)
        self.holds.append(holds)
        self.inputs.append(inputs + self._follow(layer))
        results = back.sum(axis=0)
        without = self.attends[layer + 1] & (results == 0)
        self.results.append(results + without)
        self.stranded.append(np.flatnonzero(without))
        return layer

    def fall(self, gpu: int, *, delivered: bool) -> None:
        """Leave out a GPU that has died, from all layers that are under way.

        Parameters
        ----------
        gpu
            The GPU.
        delivered
            Whether its own tokens have left the step already.
        """
        opened = len(self.collectives)
        going = [layer for layer in range(opened) if not self._ended(layer)]
        self.sends[:, going, gpu] = False
        self.computes[going, gpu] = False
        self.attends[:, gpu] = False
        self._done[:, gpu] = True
        if not delivered:
            self.plan.lose(gpu, min(going, default=opened), opened)

    def awaits_results(self, layer: int) -> NDArray[np.bool_]:
        """bool [gpus]: who has yet to receive results of a layer; nobody of a layer before 0."""
        if layer < len(self.results):
            return self.results[layer] > 0 if layer >= 0 else np.zeros_like(self.attends[0])
        return self._receive_results(layer)

    def _receive_results(self, layer: int) -> NDArray[np.bool_]:
        legs = self._planned.legs[self.dispatch_legs :]
        found: NDArray[np.bool_] = np.any([each.receives[layer] for each in legs], axis=0)
        return found

    def experts_done(self, layer: int, gpus: Gpus) -> list[tuple[int, Gpus]]:
        """Note that experts are done; return later layers of GPUs that waited for that."""
        self._done[layer, gpus] = True
        after = self._follower[layer, gpus]
        if not np.count_nonzero(after != after[0]):
            return [(int(after[0]), gpus)] if after[0] >= 0 else []
        return [(int(each), gpus[after == each]) for each in np.unique(after[after >= 0])]

    def check_ended(self) -> None:
        """Refuse a step that stopped before its end."""
        for number in range(self.layers):
            if number >= len(self.collectives) or not self._ended(number):
                raise LawViolation(f"layer {number}: the results were not all delivered")

    def happened(self) -> Batch:
        """Return what was sent and computed, every layer as it was planned when issued."""
        first = self.issued[0]
        if all(each is first for each in self.issued) and self.plan is first:
            return first
        legs = [self._sent(leg) for leg in range(self.legs)]
        rows = [
            (sent.gpu_tokens[at], sent.exchange.shared_tokens[at], sent.exchange.distinct[at])
            for at, sent in enumerate(self.issued)
        ]
        tokens, shared, distinct = (np.array(each) for each in zip(*rows, strict=True))
        origins = [each.exchange.origin_tokens[at] for at, each in enumerate(self.issued)]
        sent = replace(
            first.exchange,
            dispatch=tuple(each.traffic for each in legs[: self.dispatch_legs]),
            combine=tuple(each.traffic for each in legs[self.dispatch_legs :]),
            shared_tokens=shared,
            distinct=distinct,
            origin_tokens=np.array(origins),
        )
        durations = self.durations
        times = StepTimes(durations[:-1:2].copy(), durations[1::2].copy(), durations[-1].copy())
        return replace(first, exchange=sent, times=times, gpu_tokens=tokens, legs=tuple(legs))

    def collective_ns(self) -> NDArray[np.int64]:
        """int64 [layers, legs, 2]: start and end; of an empty leg, the end of the one before."""
        times = np.zeros((self.layers, self.legs, 2), dtype=np.int64)
        last = 0
        for layer, legs in enumerate(self.collectives):
            for leg, each in enumerate(legs):
                if each is None or each.started_ns is None or each.ended_ns is None:
                    times[layer, leg] = last
                    continue
                times[layer, leg] = each.started_ns, each.ended_ns
                last = each.ended_ns
        return times

    def link_bytes(self) -> NDArray[Any]:
        """[layers, legs, links]."""
        carried = (
            each.link_bytes for legs in self.collectives for each in legs if each is not None
        )
        session: Any = self._session
        none = np.zeros_like(next(carried, np.zeros(len(session.condition.speed), np.int64)))
        return np.array(
            [
                [none if each is None else each.link_bytes for each in legs]
                for legs in self.collectives
            ]
        )

    def _take(self, layer: int, batch: Batch) -> None:
        """Note who takes part in a layer, and who attends to the next one."""
        for leg, each in enumerate(batch.legs):
            self.sends[leg, layer] = each.sends[layer]
            self.receives[leg, layer] = each.receives[layer]
        self.computes[layer] = batch.gpu_tokens[layer] > 0
        if batch is not self._planned:
            self._planned = batch
            ahead = slice(2 * layer + 1, None)
            self.durations[ahead] = batch.durations()[ahead]
        if layer + 1 < self.layers:
            self.attends[layer + 1] = batch.exchange.origin_tokens[layer + 1] > 0
        else:
            self.attends[-1] = self.receives[self.dispatch_legs :, layer].any(axis=0)

    def _openers_of(self, batch: Batch) -> list[Callable[[int], Collective | None]]:
        """Return what registers the collectives of a plan's layers."""
        if id(batch) not in self._openers:
            self._openers[id(batch)] = [_opener(self._session, each) for each in batch.legs]
        return self._openers[id(batch)]

    def _ended(self, layer: int) -> bool:
        return all(each is None or each.ended_ns is not None for each in self.collectives[layer])

    def _sent(self, leg: int) -> Surveyed:
        """Put the messages of a leg together, every layer's from its own plan."""
        parts = [each.legs[leg].traffic.layer_rows(at) for at, each in enumerate(self.issued)]
        indptr = np.cumsum([0, *(len(each[0]) for each in parts)], dtype=np.int64)
        src, dst, count = (np.concatenate(each) for each in zip(*parts, strict=True))
        size = self.issued[0].legs[leg].traffic.message_bytes
        return survey(Traffic(indptr, src, dst, count, size), len(self._latest))

    def _follow(self, layer: int) -> NDArray[np.bool_]:
        """Let experts wait for those of the GPU's layer before, where these are not done."""
        gpu = np.flatnonzero(self.computes[layer])
        before = self._latest[gpu]
        open_still = (before >= 0) & ~self._done[before, gpu]
        waiting = np.zeros(len(self._latest), dtype=np.bool_)
        waiting[gpu[open_still]] = True
        self._follower[before[open_still], gpu[open_still]] = layer
        self._latest[gpu] = layer
        self._done[layer] = False
        return waiting

    def _check(self, layer: int, holds: NDArray[np.int64], inputs: NDArray[np.int64]) -> None:
        """Refuse what would never be sent or computed."""
        for leg in range(self.legs):
            lost = self.sends[leg, layer] & (holds[leg] == 0)
            if lost.any():
                raise LawViolation(
                    f"layer {layer}: GPU {lost.argmax()} sends in stage {leg} without a token of "
                    "its own or a message before"
                )
        idle = self.computes[layer] & (inputs == 0)
        if idle.any():
            raise LawViolation(
                f"layer {layer}: GPU {idle.argmax()} has tokens for its experts, but no message"
            )


def _opener(session: Any, leg: Surveyed) -> Callable[[int], Collective | None]:
    """Return what registers the collective of a layer; None where there are no messages."""
    foresee: Any = getattr(session, "foresee", None)
    if foresee is not None:
        return foresee(leg)  # type: ignore[no-any-return]
    traffic, rows = leg.traffic, np.diff(leg.traffic.indptr)
    return lambda layer: session.collective(traffic.layer(layer)) if rows[layer] else None


def _before(received: NDArray[np.int64]) -> NDArray[np.int64]:
    """[stages, gpus]: stages before in which a GPU receives."""
    earlier: NDArray[np.int64] = np.cumsum(received, axis=0) - received
    return earlier
