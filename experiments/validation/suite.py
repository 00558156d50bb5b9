"""All checks, by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from experiments.validation import (
    clusters,
    fidelity,
    hardware,
    laws,
    overlap,
    rates,
    serving,
    shares,
    times,
)
from experiments.validation.line import Finding, expectations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from experiments.validation.line import Check


@dataclass(frozen=True, slots=True)
class Section:
    """Checks of one kind.

    Attributes
    ----------
    name
        First part of its lines' keys.
    title
        For people.
    quick, slow
        Checks; tests run the quick ones.
    remarks
        What people should know beside the table.
    """

    name: str
    title: str
    quick: tuple[Check, ...]
    slow: tuple[Check, ...] = ()
    remarks: tuple[str, ...] = ()

    def findings(self, *, quick: bool = False) -> Iterator[Finding]:
        """Measure, and then name the lines that nothing measured.

        Parameters
        ----------
        quick
            Leave the slow checks and lines out.
        """
        seen = set()
        for check in self.quick + (() if quick else self.slow):
            for got in check():
                seen.add(got.key)
                yield Finding.of(got)
        for key, expected in expectations().items():
            if key.split(".")[0] == self.name and key not in seen and not (quick and expected.slow):
                yield Finding(key, expected, None)


SECTIONS = (
    Section(
        "theory",
        "Theory",
        (
            clusters.counts,
            clusters.distances,
            clusters.router_hops,
            shares.all_to_all,
            shares.ring,
            shares.saturation,
            shares.destinations,
            rates.fractions,
            rates.permutations,
            times.latencies,
            times.communication_bound,
            times.fluid,
            times.store_and_forward,
            times.queues,
            times.expert,
        ),
        (clusters.large_counts, times.exponential_queues),
    ),
    Section(
        "fidelity",
        "Between fidelities",
        (fidelity.makespans, fidelity.victim, overlap.two_batches),
        (fidelity.orders,),
    ),
    Section(
        "hardware",
        "Hardware: DeepEP low-latency kernels on H800",
        (hardware.rows,),
        (hardware.predictions,),
        (hardware.CONSTANTS,),
    ),
    Section(
        "serving",
        "Serving: DeepSeek-R1 by SGLang on 96 H100",
        (),
        (serving.prefill, serving.decode, serving.dispatch),
    ),
    Section("laws", "Laws of every run", (laws.every_law,)),
)


def sections(only: str | None = None) -> tuple[Section, ...]:
    """Return the sections asked for.

    Raises
    ------
    ExperimentError
        If there is none of that name.
    """
    names = [section.name for section in SECTIONS]
    if only is None:
        return SECTIONS
    if only not in names:
        raise ExperimentError(f"--only: unknown section '{only}'; allowed: {', '.join(names)}")
    return (SECTIONS[names.index(only)],)
