"""One layer's local search: a sum of cost terms under a set of caps, all of them optional."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from placement.errors import PlacementError
from placement.search.pace import STEPS, Pace
from placement.solve import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Robust = float | Literal["mean", "worst"]
"""How domains count together: all tokens alike, the worst domain, or mean + z x deviation."""

_HOT, _COLD = 0.2, 0.02
"""First and last temperature, in typical changes of the value by a swap."""
_FIRM_FROM = 0.5
"""Part of the steps after which nothing above a cap grows."""
_LOAD_PRICE, _COUNT_PRICE, _FIRM_PRICES = (5.0, 500.0), (0.05, 50.0), (1e3, 1e6)
"""Prices, in typical changes, of the mean load of a place above the caps and of a replica or move
too many: they rise from the first to the second, and at last are firm, counts before loads."""
_SAMPLES = 500
_HAIR = 1e-11
"""Relative excess over a cap that is rounding of a sum."""


@dataclass(frozen=True, slots=True, eq=False)
class CopyTerm:
    """Copies of a layer's tokens: one for every distinct place of a token's items.

    Attributes
    ----------
    item
        int [tokens, k]: the items a token uses, none twice.
    domain
        int [tokens]: which training trace a token is from; None where there is one.
    cost
        float [places]: what a copy costs, not negative; None for 1.
    robust
        How domains count together; ``mean`` counts all tokens alike.
    """

    item: NDArray[np.integer]
    domain: NDArray[np.integer] | None = None
    cost: NDArray[np.float64] | None = None
    robust: Robust = "mean"


@dataclass(frozen=True, slots=True, eq=False)
class LoadCap:
    """A cap on the load of every place, in every domain.

    Attributes
    ----------
    load
        float [domains, items].
    beta
        float [domains]: most load of a place, over the mean of all places.
    price
        What load above the caps costs: by the mean load of a place, summed over places, mean
        over domains. None: the caps are hard.
    beside
        Items that must share a place with any one, wherever it goes; for bounds alone.
    """

    load: NDArray[np.float64]
    beta: NDArray[np.float64]
    price: float | None = None
    beside: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class MoveCap:
    """A budget of items that change their place.

    Attributes
    ----------
    previous
        int [items]: where an item comes from; below 0 for nowhere, which moves for free.
    most
        Most items away from there; None for any number.
    price
        What one item away from there costs.
    """

    previous: NDArray[np.integer]
    most: int | None = None
    price: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class LayerSearch:
    """One layer to be arranged: items on places, and what counts.

    An item is a slot: an expert, or one of its replicas. The value to be minimised is ``copies
    per token + linear + price of moves + price of load above the caps``.

    Attributes
    ----------
    expert
        int [items].
    slots
        int [places]: slots of every place; more than there are items leaves some free.
    copies, linear, loads, moves
        The terms; linear is float [items, places].
    most_replicas
        Most slots of one expert on a place.
    """

    expert: NDArray[np.integer]
    slots: NDArray[np.integer]
    copies: CopyTerm | None = None
    linear: NDArray[np.float64] | None = None
    loads: LoadCap | None = None
    moves: MoveCap | None = None
    most_replicas: int = 1

    def __post_init__(self) -> None:
        """Refuse more items than slots."""
        if self.items > self.slots.sum():
            raise PlacementError(f"{self.items} items do not fit into {self.slots.sum()} slots")

    @property
    def items(self) -> int:
        """Items to be placed."""
        return len(self.expert)

    def moved(self, place: NDArray[np.integer]) -> int:
        """Items that these places [items] take away from where they come from."""
        if self.moves is None:
            return 0
        previous = self.moves.previous
        return int(((previous >= 0) & (previous != place)).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Outcome of a search.

    Attributes
    ----------
    place
        int64 [items].
    value
        What was minimised.
    excess
        What is above the caps: loads over the mean of a place (where they are hard), replicas
        and moves; 0 if none.
    many
        Replicas and moves of the excess.
    cut
        Whether the deadline cut the search short.
    """

    place: NDArray[np.int64]
    value: float
    excess: float
    many: int = 0
    cut: bool = False


def arrange(
    layer: LayerSearch,
    starts: Sequence[NDArray[np.integer]],
    *,
    proposals: int,
    rng: np.random.Generator,
    bound: float = -np.inf,
    deadline: float = np.inf,
) -> Arrangement:
    """Anneal from every start; the best has least excess, replicas and moves first, then value.

    The temperature falls geometrically; what is above a cap has a price that rises, and may not
    grow at all in the end. No answer is worse than the best start.

    Parameters
    ----------
    layer
        What to arrange.
    starts
        int [items] each: a place for every item, within the slots.
    proposals
        Swaps proposed from each start.
    rng
        Source of the proposals.
    bound
        A proven lower bound: reaching it ends the search.
    deadline
        ``time.perf_counter`` value that cooling is hastened to keep.
    """
    from placement.search import _anneal_kernel as kernel  # noqa: PLC0415  numba is slow to import
    from placement.search import _tables_kernel as tables  # noqa: PLC0415  as above

    if not starts:
        raise PlacementError("a search needs a start")
    tokens, terms = _tokens(layer, tables), _terms(layer, tables)
    state = _state(layer, tokens, terms, tables)
    run, cut = (tables, tokens, terms, state), False
    best: Arrangement | None = None
    for nth, start in enumerate(starts):
        state.place[:] = _with_free(layer, start)
        tables.sum_up(tokens, terms, state)
        best = _better(best, layer, run)
        if best.excess == 0 and status_of(best.value, bound) == "optimal":
            break
        pace = Pace(proposals, deadline, turns=len(starts) - nth)
        unit = kernel.typical_change(rng, tokens, terms, state, _SAMPLES) or 1.0
        for schedule in _cooling(unit, pace, kernel):
            kernel.anneal(rng, tokens, terms, state, schedule)
        cut = cut or pace.cut
        tables.sum_up(tokens, terms, state)
        best = _better(best, layer, run)
    assert best is not None  # noqa: S101  there is a start
    return replace(best, cut=cut)


def mended_layer(layer: LayerSearch, start: NDArray[np.integer]) -> NDArray[np.int64]:
    """Swap few items so that no load is above its cap, with any number of moves; greedy.

    Returns
    -------
    int64 [items]: places, perhaps still above a cap.
    """
    from placement.search import _mend_kernel as kernel  # noqa: PLC0415  numba is slow to import
    from placement.search import _tables_kernel as tables  # noqa: PLC0415  as above

    moves = None if layer.moves is None else replace(layer.moves, most=None)
    bare = replace(layer, copies=None, linear=None, moves=moves)
    tokens, terms = _tokens(bare, tables), _terms(bare, tables)
    state = _state(bare, tokens, terms, tables)
    state.place[:] = _with_free(bare, start)
    tables.sum_up(tokens, terms, state)
    kernel.mend(tokens, terms, state)
    place: NDArray[np.int64] = state.place[: layer.items].copy()
    return place


def _cooling(unit: float, pace: Pace, kernel: Any) -> Iterator[Any]:
    """Yield the steps: geometric, prices first rising with the temperature's fall."""
    soft = int(_FIRM_FROM * STEPS)
    load = np.geomspace(*_LOAD_PRICE, soft).tolist() + [_FIRM_PRICES[0]] * (STEPS - soft)
    count = np.geomspace(*_COUNT_PRICE, soft).tolist() + [_FIRM_PRICES[1]] * (STEPS - soft)
    for step, temperature in enumerate(np.geomspace(_HOT, _COLD, STEPS).tolist()):
        for proposals in pace.pieces(step):
            yield kernel.Schedule(
                temperature=temperature * unit,
                load_price=load[step] * unit,
                count_price=count[step] * unit,
                firm=step >= soft,
                proposals=proposals,
            )


def _better(best: Arrangement | None, layer: LayerSearch, run: tuple[Any, ...]) -> Arrangement:
    tables, tokens, terms, state = run
    value, excess = tables.value_of(tokens, terms, state), tables.excess_of(terms, state)
    # No load makes up for an expert twice on a place, or for a move that was not allowed.
    many = max(0, int(state.moved[0]) - terms.most_moves)
    many += int(np.maximum(state.holds - terms.most_replicas, 0).sum())
    if best is not None and (best.many, best.excess, best.value) <= (many, excess, value):
        return best
    return Arrangement(state.place[: layer.items].copy(), value, excess, many)


def _with_free(layer: LayerSearch, start: NDArray[np.integer]) -> NDArray[np.int64]:
    """Append the places of the free slots to the places of the items."""
    free = layer.slots - np.bincount(start, minlength=len(layer.slots))
    if len(start) != layer.items or len(free) != len(layer.slots) or free.min() < 0:
        raise PlacementError("a start must give every item a place, within the slots")
    return np.concatenate((start, np.repeat(np.arange(len(free)), free))).astype(np.int64)


def _tokens(layer: LayerSearch, tables: Any) -> Any:
    """Index the tokens; without a term there are none."""
    seats = int(layer.slots.sum())
    term = layer.copies or CopyTerm(np.empty((0, 1), np.int32))
    item = np.ascontiguousarray(term.item, dtype=np.int32)
    apart = term.domain is not None and term.robust != "mean"
    domain = np.asarray(term.domain if apart else np.zeros(len(item)), dtype=np.int64)
    share = 1.0 / np.maximum(1, np.bincount(domain, minlength=1))
    return tables.Tokens(item, domain, share, *tables.index_tokens(item, seats))


def _terms(layer: LayerSearch, tables: Any) -> Any:
    seats, places = int(layer.slots.sum()), len(layer.slots)
    linear, moves = np.zeros((seats, places)), layer.moves
    if layer.linear is not None:
        linear[: layer.items] += layer.linear
    previous = np.full(seats, -1)
    if moves is not None:
        previous[: layer.items] = moves.previous
        came = np.flatnonzero(previous >= 0)
        linear[came] += moves.price
        linear[came, previous[came]] -= moves.price
    load, cap, price = np.zeros((0, seats)), np.zeros(0), np.inf
    if layer.loads is not None:
        load = np.zeros((len(layer.loads.load), seats))
        total = layer.loads.load.sum(axis=1, keepdims=True)
        # Items that nobody chooses weigh nothing anywhere.
        load[:, : layer.items] = layer.loads.load / np.where(total > 0, total, 1.0) * places
        hair = _HAIR if layer.loads.price is None else 0.0
        cap = np.asarray(layer.loads.beta, dtype=np.float64) * (1 + hair)
        if layer.loads.price is not None:
            price = layer.loads.price / len(cap)
    expert = np.full(seats, -1)
    expert[: layer.items] = layer.expert
    term = layer.copies
    robust = 0.0 if term is None or term.robust == "mean" else term.robust
    cost = np.ones(places) if term is None or term.cost is None else term.cost
    return tables.Terms(
        linear=linear,
        copy_cost=np.ascontiguousarray(cost, dtype=np.float64),
        deviation=np.inf if robust == "worst" else float(robust),
        load=load,
        cap=cap,
        load_price=price,
        expert=expert,
        most_replicas=layer.most_replicas,
        previous=previous,
        most_moves=seats if moves is None or moves.most is None else moves.most,
    )


def _state(layer: LayerSearch, tokens: Any, terms: Any, tables: Any) -> Any:
    """Make room for the sums."""
    seats, places, domains = int(layer.slots.sum()), len(layer.slots), len(tokens.share)
    return tables.State(
        place=np.zeros(seats, np.int64),
        first_seat=np.concatenate(([0], np.cumsum(layer.slots))).astype(np.int64),
        item_at=np.zeros(seats, np.int64),
        seat_of=np.zeros(seats, np.int64),
        reached=np.zeros((len(tokens.item), places), np.uint8),
        enters=np.zeros((domains, seats, places), np.int32),
        leaves=np.zeros((domains, seats), np.int32),
        copies=np.zeros(domains),
        heat=np.zeros((len(terms.cap), places)),
        holds=np.zeros((int(terms.expert.max()) + 1, places), np.int16),
        moved=np.zeros(1, np.int64),
        change=np.zeros(domains),
    )
