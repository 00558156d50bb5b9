"""The curve of moves from a previous placement against the hops they save: table and figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.atomic import staged, write_atomic
from experiments.choice import read_fitting
from experiments.commands.show import console
from experiments.curves import point_rows
from experiments.errors import ExperimentError
from placement import evaluate
from placement.moves import curve

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.run import Setting
    from experiments.spec import RunSpec
    from placement import Placement, PlacementProblem


def curve_files(folder: Path) -> list[Path]:
    """Return every file that `write_curve` writes."""
    return [folder / name for name in ("curve.csv", "moves.pdf", "moves.png")]


def read_start(spec: RunSpec, setting: Setting) -> Placement:
    """Return the previous placement of a run, from which its curve starts.

    Raises
    ------
    ExperimentError
        If there is none, or experts have replicas.
    """
    path = spec.placement.previous
    if path is None:
        raise ExperimentError("place: --curve goes with --previous, the placement to start from")
    start = read_fitting(path, setting)
    if start.redundant:
        raise ExperimentError(
            f"{path}: has {start.redundant} redundant slots; --curve counts moves of placements "
            "with one slot an expert"
        )
    return start


def write_curve(start: Placement, problem: PlacementProblem, folder: Path) -> None:
    """Solve for every number of moves; write ``curve.csv`` and ``moves.pdf``, `.png`."""
    import pandas as pd  # noqa: PLC0415  slow to import

    with console.status("placing within every number of moves ..."):
        case = f"{start.policy} to {problem.profile.source}"
        rows = pd.DataFrame(point_rows(case, problem, curve(problem, start)))
        # Budgets close together lead to the same moves; the last has the fewest hops.
        rows = rows.drop_duplicates("moved", keep="last")
    text = rows.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    with staged(folder) as stage:
        write_atomic(stage / "curve.csv", text)
        _draw(rows, stage)
    first, last = rows.iloc[0], rows.iloc[-1]
    if first["moved"] > 0:
        console.print(
            f"the placement to start from breaks a cap of C_layer {problem.layer_slots} or C_exp "
            f"{problem.server_slots}: {first['moved']:,} moves go into keeping them, and leave "
            f"{first['hops']:.4f} hops instead of its {_hops(start, problem):.4f}"
        )
    console.print(
        f"{last['moved']:,} moves save {first['hops'] - last['hops']:.4f} of {first['hops']:.4f} "
        f"hops; the curve of moves against hops is written to {folder}/"
    )


def _hops(placement: Placement, problem: PlacementProblem) -> float:
    return evaluate(placement, problem).hops_per_token_layer


def _draw(rows: pd.DataFrame, folder: Path) -> None:
    from experiments.figures import moves as drawing  # noqa: PLC0415  loads matplotlib
    from experiments.figures import save  # noqa: PLC0415

    save(drawing.figure(rows), folder, "moves")
