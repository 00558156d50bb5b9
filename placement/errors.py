"""Errors of the placement package."""


class PlacementError(ValueError):
    """A placement or problem that contradicts itself."""


class InfeasibleError(PlacementError):
    """No placement satisfies the caps; the message says which cap is short and by how much."""
