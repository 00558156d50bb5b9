"""Every option of a placement, alone and combined: from the command line and from a run file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import placing
from experiments.combine import ALWAYS, APART, NEEDS, TAKES, refusal, taking
from experiments.cli import status
from experiments.commands.simulate import read_run
from experiments.policies import EXACT, ROUTES
from experiments.run import place_experts, prepare
from experiments.spec import PlacementSpec
from experiments.worth import _expected, _replayed
from placement import POLICIES, placement_json, read_placement
from placement.moves import count_moves
from placement.search import copies_per_token, judged_loads
from workloads import model, read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tiny

    from placement import Placement
    from workloads import MoEModel

PIPELINED = ("--attention", "pipelined")


@pytest.fixture
def old(tiny: Tiny) -> str:
    """The path of a placement blind to load, one slot an expert."""
    tiny.place(*PIPELINED, "--policy", "contiguous", name="old")
    return str(tiny.folder / "old.json")


def flags(table: dict[str, Any]) -> list[str]:
    """Write a placement table as options of the command line."""
    words: list[str] = []
    for key, value in table.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [word for each in value for word in (flag, str(each))]
        else:
            words += [flag, str(value)]
    return words


def run_file(tiny: Tiny, table: dict[str, Any], attention: str) -> Path:
    """Write a run file with a placement table."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path = tiny.folder / "run.toml"
    path.write_text(
        'model = "Tiny"\ncluster = "tiny.toml"\n[workload]\ntrace = "trace.npz"\n'
        f'[attention]\nkind = "{attention}"\n'
        "[placement]\nlayer_slots = 6\nserver_slots = 16\n" + "\n".join(lines) + "\n"
    )
    return path


def both_ways(tiny: Tiny, table: dict[str, Any], attention: str = "pipelined") -> Placement:
    """Place from the command line and from a run file, and see that it is the same."""
    placed = tiny.place("--attention", attention, *flags(table))
    assert place_experts(read_run(run_file(tiny, table, attention))).placement == placed
    return placed


def fullest(placement: Placement, tiny: Tiny, scope: str) -> np.ndarray[Any, Any]:
    """Load of the busiest place over the mean, per layer, on the tokens that were trained on."""
    trace = read_trace(tiny.folder / "trace.npz", _shape())
    even = np.repeat(np.arange(16) % 2 == 0, trace.seq_lens)
    return judged_loads(placement, trace.topk[even], scope=scope).max(axis=1)


def _shape() -> MoEModel:
    return model("Tiny")


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
        ({"policy": "least-copies", "beta_scope": "gpu"}, "least-copies"),
        ({"policy": "least-copies", "hop_weighted": True}, "least-copies"),
        ({"policy": "least-copies", "flatten": 1.0}, "least-copies"),
        ({"policy": "least-copies", "search_seed": 7}, "least-copies"),
        ({"time_limit": 30.0}, "ilp-load"),
        ({"engine": "sglang"}, "ilp-load"),
    ],
)
def test_an_option_alone(tiny: Tiny, table: dict[str, Any], signed: str) -> None:
    """It reaches the policy that takes it, and a run file gives the same placement."""
    assert both_ways(tiny, table).policy == signed


@pytest.mark.parametrize(
    "limit", [{}, {"max_moves": 5}, {"move_price": 0.2}, {"move_price_gb": 2000.0}]
)
def test_moves_alone(tiny: Tiny, old: str, limit: dict[str, Any]) -> None:
    """Few enough experts move, or each move saves what it costs."""
    new = both_ways(tiny, {"previous": old, **limit})
    free = both_ways(tiny, {"previous": old})
    moved, most = (count_moves(read_placement(old), each).servers for each in (new, free))
    assert new.policy == "replace"
    assert moved <= limit.get("max_moves", most)
    # An expert has 3 * 256 * 64 parameters, a byte each: 2000 hops a GB are 0.098 a move.
    assert (moved < most) == bool(limit)


def test_a_price_by_the_gb_is_a_price_by_the_move(tiny: Tiny, old: str) -> None:
    """0.1 hops a move of 49,152 bytes are 0.1e9 / 49152 hops a GB, half at 2 bytes a parameter."""
    size = 3 * 256 * 64
    by_move = tiny.place(*PIPELINED, "--previous", old, "--move-price", 0.1)
    asked = ("--previous", old, "--move-price-gb", 0.1e9 / size)
    assert tiny.place(*PIPELINED, *asked) == by_move
    asked = ("--previous", old, "--move-price-gb", 0.05e9 / size, "--bytes-per-parameter", 2)
    assert tiny.place(*PIPELINED, *asked) == by_move


COMBINED = [
    dict(part for part in (objective, *parts) if part)
    for objective in (("policy", "ilp-load"), ("policy", "least-copies"))
    for parts in (
        (("beta", 1.9), ("redundant", 8)),
        (("beta", 1.9), ("previous", "OLD")),
        (("previous", "OLD"), ("max_moves", 6)),
        (("previous", "OLD"), ("beta", 2.2), ("move_price", 0.01)),
    )
]


@pytest.mark.parametrize("table", COMBINED)
def test_options_combined(tiny: Tiny, old: str, table: dict[str, Any]) -> None:
    """Hops or copies, with balance, replicas and moves: caps hold, both ways give the same."""
    table = {key: old if value == "OLD" else value for key, value in table.items()}
    new = both_ways(tiny, table)
    if "beta" in table:
        assert (fullest(new, tiny, "server") <= table["beta"] + 1e-9).all()
    if "max_moves" in table:
        assert count_moves(read_placement(old), new).servers <= 6
    assert new.redundant == 3 * table.get("redundant", 0)


def test_a_previous_placement_with_replicas_keeps_them(tiny: Tiny) -> None:
    """Its slots are what moves: as many replicas as before, at most so many on other servers."""
    had = tiny.place(*PIPELINED, "--redundant", 8, name="replicas")
    asked = {"previous": str(tiny.folder / "replicas.json"), "max_moves": 4}
    new = both_ways(tiny, asked)
    assert new.policy == "local-search"
    assert new.redundant == had.redundant == 24


@pytest.mark.parametrize(
    "table",
    [{}, {"links": "fabric"}, {"redundant": 8}, {"beta": 1.9}, {"beta": 2.6, "beta_scope": "gpu"}],
)
def test_congestion_and_balance(tiny: Tiny, table: dict[str, Any]) -> None:
    """Least congestion by name; its certificate names the busiest links, and caps hold."""
    figures = tiny.folder / "figures.json"
    table = {"policy": "least-congestion", **table}
    both_ways(tiny, table, "data-parallel")
    placed = tiny.place(*flags(table), "--json", figures)
    content = json.loads(figures.read_text())
    assert content["unit"] == "seconds"
    assert content["bound"] <= content["objective"]
    layers = content["congestion"]["layers"]
    assert [layer["layer"] for layer in layers] == [0, 1, 2]
    assert content["congestion"]["objective_s"] == pytest.approx(3 * content["objective"])
    if "beta" in table:
        scope = table.get("beta_scope", "server")
        assert (fullest(placed, tiny, scope) <= table["beta"] + 1e-9).all()


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


def test_domains_are_fitted_together(tiny: Tiny) -> None:
    """The worst of two kinds of traffic is served better than by a fit on the other one."""
    files = [str(tiny.folder / f"{name}.npz") for name in ("trace", "other")]
    base = {"policy": "least-copies", "beta_scope": "gpu"}
    placed = {
        key: both_ways(tiny, {**base, "domains": domains, **robust})
        for key, domains, robust in (
            ("one", files[:1], {}),
            ("worst", files, {"robust": "worst"}),
            ("z", files, {"robust": 1.5}),
        )
    }
    even = np.repeat(np.arange(16) % 2 == 0, 10)
    tokens = [read_trace(file, _shape()).topk[even] for file in files]
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
    hot, cool = (fullest(each, tiny, "gpu") for each in (plain, spread))
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


def test_a_search_under_another_rule_says_so(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The local search shares equally; figures under `nearest` come with a word on that."""
    tiny.place(*PIPELINED, "--redundant", 8, "--beta", 1.9, "--replica-rule", "nearest")
    printed = " ".join(capsys.readouterr().out.split())
    assert "local-search shares an expert's tokens equally between its replicas" in printed


def test_groups_are_advised_where_they_are_scattered(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence has both figures, counted on the judged tokens; whole groups get none."""
    placed = tiny.place(*PIPELINED)
    printed = " ".join(capsys.readouterr().out.split())
    trace = read_trace(tiny.folder / "trace.npz", _shape())
    odd = trace.topk[np.repeat(np.arange(16) % 2 == 1, 10)]
    have = copies_per_token(placed, odd, scope="server")
    assert f"a token meets {have:.2f} distinct servers instead of " in printed
    tiny.place(*PIPELINED, "--keep-groups")
    assert "distinct servers instead" not in capsys.readouterr().out


def test_against_takes_the_redundant_slots(tiny: Tiny) -> None:
    """Beside a policy without replicas the slots are the other's."""
    figures = tiny.folder / "figures.json"
    asked = ("--policy", "greedy-load", "--against", "eplb", "--redundant", 8, "--json", figures)
    assert tiny.place(*asked).redundant == 0
    content = json.loads(figures.read_text())
    assert content["against"]["balance_gpu"] < content["balance_gpu"]


def test_the_whole_curve_of_moves(tiny: Tiny, old: str) -> None:
    """From the fewest moves to the hop optimum: no more hops for more moves, above the bound."""
    folder = tiny.folder / "curve"
    tiny.place(*PIPELINED, "--previous", old, "--curve", folder)
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["moved"].is_monotonic_increasing
    assert curve["moved"].is_unique
    assert (curve["hops"].diff().dropna() <= 1e-9).all()
    assert (curve["hops"] >= curve["bound_hops"] - 1e-9).all()
    assert curve["recovered"].iloc[[0, -1]].tolist() == [0.0, 1.0]
    for kind in ("pdf", "png"):
        assert (folder / f"moves.{kind}").stat().st_size > 1000


def test_a_curve_of_nothing_to_gain(tiny: Tiny, old: str) -> None:
    """On a symmetric fabric one point says it all."""
    folder = tiny.folder / "flat"
    tiny.place("--previous", old, "--curve", folder)
    assert pd.read_csv(folder / "curve.csv")["recovered"].tolist() == [1.0]


def test_moves_of_replicas_and_their_worth(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """`worth` prices both from the profile under the rule, and names no step time."""
    for name, options in (("few", ()), ("many", ("--redundant", 8))):
        tiny.place(*options, "--policy", "replicated", name=name)
    capsys.readouterr()
    figures = tiny.folder / "worth.json"
    files = [tiny.folder / f"{name}.json" for name in ("few", "many")]
    options = [*tiny.options[2:6], "--json", figures]  # cluster and trace
    for rule in ("equal", "nearest"):
        words = ["worth", *files, *options, "--replica-rule", rule]
        assert status([str(word) for word in words]) == 0
        content = json.loads(figures.read_text())
        assert content["moved_slots"] >= 24  # 8 more slots in each of 3 layers
        assert content["moved_bytes"] == content["moved_slots"] * 3 * 256 * 64
        assert content["new"]["balance_gpu"] < content["old"]["balance_gpu"]
        assert content["new"]["step_s"] is content["break_even_tokens"] is None
        assert (content["new"]["busiest_s"] is None) == (rule == "nearest")
    assert content["hops_gain"] > 0
    assert "no break-even without step times" in " ".join(capsys.readouterr().out.split())


def test_worth_agrees_with_a_replay_on_the_busiest_links(tiny: Tiny) -> None:
    """Priced from the profile, single slots come near what the replay of as many tokens shows."""
    placed = tiny.place("--policy", "contiguous")
    spec = read_run(run_file(tiny, {}, "data-parallel"))
    setting = prepare(spec)
    expected, replayed = (f(placed, spec, setting) for f in (_expected, _replayed))
    assert expected.hops == replayed.hops
    assert expected.busiest_s == pytest.approx(replayed.busiest_s, rel=0.35)


def test_files_are_named_in_refusals(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """A previous placement of another model or cluster is refused by its path."""
    placed = tiny.place(name="here")
    text = placement_json(placed).replace('"Tiny"', '"Other"')
    (tiny.folder / "there.json").write_text(text)
    capsys.readouterr()
    assert tiny.command("place", "--previous", tiny.folder / "there.json") == 2
    message = capsys.readouterr().err
    assert f"{tiny.folder / 'there.json'}: places model 'Other', the run is of" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--policy greedy --beta 2", "'beta' goes with policy ilp-load, replicated, least-copies"),
        ("--keep-groups --beta 2", "'keep_groups' and 'beta' do not combine|'beta' and 'keep_gro"),
        ("--keep-groups --previous old.json", "do not combine; give one of them: whole groups"),
        ("--policy least-congestion --previous old.json", "not 'least-congestion', which takes"),
        ("--policy least-congestion --beta 2 --beta-relax", "'beta_relax' goes with policy"),
        ("--policy least-congestion --attention pipelined", "under data-parallel attention only"),
        ("--max-moves 3", "'max_moves' goes with 'previous'"),
        ("--previous a --max-moves 3 --move-price 1", "do not combine; give one of them"),
        ("--beta-price 3", "'beta_price' goes with 'beta'"),
        ("--beta-scope gpu", "'beta_scope' goes with 'beta'"),
        ("--robust worst --policy least-copies", "'robust' goes with 'domains'"),
        ("--robust many --policy least-copies", "expected mean, worst, or a number"),
        ("--links fabric", "'links' goes with policy least-congestion"),
        ("--hop-weighted", "'hop_weighted' goes with policy least-copies, not 'ilp-load'"),
        ("--spread --redundant 8", "do not combine; give one of them: it keeps servers"),
        ("--policy hottest --redundant 9999", "hottest takes 3 redundant slots for each expert"),
        ("--policy hottest --redundant 2", "hottest takes 3 redundant slots for each expert"),
        ("--redundant 3", "must divide by 8 GPUs; redundant=8 would"),
        ("--replica-rule magic", "replica_rule: Input should be 'equal', 'nearest'"),
        ("--policy magic", "least-copies, replicated, least-congestion, or package.module:Class"),
        ("--beta nan", "'--beta': expected a number from 1 to 1e+06, got 'nan'"),
        ("--move-price inf", "'--move-price': expected a number from 0 to 1e+12, got 'inf'"),
        ("--time-limit 0", "time_limit: Input should be greater than 0"),
        ("--curve out", "--curve goes with --previous"),
        ("--policy own:Policy --beta 2", "not 'own:Policy', which takes no options of its own"),
    ],
)
def test_what_does_not_combine_is_one_line(
    tiny: Tiny, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2; the line says what was asked, and what goes with what."""
    assert tiny.command("place", *words.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("topomoe: ")
    assert printed.count("\n") == 1
    assert any(part in printed for part in message.split("|"))


def test_a_curve_of_replicas_is_refused_by_name(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The curve counts moves of single slots."""
    tiny.place("--redundant", 8, name="replicas")
    capsys.readouterr()
    path = tiny.folder / "replicas.json"
    assert tiny.command("place", "--previous", path, "--curve", tiny.folder / "never") == 2
    assert f"{path}: has 24 redundant slots; --curve" in capsys.readouterr().err
    assert not (tiny.folder / "never").exists()


OWN = """
import warnings
import numpy as np

class Noisy:
    name = "noisy"
    def __call__(self, problem):
        warnings.warn("once")
        np.log(np.zeros(2))
        return problem.place(
            np.tile(np.arange(problem.experts) % problem.servers, (problem.layers, 1)),
            policy=self.name,
        )
"""


def test_warnings_of_a_user_s_policy_are_notes(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told among the remarks and in the figures; nothing is on stderr."""
    (tiny.folder / "noisy.py").write_text(OWN)
    monkeypatch.syspath_prepend(tiny.folder)
    figures = tiny.folder / "figures.json"
    tiny.place("--policy", "noisy:Noisy", "--json", figures)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "policy 'noisy:Noisy' warns: once" in printed.out
    notes = json.loads(figures.read_text())["notes"]
    assert notes[1:] == ["policy 'noisy:Noisy' warns: divide by zero encountered in log"]


def test_tables_speak_of_what_exists() -> None:
    """Policies and options of the tables are those there are; the two ways have the same words."""
    fields = set(PlacementSpec.model_fields)
    assert set(TAKES) <= set(POLICIES) | set(ROUTES)
    assert set(ROUTES) <= set(TAKES)
    named = {option for options in TAKES.values() for option in options} | set(ALWAYS)
    assert named == fields - {"policy", "file"}
    assert set(placing.OPTIONS) == fields - {"file"}
    assert set(NEEDS) | set(NEEDS.values()) <= named
    assert {option for group, _ in APART for option in group} <= named
    assert {option for variant in EXACT for option in variant} <= set(TAKES["ilp-load"])
    assert taking("links") == ["least-congestion"]
    assert refusal("ilp-load", []) is None


OPTION = {
    "policy": st.sampled_from([*TAKES, "pairs", "affinity"]),
    "beta": st.sampled_from([1.0, 1.5, 2.5, 8.0]),
    "beta_relax": st.just(value=True),
    "beta_price": st.sampled_from([0.0, 0.5]),
    "beta_scope": st.sampled_from(["server", "gpu"]),
    "redundant": st.sampled_from([0, 3, 8, 200]),
    "replica_rule": st.sampled_from(["equal", "nearest", "vllm_modulo", "lp"]),
    "previous": st.sampled_from(["old.json", "replicas.json", "gone.json"]),
    "max_moves": st.sampled_from([0, 4]),
    "move_price": st.sampled_from([0.0, 0.2]),
    "keep_groups": st.just(value=True),
    "hop_weighted": st.just(value=True),
    "flatten": st.sampled_from([0.5]),
    "links": st.sampled_from(["all", "fabric"]),
    "spread": st.just(value=True),
    "engine": st.sampled_from(["sglang", "ascend", "omni"]),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_options_place_or_say_why_not(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """Status 0 with a placement file that reads back, or status 2 with exactly one line."""
    for name, options in (("old", ()), ("replicas", ("--redundant", 8))):
        if not (tiny.folder / f"{name}.json").exists():
            tiny.place(*options, name=name)
    keys = data.draw(st.sets(st.sampled_from(list(OPTION)), max_size=5))
    table = {key: data.draw(OPTION[key], label=key) for key in OPTION if key in keys}
    if "previous" in table:
        table["previous"] = str(tiny.folder / table["previous"])
    out = tiny.folder / "any.json"
    out.unlink(missing_ok=True)
    attention = data.draw(st.sampled_from(["pipelined", "data-parallel"]))
    capsys.readouterr()
    done = tiny.command("place", *flags(table), "--attention", attention, "--out", out)
    said = capsys.readouterr().err
    if done == 0:
        assert said == ""
        assert read_placement(out).model == "Tiny"
    else:
        assert done == 2
        assert said.startswith("topomoe: ")
        assert said.count("\n") == 1
        assert not out.exists()
