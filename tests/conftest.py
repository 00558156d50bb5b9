"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workloads import MoEModel

_HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of recorded loads and traces, or skip where there is none."""
    folder = Path(os.environ.get("TOPOMOE_DATA", _HERE.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recorded data at {folder}; set TOPOMOE_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny() -> MoEModel:
    """Return a model of 3 layers, the first dense, with 4 experts and top-2."""
    return MoEModel(
        name="tiny",
        hidden_layers=3,
        moe_layers=(1, 2),
        experts=4,
        top_k=2,
        shared_experts=0,
        hidden=8,
        moe_intermediate=4,
    )
