"""From a cluster's name or file to its specification."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.tables import read_toml
from topologies import PRESETS, ClusterSpec, Preset, read_cluster
from topologies.files import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

STUDY_FILE = Path(__file__).with_name("sweeps") / "paper.toml"


def find_cluster(name: str) -> Preset:
    """Return the cluster called `name`: of the study, a preset, or a cluster file.

    Raises
    ------
    ExperimentError
        If there is none, listing those there are.
    """
    if is_file(name):
        return Preset(read_cluster(Path(name)), about="from a file")
    study = study_clusters()
    if name in study:
        return Preset(study[name], about="of the paper's study")
    if name in PRESETS:
        return PRESETS[name]
    allowed = ", ".join((*study, *PRESETS))
    raise ExperimentError(
        f"unknown cluster '{name}'; allowed: {allowed}, or a file ({', '.join(SUFFIXES)})"
    )


def is_file(name: str) -> bool:
    """Say whether a cluster is named by its file."""
    return name.endswith(SUFFIXES)


def files_of(name: str) -> list[str]:
    """Return the files that a cluster is read from: its own, and the one that it names.

    Raises
    ------
    TopologyError
        If the cluster's file is refused.
    """
    if not is_file(name):
        return []
    data = read_cluster(Path(name)).parameters.get("file")
    return [name] if data is None or data == name else [name, str(data)]


@cache
def study_clusters() -> dict[str, ClusterSpec]:
    """Return the clusters of the paper's study, in its order."""
    return cluster_specs(read_toml(STUDY_FILE).get("cluster", {}), STUDY_FILE.name)


def cluster_specs(tables: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, ClusterSpec]:
    """Resolve ``[cluster.NAME]`` tables; `like` takes another one's builder and parameters.

    Raises
    ------
    ExperimentError, TopologyError
        If a table is no cluster; the message names it.
    """
    return {name: _spec(tables, name, where) for name in tables}


def _spec(tables: Mapping[str, Mapping[str, Any]], name: str, where: str) -> ClusterSpec:
    table, place = dict(tables[name]), f"{where}: cluster.{name}"
    like = table.pop("like", None)
    if like is not None:
        if like not in tables or "like" in tables[like]:
            raise ExperimentError(f"{place}: like is '{like}'; expected a cluster without 'like'")
        parent = tables[like]
        table["builder"] = parent.get("builder")
        table["parameters"] = {**parent.get("parameters", {}), **table.get("parameters", {})}
    return ClusterSpec.from_mapping({"name": name} | table, where=place)
