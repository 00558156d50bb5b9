"""Full replication of the hottest experts, against a slow readable twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import InfeasibleError, PlacementError, PlacementProblem, RoundRobin, evaluate
from placement.field.hottest import HottestEverywhere
from workloads import ExpertProfile


def make_problem(seed: int, layer_slots: int = 4) -> PlacementProblem:
    """Build 3 layers x 12 experts on 3 servers of 2 GPUs."""
    load = np.random.default_rng(seed).pareto(1.0, (3, 12)) + 0.1
    return PlacementProblem(
        model="test",
        cost=np.arange(9.0).reshape(3, 3),
        profile=ExpertProfile.from_counts(load, source="test"),
        top_k=2,
        gpus_per_server=2,
        layer_slots=layer_slots,
        server_slots=3 * layer_slots,
    )


def slow_slots(problem: PlacementProblem, hottest: int, scope: str) -> list[tuple[int, int, int]]:
    """List (layer, GPU, expert) of every slot, replica by replica."""
    inside, servers = problem.gpus_per_server, problem.servers
    base = RoundRobin()(problem).gpu_of_expert.tolist()
    slots = []
    for layer, load in enumerate(problem.profile.load.tolist()):
        hot = sorted(range(len(load)), key=lambda e, load=load: (-load[e], e))[:hottest]
        gpus: list[list[int]] = [[] for _ in range(servers * inside)]
        for expert, gpu in enumerate(base[layer]):
            gpus[gpu].append(expert)
        for expert in hot:
            if scope == "gpu":
                for held in gpus:
                    held.extend([] if expert in held else [expert])
                continue
            for server in range(servers):
                mine = range(server * inside, (server + 1) * inside)
                if any(expert in gpus[g] for g in mine):
                    continue

                def weight(g: int, gpus: list[list[int]] = gpus) -> tuple[int, float, int]:
                    shares = [load[e] / (servers if e in hot else 1) for e in gpus[g]]  # noqa: B023
                    return len(gpus[g]), sum(shares), g

                gpus[min(mine, key=weight)].append(expert)
        slots += [(layer, g, e) for g, held in enumerate(gpus) for e in held]
    return sorted(slots)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["server", "gpu"]))
def test_equals_its_slow_twin(seed: int, hottest: int, scope: str) -> None:
    """The same slots; every hot expert once on each server (GPU), the others once in all."""
    problem = make_problem(seed)
    placement = HottestEverywhere(hottest, scope=scope, base=RoundRobin())(problem)  # type: ignore[arg-type]
    slots = zip(
        placement.slot_layer.tolist(),
        placement.slot_gpu.tolist(),
        placement.slot_expert.tolist(),
        strict=True,
    )
    assert sorted(slots) == slow_slots(problem, hottest, scope)
    places = problem.servers if scope == "server" else 6
    expected = [places] * hottest + [1] * (12 - hottest)
    assert np.sort(placement.replicas, axis=1)[:, ::-1].tolist() == [expected] * 3


def test_the_twin_tells_loads_apart() -> None:
    """The twin on other loads lists other slots: the comparison can fail."""
    assert slow_slots(make_problem(0), 2, "server") != slow_slots(make_problem(1), 2, "server")


def test_replicas_cool_the_busiest_gpu_and_are_reported() -> None:
    """All experts everywhere balance perfectly; the report names the hops of equal sharing."""
    problem = make_problem(0)
    placement = HottestEverywhere(12, scope="gpu")(problem)
    placed = evaluate(placement, problem)
    assert placed.balance_gpu == pytest.approx(1.0)
    assert placement.solve is not None
    assert placement.solve.objective_hops == pytest.approx(placed.hops_per_token_layer)
    # Every server serves a third: top-2 times the mean cost, (0 + ... + 8) / 9.
    assert placed.hops_per_token_layer == pytest.approx(8.0)
    assert placement == HottestEverywhere(12, scope="gpu")(problem)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (HottestEverywhere(0), "hottest is 0, expected 1..12"),
        (HottestEverywhere(13), "hottest is 13, expected 1..12"),
        (HottestEverywhere(1, scope="rack"), "scope is 'rack', allowed: server, gpu"),  # type: ignore[arg-type]
    ],
)
def test_bad_parameters(policy: HottestEverywhere, expected: str) -> None:
    """Each is refused in one line."""
    with pytest.raises(PlacementError, match=expected):
        policy(make_problem(0))


def test_first_slots_are_consecutive_runs_unless_told() -> None:
    """12 experts on 6 GPUs: experts 0 and 1 on GPU 0, and so on, in equal counts."""
    placement = HottestEverywhere(1)(make_problem(0))
    hottest = make_problem(0).profile.load.argmax(axis=1)
    for layer, gpu, expert in zip(
        placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True
    ):
        assert gpu == expert // 2 or expert == hottest[layer]


def test_the_first_slots_keep_the_caps() -> None:
    """The base policy's own placement must fit; replicas come on top."""

    class Careless:
        """Everything on server 0."""

        name = "careless"

        def __call__(self, problem: PlacementProblem) -> object:
            """Overfill it."""
            return problem.place(np.zeros((3, 12), dtype=int), policy=self.name)

    with pytest.raises(InfeasibleError, match="breaks layer_slots"):
        HottestEverywhere(1, base=Careless())(make_problem(0))  # type: ignore[arg-type]
