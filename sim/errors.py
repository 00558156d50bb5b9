"""Errors of the sim package."""


class SimulationError(ValueError):
    """Something that cannot be simulated was asked for."""


class LawViolation(SimulationError):  # noqa: N818  the law is what is violated, by name
    """A finished run contradicts a law that every run obeys; the message has the numbers."""
