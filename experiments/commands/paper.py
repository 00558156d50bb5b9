"""`topomoe paper`: the study, its tables and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.commands.show import console, write_json
from experiments.drawing import draw_study, read_expected
from experiments.markdown import findings
from experiments.outputs import write_tables
from experiments.paper import StudyResult, run_study
from experiments.study import Study, read_study, with_load
from placement import make_policy

if TYPE_CHECKING:
    import pandas as pd


def run(
    *,
    out: Path | None,
    load: Path | None,
    expected: Path | None,
    policies: list[str],
    workers: int | None,
    json_file: Path | None,
) -> None:
    """Run the study, print its findings, and write everything into one folder."""
    study = _prepared(load, policies)
    overlay = read_expected(expected, study) if expected else None
    folder = out or _default_folder(load)
    result = _with_progress(study, workers)
    write_tables(study, result, folder)
    _draw(folder, overlay)
    for line in findings(result.hops):
        console.print(f"- {line}")
    console.print(
        f"{len(result.hops)} runs in {result.seconds:.0f} s; tables, manifest and figures in "
        f"{folder}/"
    )
    write_json(json_file, {"seconds": result.seconds, "findings": findings(result.hops)})


def _prepared(load: Path | None, policies: list[str]) -> Study:
    """Resolve all input before the first run starts."""
    study = read_study()
    if load is not None:
        study = with_load(study, load)
    for name in policies:
        make_policy(name)
    return study.model_copy(update={"policies": [*study.policies, *policies]})


def _default_folder(load: Path | None) -> Path:
    results = Path("results")
    return results / "paper" if load is None else results / f"paper-{load.stem}"


def _with_progress(study: Study, workers: int | None) -> StudyResult:
    columns = (
        TextColumn("{task.description:<52}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling and drawing traces", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return run_study(study, workers=workers, progress=advance)


def _draw(folder: Path, expected: pd.DataFrame | None) -> None:
    for path in draw_study(folder, expected=expected):
        console.print(f"drawn {path}", style="dim")
