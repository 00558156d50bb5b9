"""The command line: one command, `topomoe`. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from experiments import placing  # noqa: TC001  typer reads the types when it runs

app = typer.Typer(
    name="topomoe",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Where should each expert of a Mixture-of-Experts model live in this cluster, what
    traffic will that cause, and is a change worth it?

    Start with `topomoe paper`: the whole study into `results/paper`. For one case,
    `topomoe place --cluster fat-tree --policy ilp-load --out map.json` places the experts, and
    `topomoe simulate RUN.toml` replays a run file.

    Exit status: 0 done, 2 wrong input (one line says what, where and what was expected), 1
    anything else.""",
)

Json = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures to this file, for programs.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="A policy of your own, package.module:Class, beside the study's. May be repeated.",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415  keeps --help quick

        typer.echo(f"topomoe {version('topomoe')}")
        raise typer.Exit


@app.callback()
def _common(
    _version_asked: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit."),
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def paper(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; by default results/paper, or with --load "
            "results/paper-NAME."
        ),
    ] = None,
    load: Annotated[
        Path | None,
        typer.Option(
            help="Recorded loads (logical_count JSON) instead of synthetic ones; runs "
            "the one model whose shape fits."
        ),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            help="CSV of hops typed in from the paper (columns model, cluster, policy, "
            "hops), drawn over ours."
        ),
    ] = None,
    policy: Policies = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core, 4 at most.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Run the paper's study end to end: solve, replay, tables and figures.

    Two models on four 256-GPU clusters under seven policies; every choice the paper leaves open
    stands in experiments/sweeps/paper.toml.
    """
    from experiments.commands.paper import run  # noqa: PLC0415  keeps --help quick

    run(
        out=out,
        load=load,
        expected=expected,
        policies=policy or [],
        workers=workers,
        json_file=json_file,
    )


@app.command()
def place(  # noqa: PLR0913, PLR0917  a command's options
    cluster: Annotated[
        str,
        typer.Option(
            help="fat-tree, fat-tree-sparse, dragonfly, dragonfly-sparse (the study's), "
            "facts-fat-tree, ep32, ep64, ep72, ep144, or a cluster file (.toml)."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="DeepSeek-R1, DeepSeek-V3, DeepSeekMoE-16B, DeepSeek-V2-Lite.")
    ] = "DeepSeek-R1",
    policy: Annotated[
        str,
        typer.Option(
            help="contiguous, round-robin, random, greedy, greedy-load, ilp, ilp-load, "
            "keep-groups, eplb, eplb-auto, pairs, affinity, cluster-map, hottest, or "
            "package.module:Class."
        ),
    ] = "ilp-load",
    load: Annotated[
        Path | None,
        typer.Option(help="Recorded loads (logical_count JSON); by default synthetic, R1-like."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Recorded choices (npz with topk_ids, seq_lens): even sequences are "
            "the profile, odd ones are judged."
        ),
    ] = None,
    attention: Annotated[
        str, typer.Option(help="data-parallel (what engines run) or pipelined (the paper's).")
    ] = "data-parallel",
    tp: Annotated[
        int, typer.Option(min=1, help="Neighbouring GPUs that hold the same tokens.")
    ] = 1,
    layer_slots: Annotated[
        int | None, typer.Option(min=1, help="C_layer: most experts of one layer on a server.")
    ] = None,
    server_slots: Annotated[
        int | None, typer.Option(min=1, help="C_exp: most experts on a server.")
    ] = None,
    against: Annotated[str, typer.Option(help="Policy to compare with.")] = "contiguous",
    judge: Annotated[
        Path | None,
        typer.Option(help="Recorded loads to draw the judged trace from; by default --load's own."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the judged trace; by default 4096 or what there is."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of synthetic loads and traces.")] = 0,
    beta: placing.Beta = None,
    beta_relax: placing.BetaRelax = False,
    beta_scope: placing.BetaScope = "server",
    redundant: placing.Redundant = 0,
    previous: placing.Previous = None,
    max_moves: placing.MaxMoves = None,
    move_price: placing.MovePrice = None,
    keep_groups: placing.KeepGroups = False,
    engine: placing.EngineName = None,
    pareto: placing.FrontFolder = None,
    out: Annotated[Path | None, typer.Option(help="Write the placement file here.")] = None,
    json_file: Json = None,
) -> None:
    """Place a model's experts on a cluster, say how good that is, and write the placement.

    The placement is judged by replaying a trace that the policy has not seen, beside the
    placement of another policy on the same tokens.
    """
    from experiments.commands.place import run  # noqa: PLC0415  keeps --help quick

    run(
        {
            "model": model,
            "cluster": cluster,
            "tokens": tokens,
            "workload": {
                "seed": seed,
                "load": str(load) if load else None,
                "judge": str(judge) if judge else None,
                "trace": str(trace) if trace else None,
            },
            "attention": {"kind": attention, "tp": tp},
            "placement": {
                "policy": policy,
                "layer_slots": layer_slots,
                "server_slots": server_slots,
                "beta": beta,
                "beta_relax": beta_relax,
                "beta_scope": beta_scope,
                "redundant": redundant,
                "previous": str(previous) if previous else None,
                "max_moves": max_moves,
                "move_price": move_price,
                "keep_groups": keep_groups,
                "engine": engine,
            },
        },
        against=against,
        out=out,
        json_file=json_file,
        pareto=pareto,
    )


@app.command()
def worth(  # noqa: PLR0913, PLR0917  a command's options
    old: placing.OldPlacement,
    new: placing.NewPlacement,
    cluster: Annotated[str, typer.Option(help="As for place.")],
    load: Annotated[
        Path | None,
        typer.Option(help="Recorded loads to judge by; by default synthetic, R1-like."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Recorded choices; odd sequences are judged.")
    ] = None,
    attention: Annotated[
        str, typer.Option(help="data-parallel (what engines run) or pipelined (the paper's).")
    ] = "data-parallel",
    tp: Annotated[
        int, typer.Option(min=1, help="Neighbouring GPUs that hold the same tokens.")
    ] = 1,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the step; by default 4096 or what there is."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of synthetic loads and traces.")] = 0,
    bytes_per_parameter: placing.BytesPerParameter = 1.0,
    json_file: Json = None,
) -> None:
    """Say what moving from the OLD placement to the NEW one costs and gains.

    Moved bytes and the time they take over the links, hops and step time of the same tokens
    under both placements, and the tokens after which the move has paid.
    """
    from experiments.commands.worth import run  # noqa: PLC0415  keeps --help quick

    run(
        old,
        new,
        {
            "cluster": cluster,
            "tokens": tokens,
            "workload": {
                "seed": seed,
                "load": str(load) if load else None,
                "trace": str(trace) if trace else None,
            },
            "attention": {"kind": attention, "tp": tp},
        },
        bytes_per_parameter=bytes_per_parameter,
        json_file=json_file,
    )


@app.command()
def simulate(
    run_file: Annotated[Path, typer.Argument(help="Run file (TOML); see the README.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write tables into this folder (Parquet): links, layers, utilisation of links "
            "over time, hops of messages."
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Replay one run file: a trace through a placement over the cluster's links."""
    from experiments.commands.simulate import run  # noqa: PLC0415  keeps --help quick

    run(run_file, out=out, json_file=json_file)


@app.command()
def bench(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what takes long: a quarter of an hour in all.")
    ] = False,
    table: Annotated[
        Path | None, typer.Option(help="Write the tables on recorded data here, as Markdown.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Measure what is fast, side by side with what a user would pick instead."""
    from experiments.commands.bench import run  # noqa: PLC0415  keeps --help quick

    run(json_file=json_file, everything=everything, table=table)


def main() -> None:
    """Run the command line and exit with its status.

    Policies of the user's own are found in the current folder too.
    """
    sys.path.append(str(Path.cwd()))
    sys.exit(status(sys.argv[1:]))


def status(arguments: list[str]) -> int:
    """Run the command line with these arguments and return its exit status."""
    try:
        get_command(app).main(
            args=arguments or ["--help"], prog_name="topomoe", standalone_mode=False
        )
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 1)
    except typer.TyperException as error:
        return _fail(error.format_message(), 2)
    except ValueError as error:
        if not _is_input_error(error):
            raise
        return _fail(str(error), 2)
    return 0


def _is_input_error(error: ValueError) -> bool:
    from experiments.errors import ExperimentError  # noqa: PLC0415  keeps --help quick
    from placement import PlacementError  # noqa: PLC0415
    from sim import LawViolation, SimulationError  # noqa: PLC0415
    from topologies import TopologyError  # noqa: PLC0415
    from workloads import WorkloadError  # noqa: PLC0415

    ours = (ExperimentError, PlacementError, SimulationError, TopologyError, WorkloadError)
    return isinstance(error, ours) and not isinstance(error, LawViolation)


def _fail(message: str, code: int) -> int:
    one_line = " ".join(message.split())
    typer.echo(f"topomoe: {one_line}", err=True)
    return code
