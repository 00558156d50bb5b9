"""What `topomoe place` and `worth` say and write beside the placement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from experiments.cli import status
from experiments.commands.simulate import read_run
from experiments.run import prepare
from experiments.worth import _expected, _replayed
from placement import placement_json
from placement.search import copies_per_token

if TYPE_CHECKING:
    from conftest import Tiny

PIPELINED = ("--attention", "pipelined")


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
        assert content["moved_bytes"] == content["moved_slots"] * 3 * 256 * 64 * 2
        assert content["new"]["balance_gpu"] < content["old"]["balance_gpu"]
        assert content["new"]["step_s"] is content["break_even_tokens"] is None
        assert (content["new"]["busiest_s"] is None) == (rule == "nearest")
    assert content["hops_gain"] > 0
    assert "no break-even without step times" in " ".join(capsys.readouterr().out.split())


def test_worth_agrees_with_a_replay_on_the_busiest_links(tiny: Tiny) -> None:
    """Priced from the profile, single slots come near what the replay of as many tokens shows."""
    placed = tiny.place("--policy", "contiguous")
    spec = read_run(tiny.run_file({}, "data-parallel"))
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
