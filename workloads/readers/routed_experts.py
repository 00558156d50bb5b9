"""Router choices as vLLM returns them: ``routed_experts`` [tokens, layers, k], npz or npy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.readers.arrays import ZIP, first_bytes, npy_array, npz_array, npz_headers
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

KEY, LENGTHS = "routed_experts", "seq_lens"


def read_routed_experts(path: str | PathLike[str], model: MoEModel) -> RoutingTrace:
    """Read which experts every token chose, as a vLLM server returned it.

    One array, an npy file or ``routed_experts`` of an npz file: integers of any width [tokens,
    layers, k], logical ids. The layers are the MoE layers, or all hidden layers; then those of
    dense layers hold one value alone (0 or -1), which no router writes. The tokens are one
    sequence unless the npz file has ``seq_lens`` [sequences] too.

    Parameters
    ----------
    path
        The file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and place.
    """
    file = Path(path)
    wanted = (
        f"(tokens, {model.layers} MoE layers or all {model.hidden_layers} layers of {model.name}, "
        f"{model.top_k} choices), at least one token"
    )
    try:
        ids = _ids(file, model, wanted)
        topk = moe_choices(ids, model, KEY, wanted)
        return RoutingTrace(
            topk=topk,
            experts=model.experts,
            seq_lens=_lengths(file, len(topk)),
            source=f"{KEY} of {file.name}",
        )
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def moe_choices(ids: NDArray[Any], model: MoEModel, name: str, wanted: str) -> NDArray[Any]:
    """Drop dense layers from choices, [tokens, rows, k] -> [tokens, layers, k].

    Parameters
    ----------
    ids
        Rows are all hidden layers or the MoE layers.
    model
        Whose they are.
    name, wanted
        What errors call the array and the shape it should have.

    Raises
    ------
    WorkloadError
        Neither number of rows, or a dense layer with choices.
    """
    rows = ids.shape[1]
    if rows == model.layers:
        return ids
    if rows != model.hidden_layers:
        raise WorkloadError(f"{name}: shape {ids.shape}, expected {wanted}")
    for layer in sorted(set(range(rows)) - set(model.moe_layers)):
        dense = ids[:, layer]
        if not ((dense == 0).all() or (dense == -1).all()):
            raise WorkloadError(
                f"{name}: layer {layer} of {model.name} is dense; expected 0 or -1 throughout, "
                f"got {int(dense.flat[np.argmax((dense != 0) & (dense != -1))])}"
            )
    return ids[:, list(model.moe_layers)]


def _ids(file: Path, model: MoEModel, wanted: str) -> NDArray[Any]:
    shape = (None, None, model.top_k)
    if first_bytes(file).startswith(ZIP):
        return npz_array(file, KEY, shape, wanted)
    return npy_array(file, shape, wanted)


def _lengths(file: Path, tokens: int) -> NDArray[Any]:
    if first_bytes(file).startswith(ZIP) and LENGTHS in npz_headers(file):
        return npz_array(file, LENGTHS, (None,), "(sequences), at least one")
    return np.array([tokens])
