"""Everything that GPUs send each other, message by message, in loops that anyone can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.replica_parts import static_parts
from sim.messages.replicas import layer_replicas
from sim.messages.rules import DispatchRules

if TYPE_CHECKING:
    from placement import Placement
    from sim.messages import Exchange, Traffic

TWO_64 = 1 << 64


@dataclass
class Counted:
    """What the loops find; compares with an `Exchange` through `of`."""

    stages: list[Counter[tuple[int, int, int]]]
    slot_tokens: list[int]
    shared_tokens: Counter[tuple[int, int]] = field(default_factory=Counter)
    distinct_gpus: int = 0
    distinct_servers: int = 0
    origin_tokens: Counter[tuple[int, int]] = field(default_factory=Counter)


def of(found: Exchange) -> Counted:
    """Put the compiled count into the twin's terms."""
    return Counted(
        [as_counter(each) for each in (*found.dispatch, *found.combine)],
        found.slot_tokens.tolist(),
        _counter(found.shared_tokens),
        found.distinct_gpus,
        found.distinct_servers,
        _counter(found.origin_tokens),
    )


def as_counter(traffic: Traffic) -> Counter[tuple[int, int, int]]:
    """(layer, src, dst) -> messages."""
    keys = zip(
        traffic.layer_of_row.tolist(), traffic.src.tolist(), traffic.dst.tolist(), strict=True
    )
    return Counter(dict(zip(keys, traffic.count.tolist(), strict=True)))


def slow_exchange(trace: Any, placement: Placement, attention: Any, **options: Any) -> Counted:
    """Take every token through every layer."""
    rules = DispatchRules(**options)
    chooser = SlowChooser(placement, rules)
    two = rules.mode in ("per_server", "allgather")
    result = Counted([Counter() for _ in range(4 if two else 2)], [0] * len(placement.slot_layer))
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    for layer in range(trace.layers):
        before: Counter[int] = Counter()  # tokens of every rank so far
        for token in range(trace.tokens):
            start, end = int(origin[layer, token]), int(collector[layer, token])
            experts = [*trace.topk[token, layer].tolist(), *chooser.shared]
            reached = []
            for choice, expert in enumerate(experts):
                place = before[start] * len(experts) + choice
                number = token * len(experts) + choice
                slot, gpu = chooser.choose(layer, expert, start, place, number)
                reached.append(gpu)
                if slot is None:
                    result.shared_tokens[layer, gpu] += 1
                else:
                    result.slot_tokens[slot] += 1
            before[start] += 1
            result.origin_tokens[layer, start] += 1
            result.distinct_gpus += len(set(reached))
            result.distinct_servers += len({gpu // placement.gpus_per_server for gpu in reached})
            send(result.stages, rules.mode, layer, (start, end), reached, placement)
    return result


def send(
    stages: list[Counter[tuple[int, int, int]]],
    mode: str,
    layer: int,
    ends: tuple[int, int],
    reached: list[int],
    placement: Placement,
) -> None:
    """Count a token's messages, in the order of the stages: dispatch, then combine."""
    (start, end), width = ends, placement.gpus_per_server
    if mode in ("per_expert", "per_gpu"):
        for gpu in reached if mode == "per_expert" else set(reached):
            stages[0][layer, start, gpu] += 1
            stages[1][layer, gpu, end] += 1
        return
    destinations = set(range(placement.gpus)) if mode == "allgather" else set(reached)
    for server in {gpu // width for gpu in destinations}:
        out, back = server * width + start % width, server * width + end % width
        stages[0][layer, start, out] += 1
        stages[3][layer, back, end] += 1
        for gpu in destinations:
            if gpu // width == server:
                stages[1][layer, out, gpu] += 1
                stages[2][layer, gpu, back] += 1


class SlowChooser:
    """Picks replicas from lists; takes from the code only where turns start."""

    def __init__(self, placement: Placement, rules: DispatchRules) -> None:
        whole = rules.with_shared(placement)
        self.rules, self.width, self.experts = rules, placement.gpus_per_server, placement.experts
        self.shared = list(range(placement.experts, whole.experts))
        self.replicas: dict[tuple[int, int], list[tuple[int | None, int, int]]] = {}
        number = 0
        for at in range(len(whole.slot_layer)):
            layer, gpu = int(whole.slot_layer[at]), int(whole.slot_gpu[at])
            expert = int(whole.slot_expert[at])
            slot = None if expert >= placement.experts else number
            number += slot is not None
            self.replicas.setdefault((layer, expert), []).append((slot, gpu, at))
        self.static = static_parts(whole, rules.seed) if "static" in rules.replica_rule else None
        start = layer_replicas(placement, whole, rules)
        self.phase = [[[int(x) for x in row] for row in each.phase] for each in start]
        self.salt = [int(each.salt) for each in start]

    def choose(
        self, layer: int, expert: int, origin: int, place: int, number: int
    ) -> tuple[int | None, int]:
        """Return slot (None: a shared expert's) and GPU."""
        replicas, rule = self.replicas[layer, expert], self.rules.replica_rule
        if len(replicas) == 1:
            return replicas[0][:2]
        if rule == "vllm_modulo":
            return replicas[place % len(replicas)][:2]
        if self.static is not None:
            (taken,) = [each for each in replicas if self.static[origin, each[2]] == 1]
            return taken[:2]
        share = self._share(layer, expert, origin, number)
        total = 0.0
        parts = self._parts(replicas, origin // self.width)
        for part, replica in zip(parts, replicas, strict=True):
            total += part
            if share < total:
                return replica[:2]
        last = max(at for at, part in enumerate(parts) if part > 0)
        return replicas[last][:2]

    def _share(self, layer: int, expert: int, origin: int, number: int) -> float:
        if self.rules.replica_rule == "sglang_dynamic":
            return (slow_mixed(self.salt[layer] + 0x9E3779B97F4A7C15 * number) >> 11) / 2**53
        by_server = self.rules.replica_rule in ("nearest", "lp")
        row = self.phase[layer][origin // self.width if by_server else 0]
        row[expert] = (row[expert] + 0x9E3779B97F4A7C15) % TWO_64
        return (row[expert] >> 11) / 2**53

    def _parts(self, replicas: list[tuple[int | None, int, int]], server: int) -> list[float]:
        if self.rules.replica_rule == "nearest":
            assert self.rules.server_distance is not None
            far = [int(self.rules.server_distance[server, g // self.width]) for _, g, _ in replicas]
            return [(each == min(far)) / far.count(min(far)) for each in far]
        if self.rules.replica_rule == "lp" and replicas[0][0] is not None:
            assert self.rules.parts is not None
            return [float(self.rules.parts[server, slot]) for slot, _, _ in replicas]
        return [1 / len(replicas)] * len(replicas)


def slow_mixed(number: int) -> int:
    """SplitMix64's finaliser in whole numbers."""
    number %= TWO_64
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % TWO_64
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % TWO_64
    return number ^ (number >> 31)


def _counter(table: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter({(int(a), int(b)): int(table[a, b]) for a, b in np.argwhere(table)})
