"""Upper bounds on the weight that equal groups can keep inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def within_bound(weight: NDArray[np.float64], groups: int) -> float:
    """Most pair weight that groups of (nearly) equal counts can keep inside, each pair once.

    The lesser of two bounds. *Neighbours*: with at most m experts in a group, one meets no more
    than its m - 1 best partners. *Spectral*, for n experts in D groups of exactly m: with X the
    n x D membership matrix, ``X X^T / m`` projects onto D dimensions, one of them the constant
    vector, so ``2 kept = tr(W X X^T)`` is at most m times (``1'W1 / n`` + the D - 1 greatest
    eigenvalues of W, its diagonal zero, across the constants) (Donath and Hoffman 1973).

    Parameters
    ----------
    weight
        float64 [E, E], symmetric and not negative; the diagonal does not matter.
    groups
        Number of groups.
    """
    size = -(-len(weight) // groups)
    bare = weight - np.diag(np.diag(weight))
    bound = _best_partners(bare, size - 1) / 2
    if len(weight) % groups:
        return bound
    return min(bound, size * _spectral(bare, groups) / 2)


def between_bound(weight: NDArray[np.float64], groups: int) -> float:
    """Most weight between two layers that groups of (nearly) equal counts can keep inside.

    The lesser of three, m being the experts of the greatest group: every expert meets its m best
    successors, or predecessors, or, for groups of exactly m, the spectral bound of
    `within_bound` for two memberships X and Y, ``tr(X'AY) <= m (1'A1 / n + the D - 1 greatest
    singular values of A across the constants)`` (von Neumann's trace inequality).

    Parameters
    ----------
    weight
        float64 [E, E], not negative: from experts of a layer to experts of the next.
    groups
        Number of groups, the same in both layers.
    """
    size = -(-len(weight) // groups)
    bound = min(_best_partners(weight, size), _best_partners(weight.T, size))
    if len(weight) % groups:
        return bound
    across = _across_constants(weight)
    singular = np.linalg.svd(across, compute_uv=False)[: groups - 1]
    return min(bound, size * (float(weight.sum()) / len(weight) + float(singular.sum())))


def _best_partners(weight: NDArray[np.float64], partners: int) -> float:
    """Sum over rows of their greatest entries."""
    best = np.sort(weight, axis=1)[:, ::-1][:, :partners]
    return float(best.sum())


def _spectral(weight: NDArray[np.float64], groups: int) -> float:
    """Return ``1'W1 / n`` and the groups - 1 greatest eigenvalues across the constants, summed.

    The constants themselves stay an eigenvector of the projected matrix, with eigenvalue 0: it
    is told apart by pushing it below all others.
    """
    experts = len(weight)
    low = float(np.abs(weight).sum()) + 1.0
    values = np.linalg.eigvalsh(_across_constants(weight) - low / experts)[::-1]
    return float(weight.sum()) / experts + float(values[: groups - 1].sum())


def _across_constants(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project both sides onto vectors that sum to zero."""
    rows = weight - weight.mean(axis=0, keepdims=True)
    projected: NDArray[np.float64] = rows - rows.mean(axis=1, keepdims=True)
    return projected
