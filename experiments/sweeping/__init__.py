"""Sweeps: many runs from one file, in a store that survives whatever stops them."""

from experiments.sweeping.collecting import collect
from experiments.sweeping.grid import Axis, Sweep, read_sweep
from experiments.sweeping.identity import Identity, identify
from experiments.sweeping.plan import Plan, Planned, plan
from experiments.sweeping.record import DamagedError, Record, VersionError
from experiments.sweeping.store import Store, WriteError, create_store, open_store
from experiments.sweeping.work import Done, Failed, Job, perform

__all__ = [
    "Axis",
    "DamagedError",
    "Done",
    "Failed",
    "Identity",
    "Job",
    "Plan",
    "Planned",
    "Record",
    "Store",
    "Sweep",
    "VersionError",
    "WriteError",
    "collect",
    "create_store",
    "identify",
    "open_store",
    "perform",
    "plan",
    "read_sweep",
]
