"""Reader of per-token router choices: npz with ``topk_ids`` and ``seq_lens``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workloads.errors import WorkloadError
from workloads.readers.arrays import npz_array
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from os import PathLike

    from workloads.model import MoEModel

IDS, LENGTHS = "topk_ids", "seq_lens"


def read_npz_trace(path: str | PathLike[str], model: MoEModel) -> RoutingTrace:
    """Read which experts every token chose.

    The file holds ``topk_ids``, integer [tokens, MoE layers, k], logical expert ids, no expert
    twice in a token and layer, and ``seq_lens``, integer [sequences], summing to tokens. Other
    arrays in it are left alone. What an array claims to be is checked before memory is taken for
    it, and nothing is unpickled.

    Parameters
    ----------
    path
        The npz file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and place.
    """
    file = Path(path)
    shape = f"(tokens, {model.layers} MoE layers, {model.top_k} choices), at least one token"
    try:
        topk = npz_array(file, IDS, (None, model.layers, model.top_k), shape)
        seq_lens = npz_array(file, LENGTHS, (None,), "(sequences), at least one")
        return RoutingTrace(
            topk=topk, experts=model.experts, seq_lens=seq_lens, source=f"trace {file.name}"
        )
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None
