"""What a worker does: one run, from its job to what the store keeps."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from experiments.spec import RunSpec

_ONE_AT_A_TIME = threading.Lock()
"""A worker may have many threads; solvers and caches are meant for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A run to be done.

    Attributes
    ----------
    run_id
        What the run is to be, files included.
    spec
        Its specification.
    tables
        Tables to keep of it.
    """

    run_id: str
    spec: RunSpec
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A run that came to its end.

    Attributes
    ----------
    record
        The file of the run.
    arrays
        Its tables by name, as Parquet.
    provenance
        Seconds, host and versions.
    headline
        Its best-known figures, for who watches.
    """

    record: str
    arrays: dict[str, bytes]
    provenance: dict[str, Any]
    headline: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that did not.

    Attributes
    ----------
    kind
        ``error``, ``time``, ``memory`` or ``died``.
    message
        One line.
    detail
        Traceback or last words of the worker, empty where there are none.
    deaths
        Workers that died of it.
    """

    kind: str
    message: str
    detail: str = ""
    deaths: int = 0


def perform(job: Job) -> Done | Failed:
    """Run a job; what goes wrong is returned, not raised."""
    with _ONE_AT_A_TIME:
        try:
            return _perform(job)
        except MemoryError as error:
            return Failed("memory", _line(error), traceback.format_exc())
        except Exception as error:  # noqa: BLE001  one bad run never stops the rest
            return Failed("error", _line(error), traceback.format_exc())


def _perform(job: Job) -> Done:
    from experiments.programs import (  # noqa: PLC0415  slow to import
        lost_experts,
        placement_figures,
        run_figures,
        solve_seconds,
        tables,
    )
    from experiments.run import execute  # noqa: PLC0415  slow to import
    from experiments.sweeping.identity import identify  # noqa: PLC0415  as above
    from experiments.sweeping.record import encode  # noqa: PLC0415  as above

    identity = identify(job.spec)
    if identity.run_id != job.run_id:
        raise ExperimentError(
            f"on {socket.gethostname()} the files, clusters or policies of the run are not those "
            "the sweep started with; expected them to stay as they are, and to be the same on "
            "every machine"
        )
    begun, started = time.perf_counter(), time.time()
    result = execute(job.spec)
    figures = {
        "policy": result.placement.policy,
        **run_figures(job.spec, result),
        **placement_figures(job.spec, result),
        **lost_experts(result.replay),
    }
    record = encode(identity, figures)
    arrays = {name: parquet(table) for name, table in tables(result.replay, job.tables).items()}
    seconds = {
        "run_s": time.perf_counter() - begun,
        "place_s": result.place_s,
        "solve_s": solve_seconds(result),
    }
    return Done(record, arrays, about(started) | seconds, headline(figures))


def about(started: float) -> dict[str, Any]:
    """Return where and with what a run was done; `started` in seconds since the epoch."""
    from experiments.manifest import versions  # noqa: PLC0415  not needed to start a worker

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "versions": versions(),
    }


def headline(figures: Mapping[str, Any]) -> str:
    """Say in a few words what came of a run."""
    step, hops = figures["step_s"] * 1e3, figures["hops_per_token_layer"]
    return f"{figures['policy']}: {hops:.2f} hops per token and layer, step {step:.3f} ms"


def parquet(table: pd.DataFrame) -> bytes:
    """Write a table as Parquet, without the conversions that pandas adds."""
    import pyarrow as pa  # noqa: PLC0415  slow to import
    from pyarrow.parquet import write_table  # noqa: PLC0415  slow to import

    sink = pa.BufferOutputStream()
    write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    return bytes(sink.getvalue())


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # Errors of input speak for themselves; others need their kind.
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
