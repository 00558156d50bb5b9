"""Clusters from measured matrices: what placement weighs, what a message takes, bad input."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topologies import (
    ClusterSpec,
    LinkClass,
    MeasuredCost,
    Router,
    TopologyError,
    from_links,
    read_cluster,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from topologies import Cluster

RANKS, WIDTH = 6, 2


def matrix(seed: int = 0) -> NDArray[np.float64]:
    """Return six ranks' latencies, from 2 to 9 us, each direction its own."""
    drawn: NDArray[np.float64] = np.random.default_rng(seed).uniform(2e-6, 9e-6, (RANKS, RANKS))
    return drawn


def built(folder: Path, values: NDArray[Any], **parameters: Any) -> Cluster:
    """Write a matrix and build its cluster."""
    np.save(folder / "m.npy", values)
    given = {"file": str(folder / "m.npy"), "gpus_per_server": WIDTH, **parameters}
    return ClusterSpec("measured", given, "mine").build()


def by_server(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means over the ranks of both servers, one by one."""
    count = RANKS // WIDTH
    out = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j:
                cells = [values[i * 2 + a, j * 2 + b] for a in range(2) for b in range(2)]
                out[i, j] = sum(cells) / 4
    return out


def test_latencies(tmp_path: Path) -> None:
    """Distances are nanoseconds, and a path between servers takes what was measured."""
    values = matrix()
    cluster = built(tmp_path, values, quantity="latency_s")
    expected = by_server(values)
    router = Router(cluster)
    assert router.server_distance().tolist() == np.rint(expected * 1e9).tolist()
    assert router.server_distance().dtype == np.int64
    src, dst = np.divmod(np.arange(36), RANKS)
    far = src // WIDTH != dst // WIDTH
    found = router.path_latency(src, dst)
    np.testing.assert_allclose(found[far], expected[src // 2, dst // 2][far], rtol=1e-12)
    assert (found[~far & (src != dst)] == 2 * 1.665e-6).all()
    assert set(router.gpu_distance().ravel().tolist()) == {0, 3}
    assert router.server_distance("router").max() == 1
    assert cluster.notes == ("distances measured, in ns",)


def test_bandwidths(tmp_path: Path) -> None:
    """Distances are nanoseconds per megabyte; a cable is a lane per card of the mean rate."""
    values = np.random.default_rng(1).uniform(1e9, 50e9, (RANKS, RANKS))
    cluster = built(tmp_path, values, quantity="bandwidth_Bps")
    per_byte = by_server(1 / values)
    found = Router(cluster).server_distance()
    assert found.tolist() == np.rint(per_byte * 1e15).tolist()
    between = np.flatnonzero(cluster.link_class == LinkClass.LOCAL)
    ends = [(side[between] - cluster.first_switch) for side in (cluster.link_src, cluster.link_dst)]
    assert len(between) == 6
    np.testing.assert_allclose(cluster.bandwidth_Bps[between], 2 / per_byte[ends[0], ends[1]])
    assert set(cluster.bandwidth_Bps[cluster.nic_up].tolist()) == {50e9}


def test_plain_costs(tmp_path: Path) -> None:
    """Distances are thousandths of the least cost; the links are as of any cluster."""
    values = np.full((RANKS, RANKS), 0.5)
    values[:2, 4:] = 1.25
    values[4:, :2] = 2.0
    cluster = built(tmp_path, values)
    assert Router(cluster).server_distance().tolist() == [
        [0, 1000, 2500],
        [1000, 0, 1000],
        [4000, 1000, 0],
    ]
    assert set(cluster.latency_s[cluster.link_class == LinkClass.LOCAL].tolist()) == {0}
    assert built(tmp_path, np.zeros((RANKS, RANKS))).measured is not None


def test_files_without_a_table(tmp_path: Path) -> None:
    """A matrix alone is of plain costs and eight GPUs a server, as .npy or CSV."""
    values = np.random.default_rng(2).uniform(1, 2, (16, 16)).round(3)
    np.save(tmp_path / "m.npy", values)
    rows = "\n".join(",".join(map(str, row)) for row in values.tolist())
    (tmp_path / "m.csv").write_text(rows + "\n")
    one, other = (read_cluster(tmp_path / name).build() for name in ("m.npy", "m.csv"))
    assert (one.gpus, one.servers, one.builder) == (16, 2, "measured")
    np.testing.assert_array_equal(Router(one).server_distance(), Router(other).server_distance())
    toml = tmp_path / "t.toml"
    toml.write_text(
        'builder = "measured"\n[parameters]\nfile = "m.csv"\nquantity = "cost"\n'
        "gpus_per_server = 4\n"
    )
    assert read_cluster(toml).build().servers == 4


def test_the_diagonal_is_not_read(tmp_path: Path) -> None:
    """Whatever a benchmark says of a rank and itself, the cluster is the same."""
    values = matrix()
    expected = Router(built(tmp_path, values, quantity="latency_s")).server_distance()
    np.fill_diagonal(values, np.nan)
    found = Router(built(tmp_path, values, quantity="latency_s")).server_distance()
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "m.csv").write_text(",1\n1,\n")
    parameters = {"file": str(tmp_path / "m.csv"), "gpus_per_server": 1}
    assert ClusterSpec("measured", parameters).build().gpus == 2


def test_single_server(tmp_path: Path) -> None:
    """One server has no distances to measure."""
    cluster = built(tmp_path, np.ones((2, 2)))
    assert Router(cluster).server_distance().tolist() == [[0]]


def test_bytes_follow_the_mesh(tmp_path: Path) -> None:
    """A message between servers crosses its cards and one cable."""
    cluster = built(tmp_path, matrix(), quantity="latency_s")
    load = Router(cluster, "hash").link_bytes([0, 0], [5, 1], [7, 9])[0]
    assert load.sum() == 3 * 7 + 2 * 9


@pytest.mark.parametrize(
    ("values", "parameters", "message"),
    [
        (np.ones((5, 5)), {}, "5 ranks do not fill servers of 2 (gpus_per_server)"),
        (np.ones((4, 6)), {}, "has the shape (4, 6); expected [ranks, ranks] with 1 to 8192"),
        (np.ones(4), {}, "has the shape (4,); expected"),
        (np.ones((0, 0)), {}, "has the shape (0, 0); expected"),
        (np.array([["a", "b"], ["c", "d"]]), {}, "holds <U1; expected numbers"),
        (np.ones((2, 2), dtype=complex), {}, "holds complex128; expected numbers"),
        (np.array([[0, np.nan], [1, 0]]), {}, "row 0, column 1: is nan; expected a finite number"),
        (np.array([[0, 1], [-1, 0]]), {}, "row 1, column 0: is -1.0; expected"),
        (np.array([[0, np.inf], [1, 0]]), {}, "row 0, column 1: is inf"),
        (
            np.ones((4, 4)) * 2,
            {"quantity": "latency_s"},
            "row 0, column 2: is 2; expected a number",
        ),
        (np.zeros((4, 4)), {"quantity": "bandwidth_Bps"}, "row 0, column 2: is 0; expected a num"),
        (
            np.array([[0, 1e-9], [1e9, 0]]),
            {"gpus_per_server": 1},
            "thousandths of the least (1e-09); expected at most 2^53",
        ),
    ],
)
def test_refused_matrices(
    tmp_path: Path, values: NDArray[Any], parameters: dict[str, Any], message: str
) -> None:
    """A matrix that is none is refused with the file, the row and the column."""
    with pytest.raises(TopologyError) as caught:
        built(tmp_path, values, **parameters)
    assert str(caught.value).startswith(f"{tmp_path / 'm.npy'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3\n", "row 1: has 1 cells; expected 2, as in row 0"),
        ("1,2\n3,x\n", "row 1, column 1: is 'x'; expected a number"),
        ("1,\n3,4\n", "row 0, column 1: is ''; expected a number"),
        ("1,2\n", "has the shape (1, 2)"),
        ("1,nan\n2,3\n", "row 0, column 1: is nan"),
        ('1,"2\n2,3\n', "is no CSV: unexpected end of data"),
    ],
)
def test_refused_tables(tmp_path: Path, text: str, message: str) -> None:
    """A bad cell is refused with the file, its row and its column."""
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(TopologyError) as caught:
        read_cluster(path).build()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_huge_header_allocates_nothing(tmp_path: Path) -> None:
    """A file that says it holds more than it does is refused by its header."""
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (8192, 8192)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "m.npy").write_bytes(stream.getvalue())
    with pytest.raises(TopologyError, match="holds 0 bytes; expected 536870912 for"):
        read_cluster(tmp_path / "m.npy").build()


def test_objects_are_not_loaded(tmp_path: Path) -> None:
    """An .npy file of Python objects, which could run code, is refused by its header."""
    np.save(tmp_path / "m.npy", np.array([[{}, {}], [{}, {}]]), allow_pickle=True)
    with pytest.raises(TopologyError, match="holds object; expected numbers"):
        read_cluster(tmp_path / "m.npy").build()


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0), st.integers(0, 20), st.binary(max_size=5), st.booleans())
def test_garbled_matrices_never_trace_back(
    tmp_path: Path, cut: int, drop: int, junk: bytes, npy: bool
) -> None:
    """Cut anywhere and garbled, a matrix is a cluster or one line of TopologyError."""
    path = tmp_path / f"g.{'npy' if npy else 'csv'}"
    if npy:
        np.save(path, np.ones((8, 8)))
        content = path.read_bytes()
    else:
        content = b"\n".join([b"1,2,3,4,5,6,7,8"] * 8)
    at = cut % (len(content) + 1)
    path.write_bytes(content[:at] + junk + content[at + drop :])
    try:
        assert read_cluster(path).build().gpus > 0
    except TopologyError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  either outcome is right
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "cost",
    [np.ones((2, 3), dtype=int), np.eye(2), -np.ones((2, 2), dtype=int), np.eye(2, dtype=int)],
)
def test_refused_costs(cost: NDArray[Any]) -> None:
    """Costs are whole, square, not negative, and 0 on the diagonal."""
    with pytest.raises(TopologyError, match="measured cost is"):
        MeasuredCost(cost, "ns")


def test_costs_of_other_servers_are_refused() -> None:
    """A cluster takes costs of its own servers only."""
    cost = MeasuredCost(np.zeros((3, 3), dtype=np.int64), "ns")
    with pytest.raises(TopologyError, match="measured costs of 3 servers; expected 2"):
        from_links([(0, 1)], leaf_of_gpu=[0, 1], measured=cost)


def test_refused_quantity(tmp_path: Path) -> None:
    """What a matrix holds is one of three things."""
    with pytest.raises(TopologyError, match="quantity is 'hops'; allowed: bandwidth_Bps"):
        built(tmp_path, np.ones((2, 2)), quantity="hops")
