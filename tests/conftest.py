"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of recorded loads and traces, or skip where there is none."""
    folder = Path(os.environ.get("TOPOMOE_DATA", _HERE.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recorded data at {folder}; set TOPOMOE_DATA")
    return folder
