"""Networks of several fidelities behind one protocol."""

from sim.network.alone import run_alone
from sim.network.analytic import AnalyticNetwork
from sim.network.flows import Flows
from sim.network.fluid import FluidNetwork
from sim.network.issue import IssueOrder
from sim.network.maxmin import max_min_rates
from sim.network.memory import Exchanged, ExchangeMemory
from sim.network.packet import PacketNetwork
from sim.network.protocol import Collective, Network, Session
from sim.network.queue import mean_queue_wait
from sim.network.usage import LinkUsage

__all__ = [
    "AnalyticNetwork",
    "Collective",
    "ExchangeMemory",
    "Exchanged",
    "Flows",
    "FluidNetwork",
    "IssueOrder",
    "LinkUsage",
    "Network",
    "PacketNetwork",
    "Session",
    "max_min_rates",
    "mean_queue_wait",
    "run_alone",
]
