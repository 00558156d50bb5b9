"""What `topomoe place` and `worth` say and write beside the placement."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from experiments.cli import status
from experiments.commands.simulate import read_run
from placement import placement_json, read_placement
from placement.search import copies_per_token, judged_loads

if TYPE_CHECKING:
    from conftest import Tiny

PIPELINED = ("--attention", "pipelined")


def test_a_search_under_another_rule_says_so(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The local search shares equally; figures under `nearest` come with a word on that."""
    tiny.place(*PIPELINED, "--redundant", 8, "--beta", 1.9, "--replica-rule", "nearest")
    printed = " ".join(capsys.readouterr().out.split())
    assert "the search of ilp-load shares an expert's tokens equally between its" in printed


def test_groups_are_advised_where_they_are_scattered(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence has both figures, counted on the judged tokens; whole groups get none."""
    placed = tiny.place(*PIPELINED)
    printed = " ".join(capsys.readouterr().out.split())
    have = copies_per_token(placed, tiny.tokens(odd=True), scope="server")
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
    """`worth` replays both under the rule: fewer hops where the nearest replica answers."""
    for name, options in (("few", ()), ("many", ("--redundant", 8))):
        tiny.place(*options, "--policy", "replicated", name=name)
    capsys.readouterr()
    figures = tiny.folder / "worth.json"
    files = [tiny.folder / f"{name}.json" for name in ("few", "many")]
    options = [*tiny.options[2:6], "--json", figures]  # cluster and trace
    hops = {}
    for rule in ("equal", "nearest", "vllm_modulo"):
        words = ["worth", *files, *options, "--replica-rule", rule]
        assert status([str(word) for word in words]) == 0
        content = json.loads(figures.read_text())
        assert content["moved_slots"] >= 24  # 8 more slots in each of 3 layers
        assert content["moved_bytes"] == content["moved_slots"] * 3 * 256 * 64 * 2
        assert content["new"]["profile_balance_gpu"] < content["old"]["profile_balance_gpu"]
        gained = content["old"]["step_s"] - content["new"]["step_s"]
        assert (content["break_even_tokens"] is not None) == (gained > 0)
        hops[rule] = content["new"]["hops_per_token_layer"]
        printed = " ".join(capsys.readouterr().out.split())
        assert f"replayed with per_expert dispatch, replicas taken by the rule '{rule}'" in printed
    assert hops["nearest"] < hops["equal"]


def test_whole_groups_are_the_default_per_server(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 servers, 4 groups, one message a server, nothing else asked for; run files alike."""
    bare = tiny.options[:6]  # no caps: these are options of a placement
    out, mode = tiny.folder / "whole.json", ["--dispatch", "per_server"]

    def placed(*words: object) -> str:
        assert status([str(word) for word in ("place", *bare, "--out", out, *words)]) == 0
        return read_placement(out).policy

    assert placed(*mode) == "keep-groups"
    assert "routing groups stay whole, the default" in " ".join(capsys.readouterr().out.split())
    assert placed(*mode, "--policy", "ilp-load") == "ilp-load"
    assert placed(*mode, *PIPELINED, "--layer-slots", 6) == "ilp-load"
    assert "--keep-groups sends that much less" in " ".join(capsys.readouterr().out.split())
    assert placed() == placed("--dispatch", "per_gpu") == "ilp-load"
    run_file = tiny.folder / "whole.toml"
    run_file.write_text(
        'model = "Tiny"\ncluster = "tiny.toml"\n[workload]\ntrace = "trace.npz"\n'
        '[dispatch]\nmode = "per_server"\n'
    )
    assert read_run(run_file).placement.policy == "keep-groups"


def test_allgather_leaves_only_balance_to_gain(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """`place` and `worth` say that no placement changes its bytes, and none does."""
    figures = tiny.folder / "figures.json"
    tiny.place("--dispatch", "allgather", "--policy", "eplb", "--redundant", 8, "--json", figures)
    content = json.loads(figures.read_text())
    assert content["byte_hops"] == content["against"]["byte_hops"]
    path = tiny.folder / "map.json"
    words = ["worth", path, path, *tiny.options[2:6], "--dispatch", "allgather"]
    assert status([str(word) for word in words]) == 0
    assert capsys.readouterr().out.count("With allgather dispatch every token goes to all") == 2


def test_files_are_named_in_refusals(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """A previous placement of another model or cluster is refused by its path."""
    placed = tiny.place(name="here")
    text = placement_json(placed).replace('"Tiny"', '"Other"')
    (tiny.folder / "there.json").write_text(text)
    capsys.readouterr()
    assert tiny.command("place", "--previous", tiny.folder / "there.json") == 2
    message = capsys.readouterr().err
    assert f"{tiny.folder / 'there.json'}: places model 'Other', the run is of" in message


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed since the last time, on one line."""
    return " ".join(capsys.readouterr().out.split())


def test_step_and_balance_are_compared_where_hops_cannot_differ(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """The changes are those of the table's own figures, to a tenth of a percent."""
    figures = tiny.folder / "figures.json"
    tiny.place("--policy", "least-copies", "--json", figures)
    printed, content = said(capsys), json.loads(figures.read_text())
    other = content["against"]
    step = 100 * (content["step_s"] / other["step_s"] - 1)
    gpu = 100 * (content["profile_balance_gpu"] / other["profile_balance_gpu"] - 1)
    assert "Every placement has the same expected hops here" in printed
    assert f"step {step:+.1f} %, busiest GPU {gpu:+.1f} % (profile)" in printed
    # Nothing caps the load: some server carries more than 1.5 x the mean, and that is said.
    busiest = content["profile_balance_server"]
    assert (f"warning: the busiest server carries {busiest:.2f} x" in printed) == (busiest > 1.5)


def test_an_uncapped_overload_is_warned_of(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Copies alone gather experts, beyond what C_layer 6 lets a server be even; a cap ends it."""
    tiny.place("--policy", "least-copies", "--layer-slots", 16)
    loose = said(capsys)
    tiny.place("--policy", "least-copies", "--beta", 1.4)
    capped = said(capsys)
    assert "no --beta was given, which caps it" in loose
    assert "warning" not in capped
    assert "cap 1.4 on the profile's loads: busiest server" in capped


def test_layers_above_the_cap_are_not_called_relaxed(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cap kept with replicas that share equally may not hold under the engine's own rule."""
    asked = ("--policy", "replicated", "--redundant", 8, "--beta", 1.06, "--beta-scope", "gpu")
    tiny.place(*asked)
    equal = said(capsys)
    tiny.place(*asked, "--engine", "sglang")
    static = said(capsys)
    assert "cap 1.06 on the profile's loads: busiest GPU" in equal
    assert "above it" not in equal
    assert re.search(r"layers? above it: layer \d at \d\.\d{3}", static)
    assert "relaxed" not in equal + static


def test_relaxed_layers_are_named_with_their_proof(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beta 1 on a GPU holds in no layer: each is given by its load, not below its hottest slot."""
    asked = ("--beta", 1, "--beta-scope", "gpu", "--beta-relax")
    placed = tiny.place(*PIPELINED, *asked)
    printed, fullest = said(capsys), tiny.fullest(placed, "gpu")
    assert "busiest GPU / mean (profile), cap 1" in printed
    assert "3 layers relaxed: " in printed
    tokens = tiny.tokens()
    for layer, busiest in enumerate(fullest):
        assert f"layer {layer} to {busiest:.3f} (proven: not below " in printed
        # No GPU is cooler than the hottest expert alone, of 8 GPUs and 2 choices a token.
        alone = 8 * np.bincount(tokens[:, layer].ravel()).max() / tokens[:, layer].size
        assert busiest >= alone - 1e-9


def test_a_priced_cap_says_what_it_paid(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Hops and the priced load above the cap add up to what was minimised."""
    figures = tiny.folder / "figures.json"
    placed = tiny.place(*PIPELINED, "--beta", 1, "--beta-price", 0.25, "--json", figures)
    content = json.loads(figures.read_text())
    load = judged_loads(placed, tiny.tokens(), scope="server")
    above = float(np.maximum(load - 1, 0).sum(axis=1).mean())
    assert content["objective"] == pytest.approx(content["expected_hops"] + 0.25 * above)
    assert f"load above 1 x the mean server: {above:.4g} mean loads a layer" in said(capsys)


def test_the_least_possible_busiest_gpu_is_beside_it(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replicas are chosen for the busiest GPU: its bound, its gap, and a status that names it."""
    figures = tiny.folder / "figures.json"
    tiny.place("--policy", "replicated", "--redundant", 8, "--json", figures)
    content, printed = json.loads(figures.read_text()), said(capsys)
    assert 1 <= content["balance_gpu_bound"] <= content["profile_balance_gpu"]
    gap = 1 - content["balance_gpu_bound"] / content["profile_balance_gpu"]
    assert content["balance_gpu_gap"] == pytest.approx(gap)
    assert "solve: first the busiest GPU, " in printed
    assert 1 < content["gpus_per_token_layer"] <= 2


def test_why_an_engine_refuses(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Engines that would not load a placement are named with the first thing they would not."""
    tiny.place(*PIPELINED)
    assert "; not sglang, vllm, trtllm, ascend: layer " in said(capsys)


def test_an_engine_brings_its_rule(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are under the engine's rule unless told otherwise; another engine's is refused."""
    asked = ("--policy", "eplb", "--redundant", 8, "--engine")
    for engine, rule in (("sglang", "sglang_static"), ("vllm", "vllm_modulo"), ("trtllm", "equal")):
        tiny.place(*asked, engine)
        assert f"by the rule '{rule}'" in said(capsys)
    tiny.place(*asked, "trtllm", "--replica-rule", "nearest")
    assert "trtllm runs the rule 'equal', the figures are under 'nearest'" in said(capsys)
    assert tiny.command("place", *asked, "vllm", "--replica-rule", "sglang_dynamic") == 2
    refused = capsys.readouterr().err
    assert "'sglang_dynamic' is sglang's, and the engine is vllm, which runs 'vllm_mod" in refused


def test_placement_files_stand_for_policies(
    tiny: Tiny, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both columns may come from files; each has the figures of its policy."""
    figures = tiny.folder / "figures.json"
    placed = tiny.place(*PIPELINED, name="new")
    path = tiny.folder / "new.json"
    capsys.readouterr()
    again = tiny.place(*PIPELINED, "--policy", path, "--against", old, "--json", figures)
    assert again == placed
    printed, content = said(capsys), json.loads(figures.read_text())
    assert "against old.json on the same tokens: hops " in printed
    assert content["against"]["expected_hops"] > content["expected_hops"]
    assert tiny.command("place", "--policy", path, "--beta", 2) == 2
    assert "'beta' asks for a new placement" in capsys.readouterr().err


def test_simulate_replays_replicas_as_place_does(tiny: Tiny) -> None:
    """The slots asked for and those of a file give the figures of `topomoe place`."""
    placed, simulated = tiny.folder / "placed.json", tiny.folder / "simulated.json"
    tiny.place("--policy", "eplb", "--redundant", 8, "--json", placed, name="many")
    expected = json.loads(placed.read_text())
    for table in ({"policy": "eplb", "redundant": 8}, {"file": "many.json"}):
        run_file = tiny.run_file(table, "data-parallel")
        assert status(["simulate", str(run_file), "--json", str(simulated)]) == 0
        content = json.loads(simulated.read_text())
        for name in ("hops_per_token_layer", "byte_hops", "balance_gpu", "step_s"):
            assert content[name] == expected[name]


def test_simulate_says_of_a_solve_what_place_says(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engines, cap and solve are there; a run has nothing to be compared with."""
    assert status(["simulate", str(tiny.run_file({"beta": 1.5}, "pipelined"))]) == 0
    printed = said(capsys)
    for part in ("engines that would load", "busiest server / mean (profile), cap 1.5", "solve: "):
        assert part in printed
    assert "against" not in printed


def test_worth_of_replicas_taken_by_distance(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under `nearest` hops differ on a symmetric fabric: nothing says that they cannot."""
    for name, options in (("few", ()), ("many", ("--redundant", 8))):
        tiny.place(*options, "--policy", "replicated", name=name)
    files = [str(tiny.folder / f"{name}.json") for name in ("many", "few")]
    for rule, same in (("nearest", False), ("equal", True)):
        capsys.readouterr()
        assert status(["worth", *files, *tiny.options[2:6], "--replica-rule", rule]) == 0
        printed = said(capsys)
        assert ("Every placement has the same expected hops" in printed) == same


def test_domains_are_named_and_judged(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Copies of every domain, on its sequences that nothing was fitted to."""
    words = [w for name in ("trace", "other") for w in ("--domains", tiny.folder / f"{name}.npz")]
    placed = tiny.place("--policy", "least-copies", "--beta", 1.4, *words)
    printed = said(capsys)
    assert "fitted on trace.npz, other.npz" in printed
    for name in ("trace", "other"):
        judged = copies_per_token(placed, tiny.tokens(name, odd=True), scope="server")
        assert f"{name}.npz {judged:.3f} (contiguous " in printed
    assert " on the loads of every domain: busiest" in printed


def test_slots_that_are_left_over(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """8 redundant slots put 2 experts on all 4 servers, 3 slots each: 6 are used, and that is said.

    They are new replicas to the placement that runs.
    """
    tiny.place("--policy", "contiguous", name="single")
    capsys.readouterr()
    placed = tiny.place("--policy", "hottest", "--redundant", 8)
    assert placed.redundant == 3 * 6
    assert "hottest uses 6 of the 8 redundant slots of a layer" in said(capsys)
    single = tiny.folder / "single.json"
    tiny.place("--policy", "replicated", "--redundant", 8, "--previous", single, "--max-moves", 2)
    printed = said(capsys)
    assert f"of {3 * 24} slots, {3 * 8} of them for new replicas, " in printed
    assert "new replicas come on top)" in printed


def test_a_start_that_breaks_a_cap(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """The curve starts where the cap is kept: moves and hops of that are told apart."""
    tiny.place(*PIPELINED, name="loose")
    capsys.readouterr()
    asked = ("--previous", tiny.folder / "loose.json", "--curve", tiny.folder / "broken")
    out = tiny.folder / "kept.json"
    words = [*tiny.options[:6], "--layer-slots", 4, *PIPELINED, *asked, "--out", out]
    assert status(["place", *map(str, words)]) == 0
    first = pd.read_csv(tiny.folder / "broken" / "curve.csv").iloc[0]
    printed = said(capsys)
    assert "the placement to start from breaks a cap of C_layer 4" in printed
    assert f"{first['moved']:.0f} moves go into keeping them" in printed
    assert f"and leave {first['hops']:.4f} hops instead of its " in printed


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
