"""The benchmark's sections, and where recorded data is."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.benchmarks.clusters import CLUSTER_SECTION
from experiments.benchmarks.fluid import FLUID_SECTIONS
from experiments.benchmarks.hop_sections import HOP_SECTIONS
from experiments.benchmarks.load_sections import LOAD_SECTIONS
from experiments.benchmarks.packet import PACKET_SECTION
from experiments.benchmarks.planes import PLANES_SECTION
from experiments.benchmarks.rivals import RIVAL_SECTION
from experiments.benchmarks.step import STEP_SECTION
from experiments.benchmarks.sweeping import SWEEP_SECTION
from experiments.benchmarks.traffic import TRAFFIC_SECTION

SECTIONS = (
    *HOP_SECTIONS,
    *LOAD_SECTIONS,
    STEP_SECTION,
    *FLUID_SECTIONS,
    PACKET_SECTION,
    RIVAL_SECTION,
    PLANES_SECTION,
    TRAFFIC_SECTION,
    CLUSTER_SECTION,
    SWEEP_SECTION,
)
"""Every topic, in the order of the page."""


def data_folder() -> Path | None:
    """Return the folder of recorded loads and traces, or None where there is none."""
    folder = Path(os.environ.get("TOPOMOE_DATA", "../shared/data"))
    return folder if folder.is_dir() else None
