"""The placement file: JSON, the same everywhere topomoe reads or writes a placement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from placement.errors import PlacementError
from placement.placement import Placement
from placement.solve import SolveReport
from workloads import WorkloadError
from workloads.readers.json_file import parse_json, read_text_file

if TYPE_CHECKING:
    from os import PathLike


class _Solve(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    status: str
    objective_hops: float | None
    bound_hops: float | None
    gap: float | None
    seconds: float
    unit: str = "hops"
    objective: float | None = None
    bound: float | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["topomoe-placement"]
    version: Literal[1]
    model: str
    layers: PositiveInt
    experts: PositiveInt
    gpus: PositiveInt
    gpus_per_server: PositiveInt
    experts_on_gpu: list[list[list[NonNegativeInt]]]
    policy: str
    solve: _Solve | None


def placement_json(placement: Placement) -> str:
    """Write a placement as the text of a placement file."""
    report = placement.solve
    content = {
        "format": "topomoe-placement",
        "version": 1,
        "model": placement.model,
        "layers": placement.layers,
        "experts": placement.experts,
        "gpus": placement.gpus,
        "gpus_per_server": placement.gpus_per_server,
        "experts_on_gpu": _experts_on_gpu(placement),
        "policy": placement.policy,
        "solve": report and _solve(report),
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def _solve(report: SolveReport) -> dict[str, str | float | None]:
    """Write a report: hops under the keys of their own, any other unit beside two nulls."""
    hops = report.unit == "hops"
    content = {
        "status": report.status,
        "objective_hops": report.objective if hops else None,
        "bound_hops": report.bound if hops else None,
        "gap": report.gap,
        "seconds": report.seconds,
    }
    if hops:
        return content
    return content | {"unit": report.unit, "objective": report.objective, "bound": report.bound}


def read_placement(path: str | PathLike[str]) -> Placement:
    """Read a placement file.

    Raises
    ------
    PlacementError
        If it is no JSON, misses or adds a key or has one twice, or does not place every expert; the
        message names the file and the key.
    """
    path = Path(path)
    try:
        file = _File.model_validate(parse_json(read_text_file(path)))
    except WorkloadError as error:
        raise PlacementError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise PlacementError(f"{path}: {where}: {first['msg']}") from error
    try:
        return _placement(file)
    except PlacementError as error:
        raise PlacementError(f"{path}: {error}") from error


def _placement(file: _File) -> Placement:
    rows = file.experts_on_gpu
    if len(rows) != file.layers or any(len(row) != file.gpus for row in rows):
        raise PlacementError(
            f"experts_on_gpu must hold {file.layers} layers of {file.gpus} GPUs each"
        )
    listed = sum(len(slots) for row in rows for slots in row)
    if listed < file.layers * file.experts:
        raise PlacementError(
            f"experts_on_gpu lists {listed} slots; {file.layers} layers of {file.experts} experts "
            "need one for every expert at least"
        )
    size = np.array([[len(slots) for slots in row] for row in rows], dtype=np.int64)
    expert = [expert for row in rows for slots in row for expert in slots]
    outside = [value for value in expert if value >= file.experts]
    if outside:
        raise PlacementError(
            f"experts_on_gpu: expert {outside[0]} is outside 0..{file.experts - 1}"
        )
    cell = np.repeat(np.arange(size.size), size.ravel())
    return Placement(
        model=file.model,
        layers=file.layers,
        experts=file.experts,
        gpus=file.gpus,
        gpus_per_server=file.gpus_per_server,
        slot_layer=(cell // file.gpus).astype(np.int32),
        slot_gpu=(cell % file.gpus).astype(np.int32),
        slot_expert=np.array(expert, dtype=np.int32),
        policy=file.policy,
        solve=_report(file.solve),
    )


def _report(solve: _Solve | None) -> SolveReport | None:
    if solve is None:
        return None
    hops = solve.objective_hops, solve.bound_hops
    other = solve.objective, solve.bound
    objective, bound = hops if solve.unit == "hops" else other
    unused = other if solve.unit == "hops" else hops
    if objective is None or unused != (None, None):
        used = "objective_hops" if solve.unit == "hops" else "objective"
        raise PlacementError(
            f"solve: a report in {solve.unit} gives {used}, and no cost under another unit's keys"
        )
    return SolveReport(
        status=solve.status,
        objective=objective,
        bound=bound,
        seconds=solve.seconds,
        unit=solve.unit,
    )


def _experts_on_gpu(placement: Placement) -> list[list[list[int]]]:
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    ends = np.cumsum(np.bincount(cell, minlength=placement.layers * placement.gpus))
    slots = np.split(placement.slot_expert, ends[:-1])
    flat = [part.tolist() for part in slots]
    return [flat[at : at + placement.gpus] for at in range(0, len(flat), placement.gpus)]
