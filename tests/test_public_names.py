"""The public names of every package, pinned."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "placement": 24,
    "sim": 8,
    "topologies": 20,
    "workloads": 20,
}


@pytest.mark.parametrize("package", NAMES)
def test_all_is_sorted_and_imports(package: str) -> None:
    """Everything in `__all__` exists, in order, and its number changes only on purpose."""
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert all(hasattr(module, name) for name in names)
    assert len(names) == NAMES[package]
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
