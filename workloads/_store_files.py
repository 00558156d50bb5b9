"""The files of a stored trace: their names, and what its ``meta.json`` says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workloads.errors import WorkloadError
from workloads.model import MAX_EXPERTS
from workloads.regular import check_regular
from workloads.trace import check_domain_names

if TYPE_CHECKING:
    from pathlib import Path

FORMAT, VERSION = "topomoe-trace", 1
META, TOPK, OFFSETS, PHASE, DOMAIN = (
    "meta.json",
    "topk.npy",
    "seq_offsets.npy",
    "phase.npy",
    "domain.npy",
)
MAX_META_BYTES = 4 << 20
MAX_STORED_TOKENS = 1 << 40
"""Far beyond any recording; keeps sizes within int64."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Content of ``meta.json``, beside format and version.

    Attributes
    ----------
    model, source
        The model that routed, and where the trace comes from.
    experts, layers, top_k
        Shape of the routing.
    tokens, sequences
        How many there are.
    phases
        Whether ``phase.npy`` marks the tokens.
    domains
        Names of the kinds of traffic that ``domain.npy`` marks the sequences with; empty without
        that file.
    """

    model: str
    source: str
    experts: int
    layers: int
    top_k: int
    tokens: int
    sequences: int
    phases: bool
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what no trace can have."""
        for name in ("model", "source"):
            if not isinstance(getattr(self, name), str):
                raise WorkloadError(f"key {name!r}: expected a text")
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise WorkloadError(f"key {name!r}: {value!r}, expected an integer 1..{most}")
        if self.top_k > self.experts:
            raise WorkloadError(f"key 'top_k': {self.top_k}, expected at most the experts")
        if self.sequences > self.tokens:
            raise WorkloadError(f"key 'sequences': {self.sequences}, expected at most the tokens")
        if type(self.phases) is not bool:
            raise WorkloadError(f"key 'phases': {self.phases!r}, expected true or false")
        check_domain_names(self.domains)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the arrays that belong to the trace."""
        labels = [PHASE] * self.phases + [DOMAIN] * bool(self.domains)
        return (TOPK, OFFSETS, *labels)

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1) + "\n"


_LIMITS = {
    "experts": MAX_EXPERTS,
    "layers": 1 << 16,
    "top_k": MAX_EXPERTS,
    "tokens": MAX_STORED_TOKENS,
    "sequences": MAX_STORED_TOKENS,
}
_KEYS = ("format", "version", *Meta.__dataclass_fields__)


def read_meta(folder: Path) -> Meta:
    """Read ``meta.json`` of a stored trace.

    Raises
    ------
    WorkloadError
        It cannot be read or does not say what it must; one line naming the file and the key.
    """
    file = folder / META
    try:
        return _meta(json.loads(_content(file)))
    except OSError as error:
        raise WorkloadError(f"{file}: cannot be read: {error.strerror or error}") from None
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{file}: not valid JSON (truncated?): {error}") from None


def _content(file: Path) -> bytes:
    check_regular(file)
    with file.open("rb") as stream:
        content = stream.read(MAX_META_BYTES + 1)
    if len(content) > MAX_META_BYTES:
        raise WorkloadError(f"larger than {MAX_META_BYTES} bytes, the most that is read")
    return content


def _meta(document: Any) -> Meta:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WorkloadError(f"expected an object with the key 'format': {FORMAT!r}")
    if document.get("version") != VERSION or type(document["version"]) is not int:
        raise WorkloadError(f"version {document.get('version')!r}, expected {VERSION}")
    foreign = [key for key in document if key not in _KEYS]
    if foreign:
        raise WorkloadError(f"unknown key {foreign[0]!r}: allowed are {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if key not in document]
    if missing:
        raise WorkloadError(f"key {missing[0]!r} is missing")
    if not isinstance(document["domains"], list):
        raise WorkloadError("key 'domains': expected a list of names")
    values = {key: document[key] for key in _KEYS[2:]}
    return Meta(**{**values, "domains": tuple(document["domains"])})
