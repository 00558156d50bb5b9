"""What the page on clusters shows builds."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np

from topologies import BUILDERS, PARTS, read_cluster

PAGE = (Path(__file__).resolve().parents[2] / "topologies" / "README.md").read_text("utf-8")


def test_files_build_as_they_stand(tmp_path: Path) -> None:
    """Every TOML file and the edge list of the page is a cluster."""
    np.save(tmp_path / "latency.npy", np.full((16, 16), 3e-6))
    expected = {"leaf-spine": 256, "links": 64, "measured": 16}
    found = {}
    for at, block in enumerate(re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)):
        path = tmp_path / f"{at}.toml"
        path.write_text(block)
        cluster = read_cluster(path).build()
        found[cluster.builder] = cluster.gpus
    assert found == expected
    edges = tmp_path / "edges.csv"
    edges.write_text(re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)[0])
    assert read_cluster(edges).build().gpus == 16


def test_builders_and_parts_are_all_there() -> None:
    """The page names every builder, every parameter it says a builder has, and every part."""
    for name in PARTS:
        assert f"`{name}`" in PAGE
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert set(rows) == set(BUILDERS) - {"edges", "graphml", "links", "measured"}
    for name, text in rows.items():
        known = {item.name for item in fields(BUILDERS[name])}
        assert set(re.findall(r"`(\w+)`", text)) <= known
