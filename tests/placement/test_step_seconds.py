"""Least seconds of a step: against brute force, a naive program, its bound and recorded loads."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from placement import Contiguous, DataParallel, Pipelined, Placement, PlacementError
from placement import PlacementProblem as Problem
from placement.highs import Program, solve
from placement.step import LeastSeconds, StepSeconds, step_seconds
from placement.step.packing import packing_sizes
from topologies import Router, preset
from workloads import ExpertProfile, model, read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

STEP = StepSeconds(
    tokens=10,
    per_slot_s=3e-6,
    per_token_s=1e-6,
    per_link_byte_s=2e-9,
    dispatch_bytes=100,
    combine_bytes=300,
)
"""Reading, computing and traffic of the tiny problems all count."""


def make_problem(seed: int) -> Problem:
    """Draw a tiny problem on two servers of two GPUs, or four of one: at most 4 ** 6 tries."""
    rng = np.random.Generator(np.random.PCG64(seed))
    layers, experts, servers, gpus = ((1, 6, 2, 2), (1, 6, 4, 1), (2, 3, 2, 2), (2, 3, 3, 1))[
        seed % 4
    ]
    load = rng.integers(1, 10, (layers, experts)).astype(float)
    least = -(-layers * experts // servers)
    return Problem(
        model="tiny",
        cost=rng.integers(0, 5, (layers, servers)).astype(float),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=2,
        gpus_per_server=gpus,
        layer_slots=min(experts, -(-experts // servers) + int(rng.integers(0, 3))),
        server_slots=least + int(rng.integers(0, 3)),
    )


def work_of(problem: Problem, layer: int, expert: int, step: StepSeconds = STEP) -> float:
    """Seconds of one expert, written out."""
    chosen = problem.top_k * float(problem.profile.load[layer, expert])
    active = 1 - (1 - min(1.0, chosen)) ** step.tokens
    return step.per_slot_s * active + step.per_token_s * step.tokens * chosen


def brute_force(problem: Problem, step: StepSeconds = STEP) -> float:
    """Least seconds over every assignment to GPUs that keeps the caps, counted one by one."""
    gpus, inside = problem.servers * problem.gpus_per_server, problem.gpus_per_server
    cells = list(itertools.product(range(problem.layers), range(problem.experts)))
    most_layer, most_all = -(-problem.layer_slots // inside), -(-problem.server_slots // inside)
    message = (step.dispatch_bytes + step.combine_bytes) / 2
    best = np.inf
    for gpu in itertools.product(range(gpus), repeat=len(cells)):
        at = list(zip(cells, gpu, strict=True))
        in_all = np.bincount(gpu, minlength=gpus)
        if (
            in_all.max() > most_all
            or in_all.reshape(-1, inside).sum(1).max() > problem.server_slots
        ):
            continue
        total, fits = 0.0, True
        for layer in range(problem.layers):
            mine = [(cell[1], g) for cell, g in at if cell[0] == layer]
            count = np.bincount([g for _, g in mine], minlength=gpus)
            on_server = count.reshape(-1, inside).sum(1).max()
            fits &= bool(count.max() <= most_layer and on_server <= problem.layer_slots)
            busy = [0.0] * gpus
            for expert, g in mine:
                busy[g] += work_of(problem, layer, expert, step)
                tokens = step.tokens * problem.top_k * problem.profile.load[layer, expert]
                hops = problem.cost[layer, g // inside]
                total += step.per_link_byte_s * message * tokens * hops
            total += max(busy)
        if fits:
            best = min(best, total / problem.layers)
    return best


def naive_program(problem: Problem, step: StepSeconds = STEP) -> float:  # noqa: C901  written out
    """Least seconds by one binary per layer, expert and GPU, and a top per layer."""
    layers, experts, inside = problem.layers, problem.experts, problem.gpus_per_server
    gpus = problem.servers * inside
    scale = 1e6
    binaries = layers * experts * gpus
    columns = binaries + layers
    message = (step.dispatch_bytes + step.combine_bytes) / 2
    cost, rows, upper, lower = np.zeros(columns), [], [], []
    cost[binaries:] = 1.0

    def column(layer: int, expert: int, gpu: int) -> int:
        return (layer * experts + expert) * gpus + gpu

    def row(entries: dict[int, float], least: float, most: float) -> None:
        rows.append(entries)
        lower.append(least)
        upper.append(most)

    for at in range(layers):
        for e in range(experts):
            row({column(at, e, g): 1.0 for g in range(gpus)}, 1, 1)
            tokens = step.tokens * problem.top_k * problem.profile.load[at, e]
            for g in range(gpus):
                hops = problem.cost[at, g // inside]
                cost[column(at, e, g)] = scale * step.per_link_byte_s * message * tokens * hops
        for g in range(gpus):
            work = {column(at, e, g): scale * work_of(problem, at, e, step) for e in range(experts)}
            row(work | {binaries + at: -1.0}, -np.inf, 0)
            row(
                {column(at, e, g): 1.0 for e in range(experts)},
                0,
                -(-problem.layer_slots // inside),
            )
        for s in range(problem.servers):
            here = range(s * inside, (s + 1) * inside)
            cells = itertools.product(range(experts), here)
            row({column(at, e, g): 1.0 for e, g in cells}, 0, problem.layer_slots)
    for g in range(gpus):
        cells = itertools.product(range(layers), range(experts))
        row({column(at, e, g): 1.0 for at, e in cells}, 0, -(-problem.server_slots // inside))
    for s in range(problem.servers):
        cells3 = itertools.product(
            range(layers), range(experts), range(s * inside, (s + 1) * inside)
        )
        row({column(*cell): 1.0 for cell in cells3}, 0, problem.server_slots)
    dense = np.zeros((len(rows), columns))
    for number, entries in enumerate(rows):
        for at_column, value in entries.items():
            dense[number, at_column] = value
    # Every column is integral in a Program: the tops are counted in steps of their own.
    grain = 1e-4
    dense[:, binaries:] *= grain
    cost[binaries:] *= grain
    held = dense.T != 0
    result = solve(
        Program(
            cost=cost,
            lower=np.zeros(columns),
            upper=np.concatenate((np.ones(binaries), np.full(layers, 1e7))),
            start=np.concatenate(([0], np.cumsum(held.sum(axis=1)))).astype(np.int32),
            index=np.nonzero(held)[1].astype(np.int32),
            value=dense.T[held],
            row_lower=np.array(lower, dtype=float),
            row_upper=np.array(upper, dtype=float),
            integer=True,
        )
    )
    assert result.status == "optimal"
    assert result.objective is not None
    return result.objective / scale / layers


@pytest.mark.parametrize("seed", range(16))
def test_least_seconds_against_brute_force(seed: int) -> None:
    """On tiny problems the best of all assignments is found, and the bound is below it."""
    problem = make_problem(seed)
    best = brute_force(problem)
    placement = LeastSeconds(STEP)(problem)
    problem.check(placement)
    report = placement.solve
    assert report is not None
    assert report.bound is not None
    assert report.unit == "seconds"
    assert report.bound <= best * (1 + 1e-9)
    assert report.objective == pytest.approx(best, rel=1e-9)
    assert step_seconds(placement, problem, STEP).mean_s == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_brute_force_against_the_naive_program(seed: int) -> None:
    """Two oracles that share nothing but the price of an expert agree to the tops' grain."""
    problem = make_problem(seed)
    # Tops are rounded up to 1e-4 us.
    assert naive_program(problem) == pytest.approx(brute_force(problem), abs=2e-10)


def test_the_oracle_would_notice_a_wrong_answer() -> None:
    """Other prices have another optimum, and contiguous experts cost more than the least."""
    problem = make_problem(1)
    best = brute_force(problem)
    dearer = brute_force(problem, replace(STEP, per_link_byte_s=3e-9))
    assert dearer > best * 1.01
    assert step_seconds(Contiguous()(problem), problem, STEP).mean_s > best * 1.01


def test_step_seconds_by_hand() -> None:
    """Two experts, one with a replica: what its GPUs read, compute and send, written out."""
    problem = Problem(
        model="tiny",
        cost=np.array([[0.0, 2.0]]),
        profile=ExpertProfile(load=np.array([[0.75, 0.25]]), source="test"),
        top_k=1,
        gpus_per_server=1,
        layer_slots=2,
        server_slots=2,
    )
    placement = Placement(
        model="tiny",
        layers=1,
        experts=2,
        gpus=2,
        gpus_per_server=1,
        slot_layer=np.zeros(3, dtype=np.int32),
        slot_gpu=np.array([0, 1, 1], dtype=np.int32),
        slot_expert=np.array([0, 0, 1], dtype=np.int32),
        policy="by hand",
    )
    step = StepSeconds(
        tokens=4,
        per_slot_s=1.0,
        per_token_s=10.0,
        per_link_byte_s=0.5,
        dispatch_bytes=1,
        combine_bytes=3,
    )
    found = step_seconds(placement, problem, step)
    # Replicas of expert 0: 1.5 of 4 tokens each, read with 1 - 0.625^4; expert 1: 1 token,
    # read with 1 - 0.75^4. GPU 1 has both: 25 s of products.
    assert found.busiest_s[0] == pytest.approx(25 + (1 - 0.625**4) + (1 - 0.75**4))
    # Two messages of 2 bytes on average: GPU 1's 2.5 tokens at 2 hops, 0.5 s a byte.
    assert found.traffic_s[0] == pytest.approx(2.5 * 2 * 2 * 0.5)
    assert found.mean_s == pytest.approx(found.busiest_s[0] + found.traffic_s[0])


def test_prices_of_hardware() -> None:
    """R1 in FP8 on an H100: 13.1 us a slot, and reading meets computing near 295 tokens."""
    step = StepSeconds.of(model("DeepSeek-R1"), tokens=1, links=4, message_bytes=(1, 1))
    assert step.per_slot_s == pytest.approx(13.1e-6, abs=0.1e-6)
    assert step.per_slot_s / step.per_token_s == pytest.approx(295, abs=1)
    assert step.per_link_byte_s == pytest.approx(1 / 200e9)


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_packing_sizes_are_valid(most: int) -> None:
    """Experts that share a GPU, whichever they are, have sizes of at most 1 together."""
    rng = np.random.Generator(np.random.PCG64(most))
    tight = 0
    for _ in range(40):
        work = np.round(rng.random(7), 1) + 0.1
        limit = float(rng.choice([0.8, 1.0, 1.3, work.max()]))
        size = packing_sizes(work, limit, most)
        for number in range(1, most + 1):
            for chosen in itertools.combinations(range(7), number):
                if work[list(chosen)].sum() <= limit * (1 + 1e-12):
                    assert size[:, chosen].sum(axis=1).max() <= 1 + 1e-9
                    tight += 1
    assert tight
    # The check above would notice a size too large: two of a half and a bit share a GPU.
    assert 2 * 0.6 > 1 >= packing_sizes(np.array([0.5, 0.5]), 1.0, 2).sum(axis=1).max()


@pytest.mark.parametrize("seconds", [1e-9, 0.01, 0.1])
def test_any_time_limit(seconds: float) -> None:
    """Stopped anywhere: a placement within the caps, a bound below the best, the limit named."""
    for seed in range(4):
        problem = make_problem(seed)
        best = brute_force(problem)
        placement = LeastSeconds(STEP, time_limit_s=seconds)(problem)
        problem.check(placement)
        report = placement.solve
        assert report is not None
        assert report.bound is not None
        assert report.bound <= best * (1 + 1e-9)
        assert report.objective >= best * (1 - 1e-9)
        assert report.limit == "time" or seconds > 1e-9


def test_same_problem_same_placement() -> None:
    """Two policies of the same seed place the same."""
    problem = make_problem(2)
    assert LeastSeconds(STEP)(problem) == LeastSeconds(STEP)(problem)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens is 0; expected at least 1"),
        ({"per_slot_s": -1.0}, "per_slot_s is -1.0; expected a finite number"),
        ({"per_link_byte_s": float("nan")}, "per_link_byte_s is nan"),
    ],
)
def test_senseless_prices(change: dict[str, float], message: str) -> None:
    """Each is refused in a line that says what was expected."""
    with pytest.raises(PlacementError, match=message):
        replace(STEP, **change)  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="time_limit_s and proposals must be positive"):
        LeastSeconds(STEP, proposals=0)
    with pytest.raises(PlacementError, match="per_slot_s and per_token_s are both 0"):
        LeastSeconds(replace(STEP, per_slot_s=0.0, per_token_s=0.0))
    with pytest.raises(PlacementError, match="links is 0; expected a finite number above 0"):
        StepSeconds.of(model("DeepSeek-R1"), tokens=1, links=0, message_bytes=(1, 1))


@pytest.mark.real_data
@pytest.mark.parametrize("kind", [Pipelined, DataParallel])
def test_recorded_loads(real_data: Path, kind: type[Pipelined | DataParallel]) -> None:
    """R1 on 32 servers: fewer seconds than contiguous experts, above the bound."""
    r1, cluster = model("DeepSeek-R1"), preset("facts-fat-tree").spec.build()
    loads = read_logical_count(real_data / "deepseek-r1-loads" / "decode_in1000out1000.json", r1)
    distance = Router(cluster).server_distance().astype(np.int64)
    servers, inside = cluster.servers, cluster.gpus_per_server
    # The first six layers: all 58 take seconds.
    share = kind(r1.layers, servers, inside)
    cost = share.origin_share() @ distance + share.collector_share() @ distance.T
    problem = Problem(
        model=r1.name,
        cost=cost[:6],
        profile=ExpertProfile(load=loads.load[:6], source="recorded"),
        top_k=r1.top_k,
        gpus_per_server=inside,
        layer_slots=16,
        server_slots=48,
    )
    step = StepSeconds.of(r1, tokens=2048, links=640, message_bytes=(7408, 14336))
    placement = LeastSeconds(step)(problem)
    problem.check(placement)
    report = placement.solve
    assert report is not None
    judged = step_seconds(placement, problem, step).mean_s
    assert judged == pytest.approx(report.objective, rel=1e-9)
    assert report.bound is not None
    assert report.bound <= judged <= step_seconds(Contiguous()(problem), problem, step).mean_s
    # All servers are as far from the tokens: what is left is a busiest GPU, proven least.
    assert report.status == ("optimal" if kind is DataParallel else "feasible")
