"""GPUs that die and come back in the middle of a step, on every network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_runs import NETWORKS
from survivors_twin import doubled, survivors
from test_routing_rules import ROUTERS

from placement import Placement
from sim import (
    ConstantCompute,
    Fault,
    FaultSchedule,
    LawViolation,
    MessageSizes,
    SimResult,
    SimulationError,
    simulate,
)
from sim.laws import check_delivery, check_losses
from sim.plans import Planner
from sim.tables import gpus_table, layers_table, links_table
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

SIZES = MessageSizes(7000, 9000)
MODES = ("per_expert", "per_gpu", "per_server", "allgather")


def gpu_faults(*changes: tuple[int, int, bool], lost_experts: Any = "refuse") -> FaultSchedule:
    """Return a schedule of (ns, GPU, alive)."""
    faults = tuple(Fault(at * 1e-9, "gpu", gpu, float(alive)) for at, gpu, alive in changes)
    return FaultSchedule(faults, lost_experts)


def at_home(inputs: Callable[..., Any], attention: Any, seed: int = 4, tokens: int = 60) -> Any:
    """Return a trace, a placement with two replicas, and tokens that stay on a GPU each."""
    trace, one, _ = inputs(seed, tokens=tokens)
    home = np.random.default_rng(seed).integers(0, 10, tokens).astype(np.int32)
    ends = np.tile(home, (3, 1))
    return trace, doubled(one), attention(ends, ends)


def books(result: SimResult) -> list[Any]:
    """Everything of a run that another one may not differ in."""
    return [
        result.tokens, result.step_ns, result.critical_ns, result.link_bytes.tolist(),
        result.collective_ns.tolist(), result.expert_tokens.tolist(),
        result.hop_histogram.tolist(), result.spans.start_ns.tolist(),
        result.spans.active.tolist(), result.usage.busy_bins_ns.tolist(),
        result.distinct_gpus, result.distinct_servers,
    ]  # fmt: skip


def by_hand(attention: Any, layers: int = 2) -> Any:
    """Two tokens of GPU 0 to an expert with replicas on GPUs 1 and 2, in every layer.

    Turns begin so that GPU 1 takes one and GPU 2 the other.
    """
    trace = RoutingTrace(
        topk=np.zeros((2, layers, 1), dtype=np.uint8),
        experts=1,
        seq_lens=np.array([2], dtype=np.int32),
        source="test",
    )
    placement = Placement(
        model="test", layers=layers, experts=1, gpus=3, gpus_per_server=1, policy="by hand",
        slot_layer=np.repeat(np.arange(layers), 2), slot_gpu=np.tile([1, 2], layers),
        slot_expert=np.zeros(2 * layers),
    )  # fmt: skip
    home = np.zeros((layers, 2), dtype=np.int32)
    return trace, placement, attention(home, home)


@pytest.mark.parametrize("name", ["analytic", "fluid-exact", "packet-shifted"])
def test_a_gpu_dies_while_it_is_sent_to(
    switch: Callable[..., Router], fixed_attention: Any, name: str
) -> None:
    """What has left arrives, what has not is lost, and the next layer does without the GPU."""
    # 6000 B to GPU 1 and 6000 B to GPU 2 from GPU 0 at 1 B/ns, latency 0. Death of GPU 1 at 4000.
    run = simulate(
        *by_hand(fixed_attention),
        network=NETWORKS[name](switch(3, 1e9, 0.0)),
        sizes=MessageSizes(6000, 10_000),
        compute=ConstantCompute(500e-9),
        faults=gpu_faults((4000, 1, False)),
    )
    lost = run.losses
    assert lost is not None
    # Fluid and analytic share the card: 2000 B to each have left, and 4000 to GPU 1 are lost;
    # GPU 2's other 4000 are in at 8000, its expert ends at 8500 and 10000 B return by 18500.
    # Packet sends GPU 1 its 6 chunks of 1000 B first: 4 have left, the 5th has been picked at
    # 4000 and leaves; the 6th is lost. GPU 2 has 6000 B from 5000 to 11000, and a switch more,
    # 1000: its expert from 12000 to 12500, its results by 12500 + 10000 + 1000.
    picked = name.startswith("packet")
    dispatch = (1000, 23_500) if picked else (4000, 18_500)
    assert lost.flows.lost_bytes.tolist() == [dispatch[0], 10_000]
    assert lost.flows.dst.tolist() == [1, 0]
    assert lost.flows.layer.tolist() == [0, 0]
    assert run.collective_ns[0, 1, 1] == dispatch[1]
    up = run.cluster.nic_up
    assert run.link_bytes[0, :, up[0]].tolist() == [12_000 - dispatch[0], 0]
    assert run.link_bytes[0, :, up[1:]].tolist() == [[0, 0], [0, 10_000]]
    # Layer 1: both tokens to GPU 2, 12000 B and back 20000; its expert takes 1000 ns.
    took = 12_000 + 1000 + 20_000 + (2000 if picked else 0)
    assert run.step_ns == dispatch[1] + took
    assert run.expert_tokens[1].tolist() == [0, 0, 2]
    assert (run.tokens, run.lost_tokens, int(lost.choices.sum())) == (2, 0, 0)
    # GPU 1 computes nothing; GPU 2's one and two choices at 500 ns each.
    assert run.compute_ns.tolist() == [[0, 0, 500], [0, 0, 1000]]


@pytest.mark.parametrize("name", ["analytic", "fluid-exact", "packet-shifted"])
def test_a_gpu_dies_while_it_computes(
    switch: Callable[..., Router], fixed_attention: Any, name: str
) -> None:
    """Its computing ends there, its results are lost, and nobody waits for them."""
    run = simulate(
        *by_hand(fixed_attention),
        network=NETWORKS[name](switch(3, 1e9, 0.0)),
        sizes=MessageSizes(6000, 10_000),
        compute=ConstantCompute(500e-9),
        faults=gpu_faults((13_100, 2, False), (30_000, 2, True)),
    )
    # Fluid, analytic: both have 6000 B at 12000 and compute until 12500; GPU 2 dies having sent
    # 300 of 10000 (the card of GPU 0 takes both at half its rate, or the two move as one).
    # Packet: GPU 1 from 7000 to 7500, results from 7500; GPU 2 from 13000, stopped after 100 ns.
    picked = name.startswith("packet")
    assert run.losses is not None
    assert run.losses.flows.lost_bytes.tolist() == [10_000 if picked else 9700]
    assert run.compute_ns[0].tolist() == [0, 500, 100 if picked else 500]
    # GPU 1's results: in packet by 7500 + 10000 + 1000; else 300 B by 13100, then at 1 B/ns.
    end = 18_500 if picked else 13_100 + 9700
    assert run.collective_ns[0, 1, 1] == end
    # Layer 1 is planned then: GPU 2 is dead until 30000.
    assert run.expert_tokens[1].tolist() == [0, 2, 0]


def test_a_gpu_that_is_back_is_used_again(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """Layers are planned when their dispatch is issued: dead for layer 1, there for layer 2."""
    parts = by_hand(fixed_attention, layers=3)
    kept = {"sizes": MessageSizes(6000, 10_000), "compute": ConstantCompute(500e-9)}
    network = NETWORKS["analytic"](switch(3, 1e9, 0.0))
    # Layer 0 without faults: 12000 + 500 + 20000. The death at 32499 loses the last byte; layer 1
    # goes to GPU 1 alone: 32500 + 12000 + 1000 + 20000. Back just in time.
    for back, tokens in ((65_500, [0, 1, 1]), (65_501, [0, 2, 0])):
        faults = gpu_faults((32_499, 2, False), (back, 2, True))
        run = simulate(*parts, network=network, faults=faults, **kept)
        assert run.losses is not None
        assert run.losses.lost_bytes == 1
        assert run.collective_ns[2, 0, 0] == 65_500
        assert run.expert_tokens.tolist() == [[0, 1, 1], [0, 2, 0], tokens]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_dead_at_the_start_is_never_there(
    ring: Callable[..., Router], inputs: Callable[..., Any], name: str
) -> None:
    """A death at 0 equals a step of the tokens and slots on other GPUs, and one ns later not."""
    trace, one, attention = inputs(4)
    parts = trace, doubled(one), attention
    kept = {"sizes": SIZES, "compute": ConstantCompute(1e-7), "network": NETWORKS[name](ring())}
    dead = simulate(*parts, faults=gpu_faults((0, 3, False)), **kept)
    twin = simulate(*survivors(*parts, {3}), **kept)
    assert books(dead) == books(twin)
    own = kept["network"].router.cluster
    mine = [own.nic_up[3], own.nic_down[3], own.nvlink_up[3], own.nvlink_down[3]]
    assert not dead.link_bytes[:, :, mine].any()
    ends = np.concatenate([attention.origin_gpu(20), attention.collector_gpu(20)])
    assert dead.lost_tokens == (ends == 3).any(axis=0).sum() > 0
    assert dead.tokens + dead.lost_tokens == 20
    later = simulate(*parts, faults=gpu_faults((1, 3, False)), **kept)
    assert books(later) != books(twin)
    assert later.losses is not None
    assert later.losses.lost_bytes > 0


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_faults_that_change_nothing(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any, name: str,
    count: int,
) -> None:  # fmt: skip
    """After the end; and gone and back before the first dispatch: not a bit differs."""
    parts = at_home(inputs, fixed_attention)
    kept = {"sizes": SIZES, "compute": Attending(), "micro_batches": count}
    network = NETWORKS[name](ring())
    none = simulate(*parts, network=network, **kept)
    first = int(none.collective_ns[0, 0, 0])
    assert first > 2
    for schedule in (
        gpu_faults((none.step_ns + 1, 3, False)),
        gpu_faults((none.step_ns + 2, 3, False), (none.step_ns + 9, 3, True)),
        gpu_faults((1, 3, False), (first - 1, 3, True)),
        gpu_faults((0, 3, False), (0, 3, True)),
    ):
        run = simulate(*parts, network=network, faults=schedule, **kept)
        assert books(run) == books(none)
        assert run.fault_metrics()["lost_bytes"] == run.lost_tokens == 0
    lasting = gpu_faults((1, 3, False), (none.step_ns // 2, 3, True))
    assert books(simulate(*parts, network=network, faults=lasting, **kept)) != books(none)


class Attending(ConstantCompute):
    """Attention takes 1000 ns a token; so the first dispatch is not at 0."""

    def __init__(self) -> None:
        super().__init__(1e-7)

    def times(self, placement: Any, sent: Any) -> Any:
        """As the base, with attention."""
        times = super().times(placement, sent)
        return replace(times, attention=sent.origin_tokens * 1000)


class Case(NamedTuple):
    """Changes (part of the step, GPU, alive), seed, micro-batches, and whether tokens stay."""

    changes: list[tuple[float, int, bool]]
    seed: int
    count: int
    stay: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One to five changes of three GPUs; each dies and returns in turn."""
    times = sorted(draw(st.lists(st.floats(0, 1.1), min_size=1, max_size=5)))
    dead: set[int] = set()
    changes = []
    for at in times:
        gpu = draw(st.sampled_from([3, 4, 8]))
        changes.append((at, gpu, gpu in dead))
        dead ^= {gpu}
    return Case(changes, draw(st.integers(0, 99)), draw(st.integers(1, 2)), draw(st.booleans()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(case=cases())
@settings(max_examples=4, deadline=None)
def test_random_deaths_violate_no_law(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any, name: str,
    mode: Any, case: Case,
) -> None:  # fmt: skip
    """Injected = delivered + lost for every GPU, leg and link (checked in every run), and more."""
    changes, seed, count, stay = case
    trace, placement, attention = at_home(inputs, fixed_attention, seed)
    if not stay:
        _, _, attention = inputs(seed, tokens=60)
    kept = {"sizes": SIZES, "compute": Attending(), "micro_batches": count, "mode": mode}
    network = NETWORKS[name](ring())
    before = simulate(trace, placement, attention, network=network, **kept)
    faults = gpu_faults(
        *((int(at * before.step_ns), gpu, alive) for at, gpu, alive in changes),
        lost_experts="drop",
    )
    run = simulate(trace, placement, attention, network=network, faults=faults, **kept)
    assert run.losses is not None
    assert run.tokens + run.lost_tokens == 60
    # Every GPU's time adds up, and every choice issued is answered or lost (planned in layers
    # under way: what was cut is counted in bytes).
    spent = run.compute_ns.sum(axis=0) + run.idle_ns.sum(axis=(0, 1))
    assert (spent == run.step_ns).all()
    answered = run.expert_tokens.sum(axis=1) + run.losses.choices
    assert (answered == 4 * run.origin_tokens.sum(axis=1)).all()


@pytest.mark.parametrize("name", ["analytic", "fluid", "packet"])
def test_the_law_of_losses_can_fail(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A byte lost silently, counted twice, or lost with a GPU that lives is a violation."""
    seen: list[Any] = []
    monkeypatch.setattr("sim.engine.check_laws", lambda *given: seen.append(given))
    parts = at_home(inputs, fixed_attention)
    kept = {"sizes": SIZES, "compute": Attending(), "network": NETWORKS[name](ring())}
    half = simulate(*parts, **kept).step_ns // 2
    run = simulate(*parts, faults=gpu_faults((half, 3, False)), **kept)
    _, legs, router, inputs_ = seen[-1]
    assert inputs_ is None
    assert run.losses is not None
    check_delivery(run, legs, router)
    check_losses(run, legs)
    flows = run.losses.flows
    for more in (-1, 1):
        size = flows.lost_bytes.copy()
        size[0] += more
        wrong = replace(run.losses, flows=replace(flows, lost_bytes=size))
        with pytest.raises(LawViolation, match="bytes sent by GPU"):
            check_delivery(replace(run, losses=wrong), legs, router)
    for column, value in (("gpu", 4), ("at_ns", half + 1)):
        other = replace(flows, **{column: np.full_like(flows.gpu, value)})
        with pytest.raises(LawViolation, match="did not die then"):
            check_losses(replace(run, losses=replace(run.losses, flows=other)), legs)
    much = replace(flows, lost_bytes=flows.lost_bytes + 10**9)
    with pytest.raises(LawViolation, match="bytes lost, row"):
        check_losses(replace(run, losses=replace(run.losses, flows=much)), legs)


def test_lost_experts_are_named_or_dropped(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """Without a living replica the run stops, or counts what is not answered."""
    trace, _, attention = at_home(inputs, fixed_attention)
    one = inputs(4)[1]
    kept = {"sizes": SIZES, "compute": ConstantCompute(1e-7), "network": NETWORKS["fluid"](ring())}
    with pytest.raises(SimulationError, match="GPU 3 dead: lost experts") as caught:
        simulate(trace, one, attention, faults=gpu_faults((0, 3, False)), **kept)
    mine = one.slot_gpu == 3
    lost = np.stack([one.slot_layer[mine], one.slot_expert[mine]], axis=1)
    lost = lost[np.lexsort(lost.T[::-1])]
    assert ", ".join(f"({a}, {b})" for a, b in lost.tolist()) in str(caught.value)
    assert "lost_experts = 'drop'" in str(caught.value)
    faults = gpu_faults((0, 3, False), lost_experts="drop")
    run = simulate(trace, one, attention, faults=faults, **kept)
    assert run.losses is not None
    assert run.losses.experts.tolist() == lost.tolist()
    kept_tokens = trace.topk[attention.origin_gpu(60)[0] != 3]
    # Counted token by token.
    choices = [0, 0, 0]
    for token in kept_tokens.tolist():
        for layer, chosen in enumerate(token):
            choices[layer] += sum([layer, each] in lost.tolist() for each in chosen)
    assert run.losses.choices.tolist() == choices
    assert run.expert_tokens.sum() == kept_tokens.size - sum(choices)
    all_dead = gpu_faults(*((0, gpu, False) for gpu in range(10)), lost_experts="drop")
    with pytest.raises(SimulationError, match="all 60 tokens of a micro-batch are lost"):
        simulate(trace, one, attention, faults=all_dead, **kept)


def test_tokens_whose_choices_are_all_lost_go_on(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """Nobody answers in layer 1, so nothing is sent; layer 2 follows when the GPU is back."""
    trace, placement, attention = by_hand(fixed_attention, layers=3)
    dead = gpu_faults((100, 1, False), (100, 2, False), (32_500, 2, True), lost_experts="drop")
    run = simulate(
        trace, placement, attention, faults=dead, sizes=MessageSizes(6000, 10_000),
        network=NETWORKS["fluid"](switch(3, 1e9, 0.0)), compute=ConstantCompute(500e-9),
    )  # fmt: skip
    # All are dead from 100 on: layers 1 and 2 are planned at 100, when nothing is left of 0.
    assert run.losses is not None
    assert run.losses.choices.tolist() == [0, 2, 2]
    assert run.losses.experts.tolist() == [[1, 0], [2, 0]]
    assert run.losses.lost_bytes == 12_000 - 100 + 20_000
    assert run.step_ns == 100
    # Nobody computes in them: even, and no straggler is late.
    assert layers_table(run)["balance_gpu"].tolist() == [1.5, 1.0, 1.0]
    assert run.spans.stragglers()[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_step_without_a_message(
    switch: Callable[..., Router], fixed_attention: Any, name: str
) -> None:
    """All experts are dead from the start: attention alone, and every choice is lost."""
    dead = gpu_faults((0, 1, False), (0, 2, False), lost_experts="drop")
    run = simulate(
        *by_hand(fixed_attention), faults=dead, sizes=SIZES, compute=Attending(),
        network=NETWORKS[name](switch(3, 1e9, 0.0)),
    )  # fmt: skip
    assert run.step_ns == 2 * 2 * 1000
    assert run.fault_metrics()["lost_choices"] == 4
    assert not run.link_bytes.any()
    assert run.metrics()["balancedness"] == 1.0


@pytest.mark.parametrize("mode", MODES)
def test_forwarders_are_stood_in_for(
    inputs: Callable[..., Any], fixed_attention: Any, mode: Any
) -> None:
    """Token by token: what a token needs on a server comes once, over its next living GPU."""
    trace, placement, attention = at_home(inputs, fixed_attention)
    planner = Planner(placement, SIZES, ConstantCompute(0.0), {"mode": mode})
    stay = attention.origin_gpu(60)[0] != 3
    left = survivors(trace, placement, attention, {3})
    batch = planner.batch(left[0], left[2], (3,))
    for each in batch.legs:
        assert not (each.traffic.src == 3).any()
        assert not (each.traffic.dst == 3).any()
    if mode not in ("per_server", "allgather"):
        return
    home = attention.origin_gpu(60)[0][stay]
    into = np.zeros((10, 10), dtype=int)
    if mode == "allgather":
        for origin in home.tolist():
            for server in range(5):
                forwarder = 2 * server + origin % 2
                into[origin, 2 if forwarder == 3 else forwarder] += 1
        first = batch.legs[0].traffic
        for layer in range(3):
            src, dst, count = first.layer_rows(layer)
            found = np.zeros((10, 10), dtype=int)
            found[src, dst] = count
            assert (found == into).all()
        # Each of the nine others has every token once, whatever the way.
        src, dst, count = batch.legs[1].traffic.layer_rows(0)
        assert np.bincount(dst, count, 10).tolist() == [len(home)] * 3 + [0] + [len(home)] * 6
    else:
        _, dst, count = batch.legs[1].traffic.layer_rows(0)
        assert count.sum() == batch.exchange.distinct[0, 0]
        _, dst, count = batch.legs[0].traffic.layer_rows(0)
        assert count.sum() == batch.exchange.distinct[0, 1]
        servers = np.bincount(dst // 2, count, 5)
        assert servers.sum() == batch.exchange.distinct[0, 1]


def test_parts_of_the_lp_rule_are_those_that_are_left(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """Replicas take over in proportion; where a server sent all to the dead one, equally."""
    trace, placement, attention = at_home(inputs, fixed_attention)
    # All to the first replica of each expert, in every server.
    cell = placement.slot_layer * 16 + placement.slot_expert
    first = np.zeros(len(cell))
    first[np.unique(cell, return_index=True)[1]] = 1.0
    run = simulate(
        trace, placement, attention, sizes=SIZES, compute=ConstantCompute(1e-7),
        network=NETWORKS["analytic"](ring()), faults=gpu_faults((0, 3, False)),
        replica_rule="lp", parts=np.tile(first, (5, 1)),
    )  # fmt: skip
    assert run.expert_tokens[:, 3].sum() == 0
    assert run.expert_tokens.sum() == 4 * run.origin_tokens.sum()


def test_routed_shared_experts_move_off_a_dead_gpu(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """The next GPU of its server holds the copy; of given GPUs another one, or the run stops."""
    parts = at_home(inputs, fixed_attention)
    kept = {
        "sizes": SIZES, "compute": ConstantCompute(1e-7), "shared": "routed",
        "shared_experts": 1, "network": NETWORKS["analytic"](ring()),
        "faults": gpu_faults((0, 3, False)),
    }  # fmt: skip
    for given_gpus in (None, [3, 5]):
        run = simulate(*parts, **kept, shared_gpus=given_gpus)
        assert run.expert_tokens[:, 3].sum() == 0
        assert run.expert_tokens.sum() == 5 * run.origin_tokens.sum()
    with pytest.raises(SimulationError, match=r"all of shared_gpus \[3\] are dead"):
        simulate(*parts, **kept, shared_gpus=[3])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ([(5, 3, True)], "GPU 3 comes back, but is not dead"),
        ([(5, 3, False), (6, 3, False)], "GPU 3 is dead already"),
        ([(5, 3, False), (4, 3, True)], "expected times that ascend"),
    ],
)
def test_gpus_die_and_come_back_in_turn(changes: Any, match: str) -> None:
    """Else the schedule is refused in one line."""
    with pytest.raises(SimulationError, match=match) as caught:
        gpu_faults(*changes)
    assert "\n" not in str(caught.value)
    with pytest.raises(SimulationError, match="expected refuse or drop"):
        gpu_faults(lost_experts="ignore")


def test_tables_say_what_was_lost(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """Columns of layers and GPUs add up to the figures; without faults there are none."""
    parts = at_home(inputs, fixed_attention)
    parts = parts[0], inputs(4)[1], parts[2]
    kept = {"sizes": SIZES, "compute": Attending(), "network": NETWORKS["packet"](ring())}
    before = simulate(*parts, **kept)
    early = before.step_ns // 4
    faults = (
        Fault(early * 1e-9, "gpu", 3, 0.0),
        Fault(early * 1e-9, "link", 40, 0.0),
        Fault(early * 1.2e-9, "gpu", 8, 0.0),
    )
    run = simulate(*parts, faults=FaultSchedule(faults, "drop"), **kept)
    figures = run.fault_metrics()
    assert run.losses is not None
    layers, gpus, links = layers_table(run), gpus_table(run), links_table(run)
    for column in ("lost_choices", "lost_experts", "lost_bytes"):
        assert layers[column].sum() == figures[column] > 0  # type: ignore[operator]
    assert gpus["lost_bytes"].sum() == figures["lost_bytes"]
    assert np.flatnonzero(gpus["lost_bytes"]).tolist() == [3, 8]
    assert links["resent_bytes"].sum() == figures["resent_bytes"]
    assert np.flatnonzero(links["resent_bytes"]).tolist() in ([40], [])
    assert before.fault_metrics() == {}
    for table in (layers_table, gpus_table, links_table):
        assert not {"lost_bytes", "resent_bytes"} & set(table(before).columns)


@pytest.mark.parametrize("kind", ["analytic", "fluid", "packet"])
@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_gpus_and_links_die_under_every_rule(
    inputs: Callable[..., Any], name: str, kind: str
) -> None:
    """Links slow down and die beside GPUs: the laws hold whatever the routes."""
    router = ROUTERS[name]()
    if kind == "packet" and router.rule == "shares":
        return
    cluster = router.cluster
    trace, one, attention = inputs(5, tokens=48, gpus=cluster.gpus)
    kept = {
        "sizes": SIZES, "compute": Attending(), "network": NETWORKS[kind](router),
        "mode": "per_server", "micro_batches": 2,
    }  # fmt: skip
    parts = trace, doubled(one), attention
    before = simulate(*parts, **kept)
    fabric = np.flatnonzero(np.minimum(cluster.link_src, cluster.link_dst) >= cluster.first_switch)
    at = before.step_ns * 1e-9
    links = [Fault(0.2 * at, "link", int(fabric[0]), 0.5)]
    links.append(Fault(0.45 * at, "link", int(fabric[3]), 0.0))
    gpus = [Fault(0.3 * at, "gpu", 3, 0.0), Fault(0.5 * at, "gpu", 3, 1.0)]
    gpus.append(Fault(0.55 * at, "gpu", 6, 0.0))
    faults = sorted([*links, *gpus], key=lambda each: each.at_s)
    run = simulate(*parts, faults=FaultSchedule(tuple(faults), "drop"), **kept)
    assert run.losses is not None
    assert run.losses.lost_bytes > 0
    assert run.tokens + run.lost_tokens == 48


def test_micro_batches_that_take_turns(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """Their order is written down before the step: GPUs may be dead from the start alone."""
    parts = at_home(inputs, fixed_attention)
    kept = {
        "sizes": SIZES, "compute": Attending(), "network": NETWORKS["fluid"](ring()),
        "micro_batches": 2, "overlap": "turns",
    }  # fmt: skip
    dead = simulate(*parts, faults=gpu_faults((0, 3, False)), **kept)
    left = simulate(*survivors(*parts, {3}), **kept)
    assert books(dead) == books(left)
    with pytest.raises(SimulationError, match="GPU 3 dies during a step whose micro-batches take"):
        simulate(*parts, faults=gpu_faults((1, 3, False)), **kept)
