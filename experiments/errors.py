"""Errors of the experiments package."""


class ExperimentError(ValueError):
    """A run, sweep or table that cannot be used as it stands."""


class FigureError(ExperimentError):
    """A table that a figure cannot be drawn from."""


class RunError(RuntimeError):
    """A run that broke off though its input was right."""


class StatisticsError(ExperimentError):
    """Numbers that a statistic cannot be taken of."""
