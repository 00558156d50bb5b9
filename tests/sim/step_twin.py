"""A step on a free network, event by event and GPU by GPU: slow, and meant to be read."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.batch import Batch


def rows(traffic: Any, layer: int) -> set[tuple[int, int]]:
    """Pairs that talk in a layer."""
    part = slice(traffic.indptr[layer], traffic.indptr[layer + 1])
    return set(zip(traffic.src[part].tolist(), traffic.dst[part].tolist(), strict=True))


class Needs:
    """What every task ("task", batch, number, gpu) and every sending ("send", ...) waits for."""

    def __init__(self, batches: Sequence[Batch], overlap: str = "ready") -> None:
        self.wait: dict[Any, set[Any]] = {}
        self.results: dict[tuple[int, int], dict[int, set[Any]]] = {}
        for number, batch in enumerate(batches):
            self.b, self.batch = number, batch
            self.latest: dict[int, Any] = {}
            before: dict[int, set[Any]] = defaultdict(set)
            for layer in range(len(batch.gpu_tokens)):
                before = self.layer(layer, before)
                self.results[number, layer] = before
            for gpu, results in before.items():
                if results:
                    self.wait["task", number, 2 * len(batch.gpu_tokens), gpu] = results
        if overlap == "turns" and len(batches) > 1:
            self.turns(len(batches))

    def turns(self, batches: int) -> None:
        """Dispatch when the results of the micro-batch before, or the layer's last, are in."""
        for kind, batch, layer, *more in list(self.wait):
            if kind == "send" and more[:2] == [0, 0]:
                one = (batch - 1, layer) if batch else (batches - 1, layer - 1)
                results = self.results.get(one, {}).get(more[2], set())
                self.wait[kind, batch, layer, *more] |= results

    def layer(self, layer: int, before: dict[int, set[Any]]) -> dict[int, set[Any]]:
        """Write down a layer that follows `before`; return what its results are."""
        ready: dict[int, set[Any]] = defaultdict(set)
        for gpu in self.batch.exchange.origin_tokens[layer].nonzero()[0].tolist():
            task = ("task", self.b, 2 * layer, gpu)
            self.wait[task], ready[gpu] = before[gpu], {task}
        inputs = self.direction(layer, 0, ready)
        ready = defaultdict(set, {gpu: set(each) for gpu, each in inputs.items()})
        for gpu in self.batch.gpu_tokens[layer].nonzero()[0].tolist():
            task = ("task", self.b, 2 * layer + 1, gpu)
            self.wait[task] = inputs[gpu] | {self.latest[gpu] for _ in [0] if gpu in self.latest}
            self.latest[gpu], ready[gpu] = task, {task}
        return self.direction(layer, 1, ready)

    def direction(
        self, layer: int, direction: int, ready: dict[int, set[Any]]
    ) -> dict[int, set[Any]]:
        """Write down the stages of a direction; return what every GPU receives."""
        sent = self.batch.exchange
        inbox: dict[int, set[Any]] = defaultdict(set)
        for leg, traffic in enumerate((sent.dispatch, sent.combine)[direction]):
            talk = rows(traffic, layer)
            for gpu in {src for src, _ in talk}:
                self.wait["send", self.b, layer, direction, leg, gpu] = ready[gpu] | inbox[gpu]
            for src, dst in talk:
                inbox[dst] = inbox[dst] | {("send", self.b, layer, direction, leg, src)}
        return inbox


class FreeStep:
    """The event loop."""

    def __init__(self, batches: Sequence[Batch], overlap: str = "ready") -> None:
        wait = Needs(batches, overlap).wait
        self.duration = [batch.durations() for batch in batches]
        self.after: dict[Any, list[Any]] = defaultdict(list)
        self.left = {what: len(earlier) for what, earlier in wait.items()}
        for what, earlier in wait.items():
            for each in earlier:
                self.after[each].append(what)
        self.ready = [what for what, count in self.left.items() if count == 0]
        self.queue: dict[int, list[Any]] = defaultdict(list)
        self.busy: set[int] = set()
        self.program: dict[int, list[Any]] | None = None
        if overlap == "turns":
            self.program = defaultdict(list)
            tasks = [what[1:] for what in wait if what[0] == "task"]
            for batch, task, gpu in sorted(tasks, key=lambda each: (each[1] // 2, *each)):
                if self.duration[batch][task, gpu] > 0:
                    self.program[gpu].append((task, batch))
        self.events: list[Any] = []
        self.now = 0

    def run(self) -> int:
        """Return the time of the last event."""
        while True:
            self.settle()
            self.start()
            if not self.events:
                assert not any(self.left.values())
                return self.now
            self.now = self.events[0][0]
            while self.events and self.events[0][0] == self.now:
                _, gpu, batch, task = heappop(self.events)
                self.busy.discard(gpu)
                self.happened(("task", batch, task, gpu))

    def settle(self) -> None:
        """Let happen what takes no time, and queue what takes some."""
        while self.ready:
            what = self.ready.pop()
            gpu = what[-1]
            if what[0] == "task" and self.duration[what[1]][what[2], gpu] > 0:
                heappush(self.queue[gpu], (self.now, what[2], what[1]))
            else:
                self.happened(what)

    def start(self) -> None:
        """Let free GPUs take the first task in their queue."""
        for gpu, waiting in self.queue.items():
            if gpu not in self.busy and self.may_go(gpu, waiting):
                _, task, batch = heappop(waiting)
                self.busy.add(gpu)
                end = self.now + int(self.duration[batch][task, gpu])
                heappush(self.events, (end, gpu, batch, task))

    def may_go(self, gpu: int, waiting: list[Any]) -> bool:
        """Whether there is something to do next; the one whose turn it is comes to the front."""
        if self.program is None or not waiting:
            return bool(waiting)
        found = [each for each in waiting if each[1:] == self.program[gpu][0]]
        if found:
            waiting.remove(found[0])
            waiting.insert(0, found[0])
            self.program[gpu].pop(0)
        return bool(found)

    def happened(self, what: Any) -> None:
        """Count down what waited for it."""
        for each in self.after[what]:
            self.left[each] -= 1
            if self.left[each] == 0:
                self.ready.append(each)
