"""`topomoe worth`: is a new placement worth the move from the old one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from experiments.atomic import check_destinations
from experiments.commands.remarks import SAME_BYTES, measured_distances, same_hops
from experiments.commands.show import console, write_json
from experiments.errors import ExperimentError
from experiments.maps import read_map
from experiments.run import prepare
from experiments.spec import RunSpec, input_files
from experiments.tables import resolve
from experiments.worth import weigh
from placement import read_placement
from workloads.readers.peek import peek

if TYPE_CHECKING:
    from pathlib import Path

    from placement.moves.worth import Worth


_ROWS = (
    ("expected_hops", "expected hops per token and layer (profile)", 1.0),
    ("profile_balance_gpu", "busiest GPU / mean (profile)", 1.0),
    ("hops_per_token_layer", "hops per token and layer, replayed", 1.0),
    ("byte_hops", "byte-hops of the step, 1e9", 1e-9),
    ("balance_server", "busiest server / mean, replayed", 1.0),
    ("balance_gpu", "busiest GPU / mean, replayed", 1.0),
    ("gpus_per_token_layer", "GPUs per token and layer", 1.0),
    ("servers_per_token_layer", "servers per token and layer", 1.0),
    ("busiest_s", "busiest links, ms a step", 1e3),
    ("step_s", "step, ms", 1e3),
)
"""Figures of a step with their labels and the scale they are shown in."""


def run(
    old: Path,
    new: Path,
    content: dict[str, Any],
    *,
    json_file: Path | None,
) -> None:
    """Compare two maps, print what the move costs and gains, and the verdict.

    Maps are placement files or engines' own. `content` as of a run file; the model, where it names
    none, is that of the first placement file.
    """
    named = content.get("model") or _model_named_by(old, new)
    spec = resolve(RunSpec, {**content, "model": named}, "worth")
    check_destinations([json_file], inputs=[old, new, *input_files(spec)])
    setting = prepare(spec)
    before, after = read_map(old, setting), read_map(new, setting)
    result = weigh(before, after, spec, names=(str(old), str(new)))
    how = f"replayed with {spec.dispatch.mode} dispatch"
    if before.redundant or after.redundant:
        how += f", replicas taken by the rule '{spec.placement.replica_rule}'"
    console.print(
        f"{setting.model.name} on {spec.cluster}, {spec.attention.kind} attention; "
        f"{setting.workload.source}; {setting.workload.trace.tokens} tokens {how}"
    )
    for line in measured_distances(setting.router.cluster):
        console.print(line)
    console.print(_moving(result))
    console.print(_gains(result))
    if spec.dispatch.mode == "allgather":
        console.print(SAME_BYTES)
    elif same_hops(spec, setting.problem.cost, before, after):
        console.print(
            "Every placement has the same expected hops here: all servers are equally far from "
            "the tokens. 0 % to gain on hops."
        )
    console.print(result.verdict, style="bold")
    write_json(json_file, {"spec": spec.model_dump(mode="json"), **_for_programs(result)})


def _model_named_by(*maps: Path) -> str:
    """Return the model of the first placement file; engines' maps do not name theirs."""
    foreign = ("unreadable", "json")
    for path in maps:
        seen = peek(path)
        if "experts_on_gpu" in seen.keys or (seen.container in foreign and not seen.keys):
            return read_placement(path).model
    raise ExperimentError(
        f"{maps[0]}: does not name its model, nor does {maps[1]}; give --model, the maps' model"
    )


def _moving(result: Worth) -> str:
    share = 100 * result.moved_slots / result.slots
    return (
        f"moves {result.moved_slots:,} of {result.slots:,} slots ({share:.1f} %), "
        f"{result.moved_inside:,} of them inside their server: {result.moved_bytes / 1e9:,.2f} GB, "
        f"{result.moving_s:.3f} s over the links"
    )


def _gains(result: Worth) -> Table:
    table = Table(show_edge=False, header_style="bold")
    table.add_column("")
    for name in ("old", "new", "saves"):
        table.add_column(name, justify="right")
    old, new = result.old, result.new
    for name, label, scale in _ROWS:
        before, after = getattr(old, name), getattr(new, name)
        # Adding 0 turns the -0.00 of rounding into 0.00.
        saved = round(100 * (before - after) / before, 2) + 0.0 if before > 0 else 0.0
        table.add_row(label, f"{before * scale:,.4f}", f"{after * scale:,.4f}", f"{saved:.2f} %")
    return table


def _for_programs(result: Worth) -> dict[str, Any]:
    return {
        **asdict(result),
        "hops_gain": result.hops_gain,
        "step_gain": result.step_gain,
        "gained_s_per_token": result.gained_s_per_token,
        "break_even_tokens": result.break_even_tokens,
        "verdict": result.verdict,
    }
