"""The front of hops against balance: a table and a figure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from experiments.atomic import staged, write_atomic
from experiments.commands.show import console
from placement import IlpLoad, evaluate
from placement.balance import pareto

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.spec import RunSpec
    from placement import PlacementProblem

BETAS = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Caps on the load of a server (or GPU) over the mean; layers that cannot meet one are relaxed."""


def front_files(folder: Path) -> list[Path]:
    """Return every file that `write_front` writes."""
    return [folder / name for name in ("front.csv", "pareto.pdf", "pareto.png")]


def write_front(spec: RunSpec, problem: PlacementProblem, folder: Path) -> None:
    """Solve for every cap, print the points, and write ``front.csv`` and ``pareto.pdf``, `.png`."""
    scope = spec.placement.beta_scope
    with console.status(f"placing under {len(BETAS)} caps on the load ..."):
        front = _frame([asdict(point) for point in pareto(problem, BETAS, scope=scope)])
        free = evaluate(IlpLoad()(problem), problem)
    balance = free.balance_gpu if scope == "gpu" else free.balance_server
    others = _frame([{"policy": "ilp-load", "hops": free.hops_per_token_layer, "balance": balance}])
    console.print(_table(front))
    # Seconds vary from run to run, and the files are to be the same.
    text = front.drop(columns="seconds").to_csv(
        index=False, float_format="%.9g", lineterminator="\n"
    )
    with staged(folder) as stage:
        write_atomic(stage / "front.csv", text)
        _draw(front, others, scope, stage)
    console.print(f"front of hops against balance written to {folder}/")


def _draw(front: pd.DataFrame, others: pd.DataFrame, scope: str, folder: Path) -> None:
    from experiments.figures import pareto as drawing  # noqa: PLC0415  loads matplotlib
    from experiments.figures import save  # noqa: PLC0415

    save(drawing.figure(front, scope=scope, others=others), folder, "pareto")


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  slow to import

    return pd.DataFrame(rows)


def _table(front: pd.DataFrame) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for name in front.columns:
        table.add_column(name, justify="right")
    for row in front.itertuples(index=False):
        table.add_row(*(f"{value:,.4g}" for value in row))
    return table
