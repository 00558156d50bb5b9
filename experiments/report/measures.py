"""The figures of a run that a report shows, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.errors import ExperimentError


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a run.

    Attributes
    ----------
    key
        Its name among the metrics of a run.
    label
        What people call it.
    unit
        That it is shown in, empty for pure numbers.
    scale
        From the metric to the unit.
    more_is_better
        Whether a larger value is the better one.
    """

    key: str
    label: str
    unit: str = ""
    scale: float = 1.0
    more_is_better: bool = False

    @property
    def title(self) -> str:
        """Label with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def text(self, value: float | None) -> str:
        """Return a value of the metric as it is shown, a dash where there is none."""
        return "\N{EN DASH}" if value is None else number(value * self.scale)


MEASURES = (
    Measure("step_s", "step", "ms", 1e3),
    Measure("exposed_comm_s", "exposed communication", "ms", 1e3),
    Measure("hops_per_token_layer", "hops per token and layer"),
    Measure("balance_gpu", "busiest GPU / mean"),
    Measure("balance_server", "busiest server / mean"),
    Measure("busiest_link_s", "busiest link a layer", "us", 1e6),
    Measure("byte_hops", "byte-hops", "GB", 1e-9),
    Measure("gpus_per_token_layer", "GPUs per token and layer"),
    Measure("redundant_slots", "redundant experts a layer"),
    Measure("tokens_per_s_gpu", "tokens per second and GPU", more_is_better=True),
)
"""In the order of the table's columns."""


def measure_named(key: str) -> Measure:
    """Return the measure of a metric.

    Raises
    ------
    ExperimentError
        If there is none, listing those there are.
    """
    for measure in MEASURES:
        if measure.key == key:
            return measure
    allowed = ", ".join(measure.key for measure in MEASURES)
    raise ExperimentError(f"unknown metric '{key}'; allowed: {allowed}")


def number(value: float) -> str:
    """Return a number in four significant digits, large ones whole."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(share: float) -> str:
    """Return a share in percent, with its sign."""
    return f"{100 * share:+.1f} %"
