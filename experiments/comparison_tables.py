"""The comparison of policies as tables for a paper, in Markdown and LaTeX."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING, Any

from experiments.comparing import METRICS, remarks
from experiments.labels import PLACE
from experiments.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

_DIGITS = 4
"""Of a figure whose spread is not known."""
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {char: f"\\{char}" for char in "&%$#_"}


def comparison_markdown(compared: pd.DataFrame) -> str:
    """Write a page with a table per model, setting and cluster.

    Parameters
    ----------
    compared
        See `experiments.comparing.compare_policies`.
    """
    parts = ["# Policies compared"]
    for place, own in compared.groupby(list(PLACE), sort=False):
        parts.append("## " + ", ".join(_plain(str(each)) for each in place if each))
        metrics = list(dict.fromkeys(own["metric"]))
        rows = [
            [_plain(series), *(_cell(each, _markdown_cell) for each in cells)]
            for series, cells in _lines(own, metrics)
        ]
        parts.append(markdown_table(["policy", *(METRICS[each][0] for each in metrics)], rows))
        parts += _seeds_needed(own)
    return "\n\n".join([*parts, *remarks(compared)]) + "\n"


def comparison_latex(compared: pd.DataFrame) -> str:
    """Write a ``tabular`` (package booktabs) with a block per model, setting and cluster."""
    metrics = list(dict.fromkeys(compared["metric"]))
    header = ["policy", *(METRICS[each][0] for each in metrics)]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(map(_tex, header)) + r" \\",
    ]
    for place, own in compared.groupby(list(PLACE), sort=False):
        title = ", ".join(_tex(str(each)) for each in place if each)
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{title}}}}} \\"]
        lines += [
            " & ".join([_tex(series), *(_cell(each, _latex_cell) for each in cells)]) + r" \\"
            for series, cells in _lines(own, metrics)
        ]
    notes = [f"% {line}" for line in remarks(compared)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def _seeds_needed(own: pd.DataFrame) -> list[str]:
    """Say how many seeds would tell a block's daggers from the best."""
    open_ones = own[own["needed"].notna() & ~own["significant"] & ~own["best"]]
    if open_ones.empty:
        return []
    words = [
        f"{METRICS[str(metric)][0]}: "
        + ", ".join(
            f"{_plain(str(series))} {count:,.0f}"
            for series, count in zip(rows["series"], rows["needed"], strict=True)
        )
        for metric, rows in open_ones.groupby("metric", sort=False)
    ]
    line = (
        "Seeds that would likely (four times of five) tell them from the best, were differences "
        f"and spread as seen here: {'; '.join(words)}."
    )
    return [line]


def _lines(own: pd.DataFrame, metrics: list[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return every series of a block with its cells by metric."""
    cells = {
        (str(row["series"]), row["metric"]): {str(name): value for name, value in row.items()}
        for row in own.to_dict("records")
    }
    names = dict.fromkeys(own["series"])
    return [(name, [cells[name, metric] for metric in metrics]) for name in names]


def _cell(cell: dict[str, Any], write: Callable[[str, str, bool, bool], str]) -> str:
    scale = METRICS[cell["metric"]][1]
    mean = scale * cell["mean"]
    known = cell["low"] == cell["low"]
    half = scale * max(cell["high"] - cell["mean"], cell["mean"] - cell["low"]) if known else 0.0
    places = _places(half, 2) if half > 0 else _places(mean, _DIGITS)
    spread = f"{half:.{places}f}" if known else ""
    tied = cell["p_value"] == cell["p_value"] and not cell["significant"]
    return write(
        f"{mean:.{places}f}", spread, bool(cell["best"]), bool(tied and known and not cell["best"])
    )


def _places(value: float, digits: int) -> int:
    """Return the decimals that show so many digits of a number."""
    return max(0, digits - 1 - floor(log10(abs(value)))) if value else digits - 1


def _markdown_cell(mean: str, spread: str, best: bool, tied: bool) -> str:
    text = f"{mean} ± {spread}" if spread else mean
    return f"**{text}**" if best else f"{text} †" if tied else text


def _latex_cell(mean: str, spread: str, best: bool, tied: bool) -> str:
    number = rf"\mathbf{{{mean}}}" if best else mean
    mark = r"^{\dagger}" if tied else ""
    return f"${number} \\pm {spread}{mark}$" if spread else f"${number}{mark}$"


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in text)


def _plain(text: str) -> str:
    """Keep a name from ending a cell or a line."""
    return " ".join(text.replace("|", r"\|").split())
