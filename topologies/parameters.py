"""Builders are parameter classes; this module makes one from a loose mapping."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from topologies.errors import TopologyError
from topologies.parts import PLACES, with_parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import Field

    from topologies.cluster import Cluster


class Parameters(Protocol):
    """A dataclass of validated parameters."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Builder(Parameters, Protocol):
    """Validated parameters of one kind of fabric."""

    builder: ClassVar[str]

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster; it is named after its builder by default."""
        ...


B = TypeVar("B", bound=Builder)


def make(kind: type[B], parameters: Mapping[str, Any]) -> B:
    """Return the builder of that kind with these parameters, parts named in them resolved.

    Raises
    ------
    TopologyError
        If a name is unknown or missing (saying which are allowed), or a value is refused.
    """
    known = fields(kind)
    names = [item.name for item in known]
    allowed = ", ".join([*names, *(place for place in PLACES if place not in names)])
    for name in parameters:
        if name not in names and name not in PLACES:
            raise TopologyError(f"{kind.builder}: unknown parameter {name!r}; allowed: {allowed}")
    for item in known:
        if item.default is MISSING and item.name not in parameters:
            raise TopologyError(f"{kind.builder}: missing parameter {item.name!r}")
    try:
        return kind(**with_parts(parameters, names))
    except TopologyError as error:
        raise TopologyError(f"{kind.builder}: {error}") from None


def resolved(builder: Parameters) -> dict[str, Any]:
    """Return every parameter with its value, defaults included, ready for JSON and TOML."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(builder).items()
    }
