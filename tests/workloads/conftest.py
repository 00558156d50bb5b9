"""A small model shared by the tests of workloads."""

from __future__ import annotations

import pytest

from workloads import MoEModel


@pytest.fixture(scope="session")
def grouped() -> MoEModel:
    """Return a one-layer model of 4 experts in 2 groups; a token's 2 choices share a group."""
    return MoEModel(
        name="grouped",
        hidden_layers=1,
        moe_layers=(0,),
        experts=4,
        top_k=2,
        shared_experts=0,
        hidden=8,
        moe_intermediate=4,
        n_group=2,
        topk_group=1,
    )
