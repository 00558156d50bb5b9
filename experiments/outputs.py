"""Write a study's results: tables, manifest and figures, whole or not at all."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

from experiments.atomic import staged, write_atomic
from experiments.drawing import FILES, draw_study
from experiments.manifest import manifest
from experiments.markdown import study_markdown

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.expected import Expected
    from experiments.paper import StudyResult
    from experiments.study import Study


TABLES = ("hops.csv", "links.parquet", "tables.md", "manifest.json")


def study_files(folder: Path) -> list[Path]:
    """Return every file `write_study` writes."""
    return [folder / name for name in (*TABLES, *FILES)]


def write_study(
    study: Study, result: StudyResult, folder: Path, *, expected: Expected | None = None
) -> None:
    """Write tables, manifest and figures; nothing is replaced before everything is made."""
    with staged(folder) as stage:
        write_tables(study, result, stage, expected=expected)
        draw_study(stage, expected=expected)


def write_tables(
    study: Study, result: StudyResult, folder: Path, *, expected: Expected | None = None
) -> None:
    """Write ``hops.csv``, ``links.parquet``, ``tables.md`` and ``manifest.json``.

    Nine significant digits: the last bits of a float depend on the machine's vector units.
    """
    workload = str(result.hops["workload"].iloc[0])
    about = manifest(study, result, workload, expected=expected)
    contents: tuple[str | bytes, ...] = (
        result.hops.to_csv(index=False, float_format="%.9g", lineterminator="\n"),
        parquet(result.links),
        study_markdown(result.hops, workload, expected=expected),
        json.dumps(about, indent=1) + "\n",
    )
    for name, content in zip(TABLES, contents, strict=True):
        write_atomic(folder / name, content)


def parquet(table: pd.DataFrame) -> bytes:
    """Write a table as Parquet, its texts as categories."""
    buffer = BytesIO()
    names = table.select_dtypes(include=["object", "string"]).columns
    categories = table.astype(dict.fromkeys(names, "category"))
    categories.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()
