"""The seconds of a step: balance and traffic in one unit, bounded and minimised."""

from placement.step.least_seconds import LeastSeconds
from placement.step.seconds import GpuRates, StepCost, StepSeconds, step_seconds

__all__ = ["GpuRates", "LeastSeconds", "StepCost", "StepSeconds", "step_seconds"]
