"""The benchmark of the packet network, and of other simulators beside it."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.benchmarks.common_job import common_cluster, common_flows
from experiments.benchmarks.packet import PACKET_SECTION, packet_rows
from experiments.benchmarks.rivals import (
    PROGRAMS,
    PYTHON_VARIABLE,
    RIVAL_SECTION,
    RIVALS,
    Rival,
    rival_rows,
    write_job,
)
from experiments.benchmarks.sections import SECTIONS
from topologies import Router

if TYPE_CHECKING:
    from pathlib import Path

SIMGRID, NSPY = RIVALS


def printing(text: str, status: int = 0) -> Rival:
    """Return a rival that prints a text instead of simulating."""
    program = f"import sys; print({text!r}); print('why', file=sys.stderr); sys.exit({status})"
    return Rival(
        "it",
        "packet",
        lambda _folder, _job: [sys.executable, "-c", program],
        lambda: {"makespan_us": 667.5, "cpu_s": 0.25},
    )


def test_packets_cross_every_link_of_their_paths() -> None:
    """16 packets a pair over 5.716535 links on average; near the ideal, and never below."""
    (row,) = packet_rows(("dmodk",), repeats=1)
    # 128 * 127 pairs * 16 packets * 5.716535 links.
    assert row["crossings"] == 1_486_848
    # A packet of 4 KiB takes 0.328 us a link; the last one has 5 links to go after the first.
    assert row["ideal_us"] <= row["makespan_us"] <= row["ideal_us"] + 5 * 0.328 + 0.01
    assert len(PACKET_SECTION.texts([row])[0]) == len(PACKET_SECTION.header)
    slow = PACKET_SECTION.judged([row | {"per_s": 2.9e6, "cpu_s": 1.1}])
    fast = PACKET_SECTION.judged([row | {"per_s": 3.1e6, "cpu_s": 0.9}])
    assert [each["met"] for each in slow] == [False, False]
    assert [each["met"] for each in fast] == [True, True]


def test_programs_are_given_our_paths(tmp_path: Path) -> None:
    """Hosts, links, flows, rate and size; then ends and path of every flow, in issue order."""
    file = tmp_path / "job.txt"
    write_job(file)
    first, *lines = file.read_text().splitlines()
    cluster, flows = common_cluster(), common_flows()
    assert first == f"128 {cluster.links} 16256 12500000000.0 65536"
    rows = [list(map(int, line.split())) for line in lines]
    # Source 3 begins with the host after it.
    assert [row[1] for row in rows if row[0] == 3][:2] == [4, 5]
    paths = Router(cluster, "dmodk").paths(flows.src, flows.dst)
    pairs = zip(flows.src.tolist(), flows.dst.tolist(), strict=True)
    links = np.split(paths.links, paths.indptr[1:-1])
    ours = {pair: path.tolist() for pair, path in zip(pairs, links, strict=True)}
    assert {(row[0], row[1]): row[3:] for row in rows} == ours
    assert all(row[2] == len(row) - 3 for row in rows)


def test_a_rival_stands_beside_our_network() -> None:
    """Seconds become microseconds, and their processor seconds are divided by ours."""
    (row,) = rival_rows((printing("0.0006 5 1.2"),))
    assert row["makespan_us"] == pytest.approx(600)
    assert (row["ours_us"], row["slower"], row["remark"]) == (667.5, 20, "version 1.2")
    assert len(RIVAL_SECTION.texts([row])[0]) == len(RIVAL_SECTION.header)


def test_a_rival_that_stops_is_skipped() -> None:
    """Its last words are told, and nothing is made up."""
    (row,) = rival_rows((printing("", status=3),))
    assert row["remark"] == "skipped, it stopped with exit status 3: why"
    assert row["makespan_us"] is None
    assert RIVAL_SECTION.texts([row])[0][1] == "-"


def test_absent_rivals_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a compiler, without ns.py, and with a Python that is not there."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    first, second = rival_rows()
    assert first["remark"] == "skipped, no g++: apt-get install g++ libsimgrid-dev"
    assert second["remark"].startswith(f"skipped, {PYTHON_VARIABLE} names ")
    monkeypatch.delenv(PYTHON_VARIABLE)
    monkeypatch.chdir(tmp_path)
    (third,) = rival_rows((NSPY,))
    assert third["remark"].endswith(
        "ns.py: python3 -m venv .rivals && .rivals/bin/pip install ns.py"
    )


def test_rivals_run_with_everything_only() -> None:
    """They take long, so only `--all` asks for them; their programs are there to be run."""
    assert RIVAL_SECTION in SECTIONS
    assert RIVAL_SECTION.rows(PROGRAMS, False) == []  # noqa: FBT003  a row source takes two values
    assert {each.name for each in PROGRAMS.glob("*.*")} == {"all_to_all.cpp", "all_to_all_nspy.py"}


def test_simgrid_agrees_where_it_is_installed() -> None:
    """The makespan of both is that of exact fluid rates."""
    (row,) = rival_rows((SIMGRID,))
    if row["makespan_us"] is None:
        pytest.skip(row["remark"])
    assert row["makespan_us"] == pytest.approx(row["ours_us"], rel=1e-6)
