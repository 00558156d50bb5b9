"""Errors of the workloads package."""


class WorkloadError(ValueError):
    """A model, load or trace that cannot be used; the message says what, where and why."""
