"""What a GPU computes in a step, and how long it takes: rooflines, no network."""

from sim.compute.constant import constant_times, expert_ns, expert_seconds
from sim.compute.gpu import GPUS, GpuModel, gpu_model
from sim.compute.pool import DecodePool, Pool, PrefillPool, throughput_per_gpu, tpot_s
from sim.compute.step import step_times
from sim.compute.times import StepTimes

__all__ = [
    "GPUS",
    "DecodePool",
    "GpuModel",
    "Pool",
    "PrefillPool",
    "StepTimes",
    "constant_times",
    "expert_ns",
    "expert_seconds",
    "gpu_model",
    "step_times",
    "throughput_per_gpu",
    "tpot_s",
]
