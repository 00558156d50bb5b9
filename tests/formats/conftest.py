"""A small model with a dense layer, and a file to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workloads import MoEModel

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one file that the tests overwrite."""
    return tmp_path_factory.mktemp("formats") / "file.any"
