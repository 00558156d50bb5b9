"""Compiled counts of the choices of windows, kinds and sequences; imported only when counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@njit(cache=True)
def count_kinds(
    topk: NDArray[np.uint8] | NDArray[np.uint16],
    kind: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Add every token's choices to the counts of its kind (a window, a domain, a phase).

    Parameters
    ----------
    topk
        uint8 or uint16 [tokens, layers, k].
    kind
        int64 [tokens].
    counts
        int64 [kinds, layers, experts]: added to.
    """
    tokens, layers, top_k = topk.shape
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(top_k):
                counts[kind[token], layer, topk[token, layer, choice]] += 1


@njit(cache=True)
def count_sequences(
    topk: NDArray[np.uint8] | NDArray[np.uint16],
    lengths: NDArray[np.int64],
    open_counts: NDArray[np.int64],
    open_tokens: int,
    squares: NDArray[np.float64],
) -> tuple[int, float]:
    """Add the moments of the sequences that end here; a sequence may go on in the next part.

    Every sequence but the last is taken as ended; the first goes on from the part before.

    Parameters
    ----------
    topk
        uint8 or uint16 [tokens, layers, k].
    lengths
        int64 [sequences]: tokens in this part of each.
    open_counts
        int64 [layers, experts]: counts of the sequence under way, of `open_tokens` tokens.
    open_tokens
        Tokens of it before this part.
    squares
        float64 [2, layers, experts]: of counts c of a sequence of n tokens, sums of c * c and of
        c * n are added.

    Returns
    -------
    int, float
        Tokens of the sequence under way, and the sum of n * n that is to be added.
    """
    _, layers, top_k = topk.shape
    first, total = 0, 0.0
    for i in range(len(lengths)):
        last = first + lengths[i]
        for token in range(first, last):
            for layer in range(layers):
                for choice in range(top_k):
                    open_counts[layer, topk[token, layer, choice]] += 1
        carried = open_tokens > 0
        open_tokens += lengths[i]
        if i == len(lengths) - 1:
            break
        if carried:
            close_all(open_counts, open_tokens, squares)
        else:
            close_chosen(topk[first:last], open_counts, squares)
        total += float(open_tokens) * open_tokens
        open_tokens = 0
        first = last
    return open_tokens, total


@njit(cache=True)
def close_all(counts: NDArray[np.int64], tokens: int, squares: NDArray[np.float64]) -> None:
    """Take the moments of one sequence from all its counts, and set them to zero."""
    layers, experts = counts.shape
    for layer in range(layers):
        for expert in range(experts):
            count = float(counts[layer, expert])
            squares[0, layer, expert] += count * count
            squares[1, layer, expert] += count * tokens
            counts[layer, expert] = 0


@njit(cache=True)
def close_chosen(
    topk: NDArray[np.uint8] | NDArray[np.uint16],
    counts: NDArray[np.int64],
    squares: NDArray[np.float64],
) -> None:
    """Do the same by way of the sequence's own choices, where those are fewer than experts."""
    tokens, layers, top_k = topk.shape
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(top_k):
                expert = topk[token, layer, choice]
                count = float(counts[layer, expert])
                if count > 0:
                    squares[0, layer, expert] += count * count
                    squares[1, layer, expert] += count * tokens
                    counts[layer, expert] = 0
