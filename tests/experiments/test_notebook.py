"""The example notebook: its cells run in order, in a fresh process without Jupyter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import report_store

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "experiments" / "notebooks" / "store_to_figure.ipynb"


def cells(kind: str) -> list[str]:
    """Return the sources of the notebook's cells of a kind."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(each["source"]) for each in content["cells"] if each["cell_type"] == kind]


def test_the_file_is_a_notebook() -> None:
    """Jupyter's format 4.5: every cell has an id of its own, and no output is committed."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [each["id"] for each in content["cells"]]
    assert len(set(ids)) == len(ids)
    code = [each for each in content["cells"] if each["cell_type"] == "code"]
    assert all(each["outputs"] == [] and each["execution_count"] is None for each in code)


def test_the_notebook_runs(tmp_path: Path) -> None:
    """It loads a store made here, compares its policies, and remakes the figure."""
    store = report_store.make(tmp_path / "store")
    script, figure = tmp_path / "cells.py", tmp_path / "figure.png"
    script.write_text("\n".join(cells("code")), encoding="utf-8")
    about = {"TOPOMOE_STORE": str(store.folder), "TOPOMOE_FIGURE": str(figure)}
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=os.environ | about | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fat-tree: contiguous" in done.stdout
    assert "not significant: 2 pairs cannot show" in done.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")
