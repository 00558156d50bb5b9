"""Dumps of SGLang's expert distribution recorder: torch files, ``stat`` or ``per_token``."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.readers.arrays import DAMAGE, MAX_ARRAY_BYTES
from workloads.readers.counts import LoadCounts, moe_rows
from workloads.regular import check_regular
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

COUNTS, RECORDS, MAP, IDS = (
    "logical_count",
    "records",
    "last_physical_to_logical_map",
    "topk_ids_of_layer",
)
MAX_DUMP_BYTES = 4 << 30
"""Largest dump that is loaded."""
MAX_PICKLE_BYTES = 64 << 20
"""Largest pickle of a dump: it names the tensors, their data lie beside it."""

_BROKEN = (
    *DAMAGE,
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
)


def read_dump_counts(path: str | PathLike[str], model: MoEModel) -> LoadCounts:
    """Read the tokens routed to every logical expert from a dump of mode ``stat``.

    ``logical_count`` is [buffer, hidden layers, experts]; the buffer's entries become steps.
    Needs torch (the extra ``capture``); nothing in the file is executed.

    Parameters
    ----------
    path
        The ``.pt`` file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit, or torch is missing; one line.
    """
    file = Path(path)
    try:
        counts = _counts(_loaded(file), model)
        return LoadCounts(moe_rows(counts, model, COUNTS), source=f"{COUNTS} of {file.name}")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def read_dump_trace(path: str | PathLike[str], model: MoEModel) -> RoutingTrace:
    """Read which experts every token chose from a dump of mode ``per_token``.

    Ids are those of physical slots and are translated by ``last_physical_to_logical_map``.
    Tokens of -1 throughout are padding and are left out. A record, one pass of the model, is kept
    as one sequence: the ids do not say which request a token belongs to. Needs torch (the extra
    ``capture``); nothing in the file is executed.

    Parameters
    ----------
    path
        The ``.pt`` file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit, or torch is missing; one line.
    """
    file = Path(path)
    try:
        passes = _passes(_loaded(file), model)
        topk: NDArray[Any] = np.concatenate(passes)
        return RoutingTrace(
            topk=topk,
            experts=model.experts,
            seq_lens=np.array([len(tokens) for tokens in passes]),
            source=f"{RECORDS} of {file.name}",
        )
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def holds_records(path: str | PathLike[str]) -> bool:
    """Whether a dump holds choices of tokens, and not counts.

    Raises
    ------
    WorkloadError
        It cannot be read, or torch is missing.
    """
    file = Path(path)
    try:
        return RECORDS in _loaded(file)
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _loaded(file: Path) -> dict[Any, Any]:
    """Return the dictionary of a dump; only tensors and plain values are ever made from it."""
    try:
        _check_archive(file)
        torch = import_module("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except WorkloadError:
        raise
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise WorkloadError(f"not a readable dump: {_said(error)}") from None
        raise WorkloadError(
            "a torch file, and torch is not installed; install topomoe with the extra 'capture'"
        ) from None
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or _said(error)}") from None
    except _BROKEN as error:
        raise WorkloadError(f"not a readable dump: {_said(error)}") from None
    if not isinstance(content, dict):
        raise WorkloadError(f"holds a {type(content).__name__}, expected a dictionary")
    return content


def _check_archive(file: Path) -> None:
    """See that unpacking takes no more memory than the file is long: torch packs nothing."""
    check_regular(file)
    size = file.stat().st_size
    if size > MAX_DUMP_BYTES:
        raise WorkloadError(f"{size} bytes, expected at most {MAX_DUMP_BYTES}")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WorkloadError(
            f"members of {total} bytes in a file of {size}, or packed ones; expected a file as "
            "torch.save writes it"
        )
    pickles = [member.file_size for member in members if member.filename.endswith(".pkl")]
    if not pickles:
        raise WorkloadError("no pickle in the archive; expected a file as torch.save writes it")
    if max(pickles) > MAX_PICKLE_BYTES:
        raise WorkloadError(
            f"a pickle of {max(pickles)} bytes, expected at most {MAX_PICKLE_BYTES}"
        )


def _said(error: BaseException) -> str:
    """Return the first sentence of what torch says, which may run to many lines."""
    words = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors and plain values, which is not executed, or is damaged"
    return words.partition(". ")[0][:200] or type(error).__name__


def _array(content: dict[Any, Any], key: str, where: str, *, dims: int, kinds: str) -> NDArray[Any]:
    """Return a tensor as an array, refused by its shape and type before it is laid out."""
    if key not in content:
        have = ", ".join(repr(str(name)[:40]) for name in list(content)[:5]) or "none"
        raise WorkloadError(f"{where}key {key!r} is missing; keys there are: {have}")
    value, torch = content[key], import_module("torch")
    if not isinstance(value, torch.Tensor):
        raise WorkloadError(f"{where}{key}: expected a tensor, got a {type(value).__name__}")
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise WorkloadError(f"{where}{key}: expected a plain tensor in main memory")
    if value.dim() != dims or not value.numel():
        raise WorkloadError(
            f"{where}{key}: shape {tuple(value.shape)}, expected {dims} axes, none of them 0"
        )
    # A view may claim more elements than its storage holds.
    if value.numel() * value.element_size() > MAX_ARRAY_BYTES:
        raise WorkloadError(f"{where}{key}: more than {MAX_ARRAY_BYTES} bytes")
    try:
        array: NDArray[Any] = value.detach().numpy()
    except (TypeError, RuntimeError):
        raise WorkloadError(f"{where}{key}: {value.dtype}, expected integers") from None
    if array.dtype.kind not in kinds:
        raise WorkloadError(f"{where}{key}: {array.dtype}, expected integers")
    return array


def _counts(content: dict[Any, Any], model: MoEModel) -> NDArray[np.float64]:
    """Return the counts of a ``stat`` dump, float64 [buffer, rows, experts]."""
    if COUNTS not in content and RECORDS in content:
        raise WorkloadError(
            f"holds {RECORDS!r}, choices of tokens; give it as a trace, not as loads"
        )
    counts = _array(content, COUNTS, "", dims=3, kinds="iuf").astype(np.float64)
    if counts.shape[2] != model.experts:
        raise WorkloadError(
            f"{COUNTS}: {counts.shape[2]} experts, expected {model.experts} of {model.name}"
        )
    wrong = np.argwhere(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        step, row, place = (int(i) for i in wrong[0])
        raise WorkloadError(
            f"{COUNTS}[{step}][{row}][{place}]: {float(counts[step, row, place])}, expected a "
            "finite number >= 0"
        )
    return counts


def _passes(content: dict[Any, Any], model: MoEModel) -> list[NDArray[np.int64]]:
    """Return the choices of every pass that has tokens, each int64 [tokens, layers, k]."""
    if RECORDS not in content and COUNTS in content:
        raise WorkloadError(f"holds {COUNTS!r}, sums; give it as loads, not as a trace")
    slots = _map(content, model)
    passes = [
        _tokens(record, f"{RECORDS}[{i}]", slots, model)
        for i, record in enumerate(_records(content))
    ]
    if not any(map(len, passes)):
        raise WorkloadError(f"{RECORDS}: no token in it, expected at least one")
    return [tokens for tokens in passes if len(tokens)]


def _map(content: dict[Any, Any], model: MoEModel) -> NDArray[np.int64]:
    """Return the logical expert of every slot, int64 [layers, slots]."""
    slots = _array(content, MAP, "", dims=2, kinds="iu").astype(np.int64)
    if len(slots) != model.hidden_layers:
        raise WorkloadError(
            f"{MAP}: {len(slots)} rows, expected {model.hidden_layers} (all layers of {model.name})"
        )
    wrong = np.argwhere((slots < 0) | (slots >= model.experts))
    if len(wrong):
        row, slot = (int(i) for i in wrong[0])
        raise WorkloadError(
            f"{MAP}[{row}][{slot}]: expert {int(slots[row, slot])}, expected 0..{model.experts - 1}"
        )
    return slots[list(model.moe_layers)]


def _records(content: dict[Any, Any]) -> list[dict[Any, Any]]:
    records = content.get(RECORDS)
    if not isinstance(records, list) or not records:
        raise WorkloadError(f"key {RECORDS!r}: expected a list of records")
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise WorkloadError(
                f"{RECORDS}[{i}]: expected a dictionary, got a {type(record).__name__}"
            )
    return records


def _tokens(
    record: dict[Any, Any], where: str, slots: NDArray[np.int64], model: MoEModel
) -> NDArray[np.int64]:
    """Return the logical choices of a pass, int64 [tokens, layers, k], without padding."""
    ids = _array(record, IDS, f"{where}: ", dims=3, kinds="iu")
    name, rows = f"{where}: {IDS}", model.hidden_layers
    if ids.shape[0] != rows or ids.shape[2] != model.top_k:
        raise WorkloadError(
            f"{name}: shape {ids.shape}, expected ({rows} layers of {model.name}, tokens, "
            f"{model.top_k} choices)"
        )
    dense = sorted(set(range(rows)) - set(model.moe_layers))
    off = [i for i in dense if not ((ids[i] == -1).all() or (ids[i] == 0).all())]
    if off:
        raise WorkloadError(f"{name}: choices in layer {off[0]}, which is dense in {model.name}")
    moe = ids[list(model.moe_layers)].astype(np.int64)
    padding = (moe == -1).all(axis=(0, 2))
    moe = moe[:, ~padding]
    wrong = np.argwhere((moe < 0) | (moe >= slots.shape[1]))
    if len(wrong):
        layer, token, place = (int(i) for i in wrong[0])
        raise WorkloadError(
            f"{name}: layer {model.moe_layers[layer]}, token {int(np.flatnonzero(~padding)[token])}"
            f": slot {int(moe[layer, token, place])}, expected 0..{slots.shape[1] - 1}, or -1 "
            "throughout a token that is padding"
        )
    logical = slots[np.arange(len(slots))[:, None, None], moe]
    return logical.transpose(1, 0, 2)
