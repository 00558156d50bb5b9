"""One collective on an idle network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

if TYPE_CHECKING:
    from sim.network.flows import Flows
    from sim.network.protocol import Network


def run_alone(network: Network, flows: Flows) -> tuple[Any, Any]:
    """Send all flows at time 0 and wait for the last; returns the collective and its session.

    What both have beyond the protocol (`delivered_ns`, `fillings`, `crossings`) depends on the
    network.
    """
    env = simpy.Environment()
    session = network.open(env)
    collective = session.collective(flows)
    for gpu in np.unique(flows.src).tolist():
        collective.send(gpu)
    env.run()
    return collective, session
