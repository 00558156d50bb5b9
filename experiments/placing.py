"""Options of `topomoe place`, `worth` and `bench` beyond those of every run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from experiments.limits import MAX_BETA, MAX_MOVES, MAX_REDUNDANT

Beta: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=1,
        max=MAX_BETA,
        help="Most load of a layer on a server, over the mean; for ilp-load and least-copies.",
    ),
]
BetaRelax: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--beta-relax", help="Give layers that cannot meet beta the least load found as cap."
    ),
]
BetaScope: TypeAlias = Annotated[str, typer.Option(help="What beta caps: server or gpu.")]
Redundant: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_REDUNDANT,
        help="Slots of a layer beyond one per expert, for eplb, eplb-auto, hottest and replicated.",
    ),
]
Previous: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Placement file to start from: experts move only where that saves hops."),
]
MaxMoves: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=MAX_MOVES, help="Most experts that change their server.")
]
MovePrice: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, help="Hops per token and layer that every move must save."),
]
KeepGroups: TypeAlias = Annotated[
    bool, typer.Option("--keep-groups", help="Keep every routing group on one server.")
]
EngineName: TypeAlias = Annotated[
    str | None,
    typer.Option("--engine", help="Add the rules of sglang, vllm, trtllm, ascend or omni."),
]
FrontFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pareto", help="Write the front of hops against balance into this folder: CSV and figure."
    ),
]
OldPlacement: TypeAlias = Annotated[Path, typer.Argument(help="The placement that runs.")]
NewPlacement: TypeAlias = Annotated[Path, typer.Argument(help="The placement to move to.")]
BytesPerParameter: TypeAlias = Annotated[
    float, typer.Option(max=64, help="Of the experts' weights: 1 for FP8, 2 for BF16.")
]
Everything: TypeAlias = Annotated[
    bool, typer.Option("--all", help="Also what takes long: every load and cap, 64 servers.")
]
TablesFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the tables on recorded data here, as Markdown.")
]
