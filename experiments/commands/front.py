"""The front of hops against balance: a table and a figure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from experiments.atomic import staged, write_atomic
from experiments.commands.remarks import symmetric
from experiments.commands.show import console
from placement import IlpLoad, evaluate
from placement.balance import pareto
from placement.solve import relative_gap

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.spec import RunSpec
    from placement import PlacementProblem
    from placement.balance import ParetoPoint

BETAS = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Caps on the load of a server (or GPU) over the mean; layers that cannot meet one are relaxed."""


def front_files(folder: Path) -> list[Path]:
    """Return every file that `write_front` writes."""
    return [folder / name for name in ("front.csv", "pareto.pdf", "pareto.png")]


def write_front(spec: RunSpec, problem: PlacementProblem, folder: Path) -> None:
    """Solve for every cap, print the points, and write ``front.csv`` and ``pareto.pdf``, `.png`.

    Where every placement has the same hops there is no front: one line says so, and no file is
    written.
    """
    scope = spec.placement.beta_scope
    if symmetric(problem.cost):
        console.print(_without_front(problem, scope))
        return
    with console.status(f"placing under {len(BETAS)} caps on the load ..."):
        points = pareto(problem, BETAS, scope=scope)
        free = evaluate(IlpLoad()(problem), problem)
    balance = free.balance_gpu if scope == "gpu" else free.balance_server
    others = _frame([{"policy": "ilp-load", "hops": free.hops_per_token_layer, "balance": balance}])
    front = _frame([asdict(point) for point in points])
    console.print(_table(points, scope))
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


def _without_front(problem: PlacementProblem, scope: str) -> str:
    judged = evaluate(IlpLoad()(problem), problem)
    balance = judged.balance_gpu if scope == "gpu" else judged.balance_server
    return (
        "no front of hops against balance, and no file: every placement has "
        f"{judged.hops_per_token_layer:.3f} hops here, so that balance costs none; ilp-load "
        f"without a cap has its busiest {_place(scope)} at {balance:.3f} x the mean"
    )


def _place(scope: str) -> str:
    return "GPU" if scope == "gpu" else scope


def _table(points: list[ParetoPoint], scope: str) -> Table:
    table = Table(show_edge=False, header_style="bold")
    headers = (
        "cap (beta)",
        "expected hops",
        "proven bound",
        "gap",
        f"busiest {_place(scope)} / mean (profile)",
        "layers relaxed",
        "seconds",
    )
    for name in headers:
        table.add_column(name, justify="right")
    for row in points:
        gap = relative_gap(row.hops, row.bound)
        table.add_row(
            f"{row.beta:g}",
            f"{row.hops:,.3f}",
            f"{row.bound:,.3f}",
            f"{100 * gap:.3g} %",
            f"{row.balance:.3f}",
            f"{row.relaxed}",
            f"{row.seconds:.1f}",
        )
    return table
