"""Counting messages: the compiled loops over tokens and their choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIXED, TURN, HASH, POSITION = range(4)
"""How a replica is drawn: the only one, by turn, at random, by the choice's place in the batch."""

DIRECT, OUT, ON = range(3)
"""Which way a message goes: straight, to the landing GPU, on from the landing GPU."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The golden ratio's fraction, of 2**64."""


class Replicas(NamedTuple):
    """Where a layer's experts are answered, entries ordered by (expert, slot).

    Attributes
    ----------
    start
        int64 [experts + 1]: the entries of every expert.
    gpu
        int32 [entries].
    row_of_gpu
        int32 [gpus]: the row of the tables by row an origin reads.
    reach
        float64 [rows, entries]: parts, added up over the entries of an expert.
    guess
        uint16 [rows, experts, cells]: the first entry, from the expert's first, that a number of
        the cell may take; spares the processor from guessing how far to look.
    phase
        uint64 [rows, experts]: the turn, changed by every draw.
    draw
        `FIXED`, `TURN`, `HASH` or `POSITION`.
    salt
        Of `HASH`: different in every layer.
    """

    start: NDArray[np.int64]
    gpu: NDArray[np.int32]
    row_of_gpu: NDArray[np.int32]
    reach: NDArray[np.float64]
    guess: NDArray[np.uint16]
    phase: NDArray[np.uint64]
    draw: int
    salt: np.uint64


class Reached(NamedTuple):
    """What tokens reach, choice by choice.

    Attributes
    ----------
    gpu
        int32 [tokens, choices].
    news
        int8 [tokens, choices]: 2 on a server the token has not reached before, 1 on a GPU it
        has not reached before, 0 on one it has; -1 on a dead GPU, where nothing is sent.
    """

    gpu: NDArray[np.int32]
    news: NDArray[np.int8]


@njit(cache=True)
def choose_replicas(
    topk: NDArray[Any],
    origin: NDArray[np.int32],
    replicas: Replicas,
    gpu: NDArray[np.int32],
    taken: NDArray[np.int64],
    seen: NDArray[np.int64],
    first: int,
) -> None:
    """Choose a replica for every choice of a layer.

    Parameters
    ----------
    topk
        Integers [tokens, k].
    origin
        int32 [tokens].
    replicas
        Of the layer; `phase` moves on.
    gpu
        int32 [tokens, choices], filled. Choices from k on are shared experts, which every token
        takes; their numbers follow those of the routed ones.
    taken
        int64 [entries], to which the choices are added.
    seen
        int64 [gpus], to which the tokens of every origin are added: a token's place in its
        rank's batch.
    first
        Number of the first token, for `HASH`.
    """
    k, choices = topk.shape[1], gpu.shape[1]
    routed = len(replicas.start) - 1 - (choices - k)
    if len(replicas.gpu) == routed + choices - k:
        _take_only_slots(topk, replicas.gpu, gpu, taken)
        seen += np.bincount(origin, minlength=len(seen))
        return
    cells = np.uint64(replicas.guess.shape[2])
    for token in range(len(topk)):
        own = origin[token]
        row = replicas.row_of_gpu[own]
        for choice in range(choices):
            expert = np.int64(topk[token, choice]) if choice < k else routed + choice - k
            at = replicas.start[expert]
            if replicas.draw == POSITION:
                at += (seen[own] * choices + choice) % (replicas.start[expert + 1] - at)
            else:
                number = np.uint64(0)
                if replicas.draw == TURN:
                    number = replicas.phase[row, expert] + GOLDEN
                    replicas.phase[row, expert] = number
                elif replicas.draw == HASH:
                    number = mixed(
                        replicas.salt + GOLDEN * np.uint64((first + token) * choices + choice)
                    )
                cell = ((number >> np.uint64(32)) * cells) >> np.uint64(32)
                at += np.int64(replicas.guess[row, expert, cell])
                share = np.float64(number >> np.uint64(11)) * 2.0**-53
                while share >= replicas.reach[row, at]:
                    at += 1
            taken[at] += 1
            gpu[token, choice] = replicas.gpu[at]
        seen[own] += 1


@njit(cache=True)
def _take_only_slots(
    topk: NDArray[Any],
    gpu_of_expert: NDArray[np.int32],
    gpu: NDArray[np.int32],
    taken: NDArray[np.int64],
) -> None:
    """Do what `choose_replicas` does where every expert has one slot: nothing to draw."""
    k, choices = topk.shape[1], gpu.shape[1]
    routed = len(gpu_of_expert) - (choices - k)
    for token in range(len(topk)):
        for choice in range(k):
            expert = np.int64(topk[token, choice])
            taken[expert] += 1
            gpu[token, choice] = gpu_of_expert[expert]
        for choice in range(k, choices):
            gpu[token, choice] = gpu_of_expert[routed + choice - k]
    taken[routed:] += len(topk)


@njit(cache=True)
def mixed(number: np.uint64) -> np.uint64:
    """Scatter the bits of `number` (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@njit(cache=True)
def find_news(reached: Reached, first_gpu: NDArray[np.int32]) -> tuple[int, int]:
    """Fill `news`, and return distinct GPUs and distinct servers, summed over tokens.

    Parameters
    ----------
    reached
        Of the tokens.
    first_gpu
        int32 [gpus]: the first GPU of every GPU's server, looked up as division is slow.
    """
    visit = np.full(len(first_gpu), -1, np.int64)
    visit_server = visit.copy()
    tokens, choices = reached.gpu.shape
    found = found_servers = 0
    for token in range(tokens):
        for choice in range(choices):
            gpu = reached.gpu[token, choice]
            server = first_gpu[gpu]
            # Without branches: whether either is new is nothing a processor could guess.
            new = np.int8(visit[gpu] != token)
            new_server = np.int8(visit_server[server] != token)
            visit[gpu] = token
            visit_server[server] = token
            reached.news[token, choice] = new + new_server
            found += int(new)
            found_servers += int(new_server)
    return found, found_servers


@njit(cache=True)
def find_living_news(
    reached: Reached, first_gpu: NDArray[np.int32], dead: NDArray[np.bool_]
) -> tuple[int, int]:
    """Do what `find_news` does where some GPUs are dead: choices there reach nothing."""
    visit = np.full(len(first_gpu), -1, np.int64)
    visit_server = visit.copy()
    tokens, choices = reached.gpu.shape
    found = found_servers = 0
    for token in range(tokens):
        for choice in range(choices):
            gpu = reached.gpu[token, choice]
            if dead[gpu]:
                reached.news[token, choice] = -1
                continue
            server = first_gpu[gpu]
            new = visit[gpu] != token
            new_server = visit_server[server] != token
            visit[gpu] = token
            visit_server[server] = token
            reached.news[token, choice] = int(new) + int(new_server)
            found += int(new)
            found_servers += int(new_server)
    return found, found_servers


@njit(cache=True)
def list_messages(
    reached: Reached,
    end: NDArray[np.int32],
    leg: int,
    least: int,
    first_gpu: NDArray[np.int32],
    near: NDArray[np.int32],
    far: NDArray[np.int32],
) -> int:
    """List the messages between tokens and the GPUs they reach, and return how many there are.

    Parameters
    ----------
    reached
        Of the tokens.
    end
        int32 [tokens]: origins or collectors.
    leg
        `DIRECT`, `OUT` or `ON`. The landing GPU is the one of a reached server at the end's
        place; on the end's own server that is the end.
    least
        Only choices with so much `news` count.
    first_gpu
        int32 [gpus]: the first GPU of every GPU's server.
    near, far
        int32 [tokens * choices], filled: the GPUs nearer to and farther from the token.
    """
    tokens, choices = reached.gpu.shape
    at = 0
    for token in range(tokens):
        own = end[token]
        place = own - first_gpu[own]
        for choice in range(choices):
            gpu = reached.gpu[token, choice]
            landing = first_gpu[gpu] + place
            near[at] = landing if leg == ON else own
            far[at] = landing if leg == OUT else gpu
            # Written anyway and overwritten by the next: nothing for the processor to guess.
            at += reached.news[token, choice] >= least
    return at


@njit(cache=True)
def add_messages(
    table: NDArray[np.int64],
    reached: Reached,
    end: NDArray[np.int32],
    leg: int,
    least: int,
    first_gpu: NDArray[np.int32],
) -> None:
    """Add to ``table[near, far]`` the messages that `list_messages` lists."""
    tokens, choices = reached.gpu.shape
    for token in range(tokens):
        own = end[token]
        place = own - first_gpu[own]
        for choice in range(choices):
            gpu = reached.gpu[token, choice]
            near = first_gpu[gpu] + place if leg == ON else own
            far = first_gpu[gpu] + place if leg == OUT else gpu
            table[near, far] += reached.news[token, choice] >= least


@njit(cache=True)
def rows_of_table(
    table: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Turn ``table[layer, src, dst]`` into `Traffic`'s indptr, src, dst and count."""
    layers, gpus, _ = table.shape
    indptr = np.zeros(layers + 1, np.int64)
    for layer in range(layers):
        rows = 0
        for one in range(gpus):
            for other in range(gpus):
                rows += table[layer, one, other] > 0
        indptr[layer + 1] = indptr[layer] + rows
    rows = indptr[-1]
    src = np.empty(rows + 1, np.int32)
    dst = np.empty(rows + 1, np.int32)
    count = np.empty(rows + 1, np.int64)
    row = 0
    for layer in range(layers):
        for one in range(gpus):
            for other in range(gpus):
                # Written anyway and overwritten by the next: nothing for the processor to guess.
                messages = table[layer, one, other]
                src[row] = one
                dst[row] = other
                count[row] = messages
                row += messages > 0
    return indptr, src[:rows], dst[:rows], count[:rows]


@njit(cache=True)
def merge_rows(
    src: NDArray[np.int32], dst: NDArray[np.int32], count: NDArray[np.int64], gpus: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Add up the counts of equal pairs; pairs ascend by (src, dst).

    Two stable counting sorts, by destination and then by source, bring equal pairs together in
    O(rows + GPUs), without a table of GPU pairs.
    """
    rows = 0
    merged_src = np.empty(len(src), np.int32)
    merged_dst = np.empty(len(src), np.int32)
    merged = np.empty(len(src), np.int64)
    by_dst = _counting_sort(np.arange(len(src)), dst, gpus)
    for at in _counting_sort(by_dst, src, gpus):
        again = rows > 0 and merged_src[rows - 1] == src[at] and merged_dst[rows - 1] == dst[at]
        if again:
            merged[rows - 1] += count[at]
        else:
            merged_src[rows] = src[at]
            merged_dst[rows] = dst[at]
            merged[rows] = count[at]
            rows += 1
    return merged_src[:rows].copy(), merged_dst[:rows].copy(), merged[:rows].copy()


@njit(cache=True)
def _counting_sort(
    order: NDArray[np.int64], key: NDArray[np.int32], keys: int
) -> NDArray[np.int64]:
    """Sort `order` stably by ``key[order]``."""
    place = np.zeros(keys + 1, np.int64)
    for value in key:
        place[value + 1] += 1
    for value in range(keys):
        place[value + 1] += place[value]
    result = np.empty_like(order)
    for at in order:
        result[place[key[at]]] = at
        place[key[at]] += 1
    return result


@njit(cache=True)
def count_experts(topk: NDArray[Any], experts: int) -> NDArray[np.int64]:
    """int64 [layers, experts]: how often every expert was chosen."""
    tokens, layers, k = topk.shape
    load = np.zeros((layers, experts), np.int64)
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(k):
                load[layer, topk[token, layer, choice]] += 1
    return load


@njit(cache=True)
def count_distinct(topk: NDArray[Any], site_of_expert: NDArray[np.int32], sites: int) -> int:
    """Count the distinct sites of every token and layer, summed."""
    tokens, layers, k = topk.shape
    visit = np.zeros(sites, np.int64)
    number = 0
    distinct = 0
    for token in range(tokens):
        for layer in range(layers):
            number += 1
            for choice in range(k):
                site = site_of_expert[layer, topk[token, layer, choice]]
                if visit[site] != number:
                    visit[site] = number
                    distinct += 1
    return distinct


@njit(cache=True)
def find_bad_choice(topk: NDArray[Any], experts: int) -> int:
    """Return the first token with an id outside 0..experts-1 or an expert twice; -1: none."""
    tokens, layers, k = topk.shape
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(k):
                expert = np.int64(topk[token, layer, choice])
                bad = expert < 0 or expert >= experts
                for other in range(choice):
                    bad |= np.int64(topk[token, layer, other]) == expert
                if bad:
                    return token
    return -1


@njit(cache=True)
def add_up_parts(part: NDArray[np.float64], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Add up parts [rows, entries] over the entries of every expert.

    From the last entry that takes anything the sum counts as infinite: rounding must not send a
    token to a replica whose part is zero.
    """
    reach = np.empty_like(part)
    for row in range(len(part)):
        for expert in range(len(start) - 1):
            total, last = 0.0, start[expert]
            for at in range(start[expert], start[expert + 1]):
                total += part[row, at]
                reach[row, at] = total
                if part[row, at] > 0.0:
                    last = at
            reach[row, last : start[expert + 1]] = np.inf
    return reach


@njit(cache=True)
def guess_entries(
    reach: NDArray[np.float64], start: NDArray[np.int64], cells: int
) -> NDArray[np.uint16]:
    """Return `Replicas.guess`: the first entry whose reach exceeds the least number of a cell."""
    guess = np.empty((len(reach), len(start) - 1, cells), np.uint16)
    for row in range(len(reach)):
        for expert in range(len(start) - 1):
            at = start[expert]
            for cell in range(cells):
                while reach[row, at] <= cell / cells:
                    at += 1
                guess[row, expert, cell] = at - start[expert]
    return guess
