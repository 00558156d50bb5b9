"""Draw the study's figures from its tables on disk; nothing is simulated here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from experiments.atomic import write_atomic
from experiments.figures import (
    FIGURES,
    balance_against_hops,
    caption,
    hops_by_policy,
    link_load,
    save,
    solve_time,
)
from experiments.figures.save import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from experiments.expected import Expected

FILES = (*(f"{name}.{kind}" for name in FIGURES for kind in KINDS), "figures.md")
"""What `draw_study` writes."""


def draw_study(folder: Path, *, expected: Expected | None = None) -> list[Path]:
    """Draw every figure of a study into its own folder, with a page of captions.

    Parameters
    ----------
    folder
        Holds ``hops.csv``, ``links.parquet`` and ``manifest.json``.
    expected
        Hops typed in from the paper, drawn over the bars.

    Returns
    -------
    The files written.
    """
    about = json.loads((folder / "manifest.json").read_text())
    hops = pd.read_csv(folder / "hops.csv")
    links = pd.read_parquet(folder / "links.parquet")
    solves = pd.DataFrame(about["solves"])
    figures: dict[str, Figure] = {
        "hops_by_policy": hops_by_policy.figure(
            hops,
            expected=None if expected is None else expected.hops,
            expected_from="" if expected is None else expected.name,
        ),
        "link_load": link_load.figure(links),
        "balance_against_hops": balance_against_hops.figure(hops),
        "solve_time": solve_time.figure(solves),
    }
    written = [path for name in FIGURES for path in save(figures[name], folder, name)]
    page = folder / "figures.md"
    write_atomic(page, "\n\n".join(_captions(str(about["workload"]))) + "\n")
    return [*written, page]


def _captions(workload: str) -> Iterator[str]:
    yield "# Figures"
    for name in FIGURES:
        yield f"![{name}]({name}.png)"
        yield caption(name, workload)
