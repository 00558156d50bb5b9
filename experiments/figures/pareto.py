"""Figure: the front of hops against balance, with what is proven about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures.frames import select
from experiments.figures.style import INK, ONE_COLUMN_IN, legend, paper_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TABLE = "front table"
_AXES = ("balance", "hops")
_CLOSE = 0.04
"""Part of the range of both axes below which two labels would print over each other."""
_FRONT: dict[str, Any] = {"color": "#0B3C74", "marker": "D", "markersize": 4, "linewidth": 1.6}
_BOUND: dict[str, Any] = {"color": INK, "linewidth": 0.7, "linestyle": "--", "marker": "_"}
_OTHER: dict[str, Any] = {"color": "#808080", "linestyle": "none", "marker": "s", "markersize": 4}


def figure(front: pd.DataFrame, *, scope: str, others: pd.DataFrame | None = None) -> Figure:
    """Draw hops over the imbalance that every cap on the load leaves.

    Parameters
    ----------
    front
        A row per cap; read are beta, hops, bound and balance.
    scope
        ``server`` or ``gpu``: whose load is capped.
    others
        Policies to mark beside the front: policy, hops and balance.

    Raises
    ------
    FigureError
        If a table lacks a column or a number.
    """
    rows = select(front, TABLE, keys=("beta",), numbers=("hops", "bound", "balance"))
    rows = rows.sort_values(["balance", "hops"])
    with paper_style():
        drawn = Figure(figsize=(ONE_COLUMN_IN, 2.6))
        axes = drawn.subplots()
        axes.plot(rows["balance"], rows["hops"], **_FRONT)
        axes.plot(rows["balance"], rows["bound"], **_BOUND)
        for at, text in _labels(rows):
            _name(axes, at, text)
        handles = _handles()
        if others is not None:
            _mark(axes, others)
            handles.append(Line2D([], [], **_OTHER, label="without a cap"))
        place = "GPU" if scope == "gpu" else "server"
        axes.set_xlabel(f"busiest {place} / mean, mean over layers")
        axes.set_ylabel("expected hops per token and layer")
        axes.margins(0.12, 0.18)
        axes.grid()
        legend(drawn, handles, columns=1, place="outside upper center")
    return drawn


def _mark(axes: Axes, others: pd.DataFrame) -> None:
    rows = select(others, TABLE, keys=("policy",), numbers=("hops", "balance"))
    axes.plot(rows["balance"], rows["hops"], **_OTHER)
    for _, row in rows.iterrows():
        _name(axes, (row["balance"], row["hops"]), str(row["policy"]), side="right")


def _labels(rows: pd.DataFrame) -> list[tuple[tuple[float, float], str]]:
    """Return points and the caps that lead to them: one label where several nearly meet."""
    spans = [max(float(rows[column].max() - rows[column].min()), 1e-12) for column in _AXES]
    labels: list[tuple[tuple[float, float], list[float]]] = []
    for _, row in rows.iterrows():
        at = (float(row["balance"]), float(row["hops"]))
        if labels:
            last = labels[-1][0]
            apart = [abs(a - b) / span for a, b, span in zip(at, last, spans, strict=True)]
            if max(apart) < _CLOSE:
                labels[-1][1].append(float(row["beta"]))
                continue
        labels.append((at, [float(row["beta"])]))
    return [(at, ", ".join(f"{beta:g}" for beta in sorted(betas))) for at, betas in labels]


def _name(axes: Axes, at: tuple[float, float], text: str, side: str = "left") -> None:
    """Write beside a point, the text's left (or right) edge at the point."""
    shift = 3 if side == "left" else -3
    axes.annotate(text, at, xytext=(shift, 4), textcoords="offset points", fontsize=6, ha=side)


def _handles() -> list[Artist]:
    return [
        Line2D([], [], **_FRONT, label="fewest hops found, under the beta beside it"),
        Line2D([], [], **_BOUND, label="proven: no fewer hops under the same caps"),
    ]
