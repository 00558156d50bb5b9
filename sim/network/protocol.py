"""What the engine expects of a network, whatever its fidelity.

Clocks are integer nanoseconds (SimPy's too); networks round durations up, so that nothing
ever arrives before it can.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from sim.network.usage import LinkUsage
    from topologies import Router


class Collective(Protocol):
    """A set of flows under way: one direction of one layer."""

    @property
    def started_ns(self) -> int | None:
        """When the first GPU sent."""

    @property
    def ended_ns(self) -> int | None:
        """When the last GPU had everything; None until then."""

    @property
    def link_bytes(self) -> NDArray[Any]:
        """int64 or float64 [links]: bytes this collective put on every link."""

    def send(self, gpu: int) -> None:
        """Start the messages of `gpu` now; once for every GPU that has any."""

    def arrived(self, gpu: int) -> simpy.Event:
        """Event that fires when everything addressed to `gpu` is in.

        Messages of a GPU to itself are in when it sends.
        """


class Session(Protocol):
    """A network during one run."""

    def collective(self, flows: Flows) -> Collective:
        """Register flows; nothing moves before `Collective.send`."""

    def usage(self) -> LinkUsage:
        """What the links have done so far."""

    def set_speeds(self, speed: NDArray[np.float64]) -> None:
        """Let links work at these shares [links] of their bandwidth from now on.

        0 is dead: messages under way and to come are routed anew. What a GPU has to say it says
        in full: no byte is lost, and each counts on the links that it crossed to their end.

        Raises
        ------
        SimulationError
            If messages under way have no path any more.
        """

    def cut(self, gpu: int) -> Sequence[tuple[Collective, NDArray[np.int64]]]:
        """Let a GPU die: what has not left its sender, to it or from it, is lost from now on.

        What has left arrives. Nobody waits for what is lost: GPUs that miss nothing else have
        everything now.

        Returns
        -------
        sequence
            Collectives under way that lose bytes, and int64 [flows] how many.
        """


class Network(Protocol):
    """A fidelity and its parameters; opened anew for every run."""

    @property
    def name(self) -> str:
        """How tables and files call the fidelity."""

    @property
    def router(self) -> Router:
        """The routes in force, and through them the cluster."""

    def open(self, env: simpy.Environment) -> Session:
        """Return the idle network of a new run; `env` counts integer nanoseconds."""


def ceil_ns(seconds: float) -> int:
    """Return whole nanoseconds, rounded up (less the 1e-6 ns that floating point may add)."""
    return ceil(seconds * 1e9 - 1e-6)
