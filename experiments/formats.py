"""Options of `topomoe convert` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from experiments.limits import MAX_RANKS

MAPS = (
    "topomoe, sglang, trtllm, vllm-p2l, vllm-proposal-mapping, vllm-proposal-ranks, ascend, omni, "
    "eplb, eplb-json"
)
"""Formats of maps, as help pages list them; a test holds them to those there are."""

LOADS = "sglang-load, sglang-dump, vllm-proposal-stats, eplb-load, eplb-load-json"
"""Formats of loads."""

TRACES = "topomoe-trace, npz, vllm-routed, sglang-dump"
"""Formats of traces."""

Source: TypeAlias = Annotated[Path, typer.Argument(metavar="IN", help="The file to read.")]
Target: TypeAlias = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]
MapFile: TypeAlias = Annotated[Path, typer.Argument(help="The map.")]
FromFormat: TypeAlias = Annotated[
    str | None,
    typer.Option("--from", help="Format that is read; by default told by the content."),
]
ToFormat: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--to",
        help=f"Format that is written. Maps: {MAPS}. Loads: {LOADS} (the dump is read only). "
        f"Traces: {TRACES} (the dump is read only), or a format of loads.",
    ),
]
Ranks: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_RANKS, help="GPUs of a map, where its file does not say."),
]
GpusPerServer: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_RANKS, help="Of a placement file that is written; by default 8."),
]
CheckedEngine: TypeAlias = Annotated[
    str | None,
    typer.Option("--engine", help="sglang, vllm, trtllm, ascend or omni; by default all of them."),
]
OutFormat: TypeAlias = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Of --out: {MAPS}. An engine's format adds its rules, as --engine does.",
    ),
]
