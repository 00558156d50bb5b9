"""`topomoe place`: one model on one cluster, beside the placement one would have had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from experiments.atomic import check_destinations, write_atomic
from experiments.combine import ALWAYS, TAKES, taking
from experiments.commands.balance_said import cap_labels
from experiments.commands.curve import curve_files, read_start, write_curve
from experiments.commands.front import front_files, write_front
from experiments.commands.remarks import remarks
from experiments.commands.show import console, figures_table, write_json
from experiments.errors import ExperimentError
from experiments.maps import FILES, how_to_load
from experiments.metrics import metrics, profile_metrics
from experiments.programs import placement_figures, solve_seconds
from experiments.run import place_experts, replayed, with_default_policy
from experiments.spec import PlacementSpec, RunSpec, input_files
from experiments.tables import resolve
from placement import InfeasibleError
from placement.formats import map_format

if TYPE_CHECKING:
    from experiments.run import Placed
    from placement.formats import MapFormat

OWN = "topomoe"
"""Name of the format of placement files."""

Columns: TypeAlias = dict[str, dict[str, Any]]
"""Figures by name, of every placement."""


def run(
    content: dict[str, Any],
    *,
    against: str,
    out: Path | None,
    json_file: Path | None,
    form: str = OWN,
    pareto: Path | None = None,
    curve: Path | None = None,
) -> None:
    """Place, judge, compare, print, and write what was asked for."""
    written = _written(form, out)
    spec, slots = _resolved(_for_engine(content, written), against)
    _check_files(spec, [out, json_file], pareto, curve, against)
    with console.status("drawing the trace, placing, replaying ..."):
        placed = place_experts(spec)
        setting = placed.setting
        start = None if curve is None else read_start(spec, setting)
        other = _other(spec, against, slots)
        against = Path(against).name if against.endswith(FILES) else against
        columns = _judged(placed, other, spec, against)
    console.print(_heading(spec, placed))
    console.print(figures_table(columns, caps=cap_labels(spec)))
    for line in remarks(spec, placed, other, columns, against):
        console.print(line)
    if out is not None:
        write_atomic(out, written.write(placed.placement, model=setting.model))
        console.print(f"placement written to {out}{_as(written)}")
        hint = how_to_load(written, out, placed.placement, rule=spec.placement.replica_rule)
        if hint:
            console.print(hint, soft_wrap=True)
    if pareto is not None:
        write_front(spec, setting.problem, pareto)
    if curve is not None and start is not None:
        write_curve(start, setting.problem, curve)
    write_json(json_file, _for_programs(spec, placed, columns, against))


def _written(form: str, out: Path | None) -> MapFormat:
    """Return the format of the placement file."""
    if form != OWN and out is None:
        raise ExperimentError("place: --format goes with --out, the file to write")
    return map_format(form)


def _for_engine(content: dict[str, Any], written: MapFormat) -> dict[str, Any]:
    """Add the rules of the engine whose format is written."""
    table = dict(content.get("placement", {}))
    asked = table.get("engine")
    if written.engine is None or asked == written.engine:
        return content
    if asked is not None:
        raise ExperimentError(
            f"place: --format {written.name} is a format of {written.engine}, and --engine asks "
            f"for {asked}"
        )
    return {**content, "placement": {**table, "engine": written.engine}}


def _as(written: MapFormat) -> str:
    return "" if written.name == OWN else f" in the format {written.name}"


def _resolved(content: dict[str, Any], against: str) -> tuple[RunSpec, int | None]:
    """Return the run, and the redundant slots of the policy to compare with.

    These may be the only ones, beside a policy that takes none. A policy may be a placement file.
    """
    table = dict(content.get("placement", {}))
    if table.get("policy") is None:
        table.pop("policy", None)
    if str(table.get("policy", "")).endswith(FILES):
        table["file"] = table.pop("policy")
    slots = table.get("redundant") if against in taking("redundant") else None
    if slots is not None and table.get("policy") in set(TAKES) - set(taking("redundant")):
        del table["redundant"]
    spec = resolve(RunSpec, {**content, "placement": table}, "place")
    return with_default_policy(spec), slots


def _check_files(
    spec: RunSpec,
    files: list[Path | None],
    pareto: Path | None,
    curve: Path | None,
    against: str,
) -> None:
    drawn = [] if pareto is None else front_files(pareto)
    drawn += [] if curve is None else curve_files(curve)
    read = [*input_files(spec), against if against.endswith(FILES) else None]
    check_destinations([*files, *drawn], inputs=read)


def _heading(spec: RunSpec, placed: Placed) -> str:
    workload = placed.setting.workload
    fitted = ", ".join(Path(path).name for path in spec.placement.domains)
    domains = f"; fitted on {fitted}" if fitted else ""
    return (
        f"{placed.setting.model.name} on {spec.cluster}, {spec.attention.kind} attention; "
        f"{workload.source}{domains}; {workload.trace.tokens} tokens replayed with "
        f"{spec.dispatch.mode} dispatch"
    )


def _other(spec: RunSpec, policy: str, redundant: int | None) -> Placed | None:
    """Place by the policy (or file) to compare with; None where the caps leave it no placement."""
    options = {name: getattr(spec.placement, name) for name in ALWAYS if name != "engine"}
    if policy.endswith(FILES):
        table = PlacementSpec(file=policy, **options)
    else:
        table = PlacementSpec(policy=policy, redundant=redundant, **options)
    try:
        return place_experts(spec.model_copy(update={"placement": table}))
    except InfeasibleError:
        return None


def _judged(placed: Placed, other: Placed | None, spec: RunSpec, against: str) -> Columns:
    """Figures of both placements: replayed, and as the profile expects them.

    One column where both are the same placement by the same name.
    """
    name = placed.placement.policy
    both = {name: placed}
    if other is not None and (against != name or other.placement != placed.placement):
        both[against if against != name else f"{against}, without options"] = other
    capped = spec.placement.beta is not None
    return {
        name: {**metrics(replayed(spec, each)), **profile_metrics(each, capped=capped)}
        for name, each in both.items()
    }


def _for_programs(spec: RunSpec, placed: Placed, columns: Columns, against: str) -> dict[str, Any]:
    own, *others = columns.values()
    return {
        "spec": spec.model_dump(mode="json"),
        "policy": placed.placement.policy,
        **own,
        "solve_s": solve_seconds(placed),
        **placement_figures(spec, placed),
        "against": {"policy": against, **others[0]} if others else None,
    }
