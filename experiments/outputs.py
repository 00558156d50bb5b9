"""Write a study's results: tables, manifest and figures, whole or not at all."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

from experiments.atomic import write_atomic
from experiments.manifest import manifest
from experiments.markdown import study_markdown

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.paper import StudyResult
    from experiments.study import Study


def write_tables(study: Study, result: StudyResult, folder: Path) -> None:
    """Write ``hops.csv``, ``links.parquet``, ``tables.md`` and ``manifest.json``.

    Nine significant digits: the last bits of a float depend on the machine's vector units.
    """
    workload = str(result.hops["workload"].iloc[0])
    about = json.dumps(manifest(study, result, workload), indent=1) + "\n"
    files: dict[str, str | bytes] = {
        "hops.csv": result.hops.to_csv(index=False, float_format="%.9g", lineterminator="\n"),
        "links.parquet": parquet(result.links),
        "tables.md": study_markdown(result.hops, workload),
        "manifest.json": about,
    }
    for name, content in files.items():
        write_atomic(folder / name, content)


def parquet(table: pd.DataFrame) -> bytes:
    """Write a table as Parquet, its texts as categories."""
    buffer = BytesIO()
    names = table.select_dtypes(include=["object", "string"]).columns
    categories = table.astype(dict.fromkeys(names, "category"))
    categories.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()
