"""The four 256-GPU shapes of the study, and what sparse variants always satisfy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import ClusterSpec, Router

FAT_TREE: dict[str, Any] = {
    "pods": 4,
    "leaves_per_pod": 2,
    "servers_per_leaf": 4,
    "aggregations_per_pod": 2,
    "cores_per_aggregation": 2,
}
DRAGONFLY: dict[str, Any] = {"a": 4, "p": 1, "h": 2, "groups": 8}


def mean_distance(builder: str, parameters: dict[str, Any]) -> float:
    """Return the mean hops over all pairs of servers; building checks that they are connected."""
    return float(Router(ClusterSpec(builder, parameters).build()).server_distance().mean())


@pytest.mark.parametrize(("builder", "shape"), [("fat-tree", FAT_TREE), ("dragonfly", DRAGONFLY)])
def test_study_cluster(builder: str, shape: dict[str, Any]) -> None:
    """256 GPUs in 32 servers, connected; the sparse variant's mean distance is strictly larger."""
    for parameters in (shape, {**shape, "reach": 1}):
        cluster = ClusterSpec(builder, parameters).build()
        assert (cluster.gpus, cluster.servers, cluster.gpus_per_server) == (256, 32, 8)
    assert mean_distance(builder, {**shape, "reach": 1}) > mean_distance(builder, shape)


@given(
    pods=st.integers(4, 9),
    leaves=st.integers(1, 3),
    aggregations=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=30)
def test_sparse_fat_trees_are_connected_and_longer(
    pods: int, leaves: int, aggregations: int, data: st.DataObject
) -> None:
    """Every sparse fat-tree is connected and its mean server distance strictly larger."""
    reach = data.draw(st.integers(1, pods // 2 - 1))
    shape = {
        "pods": pods,
        "leaves_per_pod": leaves,
        "servers_per_leaf": 1,
        "aggregations_per_pod": aggregations,
        "cores_per_aggregation": reach + 1,
        "gpus_per_server": 1,
    }
    sparse = mean_distance("fat-tree", {**shape, "reach": reach})
    assert sparse > mean_distance("fat-tree", shape)


@given(
    groups=st.integers(4, 9),
    a=st.integers(1, 4),
    arrangement=st.sampled_from(["absolute", "palmtree", "relative"]),
    data=st.data(),
)
@settings(max_examples=30)
def test_sparse_dragonflies_are_connected_and_longer(
    groups: int, a: int, arrangement: str, data: st.DataObject
) -> None:
    """Every sparse dragonfly is connected and its mean server distance strictly larger."""
    reach = data.draw(st.integers(1, groups // 2 - 1))
    shape: dict[str, Any] = {"a": a, "p": 1, "h": -(-(groups - 1) // a), "groups": groups}
    shape["arrangement"] = arrangement
    sparse = mean_distance("dragonfly", {**shape, "reach": reach})
    assert sparse > mean_distance("dragonfly", shape)
