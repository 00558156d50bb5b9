"""Writing a figure to disk, the same bytes every time."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context

from experiments.atomic import write_atomic
from experiments.figures.style import PNG_DPI, paper_style

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

# Dates and versions would change the bytes of an unchanged figure; None leaves a field out.
_FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"metadata": {"Creator": "topomoe", "Producer": "topomoe", "CreationDate": None}},
    "png": {"metadata": {"Software": "topomoe"}, "dpi": PNG_DPI},
    "svg": {"metadata": {"Creator": "topomoe", "Date": None}},
}
KINDS = ("pdf", "png")
"""Formats every figure of a study is saved in, as file endings."""


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, ...]:
    """Write ``NAME.pdf`` and ``NAME.png`` of the paper's study at the figure's own size.

    Each file appears whole or not at all, and the same figure gives the same bytes.

    Returns
    -------
    The files written.

    Raises
    ------
    ExperimentError
        If the folder cannot be made or written.
    """
    with paper_style():
        contents = {folder / f"{name}.{kind}": each for kind, each in rendered(figure).items()}
    for path, content in contents.items():
        write_atomic(path, content)
    return tuple(contents)


def rendered(figure: Figure) -> dict[str, bytes]:
    """Return the figure in each of `KINDS`, drawn with the settings in force."""
    _settle(figure)
    return {kind: _render(figure, kind) for kind in KINDS}


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a ``.pdf``, ``.png`` or ``.svg`` file, the same bytes every time.

    Raises
    ------
    ExperimentError
        If the folder cannot be made or written.
    """
    with paper_style(), rc_context({"svg.hashsalt": "topomoe"}):
        _settle(figure)
        content = _render(figure, path.suffix[1:])
    write_atomic(path, content)


def _settle(figure: Figure) -> None:
    """Lay the figure out once: each further pass would start from the last and move by a hair."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _render(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, **_FORMATS[kind])
    return buffer.getvalue()
