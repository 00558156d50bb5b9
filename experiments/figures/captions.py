"""What stands under each figure."""

from __future__ import annotations

from experiments.errors import FigureError

_CAPTIONS = {
    "hops_by_policy": (
        "Hops per token and layer by topology and policy, measured in the replay: network links "
        "outside servers, dispatch and collect, all top-k choices. Figures in the bars: change "
        "against round-robin. Bracket: expected hops over all optima of the load-blind ilp, which "
        "is degenerate. Tick: certified lower bound of ilp-load on the expected hops of the "
        "profile; the replay draws other tokens and may end slightly above or below it."
    ),
    "link_load": (
        "Busy time of the directed network links (host, local and global; NVLink left out) over "
        "all layers of one step, as quantiles over links; dots: busiest link. Logarithmic axes. "
        "A step lasts far longer than its busiest link works, for every layer keeps other links "
        "busy: under pipelined attention those of one server."
    ),
    "balance_against_hops": (
        "Server balance (load of the busiest server over the mean, averaged over layers; 1 is "
        "even) against hops per token and layer (network links, dispatch and collect, top-k). "
        "Lower left is better."
    ),
    "solve_time": (
        "Wall time to place all experts of a model, model building included, by policy and "
        "topology. Filled: proven optimal on the policy's own cost. Times vary from run to run."
    ),
}
FIGURES = tuple(_CAPTIONS)
"""Names of the figures, in the order a paper shows them."""


def caption(
    name: str, workload: str, *, attention: str = "pipelined", network: str = "analytic"
) -> str:
    """Return a figure's caption, ending in what was measured.

    Parameters
    ----------
    name
        The figure.
    workload
        ``synthetic, R1-like`` or the name of the load file.
    attention, network
        What the figure was drawn for; solve times know no network.

    Raises
    ------
    FigureError
        If there is no such figure.
    """
    if name not in _CAPTIONS:
        raise FigureError(f"unknown figure '{name}'; allowed: {', '.join(FIGURES)}")
    setting = f"{attention} attention"
    if name != "solve_time":
        setting += f", {network} network"
    return f"{_CAPTIONS[name]} Workload: {workload}; {setting}."
