"""Draw the study's figures from its tables on disk; nothing is simulated here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from experiments.atomic import write_atomic
from experiments.errors import FigureError
from experiments.figures import (
    FIGURES,
    balance_against_hops,
    caption,
    hops_by_policy,
    link_load,
    save,
    solve_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from experiments.study import Study

_EXPECTED = ("model", "cluster", "policy", "hops")


def draw_study(folder: Path, *, expected: pd.DataFrame | None = None) -> list[Path]:
    """Draw every figure of a study into its own folder, with a page of captions.

    Parameters
    ----------
    folder
        Holds ``hops.csv``, ``links.parquet`` and ``manifest.json``.
    expected
        Hops typed in from the paper (model, cluster, policy, hops), drawn over the bars.

    Returns
    -------
    The files written.
    """
    about = json.loads((folder / "manifest.json").read_text())
    hops = pd.read_csv(folder / "hops.csv")
    links = pd.read_parquet(folder / "links.parquet")
    solves = pd.DataFrame(about["solves"])
    figures: dict[str, Figure] = {
        "hops_by_policy": hops_by_policy.figure(hops, expected=expected),
        "link_load": link_load.figure(links),
        "balance_against_hops": balance_against_hops.figure(hops),
        "solve_time": solve_time.figure(solves),
    }
    written = [path for name in FIGURES for path in save(figures[name], folder, name)]
    page = folder / "figures.md"
    write_atomic(page, "\n\n".join(_captions(str(about["workload"]))) + "\n")
    return [*written, page]


def read_expected(path: Path, study: Study) -> pd.DataFrame:
    """Read figures typed in from the paper, and see that the study has a bar for each.

    Raises
    ------
    FigureError
        If the file cannot be read, misses a column, names a cell the study does not have, or
        holds hops that are no positive number; the message names file and line.
    """
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise FigureError(f"{path}: cannot be read as CSV: {error}") from error
    missing = [column for column in _EXPECTED if column not in frame.columns]
    if missing:
        raise FigureError(f"{path}: missing column '{missing[0]}'; expected {', '.join(_EXPECTED)}")
    allowed = {"model": study.models, "cluster": study.clusters, "policy": study.policies}
    for column, names in allowed.items():
        for row in frame.index[~frame[column].isin(names)]:
            value = frame.loc[row, column]
            raise FigureError(
                f"{path}: line {row + 2}: unknown {column} '{value}'; allowed: {', '.join(names)}"
            )
    hops = pd.to_numeric(frame["hops"], errors="coerce")
    for row in frame.index[~(hops > 0) | (hops == float("inf"))]:
        raise FigureError(
            f"{path}: line {row + 2}: hops is '{frame.loc[row, 'hops']}'; expected a number above 0"
        )
    return frame.assign(hops=hops.astype("float64"))[list(_EXPECTED)]


def _captions(workload: str) -> Iterator[str]:
    yield "# Figures"
    for name in FIGURES:
        yield f"![{name}]({name}.png)"
        yield caption(name, workload)
