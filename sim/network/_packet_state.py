"""State of the packet kernel: plain arrays that Python and the compiled loop share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.network._arena import enlarged

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1
"""End of a list."""
FIRST_INJECTION = -2
"""A link's queue holds chunks (their index) and injections (-2 minus their index)."""

HEADER = np.dtype(
    [
        ("now", "i8"),  # ns; the kernel never looks back
        ("heap_size", "i8"),
        ("free_chunk", "i8"),  # head of the list of unused chunk records
        ("chunk_bytes", "i8"),
        ("interleaved", "i8"),
        ("bin_shift", "i8"),  # a utilisation bin is 2 ** bin_shift ns wide
        ("crossings", "i8"),  # packet-hops so far
    ]
)

LINK = np.dtype(
    [
        ("bandwidth", "f8"),  # bytes per second
        ("latency", "i8"),  # ns
        ("busy_start", "i8"),  # ns; when the current busy period began
        ("busy_bytes", "i8"),  # taken on in the current busy period
        ("free_at", "i8"),  # ns; end of the current busy period as known now
        ("head", "i8"),  # queue, in the order of delivery at the far end
        ("tail", "i8"),
        ("busy", "i8"),  # ns of service
        ("wait", "i8"),  # ns that chunks waited for their service to start
        ("wait_max", "i8"),
        ("chunks", "i8"),
        ("bytes", "i8"),  # sent
        ("resent", "i8"),  # sent of chunks that were cut off when the link died
        ("carry", "i8"),  # left of the chunk in service when the link last changed its speed
    ]
)

FLOW = np.dtype(
    [
        ("first_hop", "i8"),  # its links are hops[first_hop:end_hop]
        ("end_hop", "i8"),
        ("message_bytes", "i8"),
        ("rest", "i8"),  # bytes of the current message still to be issued
        ("unissued", "i8"),  # chunks
        ("undelivered", "i8"),  # chunks
        ("next", "i8"),  # ring of the flows of one injection
        ("inbox", "i8"),
        ("account", "i8"),  # row of link_bytes
        ("delivered_at", "i8"),  # ns; last byte of the last message
    ]
)

INJECTION = np.dtype(
    [
        ("link", "i8"),  # first link of all its flows
        ("total_bytes", "i8"),
        ("unissued", "i8"),  # chunks
        ("cursor", "i8"),  # flow that issues next
        ("previous", "i8"),  # its predecessor in the ring
        ("sent_at", "i8"),  # ns
        ("busy_start", "i8"),  # of the busy period it is served in
        ("bytes", "i8"),  # of that busy period, up to and with the current chunk
        ("issued", "i8"),  # bytes of its own, up to and with the current chunk
        ("flow", "i8"),  # of the current chunk
        ("size", "i8"),  # bytes of the current chunk
        ("start", "i8"),  # ns; service of the current chunk begins
        ("finish", "i8"),  # ns; last byte of the current chunk leaves
        ("arrival", "i8"),  # ns; last byte of the current chunk reaches the far end
        ("next", "i8"),  # in the link's queue
    ]
)

CHUNK = np.dtype(
    [
        ("flow", "i8"),
        ("hop", "i8"),  # the link it is on is hops[hop]
        ("end_hop", "i8"),
        ("size", "i8"),
        ("joined", "i8"),  # ns; when it came to the link
        ("start", "i8"),  # ns; when its service there begins
        ("arrival", "i8"),  # ns; when its last byte reaches the end of the link
        ("next", "i8"),  # in the link's queue, or in the list of unused records
    ]
)


class State(NamedTuple):
    """Everything the kernel reads and writes.

    The heap holds every link with a queue once, ordered by (arrival of its head, link): the
    written tie rule, which makes runs independent of how events came to be scheduled.
    """

    header: NDArray[Any]
    links: NDArray[Any]
    heap_time: NDArray[np.int64]
    heap_link: NDArray[np.int64]
    flows: NDArray[Any]
    hops: NDArray[np.int32]
    injections: NDArray[Any]
    inboxes: NDArray[np.int64]
    chunks: NDArray[Any]
    link_bytes: NDArray[np.int64]
    busy: NDArray[np.int64]


def new_state(
    bandwidth: NDArray[np.float64],
    latency_ns: NDArray[np.int64],
    *,
    chunk_bytes: int,
    interleaved: bool,
    bins: int,
) -> State:
    """Return the state of an idle network.

    Parameters
    ----------
    bandwidth, latency_ns
        Bytes per second and ns, [links].
    chunk_bytes
        Bytes of a full chunk.
    interleaved
        Whether the flows of an injection take turns chunk by chunk.
    bins
        Utilisation bins, even.
    """
    count = len(bandwidth)
    links = np.zeros(count, dtype=LINK)
    links["bandwidth"], links["latency"] = bandwidth, latency_ns
    links["head"] = links["tail"] = NONE
    header = np.zeros(1, dtype=HEADER)
    header["free_chunk"], header["bin_shift"] = NONE, 10
    header["chunk_bytes"], header["interleaved"] = chunk_bytes, interleaved
    return State(
        header=header,
        links=links,
        heap_time=np.zeros(count, dtype=np.int64),
        heap_link=np.zeros(count, dtype=np.int64),
        flows=np.zeros(0, dtype=FLOW),
        hops=np.zeros(0, dtype=np.int32),
        injections=np.zeros(0, dtype=INJECTION),
        inboxes=np.zeros(0, dtype=np.int64),
        chunks=np.zeros(0, dtype=CHUNK),
        link_bytes=np.zeros((0, count), dtype=np.int64),
        busy=np.zeros((count, bins), dtype=np.int64),
    )


def with_more_chunks(state: State) -> State:
    """Return the state with twice the chunk records, the new ones in the list of unused ones."""
    old = len(state.chunks)
    chunks = enlarged(state.chunks, max(1024, 2 * old))
    chunks["next"][old:] = np.arange(old + 1, len(chunks) + 1)
    chunks["next"][-1] = state.header["free_chunk"][0]
    state.header["free_chunk"] = old
    return state._replace(chunks=chunks)
