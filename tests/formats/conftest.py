"""A file to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one file that the tests overwrite."""
    return tmp_path_factory.mktemp("formats") / "file.any"
