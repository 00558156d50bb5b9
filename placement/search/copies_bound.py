"""Lower bound on the copies of a layer's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.field.partition_bounds import within_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray


def copies_bound(
    item: NDArray[np.integer], items: int, most: int, cost: NDArray[np.float64]
) -> float:
    """Least cost of a token's copies, whatever arrangement with at most `most` items a place.

    A token t that uses n items of a place sends it one copy, 1 / n for each of them: its copies
    cost ``sum over its items i of cost(place of i) / (1 + m)``, m being the items of t beside i
    on that place. Let h be 1 / (1 + m) at whole m and linear between: it is convex and falls.
    Over the N tokens of item i, by Jensen, the mean of h(m) is at least h of the mean of m, and
    the sum of m is at most that over the most - 1 items used most often together with i. So
    item i adds at least ``A_i = N_i h(best partners / N_i)`` times the cost of its place; the
    greatest A_i on the cheapest places, `most` each, cost least. That is the first bound.

    Over all N tokens and k items at once, with Q the most pairs of a token that places can keep
    together, ``k h(2 Q / k)`` copies are the second (`within_bound` gives Q; it needs places
    that are all full), and ``ceil(k / most)`` copies the third, both at the least cost.

    Parameters
    ----------
    item
        int [tokens, k]: the items of every token, none twice.
    items
        Number of items.
    most
        Most items of a place.
    cost
        float [places]: what a copy costs, not negative.

    Returns
    -------
    Bound on the mean over tokens.
    """
    tokens, top_k = item.shape
    room = np.repeat(np.sort(cost), most)[:items]
    first = float(np.sort(copies_of_items(item, items, most))[::-1] @ room)
    copies = float(-(-top_k // most))
    if most * len(cost) == items:
        together = pairs_of(item, items)
        np.fill_diagonal(together, 0.0)
        kept = within_bound(together, len(cost)) / tokens
        copies = max(copies, top_k * float(_per_item(np.array(2 * kept / top_k), top_k)))
    return float(max(first, copies * cost.min()))


def copies_of_items(item: NDArray[np.integer], items: int, most: int) -> NDArray[np.float64]:
    """Copies that every item adds at least: the A_i of `copies_bound`, per token.

    Returns
    -------
    float64 [items]: what a cost of 1 on the item's place is to be multiplied by.
    """
    tokens, top_k = item.shape
    together = pairs_of(item, items)
    uses = np.diag(together).copy()
    np.fill_diagonal(together, 0.0)
    partners = np.sort(together, axis=1)[:, ::-1][:, : most - 1].sum(axis=1)
    share: NDArray[np.float64] = uses * _per_item(partners / np.maximum(uses, 1.0), top_k) / tokens
    return share


def pairs_of(item: NDArray[np.integer], items: int) -> NDArray[np.float64]:
    """float64 [items, items]: tokens that use both items; on the diagonal, that use the item."""
    pair = item[:, :, None].astype(np.int64) * items + item[:, None, :]
    count = np.bincount(pair.ravel(), minlength=items * items)
    return count.reshape(items, items).astype(np.float64)


def _per_item(partners: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """1 / (1 + m) at whole m below k, linear between."""
    whole = np.arange(top_k)
    share: NDArray[np.float64] = np.asarray(np.interp(partners, whole, 1.0 / (1.0 + whole)))
    return share
