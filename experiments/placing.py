"""Options of `topomoe place`, `worth` and `bench` beyond those of every run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from experiments.limits import (
    MAX_BETA,
    MAX_BYTES_PER_PARAMETER,
    MAX_FLATTEN,
    MAX_GB,
    MAX_MOVES,
    MAX_PRICE,
    MAX_REDUNDANT,
    MAX_SECONDS,
    MAX_SEED,
    MAX_TOKENS,
)

OPTIONS = (
    "policy",
    "layer_slots",
    "server_slots",
    "beta",
    "beta_relax",
    "beta_price",
    "beta_scope",
    "redundant",
    "replica_rule",
    "previous",
    "max_moves",
    "move_price",
    "move_price_gb",
    "keep_groups",
    "hop_weighted",
    "domains",
    "robust",
    "flatten",
    "links",
    "step_tokens",
    "slot_seconds",
    "token_seconds",
    "link_byte_seconds",
    "spread",
    "gpu_memory_gb",
    "kv_tokens",
    "bytes_per_parameter",
    "time_limit",
    "search_seed",
    "engine",
)
"""Options of `topomoe place` that are keys of a run file's ``[placement]`` too."""


def _number(least: float, most: float) -> dict[str, Any]:
    """Options of a number within bounds, which NaN is not: typer's own say something else of it."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise typer.BadParameter(f"expected a number from {least:g} to {most:g}, got '{text}'")
        return value

    return {"parser": parse, "metavar": f"{least:g}..{most:g}"}


Beta: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(1, MAX_BETA),
        help="Most load of a layer on a server, over the mean; for ilp-load, replicated, "
        "least-copies and least-congestion.",
    ),
]
BetaRelax: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--beta-relax", help="Give layers that cannot meet beta the least load found as cap."
    ),
]
BetaPrice: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_PRICE),
        help="Do not forbid load above beta: a mean load above it costs so many hops (copies) "
        "per token and layer.",
    ),
]
BetaScope: TypeAlias = Annotated[
    str,
    typer.Option(help="What beta caps, and what least-copies sends a copy to: server or gpu."),
]
Redundant: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_REDUNDANT,
        help="Slots of a layer beyond one per expert, for every policy that replicates.",
    ),
]
ReplicaRule: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Which replica a token will take: equal, nearest, lp, sglang_static, "
        "sglang_dynamic or vllm_modulo; by default --engine's, else equal. Figures are under it."
    ),
]
Previous: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Placement file, or engine's map, to start from: experts move only to save hops "
        "(copies), or to keep --beta."
    ),
]
MaxMoves: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=MAX_MOVES, help="Most experts that change their server.")
]
MovePrice: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_PRICE), help="Hops (copies) per token and layer that every move must save."
    ),
]
MovePriceGb: TypeAlias = Annotated[
    float | None,
    typer.Option(**_number(0, MAX_PRICE), help="The same, for every GB of weights that moves."),
]
KeepGroups: TypeAlias = Annotated[
    bool, typer.Option("--keep-groups", help="Keep every routing group on one server.")
]
HopWeighted: TypeAlias = Annotated[
    bool,
    typer.Option("--hop-weighted", help="least-copies: a copy counts the hops to its place."),
]
Domains: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        help="least-copies: training traces of other traffic, instead of --trace's (the even "
        "sequences of each). May be repeated."
    ),
]
Robust: TypeAlias = Annotated[
    str,
    typer.Option(help="How --domains count together: mean, worst, or z for mean + z deviations."),
]
Flatten: TypeAlias = Annotated[
    float,
    typer.Option(
        **_number(0, MAX_FLATTEN),
        help="least-copies: weigh tokens of hot experts down, 1 for all experts alike.",
    ),
]
Links: TypeAlias = Annotated[
    str,
    typer.Option(help="least-congestion: whose busiest link counts, all or fabric."),
]
StepTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_TOKENS,
        help="least-seconds: tokens of a step, of all GPUs together; by default --tokens.",
    ),
]
SlotSeconds: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_SECONDS),
        help="least-seconds: to read an expert's weights; by default from an H100's memory.",
    ),
]
TokenSeconds: TypeAlias = Annotated[
    float | None,
    typer.Option(**_number(0, MAX_SECONDS), help="least-seconds: to compute a token in an expert."),
]
LinkByteSeconds: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_SECONDS),
        help="least-seconds: for a byte on a link; by default one over all links' bandwidth.",
    ),
]
Spread: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--spread", help="Deal each server's experts to its GPUs so that the busiest is lightest."
    ),
]
GpuMemory: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_GB),
        help="GB of a GPU: experts get what is left beside all other weights and --kv-tokens.",
    ),
]
KvTokens: TypeAlias = Annotated[
    int,
    typer.Option(min=0, max=MAX_TOKENS, help="Tokens whose KV cache a GPU is to hold."),
]
ExpertBytes: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_BYTES_PER_PARAMETER),
        help="Of the experts' weights: 1 for FP8, 2 for BF16; by default the model's own.",
    ),
]
TimeLimit: TypeAlias = Annotated[
    float | None,
    typer.Option(
        **_number(0, MAX_SECONDS), help="Wall seconds for the policy; then the best found counts."
    ),
]
SearchSeed: TypeAlias = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Of the policy's searches.")
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
CurveFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--curve",
        help="With --previous: write the whole curve of moves against hops into this folder, "
        "CSV and figure.",
    ),
]
OldPlacement: TypeAlias = Annotated[
    Path, typer.Argument(help="The placement (or engine's map) that runs.")
]
NewPlacement: TypeAlias = Annotated[
    Path, typer.Argument(help="The placement (or engine's map) to move to.")
]
Everything: TypeAlias = Annotated[
    bool, typer.Option("--all", help="Also what takes long: all loads and clusters, 64 servers.")
]
TablesFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the tables here, as Markdown, requirements first.")
]
