"""Re-placement: few moves from a placement that runs, and what a move is worth."""

from placement.memory import slot_bytes
from placement.moves.replace import CurvePoint, Moves, Replace, count_moves, curve
from placement.moves.worth import StepFigures, Transfers, Worth, transfers

__all__ = [
    "CurvePoint",
    "Moves",
    "Replace",
    "StepFigures",
    "Transfers",
    "Worth",
    "count_moves",
    "curve",
    "slot_bytes",
    "transfers",
]
