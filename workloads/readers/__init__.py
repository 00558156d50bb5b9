"""Readers of loads and traces, one module per format."""

from workloads.readers.any_file import read_load, read_trace
from workloads.readers.counts import LoadCounts
from workloads.readers.logical_count import read_logical_count
from workloads.readers.npy_chunks import read_chunks

__all__ = ["LoadCounts", "read_chunks", "read_load", "read_logical_count", "read_trace"]
