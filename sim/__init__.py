"""What happens then: traffic over the cluster's links, and the time a step takes."""

from sim.compute import expert_seconds
from sim.compute_model import ComputeModel, ConstantCompute, PoolCompute
from sim.engine import simulate
from sim.errors import LawViolation, SimulationError
from sim.faults import Fault, FaultSchedule
from sim.messages import MessageSizes, Traffic
from sim.network import AnalyticNetwork, FluidNetwork, PacketNetwork
from sim.result import SimResult

__all__ = [
    "AnalyticNetwork",
    "ComputeModel",
    "ConstantCompute",
    "Fault",
    "FaultSchedule",
    "FluidNetwork",
    "LawViolation",
    "MessageSizes",
    "PacketNetwork",
    "PoolCompute",
    "SimResult",
    "SimulationError",
    "Traffic",
    "expert_seconds",
    "simulate",
]
