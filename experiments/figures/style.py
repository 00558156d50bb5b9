"""How every figure looks: sizes, fonts, and one colour, marker and hatch for each policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from matplotlib import style
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

ONE_COLUMN_IN = 3.4
"""Width of a figure in one column of a two-column paper, inches."""
TWO_COLUMNS_IN = 7.0
"""Width of a figure across both columns, inches."""
PNG_DPI = 200

INK = "#222222"
FAINT = "#D9D9D9"
HALO = (withStroke(linewidth=2.0, foreground="white"),)
"""Keeps thin dark marks apart from dark bars."""
HOPS_AXIS = "hops per token and layer\n(network links, dispatch + collect, top-k)"
"""Names the convention: network links outside a server, both ways, all k choices of a token."""

Place: TypeAlias = Literal["outside upper center", "outside lower center"]

MODELS = ("DeepSeek-R1", "DeepSeekMoE-16B")
"""Models of the study as figures list them, the larger first."""

RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlepad": 4,
    "axes.titlesize": 7.5,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.dpi": PNG_DPI,
    "font.family": ["DejaVu Sans"],
    "font.size": 7,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "pdf.fonttype": 42,
    "savefig.dpi": PNG_DPI,
    "text.color": INK,
    "text.parse_math": False,  # a user's policy may have a dollar in its name
    "xtick.color": INK,
    "xtick.labelsize": 6.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "xtick.minor.size": 1.5,
    "xtick.minor.width": 0.4,
    "ytick.color": INK,
    "ytick.labelsize": 6.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}
"""Settings of matplotlib that every figure is drawn with."""
# Of a legend entry at 7 points: the mean letter, and handle, padding and space between columns.
_LETTER_IN = 0.057
_ENTRY_IN = 0.38


def paper_style() -> AbstractContextManager[None]:
    """Return the context to draw and save in; it leaves matplotlib's settings as they were."""
    return style.context(RC, after_reset=True)


@dataclass(frozen=True, slots=True)
class PolicyStyle:
    """How a policy is drawn in every figure.

    Attributes
    ----------
    colour
        Of bars, lines and markers; hue and lightness both differ, for colour-blind readers and
        print in greys.
    marker
        Of points.
    hatch
        Of bars.
    """

    colour: str
    marker: str
    hatch: str


# Neighbours differ in lightness. Baselines are greys and mauve, greedy orange, programs blue; of
# each pair the one that knows the load is the darker.
_FIXED = {
    "contiguous": PolicyStyle("#BEBEBE", "s", ""),
    "round-robin": PolicyStyle("#808080", "o", ""),
    "random": PolicyStyle("#C9A9C9", "X", "......"),
    "greedy": PolicyStyle("#F2B65A", "v", "//////"),
    "greedy-load": PolicyStyle("#A63C06", "^", ""),
    "ilp": PolicyStyle("#7FBDE6", "d", "\\\\\\\\\\\\"),
    "ilp-load": PolicyStyle("#0B3C74", "D", ""),
}
# Wong's green and purple (Nature Methods 8, 441, 2011) and shades away from the hues above.
_SPARE_COLOURS = ("#009E73", "#CC79A7", "#8C7A1E", "#5FD3BC", "#7A1F5C")
_SPARE_MARKERS = ("P", "*", "h", "<", ">", "p", "8")
_SPARE_HATCHES = ("xxxx", "", "----", "||||", "ooo", "++++")


def policy_styles(policies: Iterable[str]) -> dict[str, PolicyStyle]:
    """Return the styles of the policies named, in the order figures list them.

    The built-in policies come first and always look the same; others follow by name and take
    the next colours, markers and hatches, which come round again when they run out.
    """
    named = set(policies)
    own = sorted(named - _FIXED.keys())
    spare = {
        name: PolicyStyle(
            _SPARE_COLOURS[i % len(_SPARE_COLOURS)],
            _SPARE_MARKERS[i % len(_SPARE_MARKERS)],
            _SPARE_HATCHES[i % len(_SPARE_HATCHES)],
        )
        for i, name in enumerate(own)
    }
    return {name: look for name, look in _FIXED.items() if name in named} | spare


def legend(figure: Figure, handles: Sequence[Artist], *, columns: int, place: Place) -> None:
    """Put a legend outside the axes, read row by row.

    Parameters
    ----------
    handles
        Artists with labels.
    columns
        Entries of a full row.
    place
        At the upper or the lower edge of the figure.
    """
    by_column = [handle for column in range(columns) for handle in handles[column::columns]]
    figure.legend(handles=by_column, ncols=columns, loc=place)


def columns_across(labels: Sequence[str], width_in: float = TWO_COLUMNS_IN) -> int:
    """Return how many columns of a legend fit into a width, at most 7."""
    return next(
        (
            columns
            for columns in range(min(7, len(labels)), 1, -1)
            if sum(
                _ENTRY_IN + _LETTER_IN * max(map(len, labels[column::columns]))
                for column in range(columns)
            )
            < width_in
        ),
        1,
    )


def policy_patches(looks: Mapping[str, PolicyStyle]) -> list[Artist]:
    """Return a legend entry per policy, as bars show it."""
    return [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=INK, linewidth=0.4, label=policy)
        for policy, look in looks.items()
    ]
