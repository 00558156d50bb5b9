"""Every option of a placement, alone and combined: from the command line and from a run file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.commands.simulate import read_run
from experiments.run import place_experts
from placement import InfeasibleError, read_placement
from placement.moves import count_moves
from placement.search import copies_per_token

if TYPE_CHECKING:
    from conftest import Tiny

PIPELINED = ("--attention", "pipelined")


@pytest.mark.parametrize(
    ("table", "signed"),
    [
        ({}, "ilp-load"),
        ({"beta": 1.6}, "balanced"),
        ({"beta": 1.0, "beta_relax": True}, "balanced"),
        ({"beta": 1.0, "beta_price": 0.5}, "balanced"),
        ({"beta": 1.0, "beta_scope": "gpu", "beta_relax": True}, "balanced"),
        ({"keep_groups": True}, "keep-groups"),
        ({"policy": "keep-groups", "keep_groups": True}, "keep-groups"),
        ({"spread": True}, "ilp-load"),
        ({"policy": "greedy", "spread": True}, "greedy"),
        ({"redundant": 8}, "replicated"),
        ({"policy": "replicated", "redundant": 8, "replica_rule": "nearest"}, "replicated"),
        ({"policy": "replicated", "redundant": 8, "replica_rule": "lp"}, "replicated"),
        ({"redundant": 8, "replica_rule": "sglang_static"}, "replicated"),
        ({"redundant": 8, "replica_rule": "vllm_modulo"}, "replicated"),
        ({"redundant": 8, "beta": 1.4, "beta_scope": "gpu"}, "replicated"),
        ({"redundant": 8, "beta": 1.4}, "ilp-load"),
        ({"redundant": 8, "beta": 1.0, "beta_price": 0.5}, "ilp-load"),
        ({"policy": "least-copies", "beta_scope": "gpu"}, "least-copies"),
        ({"policy": "least-copies", "hop_weighted": True}, "least-copies"),
        ({"policy": "least-copies", "flatten": 1.0}, "least-copies"),
        ({"policy": "least-copies", "search_seed": 7}, "least-copies"),
        ({"policy": "least-copies", "beta": 1.5, "beta_price": 0.5}, "least-copies"),
        ({"policy": "least-copies", "time_limit": 3000.0}, "least-copies"),
        (
            {"policy": "least-congestion", "time_limit": 3000.0, "search_seed": 3},
            "least-congestion",
        ),
        ({"policy": "least-seconds", "step_tokens": 64, "time_limit": 3000.0}, "least-seconds"),
        ({"policy": "least-seconds", "slot_seconds": 0.0, "time_limit": 3000.0}, "least-seconds"),
        ({"time_limit": 3000.0}, "ilp-load"),
        ({"gpu_memory_gb": 0.01, "kv_tokens": 500}, "ilp-load"),
        ({"engine": "sglang"}, "ilp-load"),
    ],
)
def test_an_option_alone(tiny: Tiny, table: dict[str, Any], signed: str) -> None:
    """It reaches the policy that takes it, and a run file gives the same placement."""
    attention = "data-parallel" if signed == "least-congestion" else "pipelined"
    assert tiny.both_ways(table, attention).policy == signed


@pytest.mark.parametrize(
    "limit", [{}, {"max_moves": 5}, {"move_price": 0.2}, {"move_price_gb": 1000.0}]
)
def test_moves_alone(tiny: Tiny, old: str, limit: dict[str, Any]) -> None:
    """Few enough experts move, or each move saves what it costs."""
    new = tiny.both_ways({"previous": old, **limit})
    free = tiny.both_ways({"previous": old})
    moved, most = (count_moves(read_placement(old), each).servers for each in (new, free))
    assert new.policy == "replace"
    assert moved <= limit.get("max_moves", most)
    # An expert has 3 * 256 * 64 parameters of 2 bytes: 1000 hops a GB are 0.098 a move.
    assert (moved < most) == bool(limit)


def test_a_price_by_the_gb_is_a_price_by_the_move(tiny: Tiny, old: str) -> None:
    """0.1 hops a move of 98,304 bytes are 0.1e9 / 98304 hops a GB, twice at 1 byte a parameter."""
    size = 3 * 256 * 64 * 2
    by_move = tiny.place(*PIPELINED, "--previous", old, "--move-price", 0.1)
    asked = ("--previous", old, "--move-price-gb", 0.1e9 / size)
    assert tiny.place(*PIPELINED, *asked) == by_move
    asked = ("--previous", old, "--move-price-gb", 0.2e9 / size, "--bytes-per-parameter", 1)
    assert tiny.place(*PIPELINED, *asked) == by_move


COMBINED = [
    {"policy": objective, **dict(parts)}
    for objective in ("ilp-load", "least-copies")
    for parts in (
        (("beta", 1.1), ("redundant", 8)),
        (("beta", 1.9), ("previous", "OLD")),
        (("previous", "OLD"), ("max_moves", 6)),
        (("previous", "OLD"), ("redundant", 8)),
        (("previous", "OLD"), ("redundant", 8), ("max_moves", 3), ("beta", 2.0)),
        (("previous", "OLD"), ("redundant", 8), ("beta", 1.5), ("beta_price", 1.0)),
        (("previous", "OLD"), ("beta", 2.2), ("move_price", 0.01)),
        (("previous", "OLD"), ("beta", 1.0), ("beta_relax", True), ("move_price_gb", 10.0)),
    )
]


@pytest.mark.parametrize("table", COMBINED)
def test_options_combined(tiny: Tiny, old: str, table: dict[str, Any]) -> None:
    """Hops or copies, with balance, replicas and moves: caps hold, both ways give the same."""
    table = {key: old if value == "OLD" else value for key, value in table.items()}
    new, had = tiny.both_ways(table), read_placement(old)
    if "beta" in table and not {"beta_relax", "beta_price"} & set(table):
        assert (tiny.fullest(new, "server") <= table["beta"] + 1e-9).all()
    assert new.redundant == 3 * table.get("redundant", 0)
    if "max_moves" in table:
        # A slot leaves its server; the redundant ones are copied anyhow and are no moves.
        pairs = [
            set(zip(p.slot_layer, p.slot_gpu // 2, p.slot_expert, strict=True)) for p in (had, new)
        ]
        assert len(pairs[0] - pairs[1]) <= table["max_moves"]


def test_a_previous_placement_with_replicas_keeps_them(tiny: Tiny) -> None:
    """Its slots are what moves: as many replicas as before, at most so many on other servers."""
    had = tiny.place(*PIPELINED, "--redundant", 8, name="replicas")
    asked = {"previous": str(tiny.folder / "replicas.json"), "max_moves": 4}
    new = tiny.both_ways(asked)
    assert new.policy == "ilp-load"
    assert new.redundant == had.redundant == 24


@pytest.mark.parametrize(
    "table",
    [{}, {"links": "fabric"}, {"redundant": 8}, {"beta": 1.9}, {"beta": 2.6, "beta_scope": "gpu"}],
)
def test_congestion_and_balance(tiny: Tiny, table: dict[str, Any]) -> None:
    """Least congestion by name; its certificate names the busiest links, and caps hold."""
    figures = tiny.folder / "figures.json"
    table = {"policy": "least-congestion", **table}
    tiny.both_ways(table, "data-parallel")
    placed = tiny.place(*tiny.flags(table), "--json", figures)
    content = json.loads(figures.read_text())
    assert content["unit"] == "seconds"
    assert content["bound"] <= content["objective"]
    layers = content["congestion"]["layers"]
    assert [layer["layer"] for layer in layers] == [0, 1, 2]
    assert content["congestion"]["objective_s"] == pytest.approx(3 * content["objective"])
    if "beta" in table:
        scope = table.get("beta_scope", "server")
        assert (tiny.fullest(placed, scope) <= table["beta"] + 1e-9).all()


def test_links_that_placement_cannot_relieve_are_said(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence names a layer, its expert and the link, or says that there is none."""
    figures = tiny.folder / "figures.json"
    tiny.place("--policy", "least-congestion", "--json", figures)
    printed = " ".join(capsys.readouterr().out.split())
    layers = json.loads(figures.read_text())["congestion"]["layers"]
    pinned = [layer for layer in layers if layer["pinned_expert"] is not None]
    assert pinned
    assert f"in {len(pinned)} of 3 layers one expert alone keeps" in printed
    assert f"layer {pinned[0]['layer']}: expert {pinned[0]['pinned_expert']}, " in printed
    assert "no placement relieves it" in printed


def test_dear_links_save_hops_and_dear_tokens_balance(tiny: Tiny) -> None:
    """What costs most is saved most: traffic where bytes are dear, the busiest GPU else."""
    policy = ("--policy", "least-seconds", "--slot-seconds", 0)
    figures = {}
    for dear, prices in (("links", (1e-12, 1e-9)), ("tokens", (1e-6, 0))):
        path = tiny.folder / f"{dear}.json"
        asked = ("--token-seconds", prices[0], "--link-byte-seconds", prices[1], "--json", path)
        tiny.place(*PIPELINED, *policy, *asked)
        figures[dear] = json.loads(path.read_text())
        assert figures[dear]["unit"] == "seconds"
    assert figures["links"]["expected_hops"] < figures["tokens"]["expected_hops"]
    path = tiny.folder / "optimum.json"
    tiny.place(*PIPELINED, "--json", path)
    optimum = json.loads(path.read_text())["expected_hops"]
    assert figures["links"]["expected_hops"] == pytest.approx(optimum, rel=1e-3)


def test_domains_are_fitted_together(tiny: Tiny) -> None:
    """The worst of two kinds of traffic is served better than by a fit on the other one."""
    files = [str(tiny.folder / f"{name}.npz") for name in ("trace", "other")]
    base = {"policy": "least-copies", "beta_scope": "gpu"}
    placed = {
        key: tiny.both_ways({**base, "domains": domains, **robust})
        for key, domains, robust in (
            ("one", files[:1], {}),
            ("worst", files, {"robust": "worst"}),
            ("z", files, {"robust": 1.5}),
        )
    }
    tokens = [tiny.tokens(name) for name in ("trace", "other")]
    worst = {
        key: max(copies_per_token(placement, each) for each in tokens)
        for key, placement in placed.items()
    }
    assert worst["worst"] <= worst["one"] + 1e-9
    assert worst["z"] <= worst["one"] + 0.05


def test_one_domain_is_the_run_s_own_profile(tiny: Tiny) -> None:
    """The even sequences of a domain train, as those of --trace do."""
    asked = ("--policy", "least-copies", "--beta-scope", "gpu")
    own = tiny.place(*asked)
    assert tiny.place(*asked, "--domains", tiny.folder / "trace.npz") == own


def test_spread_keeps_servers_and_cools_gpus(tiny: Tiny) -> None:
    """Every expert stays on its server, the busiest GPU of no layer gets hotter."""
    plain, spread = tiny.place(*PIPELINED), tiny.place(*PIPELINED, "--spread", name="spread")
    assert (plain.server_of_expert == spread.server_of_expert).all()
    hot, cool = (tiny.fullest(each, "gpu") for each in (plain, spread))
    assert (cool <= hot + 1e-9).all()
    assert cool.sum() < hot.sum()


def test_figures_are_under_the_rule_that_runs(tiny: Tiny) -> None:
    """The nearest replica is no farther than any replica: fewer hops for the same slots."""
    figures = {}
    for rule in ("equal", "nearest"):
        path = tiny.folder / f"{rule}.json"
        asked = ("--policy", "eplb", "--redundant", 8, "--replica-rule", rule, "--json", path)
        tiny.place(*asked)
        figures[rule] = json.loads(path.read_text())
    assert figures["nearest"]["expected_hops"] < figures["equal"]["expected_hops"]
    assert figures["nearest"]["replica_rule"] == "nearest"


def test_memory_caps_the_slots_and_is_reported(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts of the fullest GPU add up to its memory; more KV tokens leave fewer slots."""
    figures = tiny.folder / "figures.json"
    asked = ("--gpu-memory-gb", 0.01, "--json", figures)
    loose = tiny.place(*PIPELINED, *asked)
    memory = json.loads(figures.read_text())["memory"]
    assert sum(memory["gigabytes"].values()) == pytest.approx(0.01)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the cache of {memory['kv_tokens_fit']:,} tokens fits" in printed
    # Leave room for 6 slots of 98,304 bytes on a GPU: 48 on the 8 GPUs, as many as experts.
    free = memory["gigabytes"]["free"] + memory["gigabytes"]["experts"] - 6 * 98304e-9
    tokens = int(free * 1e9 / (3 * 2 * 4 * 64 * 2))
    tight = tiny.place(*PIPELINED, *asked, "--kv-tokens", tokens)
    assert np.bincount(loose.slot_gpu, minlength=8).max() > 6
    assert np.bincount(tight.slot_gpu, minlength=8).tolist() == [6] * 8
    assert tiny.command("place", *PIPELINED, *asked, "--kv-tokens", 2 * tokens) == 2
    assert "memory too small: 0.01 GB of resident weights" in capsys.readouterr().err


def test_a_placement_file_is_held_to_the_memory(tiny: Tiny) -> None:
    """A run file that names a placement refuses one that is too large for a GPU."""
    tiny.place(*PIPELINED)
    table = {"file": "map.json", "gpu_memory_gb": 0.003}
    with pytest.raises(InfeasibleError, match="memory too small"):
        place_experts(read_run(tiny.run_file(table, "pipelined")))
