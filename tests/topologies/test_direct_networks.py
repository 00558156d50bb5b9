"""Tori, grids, full meshes and Slim Flies against closed forms and published counts."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import (
    Cluster,
    LinkClass,
    Router,
    TopologyError,
    full_mesh,
    slim_fly,
    slim_fly_counts,
    torus,
)
from topologies.galois import Field, field, prime_power

ORDERS = (3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27)


def edges(cluster: Cluster) -> set[tuple[int, int]]:
    """Return the cables as pairs of switches, the lower first, and see that none comes twice."""
    between = cluster.link_class >= LinkClass.LOCAL
    ends = np.stack([cluster.link_src[between], cluster.link_dst[between]]) - cluster.first_switch
    found = [(int(a), int(b)) for a, b in ends.T if a < b]
    assert len(set(found)) == len(found) == cluster.cables
    return set(found)


@settings(deadline=None, max_examples=60)
@given(dims=st.lists(st.integers(2, 6), min_size=1, max_size=3), wrap=st.booleans())
def test_a_torus_is_networkx_s_grid(dims: list[int], *, wrap: bool) -> None:
    """The same cables as networkx's grid graph, periodic where the torus wraps."""
    cluster = torus(dims=dims, wrap=wrap, gpus_per_server=1)
    # networkx lists dimensions the other way round.
    grid = nx.grid_graph(dims[::-1], periodic=wrap)
    number = {at: int(np.ravel_multi_index(at, dims)) for at in product(*map(range, dims))}
    known = set()
    for one, other in grid.edges():
        # networkx takes the dimension off the nodes where there is only one.
        ends = [number[at if isinstance(at, tuple) else (at,)] for at in (one, other)]
        known.add((min(ends), max(ends)))
    assert edges(cluster) == known


@pytest.mark.parametrize("dims", [[8, 8], [5, 7], [4, 4, 4], [3, 4, 5], [2, 6]])
def test_distances_of_a_torus(dims: list[int]) -> None:
    """Mean n/4 an even ring and (n^2 - 1)/(4 n) an odd one, diameter n // 2, axes added up."""
    cluster = torus(dims=dims, gpus_per_server=1)
    hops = Router(cluster, "minimal").server_distance("router")
    # A ring of 2 has mean 1/2 as n/4 says, and diameter 1.
    mean = sum(n / 4 if n % 2 == 0 else (n * n - 1) / (4 * n) for n in dims)
    assert hops.mean() == pytest.approx(mean, rel=1e-12)
    assert hops.max() == sum(n // 2 for n in dims)
    assert cluster.cables == sum(prod(dims) if n > 2 else prod(dims) // 2 for n in dims)


@pytest.mark.parametrize("dims", [[4, 4], [3, 5], [2, 3, 4]])
def test_distances_of_a_grid(dims: list[int]) -> None:
    """Without wrapping a line of n has mean (n^2 - 1)/(3 n) and diameter n - 1."""
    cluster = torus(dims=dims, wrap=False, gpus_per_server=1)
    hops = Router(cluster, "minimal").server_distance("router")
    assert hops.mean() == pytest.approx(sum((n * n - 1) / (3 * n) for n in dims), rel=1e-12)
    assert hops.max() == sum(n - 1 for n in dims)


def test_all_to_all_on_a_torus() -> None:
    """8 x 8, a message a pair: every cable carries 64 in each direction."""
    # Mean distance 4 with self: 64 * 64 * 4 link crossings over 2 * 128 directed links = 64.
    cluster = torus(dims=[8, 8], gpus_per_server=1)
    src, dst = np.divmod(np.arange(64**2), 64)
    load = Router(cluster).link_bytes(src, dst, np.ones(64**2))[0]
    between = cluster.link_class == LinkClass.LOCAL
    np.testing.assert_allclose(load[between], 64, rtol=1e-12)


def test_full_mesh() -> None:
    """Every two switches have a cable: n (n - 1) / 2 of them, one hop, three links with cards."""
    cluster = full_mesh(switches=6, servers_per_switch=2, gpus_per_server=4)
    assert (cluster.gpus, cluster.servers, cluster.cables) == (48, 12, 15)
    distance = Router(cluster).server_distance()
    assert np.bincount(distance[0]).tolist() == [1, 0, 1, 10]
    assert set(cluster.bandwidth_Bps[cluster.link_class == LinkClass.LOCAL].tolist()) == {200e9}
    assert full_mesh(switches=1, servers_per_switch=2).cables == 0


@pytest.mark.parametrize("q", ORDERS)
def test_slim_flies_have_diameter_two_and_the_published_counts(q: int) -> None:
    """2 q^2 switches of (3q - d)/2 cables, every two at most two hops apart."""
    cluster = slim_fly(q=q, gpus_per_server=1)
    delta = {1: 1, 3: -1, 0: 0}[q % 4]
    degree = np.zeros(cluster.switches, dtype=int)
    for pair in edges(cluster):
        degree[list(pair)] += 1
    assert cluster.switches == 2 * q * q
    assert set(degree.tolist()) == {(3 * q - delta) // 2}
    assert (cluster.gpus, cluster.switches, cluster.cables) == slim_fly_counts(q)
    hops = Router(cluster).switch_hops(range(cluster.switches))
    # Each switch has its cables' neighbours at 1 and everybody else at 2.
    assert hops.max() == 2
    assert hops.sum(axis=1).tolist() == (2 * (cluster.switches - 1) - degree).tolist()


def test_the_smallest_balanced_slim_fly_is_hoffman_singleton() -> None:
    """q = 5: 50 switches of 7 cables; no two neighbours share one, others share exactly one."""
    graph = nx.Graph(edges(slim_fly(q=5, gpus_per_server=1)))
    assert nx.is_isomorphic(graph, nx.hoffman_singleton_graph())


def test_published_slim_fly_of_order_28() -> None:
    """The formula gives the table's 32928/1568/32928; the graph is refused, with the reason."""
    assert slim_fly_counts(28) == (32928, 1568, 32928)
    with pytest.raises(TopologyError, match="q is 28, no prime power, for which there is no such"):
        slim_fly(q=28)


@pytest.mark.parametrize("order", [2, 3, 4, 5, 8, 9, 16, 25, 27, 49])
def test_fields(order: int) -> None:
    """Addition and multiplication are commutative groups, and multiplication distributes."""
    check_field(order, field(order))


def check_field(order: int, made: Field) -> None:
    """Check the axioms over all elements."""
    minus, times = made.difference, made.product
    everyone = np.arange(order)
    plus = minus[:, minus[0]]  # a + b = a - (0 - b)
    for table, members in ((plus, everyone), (times[1:, 1:] - 1, everyone[:-1])):
        assert (table == table.T).all()
        assert all(sorted(row) == members.tolist() for row in table.tolist())
    assert (plus[0] == everyone).all()
    assert (times[1] == everyone).all()
    assert not times[0].any()
    a, b, c = np.indices((order,) * 3).reshape(3, -1)
    assert (times[a, plus[b, c]] == plus[times[a, b], times[a, c]]).all()
    assert (times[a, times[b, c]] == times[times[a, b], c]).all()
    assert (plus[a, plus[b, c]] == plus[plus[a, b], c]).all()
    assert sorted(made.powers.tolist()) == everyone[1:].tolist()


def test_integers_modulo_four_are_no_field() -> None:
    """The check above fails for arithmetic modulo a number that is no prime."""
    a, b = np.indices((4, 4))
    with pytest.raises(AssertionError):
        check_field(4, Field(np.array([1, 2, 3]), (a - b) % 4, a * b % 4))


@given(st.integers(1, 5000))
def test_prime_powers(order: int) -> None:
    """A number is a prime power exactly if one prime alone divides it."""
    primes = [p for p in range(2, order + 1) if order % p == 0 and all(p % i for i in range(2, p))]
    found = prime_power(order)
    assert (found is not None) == (len(primes) == 1)
    if found is not None:
        assert found[0] ** found[1] == order


@pytest.mark.parametrize(
    ("build", "parameters", "message"),
    [
        (torus, {"dims": []}, r"torus: dims is \[\]; expected a list of 1 to 6 whole numbers"),
        (torus, {"dims": 8}, "torus: dims is 8; expected a list"),
        (torus, {"dims": "88"}, "torus: dims is '88'; expected a list"),
        (torus, {"dims": [4, 1]}, r"torus: dims\[1\] is 1; expected a whole number of at least 2"),
        (torus, {"dims": [4, 4.0]}, r"torus: dims\[1\] is 4.0"),
        (torus, {"dims": [4000, 4000]}, "GPUs; expected at most"),
        (torus, {"dims": [4, 4], "wrap": 1}, "torus: wrap is 1; expected true or false"),
        (torus, {"dims": [4, 4], "cable_bandwidth_Bps": 0}, "cable_bandwidth_Bps is 0"),
        (full_mesh, {"switches": 0}, "full-mesh: switches is 0"),
        (full_mesh, {"switches": 10**4, "servers_per_switch": 0}, "servers_per_switch is 0"),
        (full_mesh, {"switches": 10**5}, "links; expected at most"),
        (slim_fly, {"q": 2}, "slim-fly: q is 2; expected a whole number of at least 3"),
        (slim_fly, {"q": 6}, "slim-fly: q is 6, twice an odd number"),
        (slim_fly, {"q": 15}, "slim-fly: q is 15, no prime power"),
        (slim_fly, {"q": 5, "p": 0}, "slim-fly: p is 0"),
        (slim_fly, {"q": True}, "slim-fly: q is True"),
        (slim_fly, {"q": 4001}, "expected at most"),
    ],
)
def test_refused_parameters(build: Any, parameters: dict[str, Any], message: str) -> None:
    """Numbers out of range, and orders without a graph, are refused in one line."""
    with pytest.raises(TopologyError, match=message) as caught:
        build(**parameters)
    assert "\n" not in str(caught.value)


def test_slim_fly_counts_refuse_orders_without_a_formula() -> None:
    """Twice an odd number has neither graph nor counts."""
    with pytest.raises(TopologyError, match="q is 10; expected a number of the form 4w - 1"):
        slim_fly_counts(10)
