"""State of the fluid kernel: plain arrays that Python and the compiled loop share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.network._arena import enlarged

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1
"""No link, no bundle."""
FIRST, LAST, BUNDLE, ACCOUNT = range(4)
"""Columns of `Rows.way`."""

HEADER = np.dtype(
    [
        ("now", "f8"),  # ns; the kernel never looks back
        ("due", "f8"),  # ns; when the rates are computed anew
        ("steps", "f8"),  # K of the lazy rule; infinite for exact rates
        ("rows", "i8"),  # of the table, finished ones included
        ("settled", "i8"),  # rows that have rates; those behind have just joined
        ("alive", "i8"),  # rows that have not finished
        ("events", "i8"),  # size of the heap of ends
        ("levels", "i8"),  # size of the heap of links
        ("touched", "i8"),  # bundles in `touched`
        ("bin_shift", "i8"),  # a utilisation bin is 2 ** bin_shift ns wide
        ("fills", "i8"),  # how often rates were computed
    ]
)

BUNDLE_RECORD = np.dtype(
    [
        ("begin", "i8"),  # its links are entries[begin:end]
        ("end", "i8"),
        ("account", "i8"),
        ("flows", "i8"),  # flows without a rate yet
        ("frozen", "i8"),  # flows that got their rate from the current link
        ("first_row", "i8"),  # its flows are bundle_row[first_row:end_row]
        ("end_row", "i8"),
        ("carried", "f8"),  # bytes of its finished flows
    ]
)

ACCOUNT_RECORD = np.dtype(
    [
        ("flows", "i8"),  # under way at the last filling
        ("need", "f8"),  # ns that they needed, summed
        ("patience", "f8"),  # ns that flows wait for a new filling
    ]
)
"""A collective."""

ENTRY_RECORD = np.dtype([("link", "i8"), ("fraction", "f8")])

INBOX_RECORD = np.dtype(
    [
        ("left", "i8"),  # flows that have not finished
        ("ready", "f8"),  # ns; the latest delivery so far
    ]
)


class Links(NamedTuple):
    """Links: their books, and what the filling of one set of flows needs.

    Bytes per ns for `capacity`, `used` and `left`; ns for `since`, `busy` and `bins`.
    """

    capacity: NDArray[np.float64]
    used: NDArray[np.float64]  # by all flows with rates, since `since`
    since: NDArray[np.float64]
    busy: NDArray[np.float64]
    bins: NDArray[np.float64]  # [links, bins]
    left: NDArray[np.float64]
    weight: NDArray[np.float64]  # fractions of the flows without a rate yet
    users: NDArray[np.int64]  # those flows
    level: NDArray[np.float64]  # heap of links by the level at which they fill
    order: NDArray[np.int64]
    first_own: NDArray[np.int64]  # [links + 1], into own_row
    first_entry: NDArray[np.int64]  # [links + 1], into crossing


class Rows(NamedTuple):
    """The flows under way, in the order in which they joined.

    A flow crosses its own links `first` and `last` with all its bytes, and between them the
    links of its bundle, with the fractions that stand there. Flows that take the same way
    between the same switches share a bundle: the table and the filling stay small.
    """

    way: NDArray[np.int32]  # [rows, 4]: first, last, bundle, account
    inbox: NDArray[np.int32]
    delivery: NDArray[np.int32]
    size: NDArray[np.float64]  # bytes
    rest: NDArray[np.float64]  # bytes left at `since`
    rate: NDArray[np.float64]  # bytes per ns; negative while it is not known
    since: NDArray[np.float64]  # ns
    finish: NDArray[np.float64]  # ns, at this rate; of a finished flow: -1
    latency: NDArray[np.float64]  # ns
    heap: NDArray[np.int64]  # rows by their end
    bundle_row: NDArray[np.int64]
    own_row: NDArray[np.int64]  # [2 rows]


class State(NamedTuple):
    """Everything the kernel reads and writes."""

    header: NDArray[Any]
    links: Links
    rows: Rows
    bundles: NDArray[Any]
    entries: NDArray[Any]
    inboxes: NDArray[Any]
    delivered: NDArray[np.float64]  # ns
    accounts: NDArray[Any]
    carried: NDArray[np.float64]  # [accounts, links] bytes of finished flows on their own links
    touched: NDArray[np.int64]  # [bundles]
    crossing: NDArray[np.int64]  # [entries]: bundles, by link


def new_state(capacity: NDArray[np.float64], *, steps: float, bins: int) -> State:
    """Return the state of an idle network.

    Parameters
    ----------
    capacity
        Bytes per ns, [links].
    steps
        K of the lazy rule; infinite for exact rates.
    bins
        Utilisation bins, even.
    """
    count = len(capacity)
    header = np.zeros(1, dtype=HEADER)
    header["due"], header["steps"], header["bin_shift"] = np.inf, steps, 10
    floats, ints = (np.zeros((12, count), dtype=kind) for kind in (np.float64, np.int64))
    links = Links(
        capacity=np.ascontiguousarray(capacity, dtype=np.float64),
        used=floats[0],
        since=floats[1],
        busy=floats[2],
        bins=np.zeros((count, bins)),
        left=floats[3],
        weight=floats[4],
        users=ints[0],
        level=floats[5],
        order=ints[1],
        first_own=np.zeros(count + 1, dtype=np.int64),
        first_entry=np.zeros(count + 1, dtype=np.int64),
    )
    return State(
        header=header,
        links=links,
        rows=_rows(0),
        bundles=np.zeros(0, dtype=BUNDLE_RECORD),
        entries=np.zeros(0, dtype=ENTRY_RECORD),
        inboxes=np.zeros(0, dtype=INBOX_RECORD),
        delivered=np.zeros(0),
        accounts=np.zeros(0, dtype=ACCOUNT_RECORD),
        carried=np.zeros((0, count)),
        touched=np.zeros(0, dtype=np.int64),
        crossing=np.zeros(0, dtype=np.int64),
    )


COMPANIONS = {"bundles": ("touched",), "entries": ("crossing",), "carried": ("accounts",)}
"""Arrays that are as long as the one places are reserved in."""


def with_room(state: State, what: str, length: int) -> State:
    """Return the state with `length` places or more in one of its arrays."""
    have = len(getattr(state, what))
    if length <= have:
        return state
    size = max(length, 2 * have)
    names = (what, *COMPANIONS.get(what, ()))
    grown: dict[str, Any] = {name: enlarged(getattr(state, name), size) for name in names}
    return state._replace(**grown)


def with_rows(state: State, more: int) -> State:
    """Return the state with room for `more` flows behind those in the table."""
    have, needed = len(state.rows.way), int(state.header["rows"][0]) + more
    if needed <= have:
        return state
    size = max(needed, 2 * have)
    grown = Rows(*(enlarged(old, size) for old in state.rows))
    return state._replace(rows=grown._replace(own_row=np.zeros(2 * size, dtype=np.int64)))


def _rows(size: int) -> Rows:
    columns: dict[str, Any] = {
        "way": np.zeros((size, 4), dtype=np.int32),
        "own_row": np.zeros(2 * size, dtype=np.int64),
    }
    columns |= {name: np.zeros(size, dtype=np.int32) for name in ("inbox", "delivery")}
    columns |= {name: np.zeros(size, dtype=np.int64) for name in ("heap", "bundle_row")}
    reals = ("size", "rest", "rate", "since", "finish", "latency")
    columns |= {name: np.zeros(size) for name in reals}
    return Rows(**columns)
