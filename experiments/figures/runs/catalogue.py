"""The figures that results are drawn as, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.clusters import find_cluster
from experiments.errors import FigureError
from experiments.figures.runs import (
    drift,
    hops,
    layers,
    link_cdf,
    link_map,
    solving,
    time,
    tradeoff,
)
from experiments.figures.runs.panels import at
from experiments.labels import PLACE, check_panels
from topologies import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from experiments.figures.venue import Venue
    from experiments.results import Results
    from topologies import Cluster

    Draw = Callable[[Results, Sequence[str], Venue], dict[str, Figure]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A figure.

    Attributes
    ----------
    draw
        Takes results, keys to average over, and a venue; returns figures by file name.
    caption
        What stands below it.
    """

    draw: Draw
    caption: str


def draw_figure(
    name: str, results: Results, venue: Venue, over: Sequence[str] = ()
) -> dict[str, Figure]:
    """Draw one of `NAMES`, which may take several pages.

    Returns
    -------
    Figures by the name of their files.

    Raises
    ------
    FigureError
        If there is no such figure, or the results lack what it shows.
    """
    if name not in CATALOGUE:
        raise FigureError(f"--figure {name}: unknown; allowed: {', '.join(NAMES)}")
    try:
        return CATALOGUE[name].draw(results, over, venue)
    except FigureError as error:
        raise FigureError(f"figure {name}: {error}") from error


def _hops(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    return {"hops": hops.figure(results.labelled(over), venue=venue)}


def _tradeoff(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    return {"tradeoff": tradeoff.figure(results.labelled(over), venue=venue)}


def _time(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    return {"time": time.figure(results.labelled(over), venue=venue)}


def _link_cdf(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    check_panels(results.labelled(over), "links")  # before they are read
    return {"link-cdf": link_cdf.figure(results.arrays("links", over), venue=venue)}


def _layers(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    check_panels(results.labelled(over), "layers")
    return {"layers": layers.figure(results.arrays("layers", over), venue=venue)}


def _solving(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    runs = results.labelled(over)
    clusters = {str(name): _cluster(str(name)).gpus for name in set(runs["cluster"])}
    sized = runs.assign(gpus=runs["cluster"].map(clusters))
    return {"solve-time": solving.figure(sized, venue=venue)}


def _drift(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    for column in (drift.LOAD, drift.JUDGE):
        if column not in results.runs.columns:
            raise FigureError(f"runs: missing column '{column}'; expected the table of a store")
    averaged = dict.fromkeys([*over, drift.LOAD, drift.JUDGE])
    return {"drift": drift.figure(results.labelled(list(averaged)), venue=venue)}


def _link_map(results: Results, over: Sequence[str], venue: Venue) -> dict[str, Figure]:
    check_panels(results.labelled(over), "links")
    links = results.arrays("links", over)
    places = list(links[list(PLACE)].drop_duplicates().itertuples(index=False, name=None))
    return {
        _page("link-map", place, places): link_map.figure(
            at(links, place), _cluster(place[2]), venue=venue
        )
        for place in places
    }


def _page(name: str, place: tuple[str, ...], places: list[tuple[str, ...]]) -> str:
    """Return a file name that tells a place from the others."""
    differs = [len({each[at] for each in places}) > 1 for at in range(len(place))]
    said = [part for part, shown in zip(place, differs, strict=True) if shown and part]
    return "-".join([name, *(re.sub(r"[^A-Za-z0-9.=]+", "-", part).strip("-") for part in said)])


def _cluster(name: str) -> Cluster:
    try:
        return find_cluster(name).spec.build()
    except TopologyError as error:
        raise FigureError(f"cluster '{name}' of the runs: {error}") from error


CATALOGUE = {
    "hops": Entry(
        _hops,
        "Hops per token and layer by topology and policy, measured in the replay: network links "
        "outside servers, dispatch and combine, all top-k choices.",
    ),
    "tradeoff": Entry(
        _tradeoff,
        "Hops per token and layer, load of the busiest GPU over the mean, and time per output "
        "token. Lower left and darker is better; a thick rim marks policies that no other one "
        "beats in all three means.",
    ),
    "link-map": Entry(
        _link_map,
        "Share of the step that the busiest of the directed links behind every line is busy, on "
        "the drawn cluster (NVLink left out), mean over runs. One scale of colours for all "
        "policies.",
    ),
    "link-cdf": Entry(
        _link_cdf,
        "Cumulative distribution of the share of the step that a directed network link (NVLink "
        "left out) is busy; markers: busiest link.",
    ),
    "time": Entry(
        _time,
        "What a step spends its time on, means over GPUs: computing, sending or receiving with "
        "nothing to compute, and waiting for other GPUs.",
    ),
    "solve-time": Entry(
        _solving,
        "Wall time to place all experts of a model by the size of the cluster, model building "
        "included. Times vary from run to run and from machine to machine.",
    ),
    "drift": Entry(
        _drift,
        "What a placement fitted to one load (rows) is worth under another (columns): change of "
        "hops and of the busiest GPU's load against the placement fitted to the very load it is "
        "judged on, means over runs.",
    ),
    "layers": Entry(
        _layers,
        "Layer by layer: load of the busiest GPU over the mean, and busy time of the busiest link, "
        "dispatch and combine together; means over runs.",
    ),
}
NAMES = tuple(CATALOGUE)
"""Figures by name, in the order a paper shows them."""
