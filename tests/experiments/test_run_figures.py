"""Figures of runs: what they show, at which width, the same bytes every time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import Normalize
from matplotlib.text import Text

from experiments.clusters import find_cluster
from experiments.errors import FigureError
from experiments.figures.runs import (
    NAMES,
    drift,
    hops,
    layers,
    link_cdf,
    link_map,
    solving,
    tradeoff,
)
from experiments.figures.runs import time as time_figure
from experiments.figures.save import rendered
from experiments.figures.venue import VENUES, venue
from experiments.labels import labelled
from experiments.results import Results, read_results
from experiments.statistics import mean_interval
from topologies import LinkClass, fat_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACM = VENUES["acm"]
POLICIES = ("round-robin", "greedy-load", "ilp-load", "a policy of the user's own $1 $2")
CLUSTERS = ("fat-tree", "dragonfly-sparse")
SMALL = fat_tree(
    pods=2,
    leaves_per_pod=2,
    servers_per_leaf=2,
    gpus_per_server=2,
    aggregations_per_pod=2,
    cores_per_aggregation=1,
)


def runs_table(
    clusters: tuple[str, ...] = CLUSTERS, policies: tuple[str, ...] = POLICIES, seeds: int = 3
) -> pd.DataFrame:
    """Return plausible runs: hops 90, 88, ... by policy, plus a tenth by seed."""
    cells = list(product(clusters, range(len(policies)), range(seeds)))
    table = pd.DataFrame(cells, columns=["cluster", "at", "workload.seed"])
    at, seed = table["at"].to_numpy(), table["workload.seed"].to_numpy()
    step = 1e-3 * (9 + at + 0.1 * seed)
    return table.assign(
        run=[f"{i:064d}" for i in range(len(table))],
        model="DeepSeek-R1",
        policy=[policies[i] for i in at],
        **{"attention.kind": "pipelined", "provenance.place_s": 0.01 * 10.0**at},
        hops_per_token_layer=90.0 - 2 * at + 0.1 * seed,
        balance_gpu=1.5 + at + 0.05 * seed,
        tpot_s=step,
        step_s=step,
        compute_s=0.5 * step,
        exposed_transfer_s=0.1 * step,
        waiting_s=0.4 * step,
        gpus=256,
    )


def layers_table() -> pd.DataFrame:
    """Return 4 layers of every run; the busiest link takes (layer + 1) us each way."""
    labels = labelled(runs_table())[["run", "model", "cluster", "setting", "series", "replicate"]]
    own = pd.DataFrame({"layer": range(4), "balance_gpu": [1.0, 2.0, 3.0, 4.0]})
    busy = 1e-6 * (own["layer"] + 1)
    own = own.assign(dispatch_busiest_link_s=busy, combine_busiest_link_s=busy)
    return labels.merge(own, how="cross")


def links_table(clusters: tuple[str, ...] = CLUSTERS) -> pd.DataFrame:
    """Return the links of `SMALL` in every run, busy a share that grows with their number."""
    labels = labelled(runs_table(clusters))
    labels = labels[["run", "model", "cluster", "setting", "series", "replicate"]]
    own = pd.DataFrame(
        {
            "link": np.arange(SMALL.links),
            "src": SMALL.link_src,
            "dst": SMALL.link_dst,
            "link_class": [LinkClass(each).name.lower() for each in SMALL.link_class],
            "utilisation": np.arange(SMALL.links) / (2 * SMALL.links),
        }
    )
    return labels.merge(own, how="cross")


LOADS = ("decode.json", "prefill.json")


def drift_table() -> pd.DataFrame:
    """Return hops of placements fitted to 2 loads and judged on both: 50 at home, 60 away."""
    cells = list(product(("round-robin", "ilp-load"), LOADS, LOADS, (0, 1)))
    columns = ["policy", "workload.load", "workload.judge", "workload.seed"]
    table = pd.DataFrame(cells, columns=columns)
    away = (table["workload.load"] != table["workload.judge"]) & (table["policy"] == "ilp-load")
    table = table.assign(
        model="DeepSeek-R1",
        cluster="fat-tree",
        hops_per_token_layer=np.where(away, 60.0, 50.0) + table["workload.seed"],
        balance_gpu=np.where(away, 3.0, 4.0),
    )
    return labelled(table, ["workload.load", "workload.judge"])


def map_figure(links: pd.DataFrame, *, venue: object) -> Figure:
    """Draw the map of `SMALL`."""
    return link_map.figure(links, SMALL, venue=venue)  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[..., Figure], Callable[[], pd.DataFrame], tuple[str, ...]]] = {
    "hops": (hops.figure, lambda: labelled(runs_table()), ("hops_per_token_layer",)),
    "tradeoff": (
        tradeoff.figure,
        lambda: labelled(runs_table()),
        ("hops_per_token_layer", "balance_gpu", "tpot_s"),
    ),
    "link-map": (
        map_figure,
        lambda: links_table(("fat-tree",)),
        ("link", "src", "dst", "utilisation"),
    ),
    "link-cdf": (link_cdf.figure, links_table, ("run", "link_class", "utilisation")),
    "time": (
        time_figure.figure,
        lambda: labelled(runs_table()),
        ("compute_s", "exposed_transfer_s", "waiting_s", "step_s"),
    ),
    "solve-time": (
        solving.figure,
        lambda: labelled(runs_table()),
        ("gpus", "provenance.place_s"),
    ),
    "drift": (drift.figure, drift_table, ("workload.load", "workload.judge", "balance_gpu")),
    "layers": (
        layers.figure,
        layers_table,
        ("layer", "balance_gpu", "dispatch_busiest_link_s", "combine_busiest_link_s"),
    ),
}
every_figure = pytest.mark.parametrize("name", NAMES)


def boxes(figure: Figure) -> dict[str, object]:
    """Return where axes with their labels, legends and the figure's own labels are."""
    found: dict[str, object] = {
        f"axes {i}": ax.get_tightbbox() for i, ax in enumerate(figure.axes) if ax.axison
    }
    found |= {f"title {i}": ax.title.get_window_extent() for i, ax in enumerate(figure.axes)}
    found |= {f"legend {i}": one.get_window_extent() for i, one in enumerate(figure.legends)}
    labels = figure._supxlabel, figure._supylabel
    return found | {each.get_text(): each.get_window_extent() for each in labels if each}


def collisions(figure: Figure) -> list[str]:
    """Return what lies over something else, but titles over their axes, or leaves the page."""
    figure.draw_without_rendering()
    found, page = boxes(figure), figure.bbox.padded(1)
    outside = [
        name
        for name, box in found.items()
        if not (page.contains(*box.min) and page.contains(*box.max))  # type: ignore[attr-defined]
    ]
    return outside + [
        f"{one} on {two}"
        for (one, first), (two, second) in product(found.items(), repeat=2)
        if one < two and not two.startswith("title") and first.overlaps(second)  # type: ignore[attr-defined]
    ]


@every_figure
@pytest.mark.parametrize("style", ["acm", "mlsys"])  # the widest letters, the narrowest column
def test_fits_its_venue(name: str, style: str) -> None:
    """A figure is as wide as a column or the text, its parts keep apart, no letter is tiny."""
    draw, table, _ = CASES[name]
    place = venue(style)
    figure = draw(table(), venue=place)
    width = figure.get_figwidth()
    assert width in {place.column_in, place.text_in}
    with place.context():
        assert collisions(figure) == []
    words = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in words) >= 6
    assert {text.get_fontname() for text in words} == {place.font}


@pytest.mark.parametrize("name", ["hops", "tradeoff", "time"])
def test_settings_have_rows(name: str) -> None:
    """Every setting is a row of its own, its panels named, and nothing collides."""
    kinds = ("pipelined", "data-parallel")
    runs = pd.concat(
        [runs_table().assign(**{"attention.kind": kind}) for kind in kinds], ignore_index=True
    )
    figure = CASES[name][0](labelled(runs), venue=VENUES["mlsys"])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert any("data-parallel" in each for each in titles[: len(titles) // 2])
    with VENUES["mlsys"].context():
        assert collisions(figure) == []


def test_collisions_are_seen() -> None:
    """The check above fails for a legend over the axes and for text beyond the page."""
    figure = hops.figure(labelled(runs_table()), venue=ACM)
    figure.legend(handles=figure.legends[0].legend_handles, loc="center")
    figure.supxlabel("far too long " * 20)
    found = collisions(figure)
    assert "axes 0 on legend 1" in found
    assert any(each.startswith("far too long") for each in found)


def test_widths_of_the_templates() -> None:
    """Widths are those of the templates, to a hundredth of an inch."""
    widths = {
        name: (round(one.column_in, 2), round(one.text_in, 2)) for name, one in VENUES.items()
    }
    assert widths["acm"] == (3.34, 7.01)
    assert widths["ieee"] == (3.49, 7.14)
    assert widths["usenix"] == (3.33, 7.0)
    assert widths["mlsys"] == (3.25, 6.75)
    with pytest.raises(FigureError, match="--style nature: unknown; allowed: acm, ieee, usenix"):
        venue("nature")


@pytest.mark.parametrize("style", ["acm", "ieee"])  # either font
def test_pdf(style: str) -> None:
    """The PDF has the page of the figure, embedded TrueType, no bitmap font and no date."""
    place = venue(style)
    with place.context():
        content = rendered(time_figure.figure(labelled(runs_table()), venue=place))["pdf"]
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert box is not None
    assert float(box.group(1)) == pytest.approx(72 * place.text_in, abs=0.01)
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


def test_same_bytes_in_two_processes(tmp_path: Path) -> None:
    """Two processes with different hash seeds draw the same bytes, pages and tables alike."""
    table = runs_table(("fat-tree",), POLICIES[:2])
    table.drop(columns="gpus").to_parquet(tmp_path / "runs.parquet")
    code = "from experiments.cli import main; main()"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, "figures", "runs.parquet", "--out", seed]
        subprocess.run(
            command,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": str(Path.cwd()),
            },
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert {"hops.pdf", "tradeoff.pdf", "time.png", "comparison.tex", "figures.md"} <= set(names)
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def error_bars(ax: Axes) -> list[tuple[float, float]]:
    """Return low and high of every vertical error bar."""
    return [
        (float(segment[0, 1]), float(segment[-1, 1]))
        for container in ax.containers
        for lines in getattr(getattr(container, "errorbar", None), "lines", [None] * 3)[2] or ()
        for segment in lines.get_segments()
    ]


def test_bars_are_means_and_whiskers_intervals() -> None:
    """A bar is the mean of its seeds, its whisker their bootstrap interval."""
    figure = hops.figure(labelled(runs_table(("fat-tree",))), venue=ACM)
    ax = figure.axes[0]
    # Hops of the policies: 90, 88, 86, 84, each with seeds 0, 0.1, 0.2 above.
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([90.1, 88.1, 86.1, 84.1])
    interval = mean_interval([90.0, 90.1, 90.2], np.random.default_rng(0))
    assert error_bars(ax)[0] == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_one_seed_has_no_whiskers() -> None:
    """A single run of each policy is drawn without error bars."""
    figure = hops.figure(labelled(runs_table(seeds=1)), venue=ACM)
    assert error_bars(figure.axes[0]) == []


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_unbeaten_by_brute_force(points: list[tuple[int, int, int]]) -> None:
    """A point is beaten where another is nowhere above it and somewhere below."""
    expected = [
        not any(
            all(a <= b for a, b in zip(other, one, strict=True)) and other != one
            for other in points
        )
        for one in points
    ]
    assert tradeoff.unbeaten(np.array(points, dtype=float)).tolist() == expected


def test_parts_of_a_step() -> None:
    """Bars of compute, exposed transfer and waiting start where the one before ends."""
    figure = time_figure.figure(labelled(runs_table(("fat-tree",), POLICIES[:1])), venue=ACM)
    spans = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    # Mean step of seeds 9, 9.1, 9.2 ms: 9.1 ms in parts of a half, a tenth and four tenths.
    assert np.array(spans) == pytest.approx(np.array([(0, 4.55), (4.55, 0.91), (5.46, 3.64)]))


def test_link_quantiles() -> None:
    """The curve of a policy is the quantile function of its network links."""
    figure = link_cdf.figure(links_table(), venue=ACM)
    line = figure.axes[0].lines[0]
    busy = 100 * np.arange(SMALL.links)[SMALL.link_class > LinkClass.NVLINK] / (2 * SMALL.links)
    assert line.get_xdata() == pytest.approx(np.quantile(busy, line.get_ydata()))


def test_lines_of_the_map() -> None:
    """A line between two switches has the busiest of the links behind it, looked up one by one."""
    from experiments.figures.cluster_layout import layout  # noqa: PLC0415
    from experiments.figures.cluster_sketch import sketch  # noqa: PLC0415

    busy = np.random.default_rng(0).random(SMALL.links)
    drawn = sketch(SMALL)
    places = layout(SMALL, drawn)
    _, cables = link_map._cables(SMALL, drawn, places, busy)
    for (one, two), value in zip(drawn.edges, cables, strict=True):
        ends = {one + SMALL.first_switch, two + SMALL.first_switch}
        behind = [
            busy[link]
            for link in range(SMALL.links)
            if {SMALL.link_src[link], SMALL.link_dst[link]} == ends
        ]
        assert value == max(behind)
    lines, cards = link_map._cards(SMALL, drawn, places, busy)
    # 8 servers with one leaf each; a server's cards are its GPUs' 2 links up and 2 down.
    assert len(lines) == len(cards) == SMALL.servers
    for server, value in enumerate(cards):
        own = {2 * server, 2 * server + 1}
        behind = [
            busy[link]
            for link in range(SMALL.links)
            if SMALL.link_class[link] == LinkClass.HOST
            and {int(SMALL.link_src[link]), int(SMALL.link_dst[link])} & own
        ]
        assert (value, len(behind)) == (max(behind), 4)


def test_a_cluster_that_changed() -> None:
    """Links of another cluster than the one that is drawn are refused."""
    links = links_table(("fat-tree",))
    links.loc[links["link"] == 3, "dst"] += 1
    with pytest.raises(FigureError, match="are not those of cluster 'fat-tree' as it is now"):
        map_figure(links, venue=ACM)


def test_drift_by_hand() -> None:
    """Fitted at home 50 and 51 hops, away 60 and 61: 110/101... +19.8 %, the diagonal 0."""
    figure = drift.figure(drift_table(), venue=ACM)
    shown = [text.get_text() for text in figure.axes[1].texts]  # hops of ilp-load
    # Means 50.5 and 60.5: 60.5 / 50.5 = 1.198.
    assert shown == ["0", "+20", "+20", "0"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"0"}
    # Busiest GPU 3 for 4: -25 %.
    assert [text.get_text() for text in figure.axes[3].texts][1] == "\N{MINUS SIGN}25"


def test_drift_without_a_diagonal() -> None:
    """A load that nothing was fitted to and judged on has nothing to compare with."""
    table = drift_table()
    home = (table["workload.load"] == "prefill.json") & (table["workload.judge"] == "prefill.json")
    with pytest.raises(FigureError, match=r"none is fitted to prefill\.json and judged on it"):
        drift.figure(table[~home], venue=ACM)


def test_layer_map() -> None:
    """Colours are balance by layer, and the busiest link of both directions together."""
    figure = layers.figure(layers_table(), venue=ACM)
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert np.asarray(images[0].get_array()) == pytest.approx(np.tile([1.0, 2, 3, 4], (4, 1)))
    assert np.asarray(images[1].get_array()) == pytest.approx(np.tile([2.0, 4, 6, 8], (4, 1)))
    assert isinstance(images[1].norm, Normalize)
    assert (images[1].norm.vmin, images[1].norm.vmax) == (2.0, 8.0)


def test_solve_times_over_sizes() -> None:
    """A line per policy over the GPUs of the clusters, seconds logarithmic."""
    table = runs_table()
    table["gpus"] = np.where(table["cluster"] == "fat-tree", 256, 1024)
    figure = solving.figure(labelled(table), venue=ACM)
    ax = figure.axes[0]
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["256", "1024"]
    assert ax.containers[0].lines[0].get_ydata() == pytest.approx([0.01, 0.01])


@every_figure
def test_missing_column(name: str) -> None:
    """A figure asked for a column that is absent says which in one line."""
    draw, table, columns = CASES[name]
    for column in ("model", "series", *columns):
        with pytest.raises(FigureError, match=f"missing column '{column}'; found: ") as error:
            draw(table().drop(columns=column), venue=ACM)
        assert "\n" not in str(error.value)


@every_figure
def test_no_number(name: str) -> None:
    """A figure that some runs lack is refused, not drawn without them."""
    draw, table, columns = CASES[name]
    column = columns[-1]
    rows = table()
    if column in ("workload.judge", "link_class"):
        pytest.skip("a text")
    rows[column] = rows[column].astype(object)
    rows.loc[1, column] = None
    with pytest.raises(FigureError, match=f"column '{column}' holds nan in row 1"):
        draw(rows, venue=ACM)


def test_times_per_token_need_a_gpu() -> None:
    """Runs without a time per output token are told the key that gives one."""
    none = labelled(runs_table()).assign(tpot_s=None)
    with pytest.raises(FigureError, match=r"none has a time per output token; .* step\.gpu"):
        tradeoff.figure(none, venue=ACM)


def test_too_many_panels() -> None:
    """More places than one figure shows are refused, saying how to choose."""
    many = pd.concat([runs_table((f"cluster {i}",)) for i in range(13)], ignore_index=True)
    with pytest.raises(FigureError, match=r"13 combinations .* shows 12: choose with --where"):
        hops.figure(labelled(many), venue=ACM)


def test_real_clusters_are_sized() -> None:
    """The clusters of the tables above have the GPUs that the axis shows."""
    assert {find_cluster(name).spec.build().gpus for name in CLUSTERS} == {256}


def test_collected_table_has_no_links(tmp_path: Path) -> None:
    """A figure of links asked of a collected table says where they are."""
    path = tmp_path / "runs.csv"
    runs_table().to_csv(path, index=False)
    results = read_results(path)
    assert isinstance(results, Results)
    with pytest.raises(FigureError, match="holds no table of links; expected the store"):
        results.arrays("links")
