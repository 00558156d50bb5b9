"""`topomoe paper`: the study, its tables and its figures."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.atomic import check_destinations
from experiments.commands.show import console, write_json
from experiments.expected import read_expected
from experiments.markdown import findings
from experiments.outputs import study_files, write_study
from experiments.paper import StudyResult, run_study
from experiments.study import Study, read_study, with_load, with_policies


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
    check_destinations([*study_files(folder), json_file], inputs=[load, expected])
    result = _with_progress(study, workers)
    write_study(study, result, folder, expected=overlay)
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
    return with_policies(study, policies)


def _default_folder(load: Path | None) -> Path:
    results = Path("results")
    return results / "paper" if load is None else results / f"paper-{load.stem}"


def _with_progress(study: Study, workers: int | None) -> StudyResult:
    columns = (
        TextColumn("{task.description:<52}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling and drawing traces", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return run_study(study, workers=workers, progress=advance)
