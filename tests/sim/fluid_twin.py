"""Max-min rates and fluid flows again, readable and slow: the kernels' oracles."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Uses = Sequence[Mapping[int, Fraction]]


def twin_rates(uses: Uses, capacity: Sequence[Fraction]) -> list[Fraction]:
    """Raise all flows together, stop those on the link that fills first, and so on."""
    rates: dict[int, Fraction] = {}
    while len(rates) < len(uses):
        levels = {}
        for link, room in enumerate(capacity):
            taken = sum(rates[flow] * uses[flow].get(link, 0) for flow in rates)
            rising = sum(
                (use.get(link, Fraction(0)) for flow, use in enumerate(uses) if flow not in rates),
                Fraction(0),
            )
            if rising > 0:
                levels[link] = (room - taken) / rising
        level = min(levels.values())
        full = [link for link in levels if levels[link] == level]
        for flow, use in enumerate(uses):
            if flow not in rates and any(link in use for link in full):
                rates[flow] = level
    return [rates[flow] for flow in range(len(uses))]


def uncertified(
    uses: Uses, capacity: Sequence[float], rates: Sequence[float], tolerance: float = 1e-9
) -> str | None:
    """Say why rates are not max-min fair; None if they are.

    They are if no link is above capacity and every flow crosses a full link on which no other
    flow is faster (Bertsekas and Gallager, Data Networks, 6.5.2).
    """
    load = [
        sum(float(use.get(link, 0)) * rate for use, rate in zip(uses, rates, strict=True))
        for link in range(len(capacity))
    ]
    for link, room in enumerate(capacity):
        if load[link] > float(room) * (1 + tolerance):
            return f"link {link} carries {load[link]} of {room}"
    for flow, use in enumerate(uses):
        bottleneck = any(
            load[link] >= float(capacity[link]) * (1 - tolerance)
            and all(
                rates[other] <= rates[flow] * (1 + tolerance)
                for other in range(len(uses))
                if link in uses[other]
            )
            for link in use
        )
        if not bottleneck:
            return f"flow {flow} could go faster than {rates[flow]}"
    return None


def twin_finishes(
    uses: Uses, capacity: Sequence[Fraction], starts: Sequence[int], sizes: Sequence[int]
) -> list[Fraction]:
    """When every flow ends, rates computed anew at every start and end."""
    rest = {flow: Fraction(size) for flow, size in enumerate(sizes)}
    ends: dict[int, Fraction] = {}
    now = Fraction(0)
    while rest:
        running = [flow for flow in rest if starts[flow] <= now]
        rates = dict(zip(running, twin_rates([uses[f] for f in running], capacity), strict=True))
        coming = [Fraction(starts[flow]) for flow in rest if starts[flow] > now]
        then = min(coming + [now + rest[flow] / rates[flow] for flow in running])
        for flow in running:
            rest[flow] -= rates[flow] * (then - now)
            if rest[flow] == 0:
                ends[flow] = then
                del rest[flow]
        now = then
    return [ends[flow] for flow in range(len(sizes))]
