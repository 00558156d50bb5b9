"""Figure: hops per token and layer of every policy on every cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from experiments.errors import FigureError
from experiments.figures.frames import CELL, in_order, select
from experiments.figures.style import (
    HALO,
    HOPS_AXIS,
    INK,
    MODELS,
    TWO_COLUMNS_IN,
    columns_across,
    legend,
    paper_style,
    policy_patches,
    policy_styles,
)
from placement import POLICIES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TABLE = "hops table"
LABELLED = ("greedy-load", "ilp-load")
"""Built-in policies whose bars carry their saving: the program and the heuristic that comes
closest. Those of the user's own carry it too."""
BOUNDED = "ilp-load"
"""The policy whose bound is on the hops drawn; that of ``ilp`` is on its own unweighted cost."""
DEGENERATE = "ilp"
"""The policy whose optima differ in the hops drawn."""

_WITH_GAPS = ("saving_pct", "bound_hops", "optima_low_hops", "optima_high_hops")
_GROUP_GAP = 1.4
_BAR = 0.86
_TICK = 1.06
_STEM: dict[str, Any] = {"color": INK, "linewidth": 1.0}
_BEAM: dict[str, Any] = {
    "color": INK,
    "linestyle": "none",
    "marker": Path([(-1, -2), (1, -2), (0, -2), (0, 2), (-1, 2), (1, 2)], [1, 2, 1, 2, 1, 2]),
    "markersize": 8,
}
_EXPECTED: dict[str, Any] = {
    "color": INK,
    "linestyle": "none",
    "marker": "D",
    "markersize": 4,
    "markerfacecolor": "white",
    "markeredgewidth": 0.8,
}


def figure(
    hops: pd.DataFrame,
    *,
    attention: str = "pipelined",
    network: str = "analytic",
    expected: pd.DataFrame | None = None,
    expected_from: str = "the paper",
) -> Figure:
    """Draw the hops measured in the replay as bars: a row per model, a group per cluster.

    Parameters
    ----------
    hops
        The table of cells; read are model, cluster, policy, attention, network,
        hops_per_token_layer, saving_pct, bound_hops, optima_low_hops and optima_high_hops.
    attention, network
        Which cells to draw.
    expected
        Figures of somebody else to lay over the bars: model, cluster, policy, hops (of the same
        unit).
    expected_from
        Where those come from, for the legend.

    Raises
    ------
    FigureError
        If a table lacks a column or a number, or `expected` names a cell that is not drawn.
    """
    cells = _located(
        select(
            hops,
            TABLE,
            keys=CELL,
            numbers=("hops_per_token_layer",),
            columns=_WITH_GAPS,
            where={"attention": attention, "network": network},
        ).astype(dict.fromkeys(_WITH_GAPS, float))
    )
    overlay = None if expected is None else _overlay(expected, cells)
    models, looks = in_order(cells["model"], MODELS), policy_styles(cells["policy"])
    with paper_style():
        drawn = Figure(figsize=(TWO_COLUMNS_IN, max(2.5, 0.8 + 1.3 * len(models))))
        axes = drawn.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        for ax, model in zip(axes, models, strict=True):
            _draw_panel(ax, cells[cells["model"] == model])
            if overlay is not None:
                points = overlay[overlay["model"] == model]
                ax.plot(points["x"], points["hops"], **_EXPECTED)
            ax.set_title(model, loc="left", fontweight="bold")
        left = cells.groupby("cluster", sort=False)["group_x"].first()
        axes[-1].set_xticks(left + (len(looks) - 1) / 2, left.index)
        drawn.supylabel(HOPS_AXIS, fontsize=7, linespacing=1.3, multialignment="center")
        columns = columns_across(list(looks))
        legend(drawn, policy_patches(looks), columns=columns, place="outside upper center")
        marks = _mark_handles(cells, None if overlay is None else expected_from)
        if marks:
            legend(drawn, marks, columns=len(marks), place="outside lower center")
    return drawn


def _located(cells: pd.DataFrame) -> pd.DataFrame:
    """Add where each bar stands: ``x``, and ``group_x`` of the first bar of its cluster."""
    bar = {policy: i for i, policy in enumerate(policy_styles(cells["policy"]))}
    step = len(bar) + _GROUP_GAP
    group = {cluster: i * step for i, cluster in enumerate(in_order(cells["cluster"]))}
    left = cells["cluster"].map(group)
    return cells.assign(group_x=left, x=left + cells["policy"].map(bar))


def _overlay(expected: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the expected figures with the x of the bars they belong to."""
    points = select(expected, "expected figures", numbers=("hops",), keys=CELL)
    x = cells.set_index(list(CELL))["x"]
    for cell in points[list(CELL)].itertuples(index=False, name=None):
        if cell not in x.index:
            raise FigureError(
                f"expected figures: no bar for {', '.join(cell)}; drawn are "
                + "; ".join(f"{key}: {', '.join(in_order(cells[key]))}" for key in CELL)
            )
    return points.join(x, on=list(CELL))


def _draw_panel(ax: Axes, cells: pd.DataFrame) -> None:
    for policy, look in policy_styles(cells["policy"]).items():
        own = cells[cells["policy"] == policy]
        ax.bar(
            own["x"],
            own["hops_per_token_layer"],
            width=_BAR,
            color=look.colour,
            hatch=look.hatch,
            edgecolor=INK,
            linewidth=0.4,
        )
    ax.grid(axis="y")
    ax.tick_params(axis="x", length=0)
    ax.margins(x=0.012)
    _draw_savings(ax, cells)
    _draw_marks(ax, cells)


def _draw_savings(ax: Axes, cells: pd.DataFrame) -> None:
    """Write the saving upright into the foot of the labelled bars, readable above a short one."""
    foot = 0.03 * cells["hops_per_token_layer"].max()
    labelled = cells["policy"].isin(LABELLED) | ~cells["policy"].isin(POLICIES)
    own = cells[labelled & cells["saving_pct"].notna()]
    looks = policy_styles(own["policy"])
    columns = own["x"], own["saving_pct"], own["policy"]
    for x, saving, policy in zip(*columns, strict=True):
        text = f"{-saving:+.1f} %".replace("-", "\N{MINUS SIGN}")
        look = looks[policy]
        outline = [withStroke(linewidth=2.8 if look.hatch else 1.5, foreground=look.colour)]
        label = ax.text(x, foot, text, rotation=90, color="white", fontsize=6.5)
        label.set(horizontalalignment="center", path_effects=outline)


def _draw_marks(ax: Axes, cells: pd.DataFrame) -> None:
    """Draw the range over the optima as a bracket, and the certified bound as a tick."""
    span = _degenerate(cells)
    ends = span["optima_low_hops"], span["optima_high_hops"]
    ax.vlines(span["x"], *ends, **_STEM, path_effects=HALO)
    for end in ends:
        ax.hlines(end, span["x"] - 0.25, span["x"] + 0.25, **_STEM, path_effects=HALO)
    bound = _bounded(cells)
    left, right = bound["x"] - _TICK / 2, bound["x"] + _TICK / 2
    ax.hlines(bound["bound_hops"], left, right, **_STEM, path_effects=HALO)


def _degenerate(cells: pd.DataFrame) -> pd.DataFrame:
    known = cells["optima_low_hops"].notna() & cells["optima_high_hops"].notna()
    return cells[known & (cells["policy"] == DEGENERATE)]


def _bounded(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["bound_hops"].notna() & (cells["policy"] == BOUNDED)]


def _mark_handles(cells: pd.DataFrame, expected_from: str | None) -> list[Artist]:
    """Return legend entries for the marks that occur."""
    handles: list[Artist] = []
    if not _degenerate(cells).empty:
        label = f"range over the optima of {DEGENERATE}"
        handles.append(Line2D([], [], **_BEAM, label=label))
    if not _bounded(cells).empty:
        label = f"certified lower bound of {BOUNDED}"
        handles.append(Line2D([], [], **_STEM, label=label))
    if expected_from is not None:
        source = expected_from if len(expected_from) <= 32 else f"{expected_from[:29]}..."
        handles.append(Line2D([], [], **_EXPECTED, label=f"typed in from {source}"))
    return handles
