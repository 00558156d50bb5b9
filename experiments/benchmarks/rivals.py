"""Other simulators on the job that all are measured on, run here and now beside ours.

Nothing of them is required: one that is not installed is a row that says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.common_job import HOST_BPS, PAIR_BYTES, common_cluster, common_flows
from experiments.benchmarks.fluid import common_rows
from experiments.benchmarks.packet import CHUNK_BYTES, packet_rows
from experiments.benchmarks.section import Section
from topologies import Router

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = Path(__file__).parent / "programs"
RULE = "dmodk"
"""Paths that all simulators are given: a single one per pair, and no link is shared twice."""

PYTHON_VARIABLE = "TOPOMOE_RIVALS_PYTHON"
"""Environment variable: a Python that has ns.py; else that of `.rivals`, else our own."""

GET_SIMGRID = "apt-get install g++ libsimgrid-dev"
GET_NSPY = "python3 -m venv .rivals && .rivals/bin/pip install ns.py"


class AbsentError(Exception):
    """A rival cannot be run here; the message says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another simulator beside one of our networks.

    Attributes
    ----------
    name, network
        Theirs and ours.
    command
        From a folder for files and the job's file to the command that prints makespan (s),
        processor seconds and version.
    ours
        Our row of the same job.
    """

    name: str
    network: str
    command: Callable[[Path, Path], list[str]]
    ours: Callable[[], dict[str, Any]]


def simgrid(folder: Path, job: Path) -> list[str]:
    """Compile our program for SimGrid's library.

    Raises
    ------
    AbsentError
        If there is no compiler or no library.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise AbsentError(f"no g++: {GET_SIMGRID}")
    program, source = folder / "all_to_all", PROGRAMS / "all_to_all.cpp"
    command = [compiler, "-O2", "-std=c++17", "-o", str(program), str(source), "-lsimgrid"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  ours
    if found.returncode:
        raise AbsentError(f"does not compile: {GET_SIMGRID}")
    return [str(program), str(job), "--log=root.thres:error"]


def nspy(_: Path, job: Path) -> list[str]:
    """Find a Python that has ns.py.

    Raises
    ------
    AbsentError
        If there is none.
    """
    named, beside = os.environ.get(PYTHON_VARIABLE), Path(".rivals/bin/python")
    python = named or (str(beside) if beside.exists() else sys.executable)
    ask = [python, "-c", "import ns.port.port, simpy"]
    try:
        asked = subprocess.run(ask, capture_output=True, check=False)  # noqa: S603  user's choice
    except OSError as error:
        raise AbsentError(f"{PYTHON_VARIABLE} names {python!r}: {error.strerror}") from error
    if asked.returncode:
        raise AbsentError(f"{python} has no ns.py: {GET_NSPY}")
    return [python, str(PROGRAMS / "all_to_all_nspy.py"), str(job), str(CHUNK_BYTES)]


RIVALS = (
    Rival("SimGrid", "fluid, exact", simgrid, lambda: common_rows((RULE,))[0]),
    Rival("ns.py", "packet", nspy, lambda: packet_rows((RULE,))[0]),
)


def rival_rows(rivals: tuple[Rival, ...] = RIVALS) -> list[dict[str, Any]]:
    """Run every rival that is installed, and the network of ours that does the same.

    Returns
    -------
    list of dict
        ``rival``, ``network`` of ours, ``makespan_us`` and ``cpu_s`` of the rival (of simulating
        alone, best of one), ``ours_us`` and ``ours_cpu_s`` (routing and set-up included, best
        of three), ``slower``: their processor seconds over ours; all None where it is absent,
        and ``remark`` says what to install.
    """
    with TemporaryDirectory() as folder:
        job = Path(folder) / "job.txt"
        write_job(job)
        return [_beside(rival, Path(folder), job) for rival in rivals]


def write_job(file: Path) -> None:
    """Write the job and its paths as the programs read it, a source's flows in issue order."""
    cluster, flows = common_cluster(), common_flows()
    order = np.lexsort(((flows.dst - flows.src) % cluster.gpus, flows.src))
    src, dst = flows.src[order], flows.dst[order]
    paths = Router(cluster, RULE).paths(src, dst)
    ends = zip(src.tolist(), dst.tolist(), strict=True)
    links = np.split(paths.links, paths.indptr[1:-1])
    lines = [f"{cluster.gpus} {cluster.links} {len(flows)} {HOST_BPS} {PAIR_BYTES}"]
    for (one, other), path in zip(ends, links, strict=True):
        lines.append(" ".join(map(str, (one, other, len(path), *path.tolist()))))
    file.write_text("\n".join(lines) + "\n")


def _beside(rival: Rival, folder: Path, job: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"rival": rival.name, "network": rival.network}
    try:
        makespan_s, cpu_s, version = _run(rival.command(folder, job))
    except AbsentError as absent:
        names = ("makespan_us", "cpu_s", "ours_us", "ours_cpu_s", "slower")
        return row | dict.fromkeys(names) | {"remark": f"skipped, {absent}"}
    ours = rival.ours()
    return row | {
        "makespan_us": float(makespan_s) * 1e6,
        "cpu_s": float(cpu_s),
        "ours_us": ours["makespan_us"],
        "ours_cpu_s": ours["cpu_s"],
        "slower": float(cpu_s) / ours["cpu_s"],
        "remark": f"version {version}",
    }


def _run(command: list[str]) -> list[str]:
    """Return the three words that a program prints."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  ours
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise AbsentError(f"it stopped with exit status {ran.returncode}: {said}")
    return ran.stdout.split()


RIVAL_SECTION = Section(
    "Other simulators: 128 hosts, k = 8 fat-tree, 64 KiB between any two (packets of 4 KiB)",
    lambda _data, everything: rival_rows() if everything else [],
    {
        "rival": ("simulator", ""),
        "makespan_us": ("makespan us", ".3f"),
        "cpu_s": ("processor seconds", ".2f"),
        "network": ("our network", ""),
        "ours_us": ("makespan us", ".3f"),
        "ours_cpu_s": ("processor seconds", ".3f"),
        "slower": ("times ours", ".1f"),
        "remark": ("remark", ""),
    },
    needs_data=False,
)
