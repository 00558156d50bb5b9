"""What a GPU has room for: expert slots beside resident weights and KV cache."""

from placement.memory.budget import Memory, slot_bytes, slots_per_gpu
from placement.memory.caps import memory_caps
from placement.memory.report import GpuMemory, check_memory, memory_report

__all__ = [
    "GpuMemory",
    "Memory",
    "check_memory",
    "memory_caps",
    "memory_report",
    "slot_bytes",
    "slots_per_gpu",
]
