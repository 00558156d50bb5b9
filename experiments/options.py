"""The options of the command line, each with its help and its bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from experiments.limits import (
    MAX_BATCH,
    MAX_LAYER_SLOTS,
    MAX_NEW_TOKENS,
    MAX_SEED,
    MAX_SERVER_SLOTS,
    MAX_TOKENS,
    MAX_TP,
    MAX_WORKERS,
)

JsonFile: TypeAlias = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures to this file, for programs.")
]
OwnPolicies: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="A policy of your own, package.module:Class, beside the study's. May be repeated.",
    ),
]
StudyFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the results; by default results/paper, or with --load results/paper-NAME."
    ),
]
StudyLoad: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Recorded loads (logical_count JSON) instead of synthetic ones; runs "
        "the one model whose shape fits."
    ),
]
ExpectedHops: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="CSV of hops typed in from the paper (columns model, cluster, policy, "
        "hops), drawn over ours."
    ),
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_WORKERS, help="Processes; by default one per core, 4 at most."),
]
ClusterName: TypeAlias = Annotated[
    str,
    typer.Option(
        help="fat-tree, fat-tree-sparse, dragonfly, dragonfly-sparse (the study's), "
        "facts-fat-tree, ep32, ep64, ep72, ep144 or another that topomoe show cluster lists, or "
        "a cluster file (.toml, .csv, .graphml, .npy)."
    ),
]
ShownCluster: TypeAlias = Annotated[
    str | None,
    typer.Argument(help="A cluster's name or file; left out, the clusters with a name are listed."),
]
PictureFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Draw the cluster into this file (.png, .pdf, .svg).")
]
ModelName: TypeAlias = Annotated[
    str,
    typer.Option(
        help="DeepSeek-R1, DeepSeek-V3, DeepSeek-V2, DeepSeek-V2-Lite, DeepSeekMoE-16B, Kimi-K2, "
        "GLM-4.5, Qwen3-235B-A22B, Qwen3-30B-A3B, Mixtral-8x7B, Mixtral-8x22B, gpt-oss-20b, "
        "gpt-oss-120b, OLMoE-1B-7B, or the path of a Hugging Face config.json or of its folder."
    ),
]
PlacedModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The placements' model: a preset or the path of a Hugging Face config.json. By "
        "default the preset that a placement file names; engines' maps name none.",
    ),
]
PolicyName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="contiguous, round-robin, random, greedy, greedy-load, ilp, ilp-load, keep-groups, "
        "eplb, eplb-auto, pairs, affinity, cluster-map, hottest, replicated, least-copies, "
        "least-congestion, least-seconds, package.module:Class, or a placement file (.json); by "
        "default ilp-load, or keep-groups where --dispatch per_server meets routing groups that "
        "split over the servers."
    ),
]
Load: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Recorded loads of any engine (SGLang logical_count JSON or .pt, eplb_load_stats "
        "lines, EPLB weight); by default synthetic, R1-like."
    ),
]
Trace: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Recorded choices (npz with topk_ids and seq_lens, vLLM's routed_experts, SGLang's "
        "per_token .pt, or a stored trace): even sequences are the profile, odd ones are judged."
    ),
]
WorkloadFileName: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--workload",
        help="Workload file (.toml, .json) as `topomoe fit` writes it: synthetic loads and traces.",
    ),
]
AttentionKind: TypeAlias = Annotated[
    str, typer.Option(help="data-parallel (what engines run) or pipelined (the paper's).")
]
TensorParallel: TypeAlias = Annotated[
    int, typer.Option(min=1, max=MAX_TP, help="Neighbouring GPUs that hold the same tokens.")
]
DispatchMode: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What a token sends: a message per_expert, per_gpu, per_server, or allgather."
    ),
]
LayerSlots: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_LAYER_SLOTS, help="C_layer: most experts of one layer on a server."
    ),
]
ServerSlots: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_SERVER_SLOTS, help="C_exp: most experts on a server."),
]
Against: TypeAlias = Annotated[
    str, typer.Option(help="Policy, or placement file (.json), to compare with.")
]
Judge: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Recorded loads to draw the judged trace from; by default --load's own."),
]
Tokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_TOKENS,
        help="Tokens of the judged trace; by default 4096 or what there is.",
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Of synthetic loads and traces.")
]
PlacementFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the placement file here.")
]
RunFile: TypeAlias = Annotated[Path, typer.Argument(help="Run file (TOML); see the README.")]
TablesFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Write tables into this folder (Parquet): links, layers, GPUs, utilisation of "
        "links over time, hops of messages."
    ),
]
TraceFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Write what every GPU computed when, and how busy links were, into this file "
        "(.json.gz), for ui.perfetto.dev."
    ),
]
BenchOnly: TypeAlias = Annotated[
    str | None,
    typer.Option("--only", help="Topics that have this in their title, e.g. packet or balance."),
]
ValidateOnly: TypeAlias = Annotated[
    str | None,
    typer.Option("--only", help="One section: theory, fidelity, hardware, serving or laws."),
]
ValidationTable: TypeAlias = Annotated[
    Path | None, typer.Option("--table", help="Write the tables here, as Markdown.")
]
RecordedFiles: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRACE|LOAD...",
        help="Recorded loads (logical_count JSON), recorded choices (npz), or folders of stored "
        "traces.",
    ),
]
RecordedFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="TRACE|LOAD",
        help="Recorded loads (logical_count JSON), recorded choices (npz), or the folder of a "
        "stored trace.",
    ),
]
RecordedModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model that was recorded; by default what a stored trace says, else DeepSeek-R1.",
    ),
]
FiguresFolder: TypeAlias = Annotated[
    Path | None, typer.Option(help="Draw loads and choices into this folder (PDF and PNG).")
]
CapturedModel: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--model",
        help="Folder of a Hugging Face MoE model: config.json, safetensors, tokenizer.",
    ),
]
Prompts: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="Prompts, one a line: text, or in a .jsonl file objects with the keys prompt and, in "
        "all or none, domain."
    ),
]
NewTrace: TypeAlias = Annotated[
    Path, typer.Option(help="The trace to be made, NAME.trace: a folder that is not there yet.")
]
NewTokens: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_NEW_TOKENS,
        help="Most tokens generated for a prompt; all but the last are routed and recorded.",
    ),
]
BatchSize: TypeAlias = Annotated[
    int, typer.Option(min=1, max=MAX_BATCH, help="Prompts that go through the model together.")
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 ..., or auto, which spreads layers over GPUs; by default the "
        "first GPU, or the CPU."
    ),
]
FittedFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the workload file here (.toml or .json).")
]
FitSeed: TypeAlias = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Of the traces drawn while fitting.")
]
ResultsPath: TypeAlias = Annotated[
    Path, typer.Argument(help="Store of runs, or the .parquet or .csv collected from one.")
]
StyleName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--style", help="Venue whose widths and letters to use: acm, ieee, usenix, mlsys."
    ),
]
DrawnFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="Folder; by default figures/STYLE beside the results.")
]
FigureNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--figure",
        help="hops, tradeoff, link-map, link-cdf, time, solve-time, drift or layers; by default "
        "all that the results allow, and tables. May be repeated.",
    ),
]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--where", help="column=value: only such runs. May be repeated."),
]
Over: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--over", help="Key to average over, as over seeds. May be repeated."),
]
ReportedFolder: TypeAlias = Annotated[
    Path | None,
    typer.Argument(help="Folder of runs: a sweep's --out. Left out where --compare names two."),
]
ReportFile: TypeAlias = Annotated[Path, typer.Option("--out", help="The page, .html.")]
Compared: TypeAlias = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--compare",
        metavar="A B",
        help="Two stores; or of RESULTS two policies, placement files, or ids of runs.",
    ),
]
Metric: TypeAlias = Annotated[
    str,
    typer.Option(
        "--metric",
        help="Figure that decides: step_s, exposed_comm_s, hops_per_token_layer, balance_gpu, ...",
    ),
]
ReferencePolicy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reference",
        help="Policy the others are held against; by default round-robin or contiguous.",
    ),
]
