"""Figure: how the time to place the experts grows with the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

from experiments.figures.runs.panels import ERROR_BAR, fit, legend_above, means, whiskers
from experiments.figures.solve_time import SHORTEST_S
from experiments.figures.style import INK, policy_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from experiments.figures.style import PolicyStyle
    from experiments.figures.venue import Venue

SECONDS, GPUS = "provenance.place_s", "gpus"


def figure(runs: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw the wall seconds of placing over the GPUs of the cluster, both logarithmic.

    A panel per model, a line per policy; clusters of one size and other settings are averaged.

    Parameters
    ----------
    runs
        Labelled runs; read are gpus and provenance.place_s.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing.
    """
    rows = fit(runs, "runs", [SECONDS, GPUS])
    rows = rows.assign(**{SECONDS: rows[SECONDS].clip(lower=SHORTEST_S)})
    found = means(rows, SECONDS, ("model", "series", GPUS)).sort_values(GPUS, kind="stable")
    looks = policy_styles(rows["series"])
    models = list(dict.fromkeys(rows["model"]))
    with venue.context():
        size = (venue.width(wide=len(models) > 1), 2.5)
        drawn = Figure(figsize=size)
        axes = drawn.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, models, strict=True):
            _draw_panel(ax, found[found["model"] == model], looks)
            ax.set_title(model, loc="left")
            ax.set_xlabel("GPUs")
        axes[0].set_ylabel("wall time to place all experts, s")
        handles = [
            Line2D([], [], color=look.colour, **_point(look), linewidth=1.2, label=series)
            for series, look in looks.items()
        ]
        legend_above(drawn, handles)
    return drawn


def _draw_panel(ax: Axes, rows: pd.DataFrame, looks: dict[str, PolicyStyle]) -> None:
    for series, look in looks.items():
        own = rows[rows["series"] == series]
        ax.errorbar(
            own[GPUS],
            own["mean"],
            yerr=whiskers(own),
            color=look.colour,
            linewidth=1.2,
            **_point(look),
            **ERROR_BAR,
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    sizes = sorted(set(rows[GPUS]))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    ax.grid()


def _point(look: PolicyStyle) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 4,
        "markeredgecolor": INK,
        "markeredgewidth": 0.4,
    }
