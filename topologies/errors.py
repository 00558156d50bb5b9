"""Errors of the topologies package."""


class TopologyError(ValueError):
    """A cluster, or what was asked of one, does not make sense."""


class RoutingError(TopologyError):
    """No route, or a routing rule that cannot serve the request."""
