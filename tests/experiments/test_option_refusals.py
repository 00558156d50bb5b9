"""Options that do not go together: one line each, and never a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import placing
from experiments.combine import ALWAYS, APART, NEEDS, TAKES, refusal, taking
from experiments.policies import EXACT, ROUTES
from experiments.spec import PlacementSpec
from placement import POLICIES, read_placement

if TYPE_CHECKING:
    from conftest import Tiny

PIPELINED = ("--attention", "pipelined")


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
        ("--redundant 3", "must divide by 8 GPUs; redundant=0 or 8 would"),
        ("--replica-rule magic", "replica_rule: Input should be 'equal', 'nearest'"),
        ("--policy magic", "least-congestion, least-seconds, or package.module:Class"),
        ("--kv-tokens 100", "'kv_tokens' goes with 'gpu_memory_gb'"),
        ("--slot-seconds 0", "'slot_seconds' goes with policy least-seconds"),
        ("--policy least-seconds --slot-seconds 0 --token-seconds 0", "only traffic counts"),
        ("--gpu-memory-gb 0.0001", "memory too small"),
        ("--beta 2 --beta-price 1 --beta-relax", "do not combine; give one of them: a priced cap"),
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


def test_the_placement_page_lists_who_takes_what() -> None:
    """The table of options and policies is that of `combine`, option by option."""
    page = (Path(__file__).parents[2] / "placement" / "README.md").read_text(encoding="utf-8")
    seen = set()
    for row in re.findall(r"^\| (`--.*) \| (.*) \|$", page, flags=re.MULTILINE):
        options, policies = (re.findall(r"`(?:--)?([^`]+)`", cell) for cell in row)
        for option in (each.replace("-", "_") for each in options):
            seen.add(option)
            if option in ALWAYS:
                assert row[1] == "every policy, and placement files"
            else:
                assert set(policies) == set(taking(option)), option
    assert seen == set(PlacementSpec.model_fields) - {"policy", "file"}


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
    "gpu_memory_gb": st.sampled_from([0.0001, 0.01]),
    "kv_tokens": st.sampled_from([10]),
    "time_limit": st.sampled_from([1e-6, 20.0]),
    "engine": st.sampled_from(["sglang", "ascend", "omni"]),
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    done = tiny.command("place", *tiny.flags(table), "--attention", attention, "--out", out)
    said = capsys.readouterr().err
    if done == 0:
        assert said == ""
        assert read_placement(out).model == "Tiny"
    else:
        assert done == 2
        assert said.startswith("topomoe: ")
        assert said.count("\n") == 1
        assert not out.exists()
