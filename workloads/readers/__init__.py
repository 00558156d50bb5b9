"""Readers of loads and traces, one module per format."""

from workloads.readers.logical_count import read_logical_count
from workloads.readers.npy_chunks import read_chunks
from workloads.readers.npz_trace import read_trace

__all__ = ["read_chunks", "read_logical_count", "read_trace"]
