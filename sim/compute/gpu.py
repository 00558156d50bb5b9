"""GPUs: how fast they multiply, read and launch."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING

from sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPED_EFFICIENCY = 0.62
"""Part of the FP8 peak of an H800 that DeepGEMM's grouped kernels reach.

First release (README of February 2025), 4 groups of 8,192 tokens: 1297 TFLOP/s for gate and up
(N 4096, K 7168: two thirds of an R1 expert), 1099 for down (N 7168, K 2048: one third), together
1 / (2/3 / 1297 + 1/3 / 1099) = 1223 of 1979. No such table is known to us for the B200: its preset
takes the same part.
"""

LAUNCH_S = 10e-6
"""20 kernels a layer (our count) at 0.5 us each between nodes of a CUDA graph.

3.4 us a kernel against 2.9 us of execution: "Getting Started with CUDA Graphs", NVIDIA technical
blog, 2019.
"""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """Rates of a GPU; vendors' figures, dense (without structured sparsity) and decimal.

    For others, `dataclasses.replace` a preset: a measured memory rate for the vendor's, say.

    Attributes
    ----------
    name
        Preset or the user's own.
    flops_8bit, flops_16bit
        Peak operations per second of the tensor cores in FP8 and in BF16.
    memory_Bps, memory_bytes
        Of its memory: bytes per second, and bytes.
    nvlink_Bps
        Bytes per second and direction to the other GPUs of its server.
    efficiency
        Part of the peaks that kernels reach; memory and NVLink are taken to reach theirs.
    tile_tokens
        Matrix products take tokens in tiles of so many, filled up.
    launch_s
        Seconds of a layer in which the GPU waits for its next kernel.
    """

    name: str
    flops_8bit: float
    flops_16bit: float
    memory_Bps: float  # noqa: N815  bytes per second, as the docs write it
    memory_bytes: int
    nvlink_Bps: float  # noqa: N815
    efficiency: float = GROUPED_EFFICIENCY
    tile_tokens: int = 64
    launch_s: float = LAUNCH_S

    def __post_init__(self) -> None:
        """Refuse what no GPU is."""
        for field in ("flops_8bit", "flops_16bit", "memory_Bps", "memory_bytes", "nvlink_Bps"):
            value = getattr(self, field)
            if not (isfinite(value) and value > 0):
                raise self._error(field, value, "a finite number above 0")
        if not 0 < self.efficiency <= 1:
            raise self._error("efficiency", self.efficiency, "a part above 0, at most 1")
        if self.tile_tokens < 1:
            raise self._error("tile_tokens", self.tile_tokens, "at least 1 token")
        if not (isfinite(self.launch_s) and self.launch_s >= 0):
            raise self._error("launch_s", self.launch_s, "a finite number of seconds, 0 or more")

    def flops(self, bytes_per_parameter: float) -> float:
        """Operations per second, efficiency included, on weights of such a size.

        One byte and its scales multiply in FP8. Two bytes multiply in BF16, and so do 4-bit
        weights: they are unpacked first, as gpt-oss is served on GPUs without 4-bit tensor cores.
        """
        peak = self.flops_8bit if 1 <= bytes_per_parameter < 2 else self.flops_16bit
        return peak * self.efficiency

    def _error(self, field: str, value: float, expected: str) -> SimulationError:
        return SimulationError(f"GPU {self.name!r}: {field} is {value}; expected {expected}")


H800 = GpuModel("H800", 1979e12, 989.5e12, 3.35e12, 80 * 10**9, 200e9)
"""An H100 SXM5 with 400 GB/s of NVLink both ways (DeepSeek-V3, ISCA'25, section 4.1).

About 160 GB/s of the 200 a direction are usable (README of DeepEP). FP8 peak as DeepGEMM uses it.
"""
H100 = GpuModel("H100", 1979e12, 989.5e12, 3.35e12, 80 * 10**9, 450e9)
"""H100 SXM5, NVIDIA data sheet: 3,958 and 1,979 TFLOP/s with sparsity, 3.35 TB/s, 80 GB, NVLink
900 GB/s both ways."""
H200 = GpuModel("H200", 1979e12, 989.5e12, 4.8e12, 141 * 10**9, 450e9)
"""H200 SXM, NVIDIA data sheet: an H100 with 141 GB at 4.8 TB/s."""
B200 = GpuModel("B200", 4500e12, 2250e12, 8e12, 180 * 10**9, 900e9, tile_tokens=128)
"""B200, one eighth of NVIDIA's DGX B200 data sheet.

72 PFLOP/s in FP8 with sparsity (half of it dense, half of that in BF16), 1,440 GB (180 usable of
192 built in) at 64 TB/s, NVLink 14.4 TB/s both ways.
Its tensor cores take 128 rows at once (tcgen05.mma, PTX ISA), those of Hopper 64 (wgmma).
"""

GPUS: Mapping[str, GpuModel] = MappingProxyType(
    {each.name: each for each in (H800, H100, H200, B200)}
)
"""Presets by name."""


def gpu_model(name: str) -> GpuModel:
    """Return a preset.

    Raises
    ------
    SimulationError
        If there is none of that name.
    """
    if name not in GPUS:
        raise SimulationError(f"GPU {name!r} is not known; expected one of {', '.join(GPUS)}")
    return GPUS[name]
