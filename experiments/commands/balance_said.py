"""What `topomoe place` says of loads: under a cap, above a priced one, and where none was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.combine import TAKES
from experiments.loads import cap_kept

if TYPE_CHECKING:
    from experiments.loads import CapKept
    from experiments.run import Placed
    from experiments.spec import RunSpec

_UNEVEN = 1.5
"""Busiest place over the mean above which a placement without a cap is warned of."""
_SHOWN = 3
"""Relaxed layers that are named one by one."""


def cap_labels(spec: RunSpec) -> dict[str, str]:
    """Return what to write behind the figure that a cap is on: that of the profile's loads."""
    table = spec.placement
    if table.beta is None or table.domains:
        return {}
    kind = "cap" if table.beta_price is None else "priced above"
    return {f"profile_balance_{table.beta_scope}": f"{kind} {table.beta:g}"}


def balance_said(spec: RunSpec, placed: Placed) -> list[str]:
    """Say how the cap on loads is kept, or that there is none where one is missing."""
    kept = cap_kept(spec, placed)
    if kept is None:
        return _uncapped(spec, placed)
    if spec.placement.beta_price is not None:
        return [_priced(kept, spec.placement.beta_price)]
    return [_kept(kept, spec)]


def _kept(kept: CapKept, spec: RunSpec) -> str:
    place, relaxed = _name(kept.scope), kept.relaxed
    source = "loads of every domain" if spec.placement.domains else "profile's loads"
    text = (
        f"cap {kept.beta:g} on the {source}: busiest {place} "
        f"{kept.busiest.max():.3f} x the mean in the worst layer, {kept.busiest.mean():.3f} on "
        "average over layers"
    )
    if not relaxed.size:
        return text
    # A layer that nobody allowed to be relaxed is above the cap by the rule that replicas follow:
    # the search kept it, with replicas that share equally.
    word, to = ("relaxed", "to") if spec.placement.beta_relax else ("above it", "at")
    named = []
    for at in relaxed[:_SHOWN]:
        proven = "" if kept.least is None else f" (proven: not below {kept.least[at]:.3f})"
        named.append(f"layer {at} {to} {kept.busiest[at]:.3f}{proven}")
    more = f", and {relaxed.size - _SHOWN} more" if relaxed.size > _SHOWN else ""
    many = "1 layer" if relaxed.size == 1 else f"{relaxed.size} layers"
    return f"{text}; {many} {word}: {', '.join(named)}{more}"


def _priced(kept: CapKept, price: float) -> str:
    paid = float(kept.above.mean())
    return (
        f"load above {kept.beta:g} x the mean {_name(kept.scope)}: {paid:.4g} mean loads a layer, "
        f"in {kept.relaxed.size} of {len(kept.above)} layers; at the price {price:g} that is "
        f"{paid * price:.4g} of what was minimised; the busiest is {kept.busiest.max():.3f} x the "
        f"mean in the worst layer, {kept.busiest.mean():.3f} on average"
    )


def _uncapped(spec: RunSpec, placed: Placed) -> list[str]:
    """Warn of a policy that would have taken a cap, got none, and leaves a place overloaded."""
    table = spec.placement
    if table.file is not None or table.keep_groups or "beta" not in TAKES.get(table.policy, ()):
        return []
    expected = placed.expected
    busiest = expected.balance_gpu if table.beta_scope == "gpu" else expected.balance_server
    if busiest <= _UNEVEN:
        return []
    text = (
        f"warning: the busiest {_name(table.beta_scope)} carries {busiest:.2f} x the mean load "
        "(mean over layers), and paces every step: no --beta was given, which caps it"
    )
    return [text]


def _name(scope: str) -> str:
    return "GPU" if scope == "gpu" else scope
