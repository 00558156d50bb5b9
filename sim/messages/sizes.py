"""How many bytes a message has in every dispatch mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sim.errors import SimulationError

if TYPE_CHECKING:
    from workloads import MoEModel

DispatchMode = Literal["per_expert", "per_gpu", "per_server", "allgather"]
"""What a token sends: a message per expert, per distinct GPU, per distinct server, or to all."""

MODES: tuple[DispatchMode, ...] = get_args(DispatchMode)


@dataclass(frozen=True, slots=True)
class MessageSizes:
    """Bytes of one message of either direction.

    Attributes
    ----------
    dispatch_bytes
        A token's hidden state on the way to an expert.
    combine_bytes
        An expert's result on the way to the token.
    """

    dispatch_bytes: int
    combine_bytes: int

    def __post_init__(self) -> None:
        """Refuse empty messages."""
        if self.dispatch_bytes < 1 or self.combine_bytes < 1:
            raise SimulationError(
                f"messages must have 1 byte or more, got {self.dispatch_bytes} (dispatch) and "
                f"{self.combine_bytes} (combine)"
            )

    @classmethod
    def from_model(cls, model: MoEModel, mode: DispatchMode = "per_expert") -> MessageSizes:
        """Messages of DeepEP's kernels, the hidden state in FP8 out and in BF16 back.

        A 4-byte scale comes with every 128 FP8 values. ``per_expert``, low-latency kernels: a
        16-byte header in front of a dispatched message. The other modes, normal kernels: 8 bytes
        of source, and the k choices with their weights (8 bytes each out, 4 back), in whole
        multiples of 16 bytes.

        Raises
        ------
        SimulationError
            If the mode is unknown.
        """
        check_mode(mode)
        scales = 4 * -(-model.hidden // 128)
        if mode == "per_expert":
            return cls(dispatch_bytes=16 + model.hidden + scales, combine_bytes=2 * model.hidden)
        return cls(
            dispatch_bytes=_align16(model.hidden + 8 + scales + 8 * model.top_k),
            combine_bytes=_align16(2 * model.hidden + 8 + 4 * model.top_k),
        )


def check_mode(mode: str) -> None:
    """Refuse an unknown dispatch mode."""
    if mode not in MODES:
        raise SimulationError(f"unknown dispatch mode {mode!r}; allowed: {', '.join(MODES)}")


def _align16(size: int) -> int:
    return -(-size // 16) * 16
