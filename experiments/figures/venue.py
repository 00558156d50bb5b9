"""Where a figure is printed: the widths, letters and sizes of a venue's template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib import style

from experiments.errors import FigureError
from experiments.figures.style import RC

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


@dataclass(frozen=True, slots=True)
class Venue:
    r"""A template.

    Attributes
    ----------
    name
        As ``--style`` takes it.
    column_in, text_in
        ``\columnwidth`` and ``\textwidth``, inches.
    font
        Of all letters; one that comes with matplotlib, so that every machine draws the same.
    size
        Of labels, points; numbers at ticks are half a point smaller.
    """

    name: str
    column_in: float
    text_in: float
    font: str
    size: float

    def context(self) -> AbstractContextManager[None]:
        """Return the context to draw and save in; it leaves matplotlib's settings as they were."""
        small = self.size - 0.5
        sizes = dict.fromkeys(("axes.labelsize", "font.size", "legend.fontsize"), self.size)
        sizes |= {"axes.titlesize": self.size, "xtick.labelsize": small, "ytick.labelsize": small}
        return style.context(
            {**RC, **sizes, "font.family": [self.font], "axes.unicode_minus": True},
            after_reset=True,
        )

    def width(self, *, wide: bool) -> float:
        """Return the width of a figure across the text, or of one column, inches."""
        return self.text_in if wide else self.column_in


# A point of TeX is 1/72.27 inch. STIX has the shapes of Times; at 8 points it is as tall as DejaVu
# Sans at 7.
VENUES = {
    # acmart.cls, sigconf: \columnwidth 241.14749pt, \textwidth 506.295pt. Captions are sans serif.
    "acm": Venue("acm", 241.14749 / 72.27, 506.295 / 72.27, "DejaVu Sans", 7),
    # IEEEtran.cls, conference: \columnwidth 252pt, \textwidth 516pt.
    "ieee": Venue("ieee", 252 / 72.27, 516 / 72.27, "STIXGeneral", 8),
    # usenix-2020-09.sty: text 7 in wide, \columnsep 0.33 in.
    "usenix": Venue("usenix", (7 - 0.33) / 2, 7.0, "STIXGeneral", 8),
    # mlsys2025.sty, as icml: \textwidth 6.75 in, \columnsep 0.25 in.
    "mlsys": Venue("mlsys", (6.75 - 0.25) / 2, 6.75, "STIXGeneral", 8),
}


def venue(name: str) -> Venue:
    """Return the venue of that name.

    Raises
    ------
    FigureError
        If there is none.
    """
    if name not in VENUES:
        raise FigureError(f"--style {name}: unknown; allowed: {', '.join(VENUES)}")
    return VENUES[name]
