"""Figures: drawn from small tables, reproducible to the byte, and clear about bad tables."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from experiments.errors import ExperimentError, FigureError
from experiments.figures import (
    FIGURES,
    balance_against_hops,
    caption,
    hops_by_policy,
    link_load,
    policy_styles,
    save,
    solve_time,
)
from experiments.figures.style import TWO_COLUMNS_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

MODELS = ("DeepSeekMoE-16B", "DeepSeek-R1")
CLUSTERS = ("fat-tree", "dragonfly")
POLICIES = dict.fromkeys(
    ("contiguous", "round-robin", "random", "greedy", "greedy-load", "ilp", "ilp-load")
)
"""The study's, in the order figures list them."""


def hops_table(
    models: Sequence[str] = MODELS,
    clusters: Sequence[str] = CLUSTERS,
    policies: Sequence[str] = tuple(POLICIES),
) -> pd.DataFrame:
    """Return a plausible ``hops.csv``: bar heights 80, 78, 76, ... in the order of the cells."""
    cells = list(product(models, clusters, policies))
    table = pd.DataFrame(cells, columns=["model", "cluster", "policy"])
    hops = 80.0 - 2.0 * np.arange(len(cells))
    is_ilp, is_load = table["policy"] == "ilp", table["policy"] == "ilp-load"
    return table.assign(
        attention="pipelined",
        network="analytic",
        hops_per_token_layer=hops,
        saving_pct=100 * (1 - hops / 80),
        bound_hops=np.where(is_load, hops - 0.5, np.nan),
        optima_low_hops=np.where(is_ilp, hops - 3, np.nan),
        optima_high_hops=np.where(is_ilp, hops + 4, np.nan),
        balance_server=np.linspace(1.5, 6.0, len(cells)),
    )


def links_table() -> pd.DataFrame:
    """Return the links of every cell: network links busy 1..9 ms, an NVLink busy for a second."""
    cells = hops_table()[["model", "cluster", "policy", "attention", "network"]]
    links = pd.DataFrame(
        {
            "link": np.arange(10),
            "link_class": ["host"] * 5 + ["local"] * 3 + ["global", "nvlink"],
            "busy_s": [*(np.arange(1, 10) * 1e-3), 1.0],
        }
    )
    return cells.merge(links, how="cross")


def solves_table() -> pd.DataFrame:
    """Return the seconds of every cell, the programs proven optimal."""
    cells = hops_table()[["model", "cluster", "policy", "attention"]]
    proven = cells["policy"].isin(["ilp", "ilp-load"])
    return cells.assign(
        status=np.where(proven, "optimal", "heuristic"), seconds=np.where(proven, 0.05, 0.002)
    )


CASES: dict[str, tuple[Callable[[pd.DataFrame], Figure], Callable[[], pd.DataFrame]]] = {
    "hops_by_policy": (hops_by_policy.figure, hops_table),
    "link_load": (link_load.figure, links_table),
    "balance_against_hops": (balance_against_hops.figure, hops_table),
    "solve_time": (solve_time.figure, solves_table),
}
READ = {
    "hops_by_policy": ("saving_pct", "bound_hops", "optima_low_hops", "optima_high_hops"),
    "link_load": ("link", "link_class", "busy_s", "network"),
    "balance_against_hops": ("balance_server", "network"),
    "solve_time": ("seconds", "status"),
}
every_figure = pytest.mark.parametrize("name", CASES)


def legend_texts(figure: Figure) -> list[str]:
    """Return all that the legends say."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def collisions(figure: Figure) -> list[str]:
    """Return what of a laid-out figure lies over something else or leaves the page."""
    figure.draw_without_rendering()
    boxes = {f"axes {i}": ax.get_tightbbox() for i, ax in enumerate(figure.axes)}
    boxes |= {f"legend {i}": one.get_window_extent() for i, one in enumerate(figure.legends)}
    labels = figure._supxlabel, figure._supylabel
    boxes |= {text.get_text(): text.get_window_extent() for text in labels if text is not None}
    page = figure.bbox.padded(1)
    return [
        name
        for name, box in boxes.items()
        if not (page.contains(*box.min) and page.contains(*box.max))
        or any(box.overlaps(other) for label, other in boxes.items() if label != name)
    ]


@every_figure
def test_nothing_collides(name: str) -> None:
    """Legends, axes with their labels, and the figure's own labels keep apart and on the page."""
    draw, table = CASES[name]
    assert collisions(draw(table())) == []


def test_collisions_are_seen() -> None:
    """The check above fails for a legend put over the axes and for text beyond the page."""
    figure = balance_against_hops.figure(hops_table())
    figure.legend(handles=figure.legends[0].legend_handles, loc="center")
    figure.supylabel("far too long " * 20)
    found = collisions(figure)
    assert "legend 1" in found
    assert any(name.startswith("far too long") for name in found)


@every_figure
def test_same_bytes(name: str, tmp_path: Path) -> None:
    """A figure saved twice, and one drawn anew, give the same PDF and PNG, at the same settings."""
    draw, table = CASES[name]
    rows = table()
    rows = rows[rows["cluster"] == "fat-tree"]
    before = dict(mpl.rcParams)
    figure = draw(rows)
    first, again = save(figure, tmp_path / "a", name), save(figure, tmp_path / "b", name)
    anew = save(draw(rows), tmp_path / "c", name)
    assert [path.name for path in first] == [f"{name}.pdf", f"{name}.png"]
    for one, two, three in zip(first, again, anew, strict=True):
        assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert dict(mpl.rcParams) == before


def test_saved_files(tmp_path: Path) -> None:
    """The PDF embeds TrueType and no date; the PNG has the full width; nothing else is left."""
    pdf, png = save(hops_by_policy.figure(hops_table()), tmp_path, "hops")
    assert b"/FontFile2" in pdf.read_bytes()
    assert b"/CreationDate" not in pdf.read_bytes()
    width = int.from_bytes(png.read_bytes()[16:20], "big")  # IHDR, right after the signature
    assert width == TWO_COLUMNS_IN * 200
    assert sorted(tmp_path.iterdir()) == [pdf, png]


def test_settings_of_the_user_do_not_matter(tmp_path: Path) -> None:
    """Whatever matplotlib is set to, the figure is the same."""
    table = hops_table(["DeepSeek-R1"], ["fat-tree"])
    plain = save(hops_by_policy.figure(table), tmp_path / "a", "f")
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "pdf.fonttype": 3}):
        other = save(hops_by_policy.figure(table), tmp_path / "b", "f")
    for one, two in zip(plain, other, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_unwritable_folder(tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "file").touch()
    with pytest.raises(ExperimentError, match="file"):
        save(solve_time.figure(solves_table()), tmp_path / "file", "f")


def test_bars_are_measured_hops() -> None:
    """Bars have the heights of hops_per_token_layer, the larger model on top."""
    table = hops_table()
    figure = hops_by_policy.figure(table)
    for ax, model in zip(figure.axes, ("DeepSeek-R1", "DeepSeekMoE-16B"), strict=True):
        assert ax.get_title(loc="left") == model
        heights = sorted(bar.get_height() for bar in ax.patches)
        measured = table.loc[table["model"] == model, "hops_per_token_layer"]
        assert heights == sorted(measured)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == list(CLUSTERS)
    assert "top-k" in figure.get_supylabel()


def test_savings_are_written_into_the_bars() -> None:
    """The two load-aware policies carry their change against round-robin."""
    figure = hops_by_policy.figure(hops_table(["DeepSeek-R1"], ["fat-tree"]))
    # greedy-load is the 5th bar, ilp-load the 7th: 72 and 68 of 80 hops.
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["\N{MINUS SIGN}10.0 %", "\N{MINUS SIGN}15.0 %"]


def test_savings_of_own_policies_are_written_too() -> None:
    """A policy of the user's own carries its change against round-robin as well."""
    figure = hops_by_policy.figure(hops_table(["DeepSeek-R1"], ["fat-tree"], ["greedy", "mine"]))
    # mine is the second bar: 78 of 80 hops.
    assert [text.get_text() for text in figure.axes[0].texts] == ["\N{MINUS SIGN}2.5 %"]


def test_range_and_bound() -> None:
    """The ILP's bracket spans its optima, ILPLoad's tick is its bound; both are explained."""
    figure = hops_by_policy.figure(hops_table(["DeepSeek-R1"], ["fat-tree"]))
    ends = {
        (float(segment[0][1]), float(segment[1][1]))
        for lines in figure.axes[0].collections
        for segment in lines.get_segments()
    }
    # ilp is the 6th bar, 70 hops: 67 to 74. ilp-load is the 7th, 68 hops: bound 67.5.
    assert ends == {(67.0, 74.0), (67.0, 67.0), (74.0, 74.0), (67.5, 67.5)}
    assert {"range over the optima of ilp", "certified lower bound of ilp-load"} <= set(
        legend_texts(figure)
    )


def test_no_marks_without_programs() -> None:
    """Without the programs their marks are not explained, even if columns hold None alone."""
    table = hops_table(policies=["round-robin", "greedy"])
    table = table.assign(bound_hops=None, optima_low_hops=None, optima_high_hops=None)
    assert legend_texts(hops_by_policy.figure(table)) == ["round-robin", "greedy"]


def test_expected_overlay() -> None:
    """Expected figures appear as diamonds at their bars, with an entry in the legend."""
    expected = pd.DataFrame(
        {"model": ["DeepSeek-R1"], "cluster": ["fat-tree"], "policy": ["random"], "hops": [51.5]}
    )
    figure = hops_by_policy.figure(hops_table(), expected=expected)
    points = [tuple(map(float, *line.get_xydata())) for line in figure.axes[0].lines]
    assert points == [(2.0, 51.5)]  # random is the third bar of the first group
    assert "typed in from the paper" in legend_texts(figure)
    without = hops_by_policy.figure(hops_table())
    assert "typed in from the paper" not in legend_texts(without)


def test_expected_of_a_cell_that_is_not_drawn() -> None:
    """A misspelt policy among the expected figures is refused, listing those drawn."""
    expected = pd.DataFrame(
        {"model": ["DeepSeek-R1"], "cluster": ["fat-tree"], "policy": ["Greedy"], "hops": [51.5]}
    )
    with pytest.raises(FigureError, match=r"no bar for DeepSeek-R1, fat-tree, Greedy; .*greedy"):
        hops_by_policy.figure(hops_table(), expected=expected)


def test_link_quantiles() -> None:
    """Boxes span the quartiles of network links, the dot is the busiest; NVLink is left out."""
    ax = link_load.figure(links_table()).axes[0]
    # 1..9 ms: quartiles 3 and 7, median 5, 5 % and 95 % at 1.4 and 8.6, busiest 9.
    for bar in ax.patches:
        assert (bar.get_x(), bar.get_width()) == pytest.approx((3.0, 4.0))
    drawn = [line.get_xdata() for line in ax.lines[:3]]
    assert np.concatenate(drawn) == pytest.approx([1.4, 8.6, 5.0, 9.0])
    assert [text.get_text() for text in ax.get_yticklabels()] == list(POLICIES)


def test_only_nvlinks() -> None:
    """A table without a network link is refused."""
    table = links_table()
    with pytest.raises(FigureError, match="nvlink"):
        link_load.figure(table[table["link_class"] == "nvlink"])


def test_balance_points() -> None:
    """Every cell is a point at (hops, balance) in the row of its model, the larger on top."""
    table = hops_table()
    figure = balance_against_hops.figure(table)
    assert len(figure.axes) == 4
    for row, model in enumerate(("DeepSeek-R1", "DeepSeekMoE-16B")):
        axes = figure.axes[2 * row : 2 * row + 2]
        assert axes[0].get_ylabel() == model
        assert axes[0].get_xlim() == axes[1].get_xlim()
        lines = [line for ax in axes for line in ax.lines]
        points = sorted(tuple(map(float, *line.get_xydata())) for line in lines)
        cells = table[table["model"] == model]
        drawn = cells[["hops_per_token_layer", "balance_server"]]
        assert points == sorted(drawn.itertuples(index=False, name=None))
    assert legend_texts(figure) == list(POLICIES)


def test_solve_times() -> None:
    """Repeated solves give their median, proofs fill the marker, and zero is labelled as such."""
    table = solves_table()
    ilp = table[table["policy"] == "ilp"]
    table.loc[table["policy"] == "random", "seconds"] = 0.0
    repeated = pd.concat([table, ilp.assign(seconds=0.07), ilp.assign(seconds=9.0)])
    figure = solve_time.figure(repeated)
    points = {
        (float(x), line.get_markerfacecolor() == line.get_color())
        for line in figure.axes[0].lines
        for x in line.get_xdata()
    }
    # ilp: median of 0.05, 0.07 and 9 s; ilp-load 0.05 s; random 0 s, drawn at 0.1 ms.
    assert points == {(0.07, True), (0.05, True), (0.002, False), (1e-4, False)}
    figure.draw_without_rendering()
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["\N{LESS-THAN OR EQUAL TO} 0.1 ms", "1 ms", "10 ms", "100 ms"]


@every_figure
def test_one_model_and_one_cluster(name: str) -> None:
    """A table of a single model on a single cluster draws without a collision."""
    draw, table = CASES[name]
    rows = table()
    rows = rows[(rows["model"] == "DeepSeek-R1") & (rows["cluster"] == "dragonfly")]
    figure = draw(rows)
    assert len(figure.axes) == 1
    assert collisions(figure) == []


@every_figure
def test_policies_of_the_user(name: str) -> None:
    """Further policies, one with a long name and a dollar, are drawn and named like any other."""
    draw, table = CASES[name]
    names = ["pay-$1-or-$2", "a policy of the user whose name is long", "third", "fourth"]
    rows = table()
    greedy = rows[rows["policy"] == "greedy"]
    figure = draw(pd.concat([rows, *(greedy.assign(policy=own) for own in names)]))
    assert collisions(figure) == []
    shown = legend_texts(figure)
    shown += [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert set(names) <= set(shown)


@given(st.sets(st.sampled_from([*POLICIES, *"abcdefghij"])))
def test_looks_are_fixed_and_distinct(policies: set[str]) -> None:
    """Built-in policies always look the same; no two policies look alike; order is not chance."""
    looks = policy_styles(sorted(policies))
    assert looks == policy_styles(sorted(policies, reverse=True))
    assert len(set(looks.values())) == len(policies)
    for name in policies & POLICIES.keys():
        assert looks[name] == policy_styles(POLICIES)[name]
    own = sorted(policies - POLICIES.keys())
    assert list(looks) == [name for name in POLICIES if name in policies] + own


def test_greys_tell_plain_bars_apart() -> None:
    """Bars without a hatch differ by a tenth of full lightness in print without colour."""
    plain = [look.colour for look in policy_styles(POLICIES).values() if not look.hatch]
    greys = sorted(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in plain)  # ITU-R 601
    assert min(np.diff(greys)) > 0.1


@every_figure
def test_missing_column(name: str) -> None:
    """A missing column is named in one line, beside those that are there."""
    draw, table = CASES[name]
    for column in ("model", "cluster", "policy", "attention", *READ[name]):
        with pytest.raises(FigureError, match=f"missing column '{column}'; found: ") as error:
            draw(table().drop(columns=column))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0, "75"])
def test_what_is_no_number(wrong: object) -> None:
    """NaN, infinity, a negative number and text are refused where a number is drawn."""
    table = hops_table()
    table["hops_per_token_layer"] = table["hops_per_token_layer"].astype(object)
    table.loc[3, "hops_per_token_layer"] = wrong
    if not isinstance(wrong, str):
        table["hops_per_token_layer"] = table["hops_per_token_layer"].astype(float)
    for draw in (hops_by_policy.figure, balance_against_hops.figure):
        with pytest.raises(FigureError, match="hops table: column 'hops_per_token_layer' holds"):
            draw(table)


def test_rows_that_are_not_there() -> None:
    """An empty table and an attention that nothing was run with are refused."""
    with pytest.raises(FigureError, match="no rows"):
        hops_by_policy.figure(hops_table().iloc[:0])
    with pytest.raises(FigureError, match="no row with attention 'tree'; found: pipelined"):
        hops_by_policy.figure(hops_table(), attention="tree")


def test_rows_that_are_there_twice() -> None:
    """Two rows for one cell are refused, for neither is known to be the right one."""
    table = hops_table()
    with pytest.raises(FigureError, match="two rows for DeepSeekMoE-16B, fat-tree, contiguous"):
        hops_by_policy.figure(pd.concat([table, table.iloc[:1]]))


def test_too_many_to_tell_apart() -> None:
    """More clusters than there are markers are refused."""
    many = pd.concat([solves_table().assign(cluster=str(i)) for i in range(9)])
    with pytest.raises(FigureError, match="9 clusters"):
        solve_time.figure(many)


@pytest.mark.parametrize("name", FIGURES)
def test_captions(name: str) -> None:
    """Every figure has a caption that names its workload and attention."""
    text = caption(name, "synthetic, R1-like", attention="data-parallel")
    assert name in CASES
    assert text.endswith(".")
    assert "Workload: synthetic, R1-like; data-parallel attention" in text


def test_unknown_caption() -> None:
    """An unknown figure is refused, listing those there are."""
    with pytest.raises(FigureError, match="unknown figure 'hopps'; allowed: hops_by_policy, "):
        caption("hopps", "synthetic")


def test_experiments_loads_no_matplotlib() -> None:
    """The command line starts without the drawing library."""
    code = "import experiments, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
