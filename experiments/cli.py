"""The command line: one command, `topomoe`. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from experiments import formats, options, placing, sweep_options
from experiments.errors import RunError

_INTERRUPTED = 130
"""Status that Typer makes of Ctrl-C."""

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


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415  keeps --help quick

        typer.echo(f"topomoe {version('topomoe')}")
        raise typer.Exit


show = typer.Typer(help="Show what commands work on: clusters.")
app.add_typer(show, name="show")


@show.callback()
def _shown() -> None:
    """Keep the name of what is shown a command of its own."""


@show.command()
def cluster(
    name: options.ShownCluster = None,
    out: options.PictureFile = None,
    json_file: options.JsonFile = None,
) -> None:
    """Say what a cluster is made of -- links, oversubscription, distances -- and draw it."""
    from experiments.commands.show_cluster import run  # noqa: PLC0415  keeps --help quick

    run(name, out=out, json_file=json_file)


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
    out: options.StudyFolder = None,
    load: options.StudyLoad = None,
    expected: options.ExpectedHops = None,
    policy: options.OwnPolicies = None,
    workers: options.Workers = None,
    json_file: options.JsonFile = None,
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
    cluster: options.ClusterName,
    model: options.ModelName = "DeepSeek-R1",
    policy: options.PolicyName = None,
    load: options.Load = None,
    trace: options.Trace = None,
    workload: options.WorkloadFileName = None,
    attention: options.AttentionKind = "data-parallel",
    tp: options.TensorParallel = 1,
    dispatch: options.DispatchMode = "per_expert",
    layer_slots: options.LayerSlots = None,
    server_slots: options.ServerSlots = None,
    against: options.Against = "contiguous",
    judge: options.Judge = None,
    tokens: options.Tokens = None,
    seed: options.Seed = 0,
    beta: placing.Beta = None,
    beta_relax: placing.BetaRelax = False,
    beta_price: placing.BetaPrice = None,
    beta_scope: placing.BetaScope = "server",
    redundant: placing.Redundant = None,
    replica_rule: placing.ReplicaRule = None,
    previous: placing.Previous = None,
    max_moves: placing.MaxMoves = None,
    move_price: placing.MovePrice = None,
    move_price_gb: placing.MovePriceGb = None,
    keep_groups: placing.KeepGroups = False,
    hop_weighted: placing.HopWeighted = False,
    domains: placing.Domains = None,
    robust: placing.Robust = "mean",
    flatten: placing.Flatten = 0.0,
    links: placing.Links = "all",
    step_tokens: placing.StepTokens = None,
    slot_seconds: placing.SlotSeconds = None,
    token_seconds: placing.TokenSeconds = None,
    link_byte_seconds: placing.LinkByteSeconds = None,
    spread: placing.Spread = False,
    gpu_memory_gb: placing.GpuMemory = None,
    kv_tokens: placing.KvTokens = 0,
    bytes_per_parameter: placing.ExpertBytes = None,
    time_limit: placing.TimeLimit = None,
    search_seed: placing.SearchSeed = 0,
    engine: placing.EngineName = None,
    pareto: placing.FrontFolder = None,
    curve: placing.CurveFolder = None,
    out: options.PlacementFile = None,
    form: formats.OutFormat = "topomoe",
    json_file: options.JsonFile = None,
) -> None:
    """Place a model's experts on a cluster, say how good that is, and write the placement.

    The placement is judged by replaying a trace that the policy has not seen, beside the
    placement of another policy on the same tokens.
    """
    given = locals()
    from experiments.commands.place import run  # noqa: PLC0415  keeps --help quick

    run(
        {
            "model": model,
            "cluster": cluster,
            "tokens": tokens,
            "workload": {
                "seed": seed,
                "load": load,
                "judge": judge,
                "trace": trace,
                "file": workload,
            },
            "attention": {"kind": attention, "tp": tp},
            "dispatch": {"mode": dispatch},
            "placement": {option: given[option] for option in placing.OPTIONS},
        },
        against=against,
        out=out,
        form=form,
        json_file=json_file,
        pareto=pareto,
        curve=curve,
    )


@app.command()
def worth(  # noqa: PLR0913, PLR0917  a command's options
    old: placing.OldPlacement,
    new: placing.NewPlacement,
    cluster: options.ClusterName,
    model: options.PlacedModel = None,
    load: options.Load = None,
    trace: options.Trace = None,
    workload: options.WorkloadFileName = None,
    attention: options.AttentionKind = "data-parallel",
    tp: options.TensorParallel = 1,
    dispatch: options.DispatchMode = "per_expert",
    tokens: options.Tokens = None,
    seed: options.Seed = 0,
    bytes_per_parameter: placing.ExpertBytes = None,
    replica_rule: placing.ReplicaRule = None,
    json_file: options.JsonFile = None,
) -> None:
    """Say what moving from the OLD placement to the NEW one costs and gains.

    Moved bytes and the time they take over the links, hops, balance and step time of the same
    tokens under both placements, and the tokens after which the move has paid. Replicas are taken
    by --replica-rule.
    """
    from experiments.commands.worth import run  # noqa: PLC0415  keeps --help quick

    run(
        old,
        new,
        {
            "model": model,
            "cluster": cluster,
            "tokens": tokens,
            "workload": {"seed": seed, "load": load, "trace": trace, "file": workload},
            "attention": {"kind": attention, "tp": tp},
            "dispatch": {"mode": dispatch},
            "placement": {
                "replica_rule": replica_rule,
                "bytes_per_parameter": bytes_per_parameter,
            },
        },
        json_file=json_file,
    )


@app.command()
def convert(  # noqa: PLR0913, PLR0917  a command's options
    old: formats.Source,
    new: formats.Target,
    model: options.ModelName,
    from_format: formats.FromFormat = None,
    to_format: formats.ToFormat = None,
    ranks: formats.Ranks = None,
    gpus_per_server: formats.GpusPerServer = None,
    json_file: options.JsonFile = None,
) -> None:
    """Write the loads, the trace or the map in IN in another format.

    Formats are those of serving engines, of DeepSeek's EPLB and of topomoe; formats proposed to
    vLLM are named as such. A trace written as loads is counted.
    """
    from experiments.commands.convert import run  # noqa: PLC0415  keeps --help quick

    run(
        old,
        new,
        forms=(from_format, to_format),
        model_name=model,
        ranks=ranks,
        gpus_per_server=gpus_per_server,
        json_file=json_file,
    )


@app.command()
def check(
    file: formats.MapFile,
    model: options.ModelName,
    engine: formats.CheckedEngine = None,
    ranks: formats.Ranks = None,
    from_format: formats.FromFormat = None,
    json_file: options.JsonFile = None,
) -> None:
    """Say whether serving engines would load a map of experts, and if not, why not.

    A file in an engine's own format is judged as it stands; for other engines, what `convert`
    would write is. Exit status 2 where the engine asked for refuses it, else the one whose format
    it is, else all of them.
    """
    from experiments.commands.check import run  # noqa: PLC0415  keeps --help quick

    run(
        file,
        engine_name=engine,
        form=from_format,
        model_name=model,
        ranks=ranks,
        json_file=json_file,
    )


@app.command()
def simulate(
    run_file: options.RunFile,
    out: options.TablesFolder = None,
    perfetto: options.TraceFile = None,
    json_file: options.JsonFile = None,
) -> None:
    """Replay one run file: a trace through a placement over the cluster's links."""
    from experiments.commands.simulate import run  # noqa: PLC0415  keeps --help quick

    run(run_file, out=out, json_file=json_file, perfetto=perfetto)


@app.command()
def stats(
    files: options.RecordedFiles,
    model: options.RecordedModel = None,
    out: options.FiguresFolder = None,
    json_file: options.JsonFile = None,
) -> None:
    """Say how uneven, how correlated and how steady recorded loads and traces are.

    Several files stand side by side. Warns of warm-up, mixed phases, dead layers and experts, and
    of too few tokens for the estimate.
    """
    from experiments.commands.stats import run  # noqa: PLC0415  keeps --help quick

    run(files, model=model, out=out, json_file=json_file)


@app.command()
def capture(
    model: options.CapturedModel,
    prompts: options.Prompts,
    out: options.NewTrace,
    max_new_tokens: options.NewTokens = 32,
    batch_size: options.BatchSize = 8,
    device: options.Device = None,
    json_file: options.JsonFile = None,
) -> None:
    """Run a Hugging Face MoE model on prompts and record what its routers choose.

    The expert ids that the routers return, prompt tokens marked as prefill and generated ones as
    decode, into a trace for --trace. Needs the extra `capture` (PyTorch, transformers).
    """
    from experiments.commands.capture import run  # noqa: PLC0415  keeps --help quick

    run(
        model,
        prompts,
        out,
        new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        json_file=json_file,
    )


@app.command()
def fit(
    file: options.RecordedFile,
    model: options.RecordedModel = None,
    out: options.FittedFile = None,
    seed: options.FitSeed = 0,
    json_file: options.JsonFile = None,
) -> None:
    """Fit a synthetic workload to recorded loads or a trace, and say how like it is.

    Statistics are fitted, not the names of the experts: which are hot, and which are chosen
    together, is drawn from a seed. `--workload` and run files ([workload] file) take the result,
    for any model.
    """
    from experiments.commands.fit import run  # noqa: PLC0415  keeps --help quick

    run(file, model=model, out=out, seed=seed, json_file=json_file)


@app.command()
def sweep(  # noqa: PLR0913, PLR0917  a command's options
    sweep_file: sweep_options.SweepFile,
    out: sweep_options.SweepFolder,
    settings: sweep_options.Settings = None,
    workers: options.Workers = None,
    dry_run: sweep_options.DryRun = False,
    retry_failed: sweep_options.RetryFailed = False,
    executor: sweep_options.ExecutorName = "process",
    scheduler: sweep_options.SchedulerAddress = None,
    time_limit: sweep_options.RunSeconds = None,
    memory_limit: sweep_options.RunMemory = None,
    yes: sweep_options.Sure = False,
) -> None:
    """Run a base along its axes into a store; the same command goes on where it stopped.

    A run is done once: kill it, lose the machine, add values to an axis, start a second sweep
    beside it. Runs that fail do not stop the others.
    """
    given = locals()
    from experiments.commands.sweep import run  # noqa: PLC0415  keeps --help quick

    run(sweep_file, out, {**given, "settings": settings or []})


@app.command()
def collect(
    store: sweep_options.StoreFolder,
    out: sweep_options.CollectedFile = None,
    provenance: sweep_options.WithProvenance = False,
) -> None:
    """Make one tidy table of a store: a row per run, a column per key and figure."""
    from experiments.commands.collect import run  # noqa: PLC0415  keeps --help quick

    run(store, out=out, provenance=provenance)


@app.command()
def figures(
    results: options.ResultsPath,
    style: options.StyleName = "acm",
    out: options.DrawnFolder = None,
    figure: options.FigureNames = None,
    where: options.Where = None,
    over: options.Over = None,
) -> None:
    """Draw the runs of a store for a paper: figures at a venue's widths, and tables.

    Means over seeds with 95 % bootstrap intervals; tables in Markdown and LaTeX say the best and
    what is not significantly worse. Nothing is simulated.
    """
    from experiments.commands.figures import run  # noqa: PLC0415  keeps --help quick

    run(results, style=style, out=out, figures=figure or [], where=where or [], over=over or [])


@app.command()
def report(
    results: options.ReportedFolder = None,
    out: options.ReportFile = Path("report.html"),
    compare: options.Compared = None,
    metric: options.Metric = "step_s",
    reference: options.ReferencePolicy = None,
) -> None:
    """Write a store of runs as one HTML file that needs nothing else, for a meeting.

    With --compare, the answer to whether B is worth it: two stores, or two runs, policies or
    placement files of one store. Nothing is simulated.
    """
    from experiments.commands.report import run  # noqa: PLC0415  keeps --help quick

    run(results, out=out, compare=compare, metric=metric, reference=reference)


@app.command()
def bench(
    everything: placing.Everything = False,
    only: options.BenchOnly = None,
    table: placing.TablesFile = None,
    json_file: options.JsonFile = None,
) -> None:
    """Measure what is fast, side by side with what a user would pick instead."""
    from experiments.commands.bench import run  # noqa: PLC0415  keeps --help quick

    run(json_file=json_file, everything=everything, table=table, only=only)


@app.command()
def validate(
    only: options.ValidateOnly = None,
    table: options.ValidationTable = None,
    json_file: options.JsonFile = None,
) -> None:
    """Hold the simulator against theory, its other fidelities and published hardware.

    Prints what was expected, what came, the error and the tolerance; exit status 1 if a line
    that is judged fails. Expected values stand in experiments/validation/expected.toml.
    """
    from experiments.commands.validate import run  # noqa: PLC0415  keeps --help quick

    run(only=only, table=table, json_file=json_file)


def main() -> None:
    """Run the command line and exit with its status.

    Policies of the user's own are found in the current folder too.
    """
    sys.path.append(str(Path.cwd()))
    sys.exit(status(sys.argv[1:]))


def status(arguments: list[str]) -> int:
    """Run the command line with these arguments and return its exit status."""
    try:
        code = _run(arguments or ["--help"])
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except typer.Abort:
        return _fail("input ended", 1)
    except typer.TyperException as error:
        return _fail(error.format_message(), 2)
    except RunError as error:
        return _fail(str(error), 1)
    except (MemoryError, OverflowError, RecursionError) as error:
        return _fail(f"the input is beyond what can be computed here: {_named(error)}", 1)
    except ValueError as error:
        if not _is_input_error(error):
            raise
        return _fail(str(error), 2)
    return _fail("interrupted", 1) if code == _INTERRUPTED else code


def _run(arguments: list[str]) -> int:
    """Run a command; 0 if it came to its end, else the status it stopped with.

    Typer makes a status of Ctrl-C, and without `standalone_mode` returns statuses.
    """
    command = get_command(app)
    returned = command.main(args=arguments, prog_name="topomoe", standalone_mode=False)
    return returned if isinstance(returned, int) else 0


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


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
