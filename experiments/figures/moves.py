"""Figure: what a re-placement gains with every expert it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from experiments.errors import FigureError
from experiments.figures.frames import in_order, select
from experiments.figures.style import FAINT, INK, ONE_COLUMN_IN, legend, paper_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TABLE = "moves table"
LOOKS = (("#0B3C74", "D"), ("#C4500A", "^"), ("#009E73", "P"), ("#7A1F5C", "h"))
"""Colour and marker of the curves, in the order the table has them."""
GOAL = 0.98
"""Share of the gain at which a line tells how many experts have to move."""
_BOUND: dict[str, Any] = {"color": INK, "linewidth": 0.7, "linestyle": "--"}


def figure(curves: pd.DataFrame) -> Figure:
    """Draw the share of the possible gain over the share of expert-server pairs that move.

    Parameters
    ----------
    curves
        The points of every curve; read are case, moved, moved_share, recovered and
        bound_recovered.

    Raises
    ------
    FigureError
        If the table lacks a column or a number, or has more cases than there are looks.
    """
    rows = select(
        curves,
        TABLE,
        keys=("case", "moved"),
        numbers=("moved_share", "recovered", "bound_recovered"),
    )
    cases = in_order(rows["case"])
    if not 0 < len(cases) <= len(LOOKS):
        raise FigureError(f"{TABLE}: {len(cases)} curves; one figure tells 1 to {len(LOOKS)} apart")
    looks = dict(zip(cases, LOOKS, strict=False))
    with paper_style():
        drawn = Figure(figsize=(ONE_COLUMN_IN, 2.5))
        axes = drawn.subplots()
        axes.axhline(100 * GOAL, color=FAINT, linewidth=0.8, zorder=0)
        for case, look in looks.items():
            _draw_curve(axes, rows[rows["case"] == case].sort_values("moved"), look)
        _label(axes)
        legend(drawn, _handles(looks), columns=1, place="outside upper center")
    return drawn


def _draw_curve(ax: Axes, rows: pd.DataFrame, look: tuple[str, str]) -> None:
    colour, marker = look
    share = 100 * rows["moved_share"]
    ax.plot(
        share,
        100 * rows["recovered"],
        color=colour,
        marker=marker,
        markersize=3,
        linewidth=1.6,
        alpha=0.75,
    )
    ax.plot(share, 100 * rows["bound_recovered"], **_BOUND)


def _label(ax: Axes) -> None:
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} %"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
    ax.set_xlim(left=0)
    ax.set_ylim(0, 103)
    ax.set_xlabel("expert-server pairs that change")
    ax.set_ylabel("saved, of what a full re-solve saves")
    ax.annotate(
        f"{100 * GOAL:g} %",
        (1, 100 * GOAL),
        xycoords=ax.get_yaxis_transform(),
        xytext=(0, -2),
        textcoords="offset points",
        fontsize=6,
        ha="right",
        va="top",
    )
    ax.grid()


def _handles(looks: dict[str, tuple[str, str]]) -> list[Artist]:
    return [
        *(
            Line2D([], [], color=colour, marker=marker, markersize=3, linewidth=1.6, label=case)
            for case, (colour, marker) in looks.items()
        ),
        Line2D([], [], **_BOUND, label="proven most for so many moves"),
    ]
