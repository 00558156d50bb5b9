"""Figure: hops per token and layer by topology and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from experiments.figures.runs.panels import (
    ERROR_BAR,
    fit,
    legend_above,
    means,
    places,
    whiskers,
)
from experiments.figures.style import INK, policy_patches, policy_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from experiments.figures.style import PolicyStyle
    from experiments.figures.venue import Venue

_FEW_BARS = 16
"""That one column of a paper has room for."""
_FEW_SLOTS = 7
_BAR = 0.86
_GAP = 1.2


def figure(runs: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw the hops measured as bars: a row per model and setting, a group per cluster.

    Parameters
    ----------
    runs
        Labelled runs; read is hops_per_token_layer.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If the column or a number is missing, or there are too many panels.
    """
    found = means(fit(runs, "runs", ["hops_per_token_layer"]), "hops_per_token_layer")
    pairs, clusters = places(found)
    looks = policy_styles(found["series"])
    wide = len(looks) * len(clusters) > _FEW_BARS or len(clusters) > 3
    with venue.context():
        drawn = Figure(figsize=(venue.width(wide=wide), 0.75 + 1.2 * len(pairs)))
        axes = drawn.subplots(len(pairs), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (model, setting) in zip(axes, pairs, strict=True):
            own = found[(found["model"] == model) & (found["setting"] == setting)]
            _draw_panel(ax, own, looks, clusters)
            if len(pairs) > 1:
                ax.set_title(", ".join(filter(None, [model, setting])), loc="left")
        step = len(looks) + _GAP
        middles = [step * group + (len(looks) - 1) / 2 for group in range(len(clusters))]
        axes[-1].set_xticks(middles, clusters)
        drawn.supylabel(
            "hops per token and layer\n(network links)",
            fontsize=venue.size,
            linespacing=1.0,
            multialignment="center",
        )
        legend_above(drawn, policy_patches(looks))
    return drawn


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, looks: dict[str, PolicyStyle], clusters: list[str]
) -> None:
    step = len(looks) + _GAP
    for at, (series, look) in enumerate(looks.items()):
        own = rows[rows["series"] == series]
        x = own["cluster"].map({cluster: step * i + at for i, cluster in enumerate(clusters)})
        ax.bar(
            x,
            own["mean"],
            yerr=whiskers(own) if (own["count"] > 1).any() else None,
            width=_BAR,
            color=look.colour,
            hatch=look.hatch,
            edgecolor=INK,
            linewidth=0.4,
            error_kw=ERROR_BAR,
        )
    ax.grid(axis="y")
    ax.tick_params(axis="x", length=0)
    last = step * len(clusters) - _GAP
    # Few bars stay slim.
    aside = max(0.0, (_FEW_SLOTS - last) / 2)
    ax.set_xlim(-0.7 - aside, last - 0.3 + aside)
