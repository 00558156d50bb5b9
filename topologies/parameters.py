"""Builders are parameter classes; this module makes one from a loose mapping."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from topologies.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import Field

    from topologies.cluster import Cluster


class Builder(Protocol):
    """Validated parameters of one kind of fabric; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    builder: ClassVar[str]

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster; it is named after its builder by default."""
        ...


B = TypeVar("B", bound=Builder)


def make(kind: type[B], parameters: Mapping[str, Any]) -> B:
    """Return the builder of that kind with these parameters.

    Raises
    ------
    TopologyError
        If a name is unknown or missing (saying which are allowed), or a value is refused.
    """
    known = fields(kind)
    allowed = ", ".join(item.name for item in known)
    for name in parameters:
        if name not in {item.name for item in known}:
            raise TopologyError(f"{kind.builder}: unknown parameter {name!r}; allowed: {allowed}")
    for item in known:
        if item.default is MISSING and item.name not in parameters:
            raise TopologyError(f"{kind.builder}: missing parameter {item.name!r}")
    try:
        return kind(**parameters)
    except TopologyError as error:
        raise TopologyError(f"{kind.builder}: {error}") from None


def resolved(builder: Builder) -> dict[str, Any]:
    """Return every parameter with its value, defaults included, ready for JSON and TOML."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(builder).items()
    }
