"""The placement file of topomoe itself, beside the formats of engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from placement.errors import PlacementError
from placement.files import placement_json, read_placement
from placement.formats.base import check_model

if TYPE_CHECKING:
    from os import PathLike

    from placement.placement import Placement
    from workloads import MoEModel


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """Reads and writes placement files; see `MapFormat`."""

    name: str = "topomoe"
    engine: str | None = None
    carries_ranks: bool = True

    def read(
        self,
        path: str | PathLike[str],
        *,
        model: MoEModel,
        ranks: int | None = None,
        gpus_per_server: int = 8,  # noqa: ARG002  the file says how many
    ) -> Placement:
        """Read a placement file; see `MapFormat.read`."""
        placement = read_placement(path)
        try:
            check_model(placement, model)
        except PlacementError as error:
            raise PlacementError(f"{path}: {error}") from None
        if ranks not in (None, placement.gpus):
            raise PlacementError(f"{path}: is a map of {placement.gpus} ranks, expected {ranks}")
        return placement

    def write(self, placement: Placement, *, model: MoEModel) -> bytes:
        """Return the content of a placement file; see `MapFormat.write`."""
        check_model(placement, model)
        return placement_json(placement).encode()

    def check(
        self, path: str | PathLike[str], *, model: MoEModel, ranks: int | None = None
    ) -> list[str]:
        """Return what stands against a file; see `MapFormat.check`."""
        try:
            self.read(path, model=model, ranks=ranks)
        except PlacementError as error:
            return [str(error).removeprefix(f"{path}: ")]
        return []


TOPOMOE = OwnFormat()
