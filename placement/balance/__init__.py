"""Balance: load caps on servers or GPUs, and the dealing of a server's experts to its GPUs."""

from placement.balance.balanced import Balanced
from placement.balance.caps import SCOPES, LayerCaps, Places, layer_caps, least_maximum_bound
from placement.balance.front import ParetoPoint, pareto
from placement.balance.inside import GpuSpread, spread, spread_gpus

__all__ = [
    "SCOPES",
    "Balanced",
    "GpuSpread",
    "LayerCaps",
    "ParetoPoint",
    "Places",
    "layer_caps",
    "least_maximum_bound",
    "pareto",
    "spread",
    "spread_gpus",
]
